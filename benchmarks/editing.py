"""Does an edit show the reference's colour or pattern, is everything else kept, and do edited people help to find others?

    python benchmarks/editing.py --out benchmarks/results/editing-DATE.json [--quick] [--editor FOLDER] [--verifier FOLDER]
        [--only edits|grid] [--people 300] [--seeds 5] [--processes 1] [--work DIR]

Synthetic people. Part edits: the colours of upper garment, lower garment and shoes, and the pattern of the upper garment, each changed to
that of a reference which is like the person's own otherwise. Joint rate: the attribute is read as the reference's AND no other attribute is
surely read otherwise than before, by a verifier that shares nothing with the editor and learnt from other people. Beside the editor: the
counterfactual drawing (the ceiling, which also bounds the verifier), the mask filled with the reference's median colour, the editor
without the reference (the floor). Differences are paired by picture, intervals are 95 %, bootstrap over pictures. How fast an editor is:
editing_speed.py.

Part grid: R@1 on people never seen after the same number of steps on few people, with half of every batch from pictures that an editor
made (edited picture, its new caption, both, drawings in their place), or from copies of the photographs. Each arm of a seed starts from the
same weights. Finished arms are lines of a file grid.jsonl below DIR, so a run that is cut off goes on.

--editor colour-fill takes the fill in the editor's place.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.diverse.edit_cases import TASKS, ColourFill, EditCase, ReferenceBank, cases_of, people_of
from benchmarks.diverse.training_grid import ARMS, Grid, GridSize
from benchmarks.harness import Report, run_benchmark
from reid_ray.edit.verify.picture_measures import kernel_distance, mean_change, psnr
from reid_ray.edit.verify.verifier import BUILTIN, Verifier, surely_lost
from reid_ray.model.editor.edit_request import EditReference, EditRequest, PictureEditor
from reid_ray.model.editor.reference_editor import Editor
from reid_ray.model.model_files import resolve_model

# Seeds of people that neither the editor nor the verifier learnt from: those that are edited, those whose things are shown.
_EDITED_PEOPLE, _BANK_PEOPLE = 910_000, 920_000
_RESAMPLES = 2_000


def request_of(case: EditCase, *, shown: bool = True) -> EditRequest:
    """What the editor is asked; without the reference, if that is not to be shown."""
    references = (EditReference(*case.noun, case.crop),) if shown else ()
    return EditRequest(case.source, case.mask, case.prompt, references, seed=case.index)


def judge(verifier: Verifier, cases: Sequence[EditCase], drawn: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Per case, bool: whether the attribute is read as wanted, whether nothing else is surely lost, both."""
    before, after = verifier.probabilities([case.source for case in cases]), verifier.probabilities(drawn)
    values = verifier.vocabulary
    hit, kept = np.zeros(len(cases), bool), np.ones(len(cases), bool)
    for row, case in enumerate(cases):
        hit[row] = values[case.attribute][int(after[case.attribute][row].argmax())] == case.value
        kept[row] = not any(
            surely_lost(before[name][row], after[name][row], sure=verifier.limits.sure) for name in values if name != case.attribute
        )
    return {"hit": hit, "kept": kept, "joint": hit & kept}


