"""What the captioner that ships with the repository answers by transformers' own greedy generation."""

from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from reid_ray.model.tiny.tiny_training import collate

TINY = Path(__file__).resolve().parents[2] / "reid_ray" / "assets" / "tiny_mllm"


def greedy_answers(folder, pictures, questions, *, tokens, adapted=lambda model: model):
    """The answer to each picture's question; `adapted` may put an adapter on the model of `folder`."""
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    model = adapted(Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)).eval()
    answers = []
    for picture, question in zip(pictures, questions, strict=True):
        inputs = collate([picture], [question], [""], tokenizer, processor)
        del inputs["labels"]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            inputs[name] = inputs[name][:, :-1]  # the answer's end token, which collate appends
        with torch.inference_mode():
            generated = model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
        answers.append(tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers
