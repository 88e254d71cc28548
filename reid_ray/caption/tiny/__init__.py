"""The captioner job: trains the built-in tiny captioner and evaluates it through vLLM."""
