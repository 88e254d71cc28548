"""Models and their weights: dual encoders, multimodal LLMs, the tiny models built here. No training loop, no Ray."""
