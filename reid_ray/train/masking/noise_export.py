"""Export of noise levels to a Parquet table: one row per caption, its words and tokens with their levels.

Knows a store, a tokenizer and texts; not models or training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.model.plain_text import plain_texts, plain_tokens
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.masking.noise_aware import real_tokens, vocabulary_of
from reid_ray.train.masking.noise_store import NoiseStore, decode
from reid_ray.versions import stamp

NOISE = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # row of the store: samples first, then their rewrites
        pa.field("text", pa.string(), nullable=False),
        pa.field("tokens", pa.list_(pa.string()), nullable=False),  # the vocabulary's entries, cut at the model's context
        pa.field("token_noise", pa.list_(pa.float32()), nullable=False),  # r = 1 - best cosine with a patch, in [0, 2]
        pa.field("words", pa.list_(pa.string()), nullable=False),  # the text at white space; a word beyond the context has noise null
        pa.field("word_noise", pa.list_(pa.float32()), nullable=False),  # mean over the word's tokens
    ],
    metadata=stamp("noise"),
)


def write_noise(
    folder: Path, store: NoiseStore, texts_of: Callable[[np.ndarray], Sequence[str]], tokenizer: Any, *, context: int, batch: int = 2048
) -> Counts:
    """Write the rows that lie with this worker to `folder`/rank-NNNNN.

    Args:
        folder: of the whole table; every worker adds a folder of its own.
        store: this worker's levels.
        texts_of: rows of the store -> their texts.
        tokenizer: the one that was trained with.
        context: tokens per text at most, as in training.
        batch: rows at a time.

    Returns:
        Rows read, written, and failed: not_seen (no level was ever computed), other_tokens (the tokens are not those of training).
    """
    counts, rows = Counts(), store.rows()
    with TableWriter(folder / f"rank-{store.rank:05d}", NOISE) as writer:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            lines = _lines(part, texts_of(part), decode(store.read(part)), tokenizer=tokenizer, context=context, counts=counts)
            writer.append(pa.Table.from_pylist(lines, schema=NOISE))
            counts.read += len(part)
            counts.written += len(lines)
    return counts


def words_with_noise(text: str, spans: Sequence[tuple[int, int]], noise: Sequence[float]) -> tuple[list[str], list[float | None]]:
    """The words of `text` (split at white space) and the mean noise of the tokens that touch each.

    Args:
        text: the caption.
        spans: first and last (exclusive) character of each token; may include the white space before a word.
        noise: of each token.
    """
    words, levels = [], []
    for match in re.finditer(r"\S+", text):
        touching = [level for (first, last), level in zip(spans, noise, strict=True) if first < match.end() and last > match.start()]
        words.append(match.group())
        levels.append(float(np.mean(touching)) if touching else None)
    return words, levels


def _lines(
    rows: np.ndarray, texts: Sequence[str], noise_NT: np.ndarray, *, tokenizer: Any, context: int, counts: Counts
) -> list[dict[str, Any]]:
    lines, vocabulary = [], vocabulary_of(tokenizer)
    texts = plain_texts(tokenizer, texts)  # what was trained on, and what the offsets count in
    tokenised = plain_tokens(tokenizer, texts, truncation=True, max_length=context, return_offsets_mapping=True)
    for n, (row, text) in enumerate(zip(rows, texts, strict=True)):
        ids = np.array(tokenised["input_ids"][n])
        real = real_tokens(ids[None], vocabulary)[0]
        known = ~np.isnan(noise_NT[n])
        if not known.any():
            counts.unused["not_seen"] += 1
            continue
        if not np.array_equal(np.flatnonzero(known), np.flatnonzero(real)):
            counts.unused["other_tokens"] += 1
            continue
        noise = noise_NT[n][known].tolist()
        spans = [span for span, is_real in zip(tokenised["offset_mapping"][n], real, strict=True) if is_real]
        words, levels = words_with_noise(text, spans, noise)
        lines.append(
            {
                "row": int(row),
                "text": text,
                "tokens": tokenizer.convert_ids_to_tokens(ids[real].tolist()),
                "token_noise": noise,
                "words": words,
                "word_noise": levels,
            }
        )
    return lines
