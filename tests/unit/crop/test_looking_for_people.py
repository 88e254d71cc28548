"""Who finds people on a frame: OpenCV's detector, and real classes of transformers from a folder."""

import numpy as np
import pytest
from refusals import refused

from reid_ray.crop.config import DetectorConfig
from reid_ray.crop.detectors import open_detector
from reid_ray.crop.spotted import best_boxes, overlaps
from reid_ray.data.synthetic.street_video import street_video
from reid_ray.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def street():
    return street_video(people=2, seconds=8, rate=1, seed=3)


def test_the_embedded_detector_finds_drawn_people_and_its_boxes_fit_them(street):
    found = open_detector(DetectorConfig(min_score=0.0), min_height=96).people(list(street.picture_FHW3))
    hit = seen = 0
    for people, truth in zip(found, street.truth, strict=True):
        boxes = np.array([box for _, box in truth], np.float32).reshape(-1, 4)
        seen += len(boxes)
        hit += int((overlaps(boxes, people.box_N4) >= 0.5).any(axis=1).sum())
        assert (people.box_N4 >= 0).all()
        assert (people.box_N4[:, 2] <= street.picture_FHW3.shape[2]).all()
    assert seen > 5
    assert hit * 2 >= seen


def test_overlaps_are_those_of_counted_pixels():
    rng = np.random.default_rng(0)
    corner_N2, size_N2 = rng.integers(0, 10, (12, 2)), rng.integers(1, 10, (12, 2))
    box_N4 = np.hstack([corner_N2, corner_N2 + size_N2]).astype(np.float32)
    masks = np.zeros((12, 20, 20), bool)
    for mask, (left, top, right, bottom) in zip(masks, box_N4.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    counted = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_allclose(overlaps(box_N4, box_N4), counted, rtol=1e-5)


def test_of_boxes_that_overlap_the_better_counts_and_all_lie_within_the_frame():
    boxes = best_boxes(
        np.array([[0, 0, 10, 20], [1, 0, 11, 20], [-5, 50, 10, 120], [200, 0, 210, 9]], np.float32),
        np.array([0.4, 0.9, 0.5, 0.8]),
        (100, 100),
        0.5,
    )
    assert boxes.box_N4.tolist() == [[1, 0, 11, 20], [0, 50, 10, 100]]
    assert boxes.score_N.tolist() == pytest.approx([0.9, 0.5])


@pytest.fixture(scope="module")
def rtdetr(tmp_path_factory):
    from reid_ray.model.tiny.tiny_rtdetr import build_tiny_rtdetr

    folder = tmp_path_factory.mktemp("rtdetr")
    build_tiny_rtdetr(folder)
    return folder


def test_a_model_of_transformers_gives_the_boxes_that_its_outputs_say(rtdetr, street):
    import torch
    from transformers import RTDetrForObjectDetection, RTDetrImageProcessor

    pictures = list(street.picture_FHW3[:2])
    config = DetectorConfig(kind="transformers", model=str(rtdetr), min_score=0.3, max_overlap=1.0)
    found = open_detector(config, min_height=8).people(pictures)
    inputs = RTDetrImageProcessor.from_pretrained(rtdetr)(images=pictures, return_tensors="pt")
    with torch.inference_mode():
        outputs = RTDetrForObjectDetection.from_pretrained(rtdetr).eval()(**inputs)
    height, width = pictures[0].shape[:2]
    for people, logit_QC, box_Q4 in zip(found, outputs.logits, outputs.pred_boxes, strict=True):
        score_Q = torch.sigmoid(logit_QC)[:, 0].numpy()
        x_Q, y_Q, wide_Q, high_Q = box_Q4.numpy().T
        sides_Q4 = np.stack([x_Q - wide_Q / 2, y_Q - high_Q / 2, x_Q + wide_Q / 2, y_Q + high_Q / 2], axis=1)
        wanted_Q4 = np.clip(sides_Q4 * [width, height, width, height], 0, [width, height, width, height])
        order_Q = np.argsort(-score_Q)
        assert len(people) == len(order_Q) > 0
        np.testing.assert_allclose(people.score_N, score_Q[order_Q], atol=1e-5)
        np.testing.assert_allclose(people.box_N4, wanted_Q4[order_Q], atol=1e-2)


def test_a_model_that_cannot_detect_or_knows_no_such_class_is_refused(rtdetr):
    with refused(ConfigError, "detector.label", "bicycle"):
        open_detector(DetectorConfig(kind="transformers", model=str(rtdetr), label="tram"), min_height=8)
    with refused(ConfigError, "detector.model"):
        open_detector(DetectorConfig(kind="transformers", model="builtin:tiny-parser"), min_height=8)
