"""Caption generation: images -> captions by a multimodal LLM, LLM rewrites, faithfulness filtering (LUPerson-MLLM, LLM-DA)."""
