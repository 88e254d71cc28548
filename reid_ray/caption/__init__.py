"""From images to captions, rewrites and faithfulness scores (LUPerson-MLLM, LLM-DA)."""
