"""Multimodal LLMs for re-identification: families, LoRA, inputs, hidden states, pooled features, and the folder they are saved in."""
