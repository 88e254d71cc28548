"""What a gallery is asked from the command line: a vector of a text, a picture or items, and the head of its answer ranked anew.

Only a text or a picture loads a model. Knows galleries and encoders; not words of the command line or printing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.nearest.hits import Found


@dataclass(frozen=True)
class Sought:
    """What is searched for: at most one of text and image, and items whose like is wanted, or not wanted.

    encoder: folder of what made the gallery's vectors; for a text or an image.
    """

    text: str | None = None
    image: str | None = None
    like: Sequence[str] = ()
    unlike: Sequence[str] = ()
    unlike_weight: float = 0.5
    encoder: str | None = None


def query_vector(view: GalleryView, sought: Sought) -> np.ndarray:
    """The unit vector of what is sought, [D].

    Raises:
        ConfigError: a text or an image without an encoder, or nothing that is searched for.
        DataError: another encoder than the gallery's, an item that it lacks, or items that cancel out.
    """
    encoded = None
    if sought.text is not None or sought.image is not None:
        encoded = _encoded(view, sought)
    elif not sought.like:
        raise ConfigError("--text, --image or --like: say what to search for; --unlike alone does not")
    return view.query_like(sought.like, sought.unlike, query_D=encoded, unlike_weight=sought.unlike_weight)


def _encoded(view: GalleryView, sought: Sought) -> np.ndarray:
    from reid_ray.data.images import decode_image
    from reid_ray.model.pretrained import load_encoder

    if sought.encoder is None:
        raise ConfigError("--encoder: a search by text or picture needs the folder of the encoder that made the vectors")
    encoder = load_encoder(sought.encoder, device="cpu", batch_size=1)
    if encoder.fingerprint != view.manifest.encoder:
        raise DataError(f"{sought.encoder}: is encoder {encoder.fingerprint}, but the gallery is of {view.manifest.encoder}; give that one")
    if sought.text is not None:
        found: np.ndarray = encoder.encode_texts([sought.text])[0]
        return found
    assert sought.image is not None
    found = encoder.encode_images([decode_image(Path(sought.image).read_bytes())])[0]
    return found


class Neighbours(Protocol):
    """Interface (protocol) of where the items of hits lie, as a re-ranking reads them."""

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As GalleryView.vectors_there."""
        ...


def reranked(view: Neighbours, query_D: np.ndarray, hits: Sequence[Found], *, k1: int = 20, k2: int = 6) -> list[Found]:
    """Hits in the order of k-reciprocal re-ranking among themselves (Zhong et al., CVPR 2017), with 1 - its distance as their score.

    Hits that are gone meanwhile are left out.

    Args:
        view: the gallery.
        query_D: what was searched for.
        hits: the head of the answer; with up to k1 of them there are no neighbours to speak of, and they stay as they are.
        k1: neighbours looked at for reciprocity.
        k2: neighbours averaged in local query expansion.
    """
    from reid_ray.retrieval.ranking.k_reciprocal import Reranker

    vector_HD, is_there = view.vectors_there([hit.item_id for hit in hits])
    there = [hit for hit, found in zip(hits, is_there, strict=True) if found]
    if len(there) <= k1:
        return there
    distance_H = Reranker(query_D[None], vector_HD[is_there], k1=k1, k2=k2).distances()[0]
    return [there[at]._replace(score=float(1 - distance_H[at])) for at in np.argsort(distance_H, kind="stable")]
