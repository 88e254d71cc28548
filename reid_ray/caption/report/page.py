"""One self-contained HTML page about a captioning run: numbers, charts, and sampled images with their captions and rewrites.

Knows statistics, a manifest and pictures; measures nothing. Everything that came from a model or a file is escaped, charts are inline
SVG and pictures are embedded, so the page opens anywhere and loads nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from reid_ray.caption.filters.diversity import Diversity
from reid_ray.caption.report.statistics import SCORE_EDGES, RunStatistics
from reid_ray.data.images import BadImageError, decode_image

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2330;background:#f6f7f9;margin:0}
main{max-width:1080px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:8px 0}h2{font-size:18px;margin:28px 0 8px}
section{background:#fff;border:1px solid #dfe3ea;border-radius:8px;padding:14px 18px;margin:12px 0}
.tiles{display:flex;flex-wrap:wrap;gap:12px}.tile{background:#fff;border:1px solid #dfe3ea;border-radius:8px;
 padding:10px 16px;min-width:120px}
.tile b{display:block;font-size:22px}.tile span,.note,small{color:#5b6576}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid #edf0f4;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{overflow-wrap:anywhere}
.crops{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:12px}
.crop{display:flex;gap:12px;background:#fff;border:1px solid #dfe3ea;border-radius:8px;padding:10px}
.crop img{height:160px;border-radius:4px}.crop p{margin:0 0 6px;font-size:13px;overflow-wrap:anywhere}
.tag{display:inline-block;border-radius:4px;padding:0 6px;font-size:11px;background:#e6ebf3;color:#33415c}
.tag.bad{background:#fbe3e1;color:#8d2019}.tag.good{background:#dff2e4;color:#1c6b36}
svg text{font:11px system-ui,sans-serif;fill:#5b6576}
"""
_RATES = ("images_per_second", "rewrites_per_second")
_COLOURS = {"ok": "#4c9f70", "unfaithful": "#c9534f", "failed": "#999"}


@dataclass(frozen=True)
class Sample:
    """An image with all its CAPTIONS rows (as dictionaries)."""

    image_id: str
    image: bytes | None  # encoded
    captions: tuple[dict[str, Any], ...]


