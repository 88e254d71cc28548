"""Fast shrinking: a picture of which the model is to see fewer pixels, in a third of Pillow's time.

Knows pixels; not captions. A JPEG that is twice as large or more is decoded at a half, a quarter or an eighth of its size (libjpeg's scaled
decoding, `draft` in Pillow); what is left to shrink is resized by torch's antialiased bicubic filter, of the same kernel as Pillow's and
with vector instructions. Both run outside the interpreter's lock.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from reid_ray.data.images import decode_image, side_at_most


def decode_at_most(data: bytes | None, *, max_side: int, max_pixels: int, unread: str | None) -> Image.Image:
    """A picture whose longer side has at most `max_side` pixels.

    Args:
        data: the file's bytes.
        max_side: pixels.
        max_pixels: an image whose header claims more is not decoded.
        unread: why there are no bytes, as decode_image takes it.

    Raises:
        BadImageError: as decode_image.
    """
    return _shrunk(decode_image(data, max_pixels=max_pixels, unread=unread, enough_side=max_side), max_side)


def _shrunk(picture: Image.Image, max_side: int) -> Image.Image:
    if max(picture.size) <= max_side:
        return picture
    import torch

    width, height = side_at_most(picture.size, max_side)
    # Batch and channels are given their places so that torch sees interleaved pixels as such; a new first axis after the turn would not do.
    image_1CHW = torch.from_numpy(np.array(picture))[None].permute(0, 3, 1, 2)
    small_1Chw = torch.nn.functional.interpolate(image_1CHW, size=(height, width), mode="bicubic", antialias=True)
    return Image.fromarray(small_1Chw[0].permute(1, 2, 0).contiguous().numpy())
