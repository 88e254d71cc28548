"""D-FINE, DETR and YOLOS of transformers, which the crop job names: tiny random ones are loaded from a folder and find what they say."""

import numpy as np
import pytest

from reid_ray.crop.config import DetectorConfig
from reid_ray.crop.detectors import open_detector
from reid_ray.data.synthetic.street_video import street_video

pytestmark = pytest.mark.slow
WIDTH, SIDE, LEAST = 32, 64, 0.3
LABELS = {"id2label": {0: "bicycle", 1: "person"}, "label2id": {"bicycle": 0, "person": 1}}
ATTENTION = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (("attention_heads", 2), ("ffn_dim", WIDTH))}
LAYERS = {"encoder_layers": 1, "decoder_layers": 2}


def d_fine():
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config, RTDetrImageProcessor

    backbone = HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 8, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 8, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {"encoder_in_channels": [8, 16, 16], "encoder_hidden_dim": WIDTH, "decoder_in_channels": [WIDTH] * 3}
    config = DFineConfig(
        backbone_config=backbone, d_model=WIDTH, **sizes, **ATTENTION, **LAYERS, num_queries=6, num_denoising=0, lqe_hidden_dim=8, **LABELS
    )
    return DFineForObjectDetection(config), RTDetrImageProcessor(size={"height": SIDE, "width": SIDE})


def detr():
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"])
    config = DetrConfig(backbone_config=backbone, d_model=WIDTH, **ATTENTION, **LAYERS, num_queries=6, **LABELS)
    return DetrForObjectDetection(config), DetrImageProcessor(size={"height": SIDE, "width": SIDE})


def yolos():
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = YolosConfig(image_size=[SIDE, SIDE], **shape, num_detection_tokens=6, **LABELS)
    return YolosForObjectDetection(config), YolosImageProcessor(size={"height": SIDE, "width": SIDE})


def people_said(model, logit_QC):
    """Probability of person of each query, 0 where it says something else.

    RT-DETR's kind: a sigmoid each, of all pairs of query and class as many as there are queries. The first DETR's: a softmax with a last
    class that is nothing, one class a query.
    """
    import torch

    if "DFine" in type(model).__name__:
        score_QC = torch.sigmoid(logit_QC)
        least = score_QC.flatten().topk(len(score_QC)).values.min()
        return torch.where(score_QC[:, 1] >= least, score_QC[:, 1], 0).numpy()
    score_QC = torch.softmax(logit_QC, -1)[:, :-1]
    return torch.where(score_QC.argmax(-1) == 1, score_QC[:, 1], 0).numpy()


@pytest.mark.parametrize("build", [d_fine, detr, yolos])
def test_a_model_is_loaded_from_its_folder_and_gives_the_people_that_its_outputs_say(build, tmp_path):
    import torch

    torch.manual_seed(0)
    model, processor = build()
    model = model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))  # published weights are none of those that a class begins with
        for name, weight in model.named_parameters():
            if weight.shape[:1] in ((2,), (3,)) and name.endswith("bias") and "class" in name:
                weight[1] += 2  # person, so that some are seen
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    street = street_video(people=2, seconds=4, rate=1, seed=3)
    pictures = list(street.picture_FHW3[:3])
    height, width = pictures[0].shape[:2]
    found = open_detector(DetectorConfig(kind="transformers", model=str(tmp_path), min_score=LEAST, max_overlap=1.0), min_height=1).people(
        pictures
    )
    with torch.inference_mode():
        outputs = model(**processor(images=pictures, return_tensors="pt"))
    seen = 0
    for people, logit_QC, box_Q4 in zip(found, outputs.logits, outputs.pred_boxes, strict=True):
        score_Q = people_said(model, logit_QC)
        x_Q, y_Q, wide_Q, high_Q = box_Q4.numpy().T
        sides_Q4 = np.stack([x_Q - wide_Q / 2, y_Q - high_Q / 2, x_Q + wide_Q / 2, y_Q + high_Q / 2], axis=1)
        sides_Q4 = np.clip(sides_Q4 * [width, height, width, height], 0, [width, height, width, height])
        wanted = [(score, *box_4) for score, box_4 in zip(score_Q, sides_Q4, strict=True) if score > LEAST]
        got = [(score, *box_4) for score, box_4 in zip(people.score_N, people.box_N4, strict=True)]
        np.testing.assert_allclose(sorted(got), sorted(wanted), rtol=1e-3, atol=1e-2)
        seen += len(got)
    assert seen > 0
