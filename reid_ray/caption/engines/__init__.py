"""vLLM inference: the engine wrapper, its LoRA adapters, and the preflight checks before one starts."""
