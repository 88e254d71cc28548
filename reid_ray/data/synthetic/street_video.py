"""Synthetic street footage: drawn people who walk past a camera, with the true box and person of each, as frames or as a video file.

Knows people as scene.py draws them, and where they walk; not who looks for them. Deterministic in every argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.scene import OVERSAMPLE, Scene
from reid_ray.data.synthetic.traits import draw_shots

_BACKDROP = 256  # height of the crops whose street is the backdrop
_SPEED = 70.0  # pixels a second that people walk: half of their height, or so
_STEP_S = 2.5  # from one person's entry to the next one's


@dataclass(frozen=True)
class StreetVideo:
    """uint8 RGB [frames, H, W, 3]; of each frame (person, (left, top, right, bottom)) of all who are at least half in view."""

    picture_FHW3: np.ndarray
    truth: tuple[tuple[tuple[int, tuple[int, int, int, int]], ...], ...]
    rate: float


def street_video(*, people: int = 3, seconds: float = 8.0, rate: float = 5.0, seed: int = 0, first: int = 0) -> StreetVideo:
    """`people` walk past, one after the other from the left and from the right, on four lanes, some eight seconds each.

    Args:
        people: how many.
        seconds: of footage.
        rate: frames a second.
        seed: of people, backdrop and grain.
        first: the first person's number, so that two cameras may see the same people.
    """
    backdrop = SyntheticConfig(identities=1, images_per_identity=1, cameras=2, height=_BACKDROP, width=_BACKDROP // 2, seed=seed)
    street_HW3 = Scene(backdrop).street(0)
    sprites = _sprites(seed, range(first, first + people))
    grain_HW3 = np.random.default_rng(seed).normal(0, 2, street_HW3.shape).astype(np.float32)
    pictures, truth = [], []
    height, width = street_HW3.shape[:2]
    for number in range(round(seconds * rate)):
        picture = street_HW3.astype(np.float32)
        seen = []
        for place in sorted(range(people), key=lambda place: place % 4):  # the nearest lane last
            sprite_HW3, mask_HW = sprites[place]
            high, wide = mask_HW.shape
            way = (number / rate - place * _STEP_S) * _SPEED / (width + wide)  # 0: enters, 1: leaves
            left = round(-wide + way * (width + wide)) if place % 2 == 0 else round(width - way * (width + wide))
            top = min(height - high - 4, 20 + 40 * (place % 4))
            x0, x1 = max(0, left), min(width, left + wide)
            if not 0 <= way <= 1 or x1 <= x0:
                continue
            shown = mask_HW[:, x0 - left : x1 - left, None]
            region = picture[top : top + high, x0:x1]
            region[:] = np.where(shown, sprite_HW3[:, x0 - left : x1 - left], region)
            if (x1 - x0) * 2 >= wide:
                seen.append((first + place, (x0, top, x1, top + high)))
        picture += np.roll(grain_HW3, 37 * number, axis=1)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        truth.append(tuple(sorted(seen)))
    return StreetVideo(np.stack(pictures), tuple(truth), rate)


def write_video(
    path: Path, video: StreetVideo, *, codec: str = "libx264", created: str | None = None, options: dict[str, str] | None = None
) -> None:
    """Encode a video by PyAV; `created` is the container's creation_time."""
    import av

    container: Any = av.open(str(path), "w", options={"movflags": "use_metadata_tags"} if path.suffix == ".mp4" else {})
    with container:
        if created is not None:
            container.metadata["creation_time"] = created
        stream = container.add_stream(codec, rate=Fraction(video.rate).limit_denominator(1000), options={"g": "10", **(options or {})})
        stream.height, stream.width = (side // 2 * 2 for side in video.picture_FHW3.shape[1:3])
        stream.pix_fmt = "yuv420p"
        for picture in video.picture_FHW3:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[: stream.height, : stream.width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _sprites(seed: int, persons: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each person, pixels uint8 [H, W, 3] and where they are the person's, bool [H, W]: cut to the person."""
    config = SyntheticConfig(identities=persons[-1] + 1, images_per_identity=1, cameras=1, height=144, width=72, seed=seed)
    shots = draw_shots(config, np.asarray(persons))
    picture_NHW3, part_NHW = Scene(config).draw_with_parts(shots)
    found = []
    for picture_HW3, part_HW in zip(picture_NHW3, part_NHW, strict=True):
        mask_HW = (part_HW[::OVERSAMPLE, ::OVERSAMPLE] > 0) & (part_HW[1::OVERSAMPLE, 1::OVERSAMPLE] > 0)
        y, x = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
        cut = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
        found.append((picture_HW3[cut], mask_HW[cut]))
    return found