def interval(values_N: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    rows = np.random.default_rng(0).integers(0, len(values_N), (_RESAMPLES, len(values_N)))
    low, high = np.percentile(values_N[rows].mean(axis=1), [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def measure_edits(report: Report, editor: PictureEditor, verifier: Verifier, *, people: int) -> None:
    """Rows and claims of part edits."""
    crowd, others = people_of(people, _EDITED_PEOPLE), people_of(4 * people, _BANK_PEOPLE)
    bank, real = ReferenceBank(others), list(others.pictures(0, people))
    for attribute in TASKS:
        cases = list(cases_of(crowd, bank, attribute, seed=0))
        drawn = {
            "drawing": [case.answer for case in cases],
            "colour fill": ColourFill().edit([request_of(case) for case in cases]),
            "nothing": [case.source for case in cases],
        }
        if isinstance(editor, Editor):
            drawn |= {
                "editor": editor.edit([request_of(case) for case in cases]),
                "editor, no reference": editor.edit([request_of(case, shown=False) for case in cases]),
            }
        judged = {name: judge(verifier, cases, pictures) for name, pictures in drawn.items()}
        for name, pictures in drawn.items():
            report.row(attribute=attribute, drawn_by=name, cases=len(cases), **_row(cases, pictures, judged[name], verifier, real))
        if not isinstance(editor, Editor):
            continue
        _claims(report, attribute, judged)
        outside = max(mean_change(case.source, picture, ~case.mask) for case, picture in zip(cases, drawn["editor"], strict=True))
        report.claim(f"{attribute}: most mean change outside the mask, grey levels", round(outside, 4), "<=", 1.0)


def _row(
    cases: Sequence[EditCase], pictures: Sequence[np.ndarray], judged: Mapping[str, np.ndarray], verifier: Verifier, real: list[np.ndarray]
) -> dict[str, Any]:
    pairs = list(zip(cases, pictures, strict=True))
    inside = [psnr(case.answer, picture, case.mask) for case, picture in pairs]
    finite = [each for each in inside if np.isfinite(each)]
    return {
        **{name: round(float(judged[name].mean()), 4) for name in ("hit", "kept", "joint")},
        "joint_interval": "{} to {}".format(*interval(judged["joint"])),
        "psnr_inside_to_drawing": round(float(np.mean(finite)), 2) if finite else None,
        "change_outside": round(float(np.mean([mean_change(case.source, picture, ~case.mask) for case, picture in pairs])), 4),
        "kernel_distance_to_real": round(kernel_distance(verifier.features(list(pictures)), verifier.features(real)), 4),
    }


def _claims(report: Report, attribute: str, judged: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    difference_N = judged["editor"]["joint"].astype(float) - judged["colour fill"]["joint"]
    low, high = interval(difference_N)
    report.row(
        attribute=attribute,
        drawn_by="editor less colour fill",
        joint=round(float(difference_N.mean()), 4),
        joint_interval=f"{low} to {high}",
    )
    report.claim(f"{attribute}: joint rate above the colour fill's, lower end of the interval", low, ">=", 0.0)
    ceiling = float(judged["drawing"]["hit"].mean())
    report.claim(f"{attribute}: hit over the drawing's", round(float(judged["editor"]["hit"].mean()) / ceiling, 4), ">=", 0.9)
    above = judged["editor"]["joint"].astype(float) - judged["editor, no reference"]["joint"]
    report.claim(f"{attribute}: joint rate above that without a reference, lower end of the interval", interval(above)[0], ">=", 0.0)


def measure_grid(report: Report, editor: PictureEditor, verifier: Verifier, *, work: Path, seeds: int, processes: int, quick: bool) -> None:
    """Rows and claims of part grid."""
    grid = Grid(work, GridSize.quick() if quick else GridSize(), editor, verifier)
    if processes > 1:
        grid.fill(seeds, processes)
    score_SA = [[grid.score(arm, seed)["r1"] for arm in ARMS] for seed in range(seeds)]  # arm by arm: a seed's edits are drawn once
    found = dict(zip(ARMS, np.array(score_SA).T, strict=True))
    for arm, score_S in found.items():
        difference_S = score_S - found["real"]
        spread = _half_width(difference_S) if arm != "real" and seeds > 1 else None
        report.row(
            arm=arm,
            seeds=seeds,
            r1=round(float(score_S.mean()), 4),
            r1_half_width=round(_half_width(score_S), 4) if seeds > 1 else None,
            over_real=round(float(difference_S.mean()), 4),
            over_real_half_width=None if spread is None else round(spread, 4),
            better_in=int((difference_S > 0).sum()),
            **{
                name: round(float(np.mean([grid.score(arm, seed)[name] for seed in range(seeds)])), 4)
                for name in ("kept_of_made", "start_r1")
            },
        )
    if not quick:
        for arm in ("both", "oracle"):
            difference_S = found[arm] - found["real"]
            lower = float(difference_S.mean()) - _half_width(difference_S)
            report.claim(f"grid: R@1 of {arm} over real, lower end of the interval", round(lower, 4), ">=", 0.0)


def _half_width(value_S: np.ndarray) -> float:
    """Of the 95 % interval of a mean over seeds, by Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(value_S) - 1) * value_S.std(ddof=1) / len(value_S) ** 0.5)


def run(
    report: Report, quick: bool, *, editor: str, verifier: str, only: str | None, people: int, seeds: int, processes: int, work: Path
) -> None:
    """Both parts, or one."""
    folder = resolve_model(editor, field="--editor") if editor.startswith("builtin:") else editor
    opened = ColourFill() if editor == ColourFill.revision else Editor.open(folder), Verifier.open(verifier)
    if only != "grid":
        measure_edits(report, *opened, people=40 if quick else people)
    if only != "edits":
        measure_grid(report, *opened, work=work, seeds=1 if quick else seeds, processes=processes, quick=quick)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--editor", default="builtin:tiny-editor")
    parser.add_argument("--verifier", default=BUILTIN)
    parser.add_argument("--only", choices=("edits", "grid"))
    parser.add_argument("--people", type=int, default=300, help="whose pictures are edited")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1, help="for seeds of the grid, one each")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/editing"))
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(run, **vars(own)), rest)


if __name__ == "__main__":
    sys.exit(main())
