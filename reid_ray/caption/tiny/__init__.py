"""The captioner job: the built-in tiny captioner is trained, and measured through vLLM."""
