"""Retrieval: embedding, FAISS index, exact ranking, metrics (CMC, mAP, mINP), evaluation protocols."""
