"""The index job and the gallery it writes: the only place that knows FAISS."""
