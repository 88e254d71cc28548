"""An encoder that anybody can follow: a picture's vector is its mean colours in a grid, a text's is that of the colour that it names."""

import hashlib
import io

import numpy as np
from PIL import Image

DIM = 12


class PlainEncoder:
    dim, context, reads_texts, fingerprint = DIM, 77, True, "plain"

    def encode_images(self, pictures):
        rows = [np.asarray(each.convert("RGB").resize((2, 2), Image.Resampling.BOX), np.float32).reshape(-1) - 127.3 for each in pictures]
        return _unit(np.stack(rows))

    def encode_texts(self, texts):
        return self.encode_images([picture_of(text) for text in texts])

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts], np.int64)


def picture_of(name):
    """A picture of 8 x 8 pixels, of four colours that its name decides."""
    digest = np.frombuffer(hashlib.sha256(str(name).encode()).digest()[:12], np.uint8).reshape(2, 2, 3)
    return Image.fromarray(digest).resize((8, 8), Image.Resampling.NEAREST)


def png_of(name):
    """The same as a file."""
    file = io.BytesIO()
    picture_of(name).save(file, "PNG")
    return file.getvalue()


def vector_of(name):
    """The vector of that picture."""
    return PlainEncoder().encode_images([picture_of(name)])[0]


def _unit(vector_ND):
    return (vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)).astype(np.float32)
