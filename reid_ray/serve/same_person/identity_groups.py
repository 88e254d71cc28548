"""From decisions to identities: which pictures are one person, which are not, and where decisions contradict each other.

Pure: decisions in, groups out. An image starts as its table has it, as a part of its identity (or track), or alone; "same" joins, "out"
takes an image out of all that it was joined to before, of two decisions about one pair the later holds, an undone one never was. Costs
some microseconds a decision, whatever the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reid_ray.serve.same_person.decision_log import Decision

Node = tuple[str, str | None, int | str]  # ("image", None, id), ("person", data set, number) or ("track", None, name)


@dataclass(frozen=True)
class KnownImage:
    """What a table says of an image. A track holds only where the person is not known."""

    image_id: str
    dataset: str | None = None
    person_id: int | None = None
    track: str | None = None

    @property
    def node(self) -> Node:
        """What it is a part of before any decision."""
        if self.person_id is not None:
            return ("person", self.dataset, self.person_id)
        return ("track", None, self.track) if self.track is not None else ("image", None, self.image_id)


class IdentityGroups:
    """Groups of images by the decisions so far.

    Args:
        images: every image that a decision names, and any others; a decision about an image that is not here is left out.
        decisions: in their order.
    """

    def __init__(self, images: Iterable[KnownImage], decisions: Sequence[Decision]) -> None:
        self._known = {image.image_id: image for image in images}
        self._parent: dict[Node, Node] = {}
        undone = {decision.of for decision in decisions if decision.says == "undo"}
        standing = [decision for decision in decisions if decision.number not in undone and set(decision.images) <= self._known.keys()]
        self.out = {decision.images[0]: decision.number for decision in standing if decision.says == "out" and decision.images}
        pairs: dict[tuple[str, str], Decision] = {}
        for decision in standing:
            if decision.says in ("same", "different", "skip") and len(decision.images) == 2:
                first, second = sorted(decision.images)
                if decision.number > max(self.out.get(first, 0), self.out.get(second, 0)):
                    pairs[first, second] = decision
        self.skipped = {pair for pair, decision in pairs.items() if decision.says == "skip"}
        for (first, second), decision in pairs.items():
            if decision.says == "same":
                self._join(self.node_of(first), self.node_of(second))
        self._apart: set[frozenset[Node]] = set()
        self.contradicted: set[Node] = set()  # groups of which two images were said to be different
        for (first, second), decision in pairs.items():
            if decision.says == "different":
                roots = frozenset((self.group_of(first), self.group_of(second)))
                if len(roots) == 1:
                    self.contradicted |= roots
                else:
                    self._apart.add(roots)

    def node_of(self, image_id: str) -> Node:
        """What an image is a part of: itself, once it was taken out."""
        return ("image", None, image_id) if image_id in self.out else self._known[image_id].node

    def group_of(self, image_id: str) -> Node:
        """The group of an image; equal for images of one person."""
        return self._find(self.node_of(image_id))

    def root_of(self, node: Node) -> Node:
        """The group of what images are a part of, such as an identity of the table."""
        return self._find(node)

    def are_same(self, first: str, second: str) -> bool:
        """Whether two images are of one group."""
        return self.group_of(first) == self.group_of(second)

    def are_apart(self, first: str, second: str) -> bool:
        """Whether it was said of two images, or of any two of their groups, that they are different."""
        return frozenset((self.group_of(first), self.group_of(second))) in self._apart

    def numbers(self, first_new: int) -> dict[Node, int]:
        """A person_id for each group that decisions, or the table, made: its smallest number in the table, else new ones in order of ids.

        A group of several data sets' persons gets a new number, for numbers of one may be others' in the next.

        Args:
            first_new: above every person_id of the table.
        """
        persons: dict[Node, set[tuple[str | None, int]]] = {}
        new: dict[Node, str] = {}
        joined = {self._find(node) for node in self._parent}
        for image_id in sorted(self._known):
            node = self.node_of(image_id)
            root = self._find(node)
            if node[0] == "person":
                persons.setdefault(root, set()).add((node[1], int(node[2])))
            elif root in joined or node[0] == "track":
                new.setdefault(root, image_id)
        found: dict[Node, int] = {}
        for root, numbers in persons.items():
            if len({dataset for dataset, _ in numbers}) == 1:
                found[root] = min(number for _, number in numbers)
        for root in sorted((new.keys() | persons.keys()) - found.keys(), key=str):
            found[root] = first_new
            first_new += 1
        return found

    def _find(self, node: Node) -> Node:
        while (above := self._parent.get(node, node)) != node:
            self._parent[node] = node = self._parent.get(above, above)
        return node

    def _join(self, first: Node, second: Node) -> None:
        self._parent.setdefault(first, first)
        self._parent.setdefault(second, second)
        low, high = sorted((self._find(first), self._find(second)), key=str)
        self._parent[high] = low
