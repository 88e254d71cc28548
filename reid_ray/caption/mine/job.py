"""The mine job (template mining): captions -> patterns -> variants by rule and by a language model -> distinct templates, a report.

Knows the order, the actor and the files. A small language model mostly breaks the slots; everything it returns is checked and counted,
and the templates of the rules stand without it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import yaml

from reid_ray.caption.engines.protocol import ChatEngine
from reid_ray.caption.engines.vllm_engine import Engine, engine_environment
from reid_ray.caption.mine.config import MineJob, PatternWriterConfig
from reid_ray.caption.mine.patterns import PERSON, Pattern, check_template, distinct, mine_patterns, vary
from reid_ray.caption.prompts import SLOT_PATTERN, TEMPLATES
from reid_ray.data.execution import actor_pool, ray_data_execution
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.errors import DataError
from reid_ray.model.hub_models import fetch_models, pinned
from reid_ray.model.model_files import model_revision, resolve_model
from reid_ray.records import CAPTIONS
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, iter_table, write_bytes, write_json
from reid_ray.terminal.own_lines import say
from reid_ray.versions import numbered

TEMPLATES_FILE, REPORT = "templates.yaml", "report.json"
REQUEST = (
    "Say this sentence in other words, with another beginning. Copy every part in square brackets letter by letter.\n\nSentence: {pattern}"
)


class PatternWriter:
    """What each Ray Data actor holds: a language model that words patterns afresh. Building it loads the model."""

    def __init__(self, config: PatternWriterConfig, *, engine: ChatEngine | None = None) -> None:
        self._engine = engine or Engine(
            resolve_model(config.model, field="writer.model"),
            revision=config.revision,
            config=config.engine,
            sampling=config.sampling,
            images=0,
            pool=config.pool,
        )

    def __call__(self, patterns: pa.Table) -> pa.Table:
        """A table {key, text} -> {text}: the model's wording of each pattern, empty where it gave none."""
        asked = [[{"role": "user", "content": REQUEST.format(pattern=text)}] for text in patterns["text"].to_pylist()]
        replies = self._engine.chat(asked, patterns["key"].to_pylist())
        return pa.table({"text": [_wording(reply.text or "") for reply in replies]})


def run_mine(config: MineJob) -> dict[str, Any]:
    """Run the job of `config`; returns the manifest. The folder holds templates.yaml and report.json.

    Raises:
        ReidRayError: there are no captions of the wanted kinds, none of them gives a template, or a model or resource is missing.
    """
    inputs: dict[str, Any] = {"captions": config.captions}
    if config.writer.variants:
        config = config.model_copy(update={"writer": pinned(config.writer, field="writer.model")})
        model = resolve_model(config.writer.model, field="writer.model")
        revision = model_revision(model, revision=config.writer.revision, field="writer.model")
        inputs["writer"] = {"model": config.writer.model, "revision": revision}
    output = JobOutput("mine", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs)
    if (earlier := output.kept()) is not None:
        return earlier
    with output:
        note_doubted(output, [config.captions])
        captions = list(_captions(config))
        if not captions:
            raise DataError(f"{config.captions}: holds no caption with status ok of kind {', '.join(config.kinds)}; set kinds")
        found, rejected = mine_patterns(captions)
        output.counts.read = len(captions)
        output.counts.written = sum(pattern.support for pattern in found)
        output.counts.unused.update(rejected)
        base = [pattern for pattern in found if pattern.support >= config.min_support]
        rng = random.Random(config.seed)
        by_rule = [variant for pattern in base for variant in vary(pattern, rng)]
        by_model = _reworded(base[: config.max_templates], config) if config.writer.variants else []
        usable, refused = _usable([(None, variant) for variant in by_rule] + by_model)
        kept, duplicates = distinct(_in_turn([*base, *usable]), known=TEMPLATES.values(), similarity=config.similarity)
        if not kept:
            raise DataError(
                f"{config.captions}: none of its {output.counts.read} captions gives a new template ({output.counts}; {duplicates} like "
                "others); lower min_support, raise similarity or limit, or give captions of more variety"
            )
        report = {
            "captions": output.counts.as_dict(),
            "patterns": {"found": len(found), "below_min_support": len(found) - len(base)},
            "variants": {"by_rule": len(by_rule), "by_model": len(by_model), "refused": refused},
            "duplicates": duplicates,
            "beyond_max_templates": max(0, len(kept) - config.max_templates),
            "templates": dict(Counter(pattern.origin for pattern in kept[: config.max_templates])),
        }
        write_json(output.folder / REPORT, report)
        write_bytes(output.folder / TEMPLATES_FILE, _as_yaml(kept[: config.max_templates]))
        output.facts.update(report)
        manifest = output.manifest()
    say(
        f"mine: {output.counts}; {len(base)} patterns, {len(by_rule)} variants by rule, {len(by_model)} by the model of which "
        f"{sum(refused.get('model', {}).values())} refused; {min(len(kept), config.max_templates)} templates -> {config.output.path}"
    )
    return manifest


