"""Whatever the service's OpenAPI allows, and whatever it forbids, is answered as it says: no fault, and no status or body unknown to it.

Schemathesis draws the requests. What only a gallery can know, such as the names of its columns, is no matter of a schema: what is allowed
may still be refused with a sentence.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import schemathesis
from bad_inputs import LIMITS, png
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from small_services import DIM, Reading, small_gallery
from whole_services import service

pytestmark = pytest.mark.slow

REFUSALS = [400, 401, 403, 404, 405, 409, 413, 415, 422]


class ReadsAnything(Reading):
    """Every text has a vector of its own."""

    def encode_texts(self, texts):
        drawn = [np.random.default_rng(list(text.encode("utf-8", "replace"))).normal(size=DIM) for text in texts]
        return np.stack([vector / np.linalg.norm(vector) for vector in drawn]).astype(np.float32)

    def encode_images(self, pictures):
        return self.encode_texts([str(np.asarray(picture).mean()) for picture in pictures])


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """What the application's own OpenAPI offers, changes too."""
    folder = tmp_path_factory.mktemp("asked")
    small_gallery(folder / "gallery")
    with service(folder, encoder=ReadsAnything()) as (replica,):

        async def from_this_machine(scope, receive, send):
            headers = [(b"host", b"localhost"), *(each for each in scope["headers"] if each[0] != b"host")]
            await replica.api({**scope, "headers": headers, "client": ("127.0.0.1", 5)}, receive, send)

        config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
        schema = schemathesis.openapi.from_asgi("/openapi.json", from_this_machine, config=config)
        yield [found.ok() for found in schema.get_all_operations()]


# 503 is an answer: so many jobs may wait. That nothing else at or above 500 is given is asserted of the statuses.
UNKNOWABLE = [checks.positive_data_acceptance, checks.not_a_server_error]
# Names that this gallery has, in the place of drawn ones, which it cannot have.
KNOWN = {
    "image": [png(8, 16)],
    "question": '{"k": 3}',
    "where": {"camera_id": [2]},
    "one_per": "person_id",
    "cursor": None,
    "columns": ["camera_id"],
    "item_id": "3",
    "item_ids": ["nobody"],
}


def of_the_gallery(value):
    """A drawn body that this gallery and this service's limits can answer: what else it asks for stays as it is drawn."""
    if isinstance(value, list):
        return [of_the_gallery(each) for each in value]
    if not isinstance(value, dict):
        return value
    known = {name: KNOWN[name] if name in KNOWN and each is not None else of_the_gallery(each) for name, each in value.items()}
    known |= {name: min(known[name], LIMITS.max_k) for name in ("k", "rerank") if isinstance(known.get(name), int)}
    if {"table", "caption"} & known.keys():
        return {"image": KNOWN["image"]}
    if {"item_ids", "expect", "request"} & known.keys():
        known |= {"item_ids": KNOWN["item_ids"], "where": None, "expect": None}
    if {"text", "clues", "item_id"} & known.keys():
        text = str(known.get("text") or "")[: LIMITS.max_text_chars].strip()
        known |= {"text": text, "clues": []} if text else {"text": None, "clues": [{"text": "3", "weight": 0.5}, {"item": "4"}]}
    return known


def answers(operation, mode, number, of, *, known=False):
    """Statuses of the answers to so many requests; a check that fails raises."""
    seen = Counter()

    @seed(of)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        if known and isinstance(case.body, dict):
            case.body = of_the_gallery(case.body)
        if known and "id" in (case.query or {}):
            case.query = {"id": "3"}
        reply = case.call()
        seen[reply.status_code] += 1
        any_bytes = case.media_type == "multipart/form-data"  # of a picture: what was drawn as a number comes as bytes like any others
        case.validate_response(reply, excluded_checks=[*UNKNOWABLE, checks.negative_data_rejection] if known or any_bytes else UNKNOWABLE)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "nothing can be asked wrongly of a route without a parameter"
    return seen


def answered(seen):
    return seen[200] + seen[202] + seen[204]


def asked_of_all(operations, number, of):
    total = Counter()
    for operation in operations:
        allowed = answers(operation, GenerationMode.POSITIVE, number, of, known=True)
        for _ in range(120):
            if answered(allowed) or not allowed[503]:
                break
            time.sleep(1)  # as many jobs wait as may, those of the questions before
            allowed += answers(operation, GenerationMode.POSITIVE, 6, of, known=True)
        assert "{" in operation.path or answered(allowed) or operation.path == "/v1/login", f"{operation.label} answers nothing: {allowed}"
        total += allowed + answers(operation, GenerationMode.POSITIVE, number, of) + answers(operation, GenerationMode.NEGATIVE, number, of)
    return total


def test_what_is_asked_by_the_openapi_or_against_it_is_answered_as_it_says(operations):
    total = asked_of_all(operations, 6, 0)
    assert min(total[200], total[422]) > 20
    assert {status for status in total if status >= 500} <= {503}


@pytest.mark.soak("openapi")
@pytest.mark.parametrize("of", range(1, 6))
def test_so_are_thousands_of_questions(operations, of):
    total = asked_of_all(operations, 200, of)
    assert min(total[200], total[422]) > 500
    assert {status for status in total if status >= 500} <= {503}
