"""A SAM of random weights and a few thousand parameters: SamModel and SamProcessor, for rehearsals and tests of what prompts it."""

from __future__ import annotations

from pathlib import Path

_SIDE = 64  # of the square that it sees, in pixels
_PATCH = 16
_WIDTH = 16


def build_tiny_sam(folder: str | Path, seed: int = 0) -> None:
    """Write one into `folder`, as transformers loads it."""
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(seed)
    layers = {"hidden_size": _WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1, "mlp_dim": _WIDTH}
    sides = {"image_size": _SIDE, "patch_size": _PATCH}
    shape = SamConfig(
        vision_config={
            **layers,
            **sides,
            "output_channels": _WIDTH,
            "num_pos_feats": _WIDTH // 2,
            "window_size": 2,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config={**sides, "hidden_size": _WIDTH, "image_embedding_size": _SIDE // _PATCH, "mask_input_channels": 4},
        mask_decoder_config={**layers, "iou_head_hidden_dim": _WIDTH},
    )
    SamModel(shape).save_pretrained(folder)
    processor = SamImageProcessor(size={"longest_edge": _SIDE}, pad_size={"height": _SIDE, "width": _SIDE})
    SamProcessor(processor).save_pretrained(folder)
