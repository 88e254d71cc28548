"""What a batch of a size takes, learnt from the last ones: by it a search is told that it would wait too long.

A batch of 32 takes far less than 32 alone, so that an average of all, after a quiet spell, would refuse what could be answered in time.
Knows sizes and seconds.
"""

from __future__ import annotations

_CLASSES = 20
_LEARNING = 0.5  # how much the last batch of a class counts in its moving average: under load it soon takes twice as long
_TIMES_THE_LAST = 4.0  # at most so much longer than the last batch of a class is the next believed to take


class BatchTimes:
    """Moving averages by classes of size: 1, 2, 3 to 4, 5 to 8 and so on."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._told = [0.0] * (_CLASSES + 1)  # by class: worked out once a batch, asked for twice a request

    def learn(self, size: int, seconds: float) -> None:
        """Take a batch into account."""
        of = _class_of(size)
        known = self._seconds.get(of, seconds)
        # The first search of a process may take seconds (kernels are compiled, pages read): it says nothing of the next.
        self._seconds[of] = min(known + _LEARNING * (seconds - known), _TIMES_THE_LAST * seconds)
        self._told = [self._of_class(each) for each in range(_CLASSES + 1)]

    def of(self, size: int) -> float:
        """Seconds, about; 0 before anything is known.

        A class that was not seen yet is taken to last as long as the largest smaller one: nobody is refused on a guess. None lasts longer
        than a smaller one as many times over as it is larger, so that a class that was slow once, and is refused since, is tried again.
        """
        return self._told[min(_class_of(size), _CLASSES)]

    def _of_class(self, of: int) -> float:
        smaller = {each: seconds for each, seconds in self._seconds.items() if each < of}
        seen = self._seconds.get(of)
        if seen is None:
            if smaller:
                return smaller[max(smaller)]
            return min(self._seconds.values(), default=0.0)
        return min([seen, *(seconds * 2 ** (of - each) for each, seconds in smaller.items())])


def _class_of(size: int) -> int:
    return (size - 1).bit_length()
