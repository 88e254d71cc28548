"""Tokenizers of the dual encoder: published ones, or a byte-level BPE trained on a data set's own captions for a model from scratch.

The trained one's marks sit where CLIP's do: start and end are the last two entries, and the end mark pads, because transformers' CLIP
pools the text at the first end mark. Byte-level: any text has tokens, emoji and other scripts too, and there is no unknown token.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.model.plain_text import plain_tokens

# Kept in tokenizer_config.json, so that a tokenizer pads alike wherever it is loaded.
_PADS = "pads_to_context"
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, context: int) -> Any:
    """Train on `texts`; the same texts give the same tokenizer.

    Returns:
        A transformers fast tokenizer of at most `vocab_size` entries that lower-cases, adds both marks and cuts at `context` tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False, special_tokens=[]
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([START, END])
    start, end = bpe.token_to_id(START), bpe.token_to_id(END)
    bpe.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=END, model_max_length=context, padding_side="right"
    )


def open_tokenizer(folder: Path, *, pads_to_context: bool) -> Any:
    """The transformers tokenizer in `folder`.

    Args:
        folder: holds tokenizer.json, or vocab.json with merges.
        pads_to_context: whether the model's text tower wants every text padded to its full context (SigLIP's). tokenizer.json is then read
            as it stands: transformers' SigLIP class would take the SentencePiece file beside it, which cannot say which characters a token
            covers.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = (PreTrainedTokenizerFast if pads_to_context else AutoTokenizer).from_pretrained(folder)
    if pads_to_context:
        tokenizer.init_kwargs[_PADS] = True
    return tokenizer


def refuse_lost_end(tokenizer: Any, model: Any, *, origin: Path) -> None:
    """Refuse a tokenizer whose end mark a cut text loses, or that the model would not find: it would be read at another token, silently.

    Raises:
        DataError: says which of the two, and names `origin`.
    """
    ids, end = plain_tokens(tokenizer, ["a man in red " * 16], truncation=True, max_length=8)["input_ids"][0], tokenizer.eos_token_id
    if end is None or ids[-1] != end:
        raise DataError(
            f"{origin}: its tokenizer does not end a text that is cut with its end mark ({tokenizer.eos_token}), where the model reads it; "
            "take the tokenizer of the model's own release (model.tokenizer)"
        )
    sought = model.config.text_config.eos_token_id
    # 2 stands in old configurations of CLIP and means the highest id of a text
    if not pads_to_context(tokenizer) and sought not in (end, 2):
        raise DataError(
            f"{origin}: its end mark has the id {end}, but the model is read at {sought} (text_config.eos_token_id); take the tokenizer of "
            "the model's own release (model.tokenizer)"
        )


def pads_to_context(tokenizer: Any) -> bool:
    """Whether texts are padded to the model's context rather than to the longest of a batch."""
    return bool(tokenizer.init_kwargs.get(_PADS, False))
