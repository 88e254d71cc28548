"""Models small enough for a laptop, made and trained here: a Qwen2.5-VL of two million parameters, a LLaVA for tests."""
