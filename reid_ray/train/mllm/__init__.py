"""Fine-tuning of multimodal LLMs for ReID (MLLMReID): the recipe, its module, objective and batches."""
