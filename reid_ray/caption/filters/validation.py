"""Rule-based caption validation: a table of rules, each with a reason code; the first that fires names the failure.

Pure text; knows how generated captions fail (copied slots, markup, refusals, rambling, other scripts, injected instructions, loops, an
echoed prompt), not who wrote them or what becomes of them. Captions enter training sets and other prompts, so a text that gives orders
or holds a link is refused however well it reads. What can be mended (lead-ins, quotes) is cleaning.py's.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from reid_ray.caption.filters.config import ValidationConfig


class Context(NamedTuple):
    """What a rule may look at beside the text."""

    config: ValidationConfig
    prompt: str | None  # what the model was asked, template included; None: unknown


class Violation(NamedTuple):
    """Why a caption is refused: a code to count by, and the words at fault."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


Rule = Callable[[str, Context], str | None]  # the detail if the rule fires, else None

_SLOT = re.compile(
    r"\[[^\]\n]{0,60}(?:description|/)[^\]\n]{0,60}\]|\bdescription\s*\]|\[(?:person|man|woman|color|colour|clothing|hair|insert)\b"
    r"|\{[a-z_]{1,30}\}|_{3,}|\bX{2,}\b"
)
_MARKUP = re.compile(r"<|&(?:lt|gt|amp|nbsp|quot);|```|[{}]|\]\(|\*\*|^#{1,6}\s|^\s*\|.*\|\s*$|\\[a-z]+\{|;\s*$|==|=>|\(\)", re.MULTILINE)
_LIST = re.compile(r"(?:^|\n)\s*(?:[-*•]|\d+[.)])\s+\S.*\n\s*(?:[-*•]|\d+[.)])\s+\S")
_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|afraid|unable|not able|just an|only an|an? (?:\w+ )?(?:ai|language model|assistant|chatbot)\b)|"
    r"i apologi[sz]e|my apologies|"
    r"as an? (?:ai|artificial|language model|large language)|"
    r"i (?:can(?:no|['’])t|can not|could not|couldn['’]t|do not|don['’]t|will not|won['’]t|am not able to) "
    r"(?:help|assist|see|describe|provide|identify|view|comply|fulfil+|have|generate|recogni[sz]e|determine|rewrite)|"
    r"(?:no|not an?) (?:image|picture|caption|text) (?:was|is|has been|were)? ?(?:provided|given|attached|shown|visible)|"
    r"unable to (?:see|view|process|describe|identify|generate|access)|(?:please|could you) (?:provide|upload|share|attach|give)|"
    r"against (?:my|our) (?:guidelines|policy|policies))",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:previous|prior|above|all|earlier|preceding|instructions?|prompts?|rules)\b|"
    r"\b(?:system|developer) (?:prompt|message)\b|\byou (?:are now|must now|should now|will now)\b|\bact as (?:an?|if)\b|"
    r"\bpretend (?:to be|you)\b|"
    r"\b(?:new|following|above|these) instructions?\b|"
    r"\b(?:reveal|print|repeat|output) (?:your|the) (?:prompt|instructions?|system|secret|password)|"
    r"\bdo (?:not|n['’]t) (?:imagine|mention|include|describe|write|use)\b|"
    r"^\s*(?:write|rewrite|generate|create|translate|summari[sz]e|classify|click|visit|subscribe|download|respond|reply|answer|"
    r"execute|run|call) "
    r"(?:a|an|the|this|that|to|with|in|here|now|your|us)\b|"
    r"(?:^|\n)\s*(?:user|human|assistant|system|instruction|instructions|prompt|input|output|question|q|a|note)\s*:|"
    r"\b(?:api|secret) key\b|\bpasswords?\b|\bjailbreak\b|\[/?inst\]",
    re.IGNORECASE,
)
# A run of characters is looked at from its beginning alone, or one without end would take the square of its length.
_LINK = re.compile(
    r"\b(?:https?|ftp)\s*:\s*//|\bwww\.\S|(?<![\w.+-])[\w.+-]+@[\w-]+\.[a-z]{2,}|(?<![\w-])[\w-]+\.(?:com|org|net|io|ru|cn|co|info|biz|xyz|gov|edu)\b|(?<!\w)[@#][a-z_]\w{2,}",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ECHO_WORDS = 8  # a run of this many words of the prompt is no coincidence


def check_caption(text: str, config: ValidationConfig, *, prompt: str | None = None) -> Violation | None:
    """The first rule that refuses `text`, or None if it is a usable caption.

    Args:
        text: a caption, cleaned or raw.
        config: limits.
        prompt: the instruction the model was given (for a rewrite, without the caption to be rewritten): copying it is a failure.
    """
    context = Context(config, prompt)
    for code, rule in RULES.items():
        detail = rule(text, context)
        if detail is not None:
            return Violation(code, " ".join(detail.split())[:120])
    return None


def words_of(text: str) -> list[str]:
    """Lower-case words of any script, without punctuation."""
    return _WORD.findall(text.lower())


def _found(pattern: re.Pattern[str]) -> Rule:
    def rule(text: str, _: Context) -> str | None:
        match = pattern.search(text)
        return None if match is None else f"{match[0].strip()[:40]!r} at character {match.start()}"

    return rule


def _empty(text: str, _: Context) -> str | None:
    return None if text.strip() else "no text"


def _markup(text: str, context: Context) -> str | None:
    return _found(_MARKUP)(text, context) or _found(_LIST)(text, context)


def _garbled(text: str, _: Context) -> str | None:
    """Replacement or control characters, or more symbols and digits than letters."""
    plain = text.isascii() and text.isprintable()
    if "\ufffd" in text or (not plain and any(unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs") and c not in "\n\r\t" for c in text)):
        return "holds replacement or control characters"
    visible = [c for c in text if not c.isspace()]
    letters = sum(map(str.isalpha, visible)) if plain else sum(unicodedata.category(c)[0] in "LM" for c in visible)
    return f"only {letters} of {len(visible)} characters are letters" if letters < 0.6 * len(visible) else None


def _other_script(text: str, context: Context) -> str | None:
    wanted = context.config.script
    letters = [c for c in text if c.isalpha()]
    if wanted is None or not letters:
        return None
    if wanted == "LATIN" and text.isascii():
        return None
    share = sum(unicodedata.name(c, "").startswith(wanted) for c in letters) / len(letters)
    return None if share >= context.config.min_script_share else f"{share:.0%} of the letters are {wanted}"


def _echo(text: str, context: Context) -> str | None:
    if context.prompt is None:
        return None
    asked = words_of(context.prompt)
    runs = {tuple(asked[i : i + _ECHO_WORDS]) for i in range(len(asked) - _ECHO_WORDS + 1)}
    said = words_of(text)
    for i in range(len(said) - _ECHO_WORDS + 1):
        if tuple(said[i : i + _ECHO_WORDS]) in runs:
            return " ".join(said[i : i + _ECHO_WORDS])
    return None


def _loop(text: str, context: Context) -> str | None:
    n, limit = context.config.loop_words, context.config.max_repeats
    words = words_of(text)
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if counts:
        gram, count = counts.most_common(1)[0]
        if count > limit:
            return f"{len(gram)} words {count} times"
    sentences = [" ".join(words_of(s)) for s in re.split(r"[.!?\n]+", text)]
    repeated = Counter(sentence for sentence in sentences if sentence.count(" ") >= 2).most_common(1)
    if repeated and repeated[0][1] >= limit:
        return f"a sentence {repeated[0][1]} times"
    run = 1
    for before, word in itertools.pairwise(words):
        run = run + 1 if word == before else 1
        if run > limit:
            return f"a word {run} times in a row"
    return None


def _too_short(text: str, context: Context) -> str | None:
    count = len(words_of(text))
    return f"{count} words" if count < context.config.min_words else None


def _too_long(text: str, context: Context) -> str | None:
    count = len(words_of(text))
    return f"{count} words" if count > context.config.max_words else None


# In order: the likeliest cause first, so that a refusal of three words counts as a refusal and not as too short.
RULES: dict[str, Rule] = {
    "empty_answer": _empty,
    "left_over_slot": _found(_SLOT),
    "refused": _found(_REFUSAL),
    "link": _found(_LINK),
    "prompt_echo": _echo,
    "instruction": _found(_INSTRUCTION),
    "markup": _markup,
    "other_script": _other_script,
    "garbled": _garbled,
    "repetition": _loop,
    "too_short": _too_short,
    "too_long": _too_long,
}