def _captions(config: MineJob) -> Iterator[str]:
    left = config.limit
    for table in iter_table(config.captions, CAPTIONS, columns=["kind", "text", "status"]):
        for row in table.to_pylist():
            if row["kind"] in config.kinds and row["status"] == "ok" and left:
                left -= 1
                yield row["text"]


def _reworded(patterns: Sequence[Pattern], config: MineJob) -> list[tuple[Pattern | None, Pattern]]:
    """(pattern, the model's wording of it), unchecked."""
    import ray.data

    asked = [{"key": f"{pattern.id} {number}", "text": pattern.text} for pattern in patterns for number in range(config.writer.variants)]
    environment = engine_environment(resolve_model(config.writer.model), config.writer.engine, config.writer.pool)
    with ray_session(config.ray), ray_data_execution(no_progress_timeout_s=config.no_progress_timeout_s):
        require_resources([pool_need("writer.pool", config.writer.pool)])
        fetch_models({"writer": (config.writer, config.writer.pool)})
        worded = (
            ray.data.from_arrow(pa.Table.from_pylist(asked))
            .repartition(target_num_rows_per_block=config.writer.pool.batch_size)
            .map_batches(
                PatternWriter,
                fn_constructor_args=(config.writer,),
                runtime_env={"env_vars": environment},
                **actor_pool(config.writer.pool),
            )
        )
        texts = [text for batch in worded.iter_batches(batch_size=None, batch_format="pyarrow") for text in batch["text"].to_pylist()]
    sources = [pattern for pattern in patterns for _ in range(config.writer.variants)]
    return [(source, Pattern(text, 0, "model")) for source, text in zip(sources, texts, strict=True)]


def _usable(variants: Sequence[tuple[Pattern | None, Pattern]]) -> tuple[list[Pattern], dict[str, dict[str, int]]]:
    """Variants that pass the checks, and how many of each origin were refused by reason.

    A wording must hold the slots of the pattern it was asked for: a weak model shortens rather than rewords.
    """
    usable: list[Pattern] = []
    refused: dict[str, Counter[str]] = {}
    for source, variant in variants:
        failure = check_template(variant.text)
        code = failure.code if failure is not None else None
        if code is None and source is not None and set(SLOT_PATTERN.findall(source.text)) != set(SLOT_PATTERN.findall(variant.text)):
            code = "lost_slot"
        if code is None:
            usable.append(variant)
        else:
            refused.setdefault(variant.origin, Counter())[code] += 1
    return usable, {origin: dict(counts.most_common()) for origin, counts in refused.items()}


def _in_turn(patterns: Sequence[Pattern]) -> list[Pattern]:
    """Patterns of all origins in turn, so that a limit cuts no origin off."""
    by_origin = [list(group) for _, group in groupby(sorted(patterns, key=lambda p: p.origin), key=lambda p: p.origin)]
    longest = max(map(len, by_origin), default=0)
    return [group[place] for place in range(longest) for group in by_origin if place < len(group)]


def _wording(answer: str) -> str:
    """The line of an answer that holds the pattern, without quotes or a label."""
    line = next((line for line in answer.splitlines() if PERSON in line), answer.strip().partition("\n")[0])
    return line.strip().removeprefix("Sentence:").strip(" \"'“”*")


def _as_yaml(patterns: Sequence[Pattern]) -> bytes:
    templates = [{"id": p.id, "text": p.text, "origin": p.origin, "support": p.support} for p in patterns]
    return yaml.safe_dump({**numbered("templates"), "templates": templates}, sort_keys=False, allow_unicode=True, width=200).encode()
