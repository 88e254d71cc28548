"""Known overlap of published data sets: which holds pictures of which others, by what their authors say of them.

Provenance, not content: a release may have been cropped, scaled and numbered anew. Names are compared without case, hyphens, underscores.
"""

from __future__ import annotations

# Where a data set's pictures come from.
SOURCES: dict[str, tuple[str, ...]] = {
    "ICFG-PEDES": ("MSMT17",),
    "RSTPReid": ("MSMT17",),
    "CUHK-PEDES": ("Market-1501", "CUHK01", "CUHK03", "SSM", "VIPeR"),
    "CUHK03-detected": ("CUHK03",),
    "CUHK03-labeled": ("CUHK03",),
    "LUPerson-MLLM": ("LUPerson",),
    "SYNTH-PEDES": ("LUPerson-NL", "LPW"),
    "HAM-PEDES": ("SYNTH-PEDES", "LUPerson-NL", "LPW"),
    "Interactive-PEDES": ("CUHK-PEDES", "ICFG-PEDES", "Market-1501", "CUHK01", "CUHK03", "SSM", "VIPeR", "MSMT17"),
    "UFine3C": ("UFine6926",),  # among others: an entry's source says which
    "ITCPR": ("Celeb-reID", "PRCC", "LaST"),
}


def known_overlap(train: str, test: str) -> str | None:
    """A sentence on pictures that two data sets share, or None if nothing is known, or they are one."""
    if same_dataset(train, test):
        return None
    own = {name: {_plain(source) for source in (name, *SOURCES.get(_proper(name), ()))} for name in (train, test)}
    shared = own[train] & own[test]
    if not shared:
        return None
    names = sorted(_proper(source) for source in shared)
    if _plain(test) in shared or _plain(train) in shared:
        whole, part = (train, test) if _plain(test) in shared else (test, train)
        return f"{whole} holds pictures of {part}"
    return f"{train} and {test} both hold pictures of {', '.join(names)}"


def same_dataset(first: str, second: str) -> bool:
    """Whether two names are spellings of one."""
    return _plain(first) == _plain(second)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _proper(name: str) -> str:
    """The usual spelling of a data set's name, else the name itself."""
    usual = (*SOURCES, *(source for sources in SOURCES.values() for source in sources))
    return next((known for known in usual if _plain(known) == _plain(name)), name)
