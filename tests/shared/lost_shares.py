"""Shares of a gallery that can be lost, as those on a node that is gone, and come back."""

from reid_ray.gallery.shards.one_share import Shard, ShardLostError


class Losable(Shard):
    """A share that does not answer while `lost` is set."""

    lost = False

    def look(self):
        return self._found(super().look)

    def advance(self, position):
        return self._found(super().advance, position)

    def ask(self, *question):
        return self._found(super().ask, *question)

    def _found(self, call, *words):
        if self.lost:
            raise ShardLostError("gone")
        return call(*words)
