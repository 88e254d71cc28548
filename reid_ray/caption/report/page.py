"""HTML report of a captioning run: numbers, charts, and sampled images with their captions and rewrites.

Knows statistics, a manifest and pictures; measures nothing. The page itself is the template report.html.jinja of reid_ray.pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reid_ray.caption.filters.diversity import Diversity
from reid_ray.caption.plausibility.guesses import GUESSES, guesses_in_words
from reid_ray.caption.plausibility.judgement import in_words
from reid_ray.caption.report.charts import Chart, bar_chart
from reid_ray.caption.report.statistics import SCORE_EDGES, RunStatistics
from reid_ray.caption.streaming.pass_account import START
from reid_ray.caption.streaming.stage_clock import CAUSES
from reid_ray.config.base import flattened
from reid_ray.data.images import BadImageError, decode_image, jpeg_thumbnail
from reid_ray.data.labels.doubted_captions import DOUBTED, DOUBTED_CAPTIONS, PLAUSIBILITY, doubted_in_words
from reid_ray.pages import jpeg_url, render
from reid_ray.storage import Counts

_SHOWN_ABOVE = ("passes / ", "resources / ", f"{PLAUSIBILITY} / ", f"{GUESSES} / ")
_RATES = ("images_per_second", "rewrites_per_second")
_COLOURS = {"ok": "#4c9f70", "unfaithful": "#c9534f", "failed": "#999"}
_TONES = {"ok": "good", "unfaithful": "bad", "failed": "bad"}


@dataclass(frozen=True)
class Sample:
    """An image with all its CAPTIONS rows (as dictionaries)."""

    image_id: str
    image: bytes | None  # encoded
    captions: tuple[dict[str, Any], ...]


class Cells(NamedTuple):
    """A table of the page: heads, rows of cells, and the columns that hold numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


class CaptionEntry(NamedTuple):
    """A caption beside its image; tone is the class of its tag."""

    where: str
    status: str
    tone: str
    text: str


class Crop(NamedTuple):
    """An image of the page as a data: URL, or why there is none, with its captions."""

    image_id: str
    picture: str | None
    unreadable: str
    rows: list[CaptionEntry]


def render_report(
    *,
    title: str,
    statistics: RunStatistics,
    manifest: Mapping[str, Any],
    samples: Sequence[Sample],
    alpha: float | None,
    note: str = "",
    origin: Mapping[str, Any] | None = None,
) -> str:
    """The page as a string.

    Args:
        title: what the run is called.
        statistics: of its table.
        manifest: of its folder.
        samples: images to show.
        alpha: the faithfulness threshold, drawn into the histogram; None draws none.
        note: a remark for the reader above the images, such as why there are none.
        origin: manifest of the caption job whose captions a refilter job read; None is `manifest`.
    """
    made = (manifest if origin is None else origin)["facts"]
    engines, pace = _engines(manifest)
    return render(
        "report",
        title=title,
        job=manifest["job"],
        started=manifest["started"],
        fingerprint=manifest["fingerprint"],
        tiles=_tiles(statistics, manifest),
        warnings=_warnings(made),
        plausibility=_plausibility(made),
        engines=engines,
        pace=[*pace, *_hours(manifest)],
        actors=_actors(manifest),
        outcomes=_outcomes(statistics),
        tries=", ".join(f"{count:,} after {tries}" for tries, count in sorted(statistics.tries.items())) or "none",
        reasons=_reasons(statistics),
        diversity=_diversity(statistics.diversity),
        lengths=_lengths(statistics.diversity),
        used_templates=_templates(statistics.diversity),
        faithfulness=_faithfulness(statistics, alpha),
        alpha=alpha,
        facts=_facts(manifest),
        remark=note,
        crops=[_crop(sample) for sample in samples],
    )


