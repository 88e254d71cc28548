"""Search and its score: FAISS index, metrics, evaluation protocols."""
