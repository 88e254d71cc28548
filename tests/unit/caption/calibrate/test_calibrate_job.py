"""The calibration job as a whole: what it writes, and that thresholds come from one half and numbers from the other."""

import numpy as np
import pytest

from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import calibrate
from reid_ray.caption.calibrate.labelled_pairs import CHANGED, LOSSY, SAME, LabelledPair
from reid_ray.caption.calibrate.results import render_markdown
from reid_ray.caption.calibrate.thresholds import quality
from reid_ray.config.common import OutputConfig
from reid_ray.errors import DataError


class ScriptedScorer:
    """Cosines that separate the labels by chance in the first half only."""

    def score(self, originals, rewrites):
        return np.array([float(text.rsplit(" ", 1)[1]) for text in rewrites], np.float32)


def config(tmp_path, **values):
    return CalibrateJob(output=OutputConfig(path=str(tmp_path / "out")), rewrites=0, **values)


def scripted(person, label, cosine):
    return LabelledPair("A man in a red coat.", f"A man in a {'red' if label == SAME else 'blue'} coat, {cosine}", label, "file", person)


def test_thresholds_come_from_one_half_and_numbers_from_the_other(tmp_path):
    pairs = [scripted(2 * i, SAME, 0.8) for i in range(10)] + [scripted(2 * i, CHANGED, 0.4) for i in range(10)]
    pairs += [scripted(2 * i + 1, SAME, 0.5) for i in range(10)] + [scripted(2 * i + 1, CHANGED, 0.5) for i in range(10)]
    result = calibrate(pairs, ScriptedScorer(), config(tmp_path))
    cosine = result["filters"]["cosine"]
    assert cosine["alpha"] == pytest.approx(0.6, abs=1e-6)
    assert (cosine["chosen_on"]["kept"], cosine["chosen_on"]["removed"]) == (1, 1)
    assert (cosine["held_out"]["all"]["kept"], cosine["held_out"]["all"]["removed"]) == (0, 1)
    assert cosine["auc_held_out"] == 0.5
    assert not cosine["meets_targets"]
    assert result["filters"]["attributes"]["meets_targets"]
    keep = result["scores"]["attributes"] >= result["filters"]["attributes"]["beta"]
    assert quality(keep, np.array([p.label == SAME for p in pairs])).balanced_accuracy == 1
    assert "| no |" in render_markdown(result, config(tmp_path))


def test_lossy_rewrites_count_by_themselves(tmp_path):
    pairs = [scripted(i, label, 0.5) for i in range(8) for label in (SAME, CHANGED)]
    lossy = [LabelledPair("A man in a red coat and jeans.", "A man in a red coat, 0.5", LOSSY, "file", i) for i in range(8)]
    without, with_lossy = (calibrate(p, ScriptedScorer(), config(tmp_path)) for p in (pairs, pairs + lossy))
    assert without["filters"]["attributes"]["lossy_kept"] is None
    assert with_lossy["filters"]["attributes"]["lossy_kept"] in (0, 1)
    for name in ("cosine", "attributes"):
        assert without["filters"][name]["held_out"]["all"] == with_lossy["filters"][name]["held_out"]["all"]


def test_both_labels_are_needed_in_both_halves(tmp_path):
    with pytest.raises(DataError, match="or add pairs"):
        calibrate([scripted(i, SAME, 0.5) for i in range(8)], ScriptedScorer(), config(tmp_path))
