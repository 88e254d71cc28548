"""Known overlap of published data sets: which holds pictures of which others, by what their authors say of them.

Provenance, not content: a release may have been cropped, scaled and numbered anew. Names are compared without case, hyphens, underscores.
"""

from __future__ import annotations

# Where a data set's pictures come from; what those come from in turn counts as well.
SOURCES: dict[str, tuple[str, ...]] = {
    "ICFG-PEDES": ("MSMT17",),
    "RSTPReid": ("MSMT17",),
    "CUHK-PEDES": ("Market-1501", "CUHK01", "CUHK03", "SSM", "VIPeR"),
    "CUHK03-detected": ("CUHK03",),
    "CUHK03-labeled": ("CUHK03",),
    "LUPerson": ("the videos of LUPerson",),
    "LUPerson-NL": ("the videos of LUPerson",),  # the same street views, tracked and labelled anew (Fu et al., CVPR 2022)
    "LUPerson-MLLM": ("LUPerson",),
    "SYNTH-PEDES": ("LUPerson-NL", "LPW"),
    "HAM-PEDES": ("SYNTH-PEDES",),
    "Interactive-PEDES": ("CUHK-PEDES", "ICFG-PEDES"),
    "UFine3C": ("UFine6926",),
    "ITCPR": ("Celeb-reID", "PRCC", "LaST"),
}
# Of these each picture comes from another data set, which its entry names (records.SEEN, source); above stand those that are known.
_MIXED = ("UFine3C", "ITCPR")


def known_overlap(train: str, test: str, *, train_source: str | None = None, test_source: str | None = None) -> str | None:
    """A sentence on pictures that two data sets share, or None if nothing is known, or they are one.

    Args:
        train: a data set.
        test: another.
        train_source: the data set that pictures of `train` come from by their own entries; None: whatever SOURCES says of it.
        test_source: likewise, of `test`.
    """
    if same_dataset(train, test):
        return None
    own, other = _held(train, train_source), _held(test, test_source)
    shared = own.keys() & other.keys()
    if not shared:
        return None
    for whole, part, held in ((train, test, own), (test, train, other)):
        if _plain(part) in held:
            return f"{whole} holds pictures of {part}"
    implied = {each for name in shared for each in _held(own[name], None) if each != name}
    return f"{train} and {test} both hold pictures of {', '.join(sorted(own[name] for name in shared - implied))}"


def same_dataset(first: str, second: str) -> bool:
    """Whether two names are spellings of one."""
    return _plain(first) == _plain(second)


def is_mixed(name: str) -> bool:
    """Whether a data set's entries say from which others its pictures come."""
    return any(same_dataset(name, mixed) for mixed in _MIXED)


def _held(name: str, source: str | None) -> dict[str, str]:
    """Plain spelling -> usual spelling of a data set and of all that its pictures come from."""
    found = {_plain(name): _proper(name)}
    ahead = list(SOURCES.get(_proper(name), ()) if source is None else (source,))
    while ahead:
        each = _proper(ahead.pop())
        if _plain(each) not in found:
            found[_plain(each)] = each
            ahead += SOURCES.get(each, ())
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _proper(name: str) -> str:
    """The usual spelling of a data set's name, else the name itself."""
    usual = (*SOURCES, *(source for sources in SOURCES.values() for source in sources))
    return next((known for known in usual if _plain(known) == _plain(name)), name)
