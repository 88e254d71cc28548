"""ROC and choice of thresholds against brute force; the labelled pairs are what they say."""

import numpy as np
import pytest
from refusals import refused

from reid_ray.caption.calibrate.labelled_pairs import CHANGED, LOSSY, SAME, halves, human_pairs, judge_rewrite, read_pairs
from reid_ray.caption.calibrate.thresholds import choose_pair, choose_threshold, frontier, quality, roc
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople, score_caption
from reid_ray.errors import DataError

TARGETS = {"target_removed": 0.9, "target_kept": 0.85}


def scores(seed, ties=False, n=200):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    score = rng.normal(same * 1.0, 1.0)
    return (np.round(score) if ties else score), same


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_roc_equals_brute_force(seed, ties):
    score, same = scores(seed, ties)
    curve = roc(score, same)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[same] for b in score[~same]]
    assert curve.auc == pytest.approx(np.mean(pairs))
    for threshold, kept, removed in zip(curve.threshold_T, curve.kept_T, curve.removed_T, strict=True):
        assert kept == pytest.approx(np.mean(score[same] >= threshold))
        assert removed == pytest.approx(np.mean(score[~same] < threshold))


@pytest.mark.parametrize("ties", [False, True])
def test_each_choice_does_what_it_promises(ties):
    score, same = scores(5, ties)
    curve = roc(score, same)
    by = {choice: choose_threshold(curve, choice, **TARGETS) for choice in ("removed", "rejected", "balanced")}
    result = {choice: quality(score >= threshold, same) for choice, threshold in by.items()}
    finite = [quality(score >= t, same) for t in np.unique(score)]
    assert result["removed"].kept == max([q.kept for q in finite if q.removed >= 0.9], default=finite[-1].kept)
    assert result["rejected"].removed == max(q.removed for q in finite if q.kept >= 0.85)
    assert result["balanced"].balanced_accuracy == pytest.approx(max(q.balanced_accuracy for q in finite))


def test_roc_refuses_a_single_label():
    with pytest.raises(ValueError, match="needs both labels"):
        roc(np.ones(3), np.ones(3, bool))


@pytest.mark.slow
def test_frontier_equals_trying_every_pair_of_thresholds():
    (first, same), (second, _) = scores(1, n=60), scores(2, n=60)
    second = np.round(second + same, 1)
    edge = frontier(first, second, same, steps=500)
    best = {}
    for a in [-np.inf, *first]:
        for b in [-np.inf, *second]:
            q = quality((first >= a) & (second >= b), same)
            best[round(q.removed, 9)] = max(best.get(round(q.removed, 9), 0), q.kept)
    for kept, removed in zip(edge.kept_F, edge.removed_F, strict=True):
        assert kept == pytest.approx(max(k for r, k in best.items() if r >= removed - 1e-9))
    alpha, beta = choose_pair(edge, "removed", **TARGETS)
    chosen = quality((first >= alpha) & (second >= beta), same)
    assert chosen.removed >= 0.9
    assert chosen.kept == pytest.approx(max(k for r, k in best.items() if r >= 0.9))


@pytest.mark.slow
def test_human_pairs_carry_true_labels():
    config = SyntheticConfig(identities=60, images_per_identity=1, seed=9)
    truth = SyntheticPeople(config).attributes()
    pairs = list(human_pairs(config))
    assert pairs == list(human_pairs(config))
    assert {(p.source, p.label) for p in pairs} == {("human", SAME), ("human", CHANGED), ("edit", CHANGED)}
    for pair in pairs:
        assert not score_caption(pair.original, truth[pair.person]).wrong
        assert bool(score_caption(pair.rewrite, truth[pair.person]).wrong) == (pair.label == CHANGED)
    first, second = halves(pairs)
    assert not {p.person for p in first} & {p.person for p in second}
    assert not {p.original for p in first} & {p.original for p in second}


def test_rewrites_are_judged_by_the_truth():
    truth = {"gender": "man", "upper": "coat", "upper_color": "red", "upper_pattern": "plain", "lower": "jeans", "lower_color": "blue"}
    original = "A man in a red coat and blue jeans."
    assert judge_rewrite(original, "A guy wears blue jeans and a red coat.", truth, 0).label == SAME
    assert judge_rewrite(original, "A guy wears blue jeans and a coat.", truth, 0).label == LOSSY
    assert judge_rewrite(original, "A guy wears blue jeans and a green coat.", truth, 0).label == CHANGED


def test_pairs_of_ones_own_are_read_and_bad_lines_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"original": "a", "rewrite": "b", "label": "same"}\n\n{"original": "a", "rewrite": "c", "label": "changed"}\n')
    assert [(p.rewrite, p.label) for p in read_pairs(path)] == [("b", SAME), ("c", CHANGED)]
    path.write_text('{"original": "a", "rewrite": "b", "label": "good"}\n')
    with refused(DataError, "pairs.jsonl", "line 1", "label", "good"):
        read_pairs(path)
    path.write_text('{"original": "a"}\n')
    with refused(DataError, "pairs.jsonl", "line 1"):
        read_pairs(path)


def test_pairs_are_read_line_by_line_in_any_encoding_with_a_mark_and_refused_by_their_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    line = '{"original": "A man\u2028in a coat.", "rewrite": "Ein Mann.", "label": "same"}'
    path.write_bytes(f"{line}\n\n{line}\r\n".encode("utf-16"))
    assert [pair.original for pair in read_pairs(path)] == ["A man\u2028in a coat."] * 2
    for data in (b"\xff{}", b'{"original": null, "rewrite": "a", "label": "same"}', b"[" * 5000, b"{", b"[1]", b'"x"'):
        path.write_bytes(data)
        with refused(DataError, "pairs.jsonl"):
            read_pairs(path)
