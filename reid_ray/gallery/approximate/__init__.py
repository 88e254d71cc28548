"""Approximate search in a sealed segment: FAISS names candidates, whose stored vectors are then compared exactly."""
