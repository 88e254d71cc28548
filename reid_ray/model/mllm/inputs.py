"""Chat inputs: pictures, captions and instructions -> token ids, attention masks and labels, through the processor's own chat template.

A turn is what is shown (a picture, or a caption) followed by an instruction; the answer follows as the assistant's. What is shown comes
first, so that in a causal model its hidden states cannot depend on the instruction. A special token spelt in a caption, an instruction or
an answer is text (see plain_text.py). Knows chat and tokens; not models or losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from reid_ray.errors import DataError
from reid_ray.model.mllm.families import family_of_processor
from reid_ray.model.mllm.forward import IGNORED, PICTURE_INPUTS
from reid_ray.model.plain_text import chat_tokens, plain_text

_PROBE = "A person."


@dataclass(frozen=True)
class Turns:
    """A batch of A tokenised chat turns, padded on the right to the longest.

    input_ids, attention_mask: [A, T].
    shown: [A, T], whether a token is of what is shown: an image token that sees the picture (not padding alone), or one of the caption.
    labels: [A, T], the token where it belongs to the answer or ends it, else IGNORED.
    pictures: what the visual encoder reads, if pictures are shown.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    shown: torch.Tensor
    labels: torch.Tensor
    pictures: dict[str, torch.Tensor]


class Chat:
    """Writes turns as one processor's chat template has them.

    Args:
        processor: a transformers processor with a chat template.
        context: tokens that the language model reads.
        origin: names the processor in errors.

    Raises:
        ConfigError: the processor is of no family.
        DataError: it has no chat template, or one that does not put the answer after the turn.
    """

    def __init__(self, processor: Any, *, context: int, origin: str = "processor") -> None:
        self.processor, self.context = processor, context
        self._tokenizer, self._family = processor.tokenizer, family_of_processor(processor, origin=origin)
        # What stands for a picture, if only between the processor's own hands.
        self._marks = [mark for name, mark in vars(processor).items() if name.endswith("_token") and isinstance(mark, str)]
        if not getattr(processor, "chat_template", None):
            raise DataError(f"{origin}: has no chat template; copy chat_template.jinja of the model's own repository into the folder")
        turn = self._turn(_image_part(), "Continue.")
        whole = self._render([turn, _message("assistant", [_text_part(_PROBE)])])
        asked = self._render([turn], generate=True)
        if not whole.startswith(asked) or _PROBE not in whole[len(asked) :]:
            raise DataError(f"{origin}: its chat template does not put the assistant's answer behind the turn that asks for it")
        rest = whole[len(asked) :]
        # What the template puts between turn and answer (LLaVA: a blank), and what ends an answer.
        self._before, tail = rest[: rest.index(_PROBE)], rest[rest.index(_PROBE) + len(_PROBE) :]
        end = self._tokenizer.eos_token
        self._end = tail[: tail.index(end) + len(end)] if end in tail else end
        caption = self._render([self._turn(_text_part(_PROBE), "Continue.")])
        # How far into a turn a caption starts: its own words may stand in the template too.
        self._caption_at = caption.index(_PROBE)

    def picture_turns(self, pictures: Sequence[Image.Image], instructions: Sequence[str], answers: Sequence[str] | None = None) -> Turns:
        """Turns with a picture each.

        Args:
            pictures: A RGB pictures of any size.
            instructions: what follows each picture.
            answers: what the model is to say; None asks without an answer, and nothing is labelled.
        """
        asked = [self._render([self._turn(_image_part(), text)], generate=True) for text in instructions]
        whole = self._with_answers(asked, answers)
        given = self.processor(text=whole, images=list(pictures), padding=False, add_special_tokens=self._special(whole))
        answer_tokens = [len(self._tokens(text)) - self._prefix(text, prompt) for text, prompt in zip(whole, asked, strict=True)]
        rows = [torch.as_tensor(row) for row in given["input_ids"]]
        shown = [self._sees(row, picture) for row, picture in zip(rows, pictures, strict=True)]
        seen = {name: given[name] for name in PICTURE_INPUTS if name in given}
        # One processor gives a tensor where another gives a list of them.
        inputs = {name: value if isinstance(value, torch.Tensor) else torch.stack(list(value)) for name, value in seen.items()}
        return self._pad(rows, shown, answer_tokens, inputs)

    def caption_turns(self, captions: Sequence[str], instructions: Sequence[str], answers: Sequence[str] | None = None) -> Turns:
        """Turns with a caption each, on a line of its own, then the instruction; arguments as in picture_turns."""
        captions = [self._plain(caption.strip()) for caption in captions]
        asked = [
            self._render([self._turn(_text_part(f"{caption}\n"), text)], generate=True)
            for caption, text in zip(captions, instructions, strict=True)
        ]
        whole = self._with_answers(asked, answers)
        rows, shown, answer_tokens = [], [], []
        for text, prompt, caption in zip(whole, asked, captions, strict=True):
            first = self._caption_at
            if not prompt.startswith(caption, first):
                raise DataError(f"the chat template does not show a caption as it is written: {caption[:60]!r}")
            tokens = chat_tokens(self._tokenizer, text, return_offsets_mapping=True, add_special_tokens=self._special([text]))
            rows.append(torch.tensor(tokens["input_ids"]))
            of_caption = [start < first + len(caption) and end > first for start, end in tokens["offset_mapping"]]
            shown.append(torch.tensor(of_caption))
            answer_tokens.append(len(rows[-1]) - self._prefix(text, prompt))
        return self._pad(rows, shown, answer_tokens, {})

    def fit(self, caption: str) -> tuple[str, int]:
        """The caption, as far as a turn without an instruction has room for it, and how many of its tokens were cut off."""
        caption = self._plain(caption.strip())
        room = self._room
        if len(caption.encode()) <= room or room <= 0:  # no token is less than a byte
            return caption, 0
        tokens = chat_tokens(self._tokenizer, caption, return_offsets_mapping=True, add_special_tokens=False)
        over = len(tokens["input_ids"]) - room
        return (caption, 0) if over <= 0 else (caption[: tokens["offset_mapping"][room - 1][1]], over)

    @cached_property
    def _room(self) -> int:
        # The probe's own tokens are left free, for what a cut joins or splits.
        return self.context - len(self._tokens(self._render([self._turn(_text_part(f"{_PROBE}\n"), "")], generate=True)))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(chat_tokens(self._tokenizer, self._plain(text), add_special_tokens=False)["input_ids"])

    def _sees(self, row_T: torch.Tensor, picture: Image.Image) -> torch.Tensor:
        """Which tokens are image tokens that see the picture, bool [T]."""
        image_T = row_T == self.processor.image_token_id
        sees_N = self._family.sees(self.processor, *picture.size)
        return image_T if sees_N is None else image_T.masked_scatter(image_T, sees_N)

    def _turn(self, shown: dict[str, str], instruction: str) -> dict[str, Any]:
        return _message("user", [shown, _text_part(self._plain(instruction))])

    def _plain(self, text: str) -> str:
        """What a person or a model wrote, so that none of it is a mark of the chat."""
        return plain_text(self._tokenizer, text, marks=self._marks)

    def _render(self, messages: list[dict[str, Any]], *, generate: bool = False) -> str:
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False))

    def _with_answers(self, asked: list[str], answers: Sequence[str] | None) -> list[str]:
        if answers is None:
            return asked
        return [f"{prompt}{self._before}{self._plain(answer.strip())}{self._end}" for prompt, answer in zip(asked, answers, strict=True)]

    def _special(self, texts: Sequence[str]) -> bool:
        """Whether the tokenizer still has to add its mark of the beginning: some templates write it themselves."""
        start = self._tokenizer.bos_token
        return start is None or not texts[0].startswith(start)

    def _tokens(self, text: str) -> list[int]:
        return list(chat_tokens(self._tokenizer, text, add_special_tokens=self._special([text]))["input_ids"])

    def _prefix(self, text: str, prompt: str) -> int:
        """Tokens of `prompt`, which must be the first of `text` too: what is asked is asked in the same tokens when nothing is answered."""
        asked, whole = self._tokens(prompt), self._tokens(text)
        if whole[: len(asked)] != asked:
            raise DataError(f"the tokenizer joins the prompt's end to the answer's start in {text[-120:]!r}, so no label mask fits")
        return len(asked)

    def _pad(
        self, rows: list[torch.Tensor], shown: list[torch.Tensor], answer_tokens: list[int], pictures: dict[str, torch.Tensor]
    ) -> Turns:
        pad_id = self._tokenizer.pad_token_id
        longest = max(len(row) for row in rows)
        if longest > self.context:
            raise DataError(f"a turn has {longest} tokens, but the model reads {self.context}; shorten captions or lower max_pixels")
        labels = [
            torch.where(torch.arange(len(row)) >= len(row) - count, row, torch.full_like(row, IGNORED))
            for row, count in zip(rows, answer_tokens, strict=True)
        ]
        stack = torch.nn.utils.rnn.pad_sequence
        lengths = torch.tensor([len(row) for row in rows])
        return Turns(
            input_ids=stack(rows, batch_first=True, padding_value=self._tokenizer.eos_token_id if pad_id is None else pad_id),
            attention_mask=(torch.arange(longest) < lengths[:, None]).long(),
            shown=stack(shown, batch_first=True, padding_value=False),
            labels=stack(labels, batch_first=True, padding_value=IGNORED),
            pictures=pictures,
        )


def _message(role: str, content: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _image_part() -> dict[str, str]:
    return {"type": "image"}


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
