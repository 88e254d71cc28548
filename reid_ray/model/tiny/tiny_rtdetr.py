"""An RT-DETR of random weights and some hundred thousand parameters, for rehearsals and tests of what looks for people with one.

It sees nobody: its boxes, half as high as the picture, are where its queries begin, and their scores are high enough to count.
"""

from __future__ import annotations

from pathlib import Path

_SIDE = 64  # of the square that it sees, in pixels
_WIDTH = 32


def build_tiny_rtdetr(folder: str | Path, seed: int = 0) -> None:
    """Write one into `folder`, as transformers loads it, with the classes person and bicycle."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrResNetConfig

    torch.manual_seed(seed)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage2", "stage3", "stage4"]
    )
    shape = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8, 16, 16],
        encoder_hidden_dim=_WIDTH,
        d_model=_WIDTH,
        decoder_in_channels=[_WIDTH] * 3,
        encoder_ffn_dim=_WIDTH,
        decoder_ffn_dim=_WIDTH,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_layers=1,
        decoder_layers=1,
        num_queries=4,
        num_denoising=0,
        id2label={0: "person", 1: "bicycle"},
        label2id={"person": 0, "bicycle": 1},
    )
    model = RTDetrForObjectDetection(shape)
    with torch.no_grad():
        for head in model.model.decoder.class_embed:
            head.bias.copy_(torch.tensor([1.0, -3.0]))  # probabilities about 0.73 and 0.05
        for head in model.model.decoder.bbox_embed:
            head.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.0, 3.0]))  # on top of the anchors' logits
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": _SIDE, "width": _SIDE}).save_pretrained(folder)
