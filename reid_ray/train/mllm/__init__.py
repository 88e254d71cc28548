"""Tuning of multimodal LLMs (MLLMReID): the recipe, its module, objective and batches."""
