"""Calibration report: Markdown, and a figure of ROC curves and score histograms. Knows numbers and words; measures nothing."""

from __future__ import annotations

import io
from typing import Any

from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.labelled_pairs import CHANGED, LOSSY, SAME

_TITLES = {"cosine": "sentence encoder (cosine)", "attributes": "attribute agreement", "both": "both must pass"}
_COLOURS = {"cosine": "#c44e52", "attributes": "#4c72b0", "both": "#222222"}
_LABELS = {SAME: "true paraphrase", LOSSY: "leaves something out", CHANGED: "attribute changed"}


def render_markdown(result: dict[str, Any], config: CalibrateJob) -> str:
    """The report: the thresholds, what they do to held-out pairs, by source, and whether the targets are reached."""
    lines = [
        f"# Faithfulness thresholds for `{config.encoder.model}`",
        "",
        f"Target: remove {config.target_removed:.0%} of rewrites with a changed attribute and keep {config.target_kept:.0%} of true "
        f"paraphrases. Thresholds were chosen ({config.choose}) on every second person; all numbers are of the other half.",
        "",
        "| filter | thresholds | AUC | removed | kept | precision | lossy kept | reaches the target |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, values in result["filters"].items():
        held = values["held_out"]["all"]
        thresholds = ", ".join(f"{key} {values[key]:.3f}" for key in ("alpha", "beta") if key in values)
        auc = f"{values['auc_held_out']:.3f}" if "auc_held_out" in values else ""
        lossy = "" if values["lossy_kept"] is None else f"{values['lossy_kept']:.1%}"
        lines.append(
            f"| {_TITLES[name]} | {thresholds} | {auc} | {held['removed']:.1%} | {held['kept']:.1%} | {held['precision']:.1%} | {lossy} | "
            f"{'yes' if values['meets_targets'] else 'no'} |"
        )
    lines += [
        "",
        "By source (held out):",
        "",
        "| filter | pairs | paraphrases | kept | changed | removed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, values in result["filters"].items():
        for source, held in values["held_out"].items():
            kept = f"{held['kept']:.1%}" if held["same"] else ""
            removed = f"{held['removed']:.1%}" if held["changed"] else ""
            lines.append(f"| {_TITLES[name]} | {source} | {held['same']} | {kept} | {held['changed']} | {removed} |")
    lines += [
        "",
        f"All pairs: {', '.join(f'{count} {name}' for name, count in result['pairs'].items())}. human: worded afresh by another "
        "annotator; edit: one attribute replaced in place; rewriter: "
        + (f"by {config.rewriter.model}, labelled by the person's attributes" if config.rewrites else "none")
        + "; lossy: nothing wrong, but something left out, in neither share.",
        "",
        "![ROC](roc.png)",
        "",
    ]
    return "\n".join(lines)


def draw(result: dict[str, Any], curves: dict[str, Any], config: CalibrateJob) -> bytes:
    """PNG: the ROC of each filter with its chosen point and the target, and both scores' distributions by label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis, *histograms = figure.subplots(1, 3, width_ratios=[1.15, 1, 1])
    axis.add_patch(_target(config))
    for name in ("cosine", "attributes", "both"):
        curve = curves[name]
        kept, removed = (curve.kept_F, curve.removed_F) if name == "both" else (curve.kept_T, curve.removed_T)
        held = result["filters"][name]["held_out"]["all"]
        style = {"linestyle": "--", "linewidth": 1.2} if name == "both" else {"linewidth": 1.8}
        axis.plot(removed, kept, color=_COLOURS[name], label=_TITLES[name], **style)
        axis.plot([held["removed"]], [held["kept"]], "o", color=_COLOURS[name], markersize=6)
    axis.set(xlabel="changed rewrites removed", ylabel="true paraphrases kept", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_title("held-out pairs; dots: chosen thresholds; green: target", fontsize=9)
    axis.legend(loc="lower left", fontsize=8)
    thresholds = {"cosine": result["filters"]["cosine"]["alpha"], "attributes": result["filters"]["attributes"]["beta"]}
    for histogram, (name, threshold) in zip(histograms, thresholds.items(), strict=True):
        for label, colour in ((SAME, "#55a868"), (LOSSY, "#bbbbbb"), (CHANGED, "#c44e52")):
            values = curves[f"{name}_N"][curves["label_N"] == label]
            if len(values):
                span = (min(0.0, curves[f"{name}_N"].min()), 1.0001)
                histogram.hist(
                    values, bins=40, range=span, histtype="step", linewidth=1.5, color=colour, density=True, label=_LABELS[label]
                )
        histogram.axvline(threshold, color="#222222", linewidth=1, linestyle=":")
        histogram.set(xlabel=_TITLES[name], ylabel="density", yscale="log" if name == "attributes" else "linear")
        histogram.set_title(f"all pairs; dotted: threshold {threshold:.3f}", fontsize=9)
        histogram.legend(loc="upper left" if name == "cosine" else "upper center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _target(config: CalibrateJob) -> Any:
    from matplotlib.patches import Rectangle

    corner = (config.target_removed, config.target_kept)
    return Rectangle(corner, 1.02 - corner[0], 1.02 - corner[1], color="#55a868", alpha=0.18, linewidth=0)
