"""Models small enough for a laptop, made here: a trained Qwen2.5-VL, and a LLaVA and a SigLIP for tests and rehearsals."""
