"""How many tokens a caption has: by the tokenizer of the model to be trained, or, where none is named, at least, by its words.

Knows tokenizer files; not models, whose folder it is given. A special token spelled in a caption counts as one here and as several in
training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reid_ray.data.lint.caption_text import least_tokens
from reid_ray.data.lint.config import LintJob
from reid_ray.errors import DataError


@dataclass(frozen=True)
class TokenCounts:
    """A way to count tokens, both marks included, the number that a model reads, and words that say how they are counted."""

    count: Callable[[str], int]
    context: int
    label: str


def token_counts(config: LintJob) -> TokenCounts:
    """By config.tokenizer, else by words.

    Raises:
        DataError: the folder holds no tokenizer, or one that cannot be read.
    """
    if config.tokenizer is None:
        return TokenCounts(least_tokens, config.context, "by words, digits and marks, each a token at least")
    folder = Path(config.tokenizer)
    count = _counter(folder)
    own = config.context if "context" in config.model_fields_set else _context_of(folder) or config.context
    return TokenCounts(count, own, f"by the tokenizer in {folder.name}")


def _counter(folder: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
            fast.no_truncation()
            fast.no_padding()
            return lambda text: len(fast.encode(text).ids)
        slow = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exception
        raise DataError(
            f"{folder}: holds no tokenizer that can be read ({str(error).splitlines()[0]:.200}); set lint's tokenizer"
        ) from None
    return lambda text: len(slow(text)["input_ids"])


def _context_of(folder: Path) -> int | None:
    """The fewest of the model's positions and its tokenizer's limit, as far as the folder says."""
    model, words = (_json(folder / name) for name in ("config.json", "tokenizer_config.json"))
    text = model.get("text_config")
    said = (text.get("max_position_embeddings") if isinstance(text, dict) else None, words.get("model_max_length"))
    known = [value for value in said if isinstance(value, int) and 2 < value < 1_000_000]
    return min(known) if known else None


def _json(file: Path) -> dict[str, object]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}  # then it says nothing
    return value if isinstance(value, dict) else {}