def _tiles(statistics: RunStatistics, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts = Counts.of(manifest["counts"])
    seconds = manifest["timings"]["total_seconds"]
    fine = sum(count for (kind, status), count in statistics.outcomes.items() if status == "ok" and kind != "rewrite")
    rewrites = sum(count for (kind, _), count in statistics.outcomes.items() if kind == "rewrite")
    kept = statistics.outcomes["rewrite", "ok"]
    return [
        (f"{counts.read:,}", "images or rows read"),
        (f"{sum(counts.failed.values()):,}", "failed"),
        (f"{sum(counts.left_out.values()):,}", "left out"),
        (f"{fine:,}", "captions"),
        (f"{kept:,} of {rewrites:,}", "rewrites kept"),
        (f"{seconds:,.0f} s", "wall clock"),
        (f"{counts.read / seconds:,.1f}/s" if seconds else "", "read, start-up included"),
    ]


def _warnings(made: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers: captions that are guesses, or that can hardly be true."""
    found = [guesses_in_words(made[GUESSES])] if made.get(GUESSES) else []
    doubted = PLAUSIBILITY in made and made[PLAUSIBILITY]["verdict"] == DOUBTED
    earlier = [doubted_in_words(each) for each in made.get(DOUBTED_CAPTIONS, [])]
    return [*found, *([in_words(made[PLAUSIBILITY])] if doubted else []), *earlier]


def _plausibility(made: Mapping[str, Any]) -> Cells:
    """Every statement of the check; none of an older run, or of captions that were given."""
    makers = made[PLAUSIBILITY]["captioners"] if PLAUSIBILITY in made else {}
    rows = [[maker, each["words"], each["verdict"], f"{each['of']:,}"] for maker, found in makers.items() for each in found["statements"]]
    return Cells(["captioner", "what", "verdict", "seen on"], rows, [3])


def _outcomes(statistics: RunStatistics) -> Cells:
    rows = [[kind, status, f"{count:,}"] for (kind, status), count in sorted(statistics.outcomes.items())]
    return Cells(["kind", "status", "rows"], rows, [2])


def _reasons(statistics: RunStatistics) -> Cells:
    rows = [[kind, code, f"{count:,}", statistics.examples[kind, code][:160]] for (kind, code), count in statistics.reasons.most_common()]
    return Cells(["kind", "reason", "rows", "for example"], rows, [2])


def _diversity(diversity: Mapping[str, Diversity]) -> Cells:
    rows = [
        [
            kind,
            f"{d.captions:,}",
            f"{d.repeated:,}",
            f"{d.words_mean:.1f}",
            *(f"{d.distinct_n[n]:.3f}" for n in (1, 2, 3)),
            f"{d.self_bleu:.3f}",
            f"{d.sampled:,}",
        ]
        for kind, d in diversity.items()
    ]
    heads = ["kind", "captions", "repeated", "words", "distinct-1", "distinct-2", "distinct-3", "self-BLEU", "sampled"]
    return Cells(heads, rows, range(1, 9))


def _lengths(diversity: Mapping[str, Diversity]) -> list[tuple[str, Chart]]:
    charts = []
    for kind, d in diversity.items():
        if not d.words_histogram:
            continue
        longest = max(d.words_histogram)
        width = max(1, -(-longest // 60))
        bars = [
            (str(low), float(sum(d.words_histogram.get(n, 0) for n in range(low, low + width)))) for low in range(0, longest + 1, width)
        ]
        charts.append((kind, bar_chart(bars, every=5)))
    return charts


def _templates(diversity: Mapping[str, Diversity]) -> list[tuple[str, str, Chart]]:
    """(captions of what, how evenly they use the templates, captions by template)."""
    parts = []
    for name, d in diversity.items():
        if d.template_coverage is None or d.template_entropy is None:
            continue
        bars = [(template.rpartition("/")[2], float(n)) for template, n in d.template_counts.items() if template.startswith("dynamic/")]
        use = f"{d.template_coverage:.0%} of the templates are used; evenness (entropy over that of even use) {d.template_entropy:.3f}."
        parts.append((name, use, bar_chart(bars, every=2)))
    return parts


def _engines(manifest: Mapping[str, Any]) -> tuple[Cells, list[str]]:
    """What a second of an actor yields, by pass and stage, and how much of the prompts the prefix cache had."""
    rows, pace = [], []
    for name, facts in manifest["facts"].get("passes", {}).items():
        whole = facts["throughput"]
        if whole is not None and whole["images_per_second"]:
            pace.append(
                f"{name}: {whole['images_per_second']:,.1f} images/s from the first rows to the last, all actors together, start-up apart."
            )
        for stage in ("captioner", "rewriter"):
            speed = facts[stage]
            if speed is None:
                continue
            rate = next(f"{value:,.1f} {key.split('_')[0]}" for key, value in speed.items() if key in _RATES)
            cache = speed["prefix_cache"]
            share = "none asked" if cache["hit_rate"] is None else f"{cache['hit_rate']:.1%}"
            hits = f"{cache['hits']:,} of {cache['queries']:,}"
            cells = [f"{speed['tokens']:,}", f"{speed['tokens_per_second']:,.0f}", hits, share, f"{speed['startup_seconds']:.1f} s"]
            rows.append([name, stage, rate, *cells])
    heads = ["captioner", "stage", "per second of an actor", "tokens", "tokens/s", "prefix-cache hits, tokens", "hit rate", "start"]
    return Cells(heads, rows, range(2, 8)), pace


def _hours(manifest: Mapping[str, Any]) -> list[str]:
    """What the run's actors held, beside a plan's; nothing of a run that made nothing, or of an older version's."""
    held = manifest["facts"].get("resources", {"stages": {}})
    if not held["stages"]:
        return []
    planned = held["planned"]
    return [
        f"{name}: {held[unit]:,.3g}" + ("." if planned is None else f", planned {planned[unit]:,.3g}.")
        for unit, name in (("gpu_hours", "GPU-hours"), ("cpu_hours", "CPU-hours"))
        if held[unit]
    ]


def _actors(manifest: Mapping[str, Any]) -> Cells:
    """What the time of each stage's actors went on."""
    rows, causes = [], [*CAUSES, START]
    for name, stages in manifest["facts"].get("resources", {"stages": {}})["stages"].items():
        for stage, told in stages.items():
            full = "" if told["requests_a_step"] is None else f"{told['requests_a_step']:,.1f}"
            rows.append([name, stage, f"{told['actor_hours']:,.3g}", full, *(f"{told['shares'][cause]:.1%}" for cause in causes)])
    return Cells(["captioner", "stage", "hours of its actors", "requests a step", *causes], rows, range(2, 4 + len(causes)))


def _faithfulness(statistics: RunStatistics, alpha: float | None) -> list[tuple[str, Chart]]:
    total = sum(statistics.scores.values())
    if isinstance(total, int) or not total.sum():
        return []
    first = int((total > 0).argmax())
    if alpha is not None:
        first = min(first, int((alpha - SCORE_EDGES[0]) / 0.025))
    labels = [f"{edge:.2f}" for edge in SCORE_EDGES[first:-1]]
    mark = None if alpha is None else (alpha - SCORE_EDGES[first]) / 0.025
    return [
        (
            status,
            bar_chart(list(zip(labels, counts[first:].astype(float), strict=True)), colour=_COLOURS[status], every=4, mark=mark, height=80),
        )
        for status, counts in sorted(statistics.scores.items())
        if counts.sum()
    ]


def _facts(manifest: Mapping[str, Any]) -> list[list[str]]:
    environment = manifest["environment"]
    rows = [[f"input {name}", str(value)] for name, value in flattened(manifest["inputs"], between=" / ").items()]
    rows += [
        [name.replace("_", " "), _short(value)]
        for name, value in flattened({**manifest["timings"], **manifest["facts"]}, between=" / ").items()
        if name != "templates" and not name.startswith(_SHOWN_ABOVE)
    ]
    rows += [["machine", f"{environment['processor']}, {environment['cpu_count']} cores, {environment['memory_bytes'] / 2**30:.0f} GiB"]]
    rows += [["versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())]]
    rows += [["commit", str(environment["commit"])], ["command", environment["command"]]]
    return rows


def _crop(sample: Sample) -> Crop:
    rows = []
    for row in sample.captions:
        score = f" {row['faithfulness']:.2f}" if row["faithfulness"] is not None else ""
        text = row["text"] if row["text"] is not None else row["reason"] or ""
        rows.append(CaptionEntry(f"{row['instruction_id'] or row['kind']}{score}", row["status"], _TONES[row["status"]], text))
    try:
        return Crop(sample.image_id, _picture(sample.image), "", rows)
    except BadImageError as error:
        return Crop(sample.image_id, None, str(error), rows)


def _picture(data: bytes | None) -> str:
    """A small JPEG as a data URL: the page must not grow with the size of the photographs."""
    image = decode_image(data, max_pixels=50_000_000)
    return jpeg_url(jpeg_thumbnail(image, width=320, height=320))


def _short(value: Any) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