def render_report(
    *, title: str, statistics: RunStatistics, manifest: Mapping[str, Any], samples: Sequence[Sample], alpha: float | None, note: str = ""
) -> str:
    """The page as a string.

    Args:
        title: what the run is called.
        statistics: of its table.
        manifest: of its folder.
        samples: images to show.
        alpha: the faithfulness threshold, drawn into the histogram; None draws none.
        note: a remark for the reader above the images, such as why there are none.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(str(manifest["job"]))} started {escape(str(manifest["started"]))}, '
        f"fingerprint <code>{escape(str(manifest['fingerprint']))}</code></p>",
        _tiles(statistics, manifest),
        _section("Engines", _engines(manifest)),
        _section("Outcomes", _outcomes(statistics)),
        _section("Failures by reason", _reasons(statistics)),
        _section("Diversity", _diversity(statistics.diversity)),
        _section("Caption length", _lengths(statistics.diversity)),
        _section("Templates", _templates(statistics.diversity)),
        _section("Faithfulness of rewrites", _faithfulness(statistics, alpha)),
        _section("What ran", _facts(manifest)),
        f"<h2>Sampled images</h2>{f'<p class=note>{escape(note)}</p>' if note else ''}",
        f'<div class="crops">{"".join(map(_crop, samples))}</div>',
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body><main>{''.join(parts)}</main></body></html>\n"


def bar_chart(
    bars: Sequence[tuple[str, float]], *, colour: str = "#4c72b0", height: int = 110, every: int = 1, mark: float | None = None
) -> str:
    """Vertical bars as inline SVG.

    Args:
        bars: (label, value) from left to right.
        colour: of the bars.
        height: of the tallest bar, pixels.
        every: label every n-th bar.
        mark: a dotted line at this position, in bars from the left.
    """
    if not bars:
        return '<p class="note">none</p>'
    step = max(4.0, min(28.0, 960 / len(bars)))
    peak = max(value for _, value in bars) or 1
    shapes = []
    for i, (label, value) in enumerate(bars):
        size = height * value / peak
        shapes.append(
            f'<rect x="{i * step + 20:.1f}" y="{height - size + 14:.1f}" width="{step * 0.86:.1f}" height="{size:.1f}" fill="{colour}">'
            f"<title>{escape(label)}: {value:g}</title></rect>"
        )
        if i % every == 0:
            shapes.append(f'<text x="{i * step + 20 + step * 0.43:.1f}" y="{height + 28}" text-anchor="middle">{escape(label)}</text>')
    if mark is not None:
        x = mark * step + 20
        shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height + 14}" stroke="#222" stroke-dasharray="3 3"/>')
    width = len(bars) * step + 40
    return f'<svg viewBox="0 0 {width:.0f} {height + 34}" width="{width:.0f}" style="max-width:100%" role="img">{"".join(shapes)}</svg>'


def _tiles(statistics: RunStatistics, manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    seconds = manifest["timings"]["total_seconds"]
    fine = sum(count for (kind, status), count in statistics.outcomes.items() if status == "ok" and kind != "rewrite")
    rewrites = sum(count for (kind, _), count in statistics.outcomes.items() if kind == "rewrite")
    kept = statistics.outcomes["rewrite", "ok"]
    tiles = [
        (f"{counts['read']:,}", "images or rows read"),
        (f"{sum(counts['failed'].values()):,}", "failed"),
        (f"{fine:,}", "captions"),
        (f"{kept:,} of {rewrites:,}", "rewrites kept"),
        (f"{seconds:,.0f} s", "wall clock"),
        (f"{counts['read'] / seconds:,.1f}/s" if seconds else "", "read, start-up included"),
    ]
    return (
        '<div class="tiles">' + "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(n)}</span></div>' for v, n in tiles) + "</div>"
    )


def _outcomes(statistics: RunStatistics) -> str:
    rows = [[kind, status, f"{count:,}"] for (kind, status), count in sorted(statistics.outcomes.items())]
    tries = ", ".join(f"{count:,} after {tries}" for tries, count in sorted(statistics.tries.items())) or "none"
    return _table(["kind", "status", "rows"], rows, numbers={2}) + f'<p class="note">Generations per rewrite: {escape(tries)}.</p>'


def _reasons(statistics: RunStatistics) -> str:
    rows = [[kind, code, f"{count:,}", statistics.examples[kind, code][:160]] for (kind, code), count in statistics.reasons.most_common()]
    return _table(["kind", "reason", "rows", "for example"], rows, numbers={2}) if rows else '<p class="note">nothing failed</p>'


def _diversity(diversity: Mapping[str, Diversity]) -> str:
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
    remark = "Distinct-n: higher is more varied; self-BLEU: lower is. Both depend on the sample's size: compare equal ones only."
    return _table(heads, rows, numbers=set(range(1, 9))) + f'<p class="note">{remark}</p>'


def _lengths(diversity: Mapping[str, Diversity]) -> str:
    charts = []
    for kind, d in diversity.items():
        if not d.words_histogram:
            continue
        longest = max(d.words_histogram)
        width = max(1, -(-longest // 60))
        bars = [
            (str(low), float(sum(d.words_histogram.get(n, 0) for n in range(low, low + width)))) for low in range(0, longest + 1, width)
        ]
        charts.append(f"<b>{escape(kind)}</b> <small>words per caption</small><br>{bar_chart(bars, every=5)}")
    return "<br>".join(charts) or '<p class="note">no captions</p>'


def _templates(diversity: Mapping[str, Diversity]) -> str:
    parts = []
    for name, d in diversity.items():
        if d.template_coverage is None or d.template_entropy is None:
            continue
        bars = [(template.rpartition("/")[2], float(n)) for template, n in d.template_counts.items() if template.startswith("dynamic/")]
        parts.append(
            f"<p><b>{escape(name)}</b>: {d.template_coverage:.0%} of the templates are used; evenness (entropy over that of even use) "
            f"{d.template_entropy:.3f}.</p>{bar_chart(bars, every=2)}"
        )
    return "".join(parts) or '<p class="note">no dynamic captions</p>'


def _engines(manifest: Mapping[str, Any]) -> str:
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
    if not rows:
        return '<p class="note">the manifest says nothing of its engines</p>'
    heads = ["captioner", "stage", "per second of an actor", "tokens", "tokens/s", "prefix-cache hits, tokens", "hit rate", "start"]
    return _table(heads, rows, numbers=set(range(2, 8))) + "".join(f'<p class="note">{escape(line)}</p>' for line in pace)


def _faithfulness(statistics: RunStatistics, alpha: float | None) -> str:
    total = sum(statistics.scores.values())
    if isinstance(total, int) or not total.sum():
        return '<p class="note">no rewrites were scored</p>'
    first = int((total > 0).argmax())
    if alpha is not None:
        first = min(first, int((alpha - SCORE_EDGES[0]) / 0.025))
    labels = [f"{edge:.2f}" for edge in SCORE_EDGES[first:-1]]
    mark = None if alpha is None else (alpha - SCORE_EDGES[first]) / 0.025
    charts = [
        f'<span class="tag">{escape(status)}</span><br>'
        + bar_chart(list(zip(labels, counts[first:].astype(float), strict=True)), colour=_COLOURS[status], every=4, mark=mark, height=80)
        for status, counts in sorted(statistics.scores.items())
        if counts.sum()
    ]
    line = f"Dotted: alpha {alpha:g}." if alpha is not None else ""
    return f'<p class="note">Cosine of rewrite and original. {line}</p>' + "<br>".join(charts)


def _facts(manifest: Mapping[str, Any]) -> str:
    environment = manifest["environment"]
    rows = [[f"input {name}", str(value)] for name, value in _flat(manifest["inputs"])]
    rows += [
        [name.replace("_", " "), _short(value)]
        for name, value in _flat({**manifest["timings"], **manifest["facts"]})
        if name != "templates" and not name.startswith("passes / ")
    ]
    rows += [["machine", f"{environment['processor']}, {environment['cpu_count']} cores, {environment['memory_bytes'] / 2**30:.0f} GiB"]]
    rows += [["versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items())]]
    rows += [["commit", str(environment["commit"])], ["command", environment["command"]]]
    return _table(["what", "value"], rows)


def _crop(sample: Sample) -> str:
    rows = []
    for row in sample.captions:
        tone = {"ok": "good", "unfaithful": "bad", "failed": "bad"}[row["status"]]
        score = f" {row['faithfulness']:.2f}" if row["faithfulness"] is not None else ""
        where = row["instruction_id"] or row["kind"]
        text = row["text"] if row["text"] is not None else row["reason"] or ""
        rows.append(f'<p><span class="tag {tone}">{escape(where)}{score} {escape(row["status"])}</span> {escape(text)}</p>')
    picture = _picture(sample.image)
    return f'<div class="crop">{picture}<div><small>{escape(sample.image_id)}</small>{"".join(rows)}</div></div>'


def _picture(data: bytes | None) -> str:
    """A small JPEG as a data URL: the page must not grow with the size of the photographs."""
    try:
        image = decode_image(data, max_pixels=50_000_000)
    except BadImageError as error:
        return f'<span class="tag bad">{escape(str(error))}</span>'
    image.thumbnail((320, 320))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2><section>{body}</section>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    css = ['class="n"' if i in right else "" for i in range(len(heads))]
    top = "".join(f"<th {css[i]}>{escape(head)}</th>" for i, head in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td {css[i]}>{escape(str(cell))}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        flat += _flat(value, f"{prefix}{name} / ") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return flat


def _short(value: Any) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
