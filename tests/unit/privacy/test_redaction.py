"""What may be written down: commands without their secrets, exceptions without what they quote."""

from __future__ import annotations

import pytest

from reid_ray.redaction import HIDDEN, error_location, redacted, without_secrets, without_texts

CAPTION = "A man in a canary coat carries a green umbrella."


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("jobs/serve.py serve.token=CANARY serve.port=80", "jobs/serve.py serve.token=*** serve.port=80"),
        ("captioners.a.engine.extra.hf_token=CANARY x=1", "captioners.a.engine.extra.hf_token=*** x=1"),
        ("extra={hf_token: CANARY, max_tokens: 64}", "extra={hf_token: ***, max_tokens: 64}"),
        ("log.mlflow_uri=https://user:CANARY@host/x", "log.mlflow_uri=https://***@host/x"),
        ('extra={"hf_token": "CANARY", "eos_token": "</s>"} x.mask_token=m', 'extra={"hf_token": ***, "eos_token": "</s>"} x.mask_token=m'),
        ("path=s3://bucket/x?secret_key=CANARY&region=eu", "path=s3://bucket/x?secret_key=***&region=eu"),
        ("AWS_SECRET_ACCESS_KEY=CANARY OPENAI_API_KEY=CANARY a", "AWS_SECRET_ACCESS_KEY=*** OPENAI_API_KEY=*** a"),
        ("upload.token_env=SEARCH_TOKEN sampling.max_tokens=64 a@b.org", "upload.token_env=SEARCH_TOKEN sampling.max_tokens=64 a@b.org"),
        ("images.path=/data/key=3/token images.keys=5 monkey=6", "images.path=/data/key=3/token images.keys=5 monkey=6"),
    ],
)
def test_a_command_keeps_all_but_its_secrets(written, kept):
    assert without_secrets(written) == kept


def test_a_long_word_takes_no_longer_than_as_many_letters_in_short_ones():
    picture = "iVBORw0K" * 50_000  # pictures come as base64; the square of this would be minutes
    assert without_secrets(f"{picture} token=CANARY") == f"{picture} token={HIDDEN}"


def test_a_configuration_keeps_all_but_its_secrets():
    config = {
        "engine": {"extra": {"hf_token": "CANARY", "headers": [{"password": "CANARY"}], "token": None}},
        "sampling": {"max_tokens": 64, "token_env": "NAME", "eos_token": "</s>"},
        "uri": "postgresql://me:CANARY@host/db",
        "keys": ["a", 1, 0.5, True],
    }
    assert redacted(config) == {
        "engine": {"extra": {"hf_token": HIDDEN, "headers": [{"password": HIDDEN}], "token": None}},
        "sampling": {"max_tokens": 64, "token_env": "NAME", "eos_token": "</s>"},
        "uri": "postgresql://***@host/db",
        "keys": ["a", 1, 0.5, True],
    }


@pytest.mark.parametrize("part", [CAPTION, CAPTION[2:30], CAPTION[12:], " ".join(CAPTION.split()[2:5])])
def test_what_is_said_ends_where_a_text_is_repeated_whole_or_in_part(part):
    said = without_texts(f"bad prompt: {part} is too long", ["another text of this batch", CAPTION])
    assert said.startswith("bad prompt:")
    assert not {"canary", "umbrella", "coat"} & set(said.lower().replace(".", "").split())


def test_what_repeats_no_text_stays_as_it_is():
    said = "RuntimeError: a man in trouble, the engine core is dead"
    assert without_texts(said, ["", CAPTION]) == said
    assert without_texts("the word red is wrong", ["red"]) == "the word ..."


def test_where_an_exception_comes_from_is_told_without_its_message():
    try:
        raise ValueError(CAPTION)
    except ValueError as error:
        said = error_location(error)
    assert said.startswith("ValueError in test_redaction.py, line ")
    assert "canary" not in said
