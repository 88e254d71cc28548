"""Models small enough for a laptop, made here: a trained Qwen2.5-VL of two million parameters; a LLaVA and a SigLIP for tests and rehearsals."""
