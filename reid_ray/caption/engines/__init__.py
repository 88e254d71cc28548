"""vLLM: one engine behind a call that loses no request, its LoRA adapters, and the checks before one starts."""
