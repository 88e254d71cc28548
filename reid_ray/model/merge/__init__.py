"""The merge job: a tuned multimodal LLM becomes a plain checkpoint."""
