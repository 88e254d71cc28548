"""Multimodal LLMs for re-identification: architectures, LoRA, chat inputs, hidden states, pooled features, and their model folder."""
