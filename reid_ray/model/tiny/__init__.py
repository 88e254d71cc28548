"""Models small enough for a laptop: a trained Qwen2.5-VL of two million parameters; random LLaVA, Qwen3-VL and SigLIP for rehearsals."""
