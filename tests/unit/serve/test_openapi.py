"""Whatever the service's OpenAPI allows, and whatever it forbids, is answered as it says: no fault, no status or body that it does not know."""

from __future__ import annotations

import os
import time

import httpx
import numpy as np
import pytest
import schemathesis
from bad_inputs import LIMITS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from schemathesis.generation import GenerationMode
from small_services import DIM, Reading, small_desk, small_gallery

from reid_ray.serve.api.application import make_api
from reid_ray.serve.guard import digest_of

TOKEN = "correct-horse-battery"
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class ReadsAnything(Reading):
    """Every text has a vector of its own."""

    def encode_texts(self, texts):
        drawn = [np.random.default_rng(list(text.encode("utf-8", "replace"))).normal(size=DIM) for text in texts]
        return np.stack([vector / np.linalg.norm(vector) for vector in drawn]).astype(np.float32)
