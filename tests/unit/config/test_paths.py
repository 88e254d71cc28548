import os
from typing import Literal, get_args, get_origin

import pytest

from reid_ray.config import Section, fingerprint, load_config
from reid_ray.config.common import OutputConfig
from reid_ray.config.paths import named_places, names_place, with_absolute_places
from reid_ray.config.reference import job_model
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.errors import ConfigError
from reid_ray.jobs import JOBS
from reid_ray.model.pretrained import split_encoder
from reid_ray.serve.config import ServeJob
from reid_ray.train.dual.config import TrainJob

HOME = {"~/crops": "crops", "~": "", "/data/~/x": None, "builtin:tiny": None, "s3://bucket/~x": None, "openai/clip": None}


@pytest.mark.parametrize(("text", "below_home"), HOME.items())
def test_a_tilde_at_the_start_of_a_place_is_home(text, below_home, monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    wanted = text if below_home is None else os.path.join("/home/her", below_home).rstrip("/")
    assert SourceConfig(format="folder", path=text).path == wanted


def test_places_are_found_by_their_fields_in_lists_and_sections_and_texts_are_not_places():
    config = TrainJob.model_validate(
        {"images": {"path": "i", "train_split": "train"}, "captions": {"paths": ["a", "b"]}, "output": {"path": "o"}}
    )
    places = named_places(config, without=frozenset({"output"}))
    assert places.items() >= {"images.path": "i", "captions.paths.0": "a", "captions.paths.1": "b"}.items()
    assert not {"train", "o"} & set(places.values())


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "~nobody-of-this-name/x"])
def test_a_place_that_is_no_place_is_refused(text):
    with pytest.raises(ConfigError, match=r"output\.path"):
        load_config(SynthesizeJob, None, [f"output.path={text}"])


def test_an_output_is_absolute_and_where_its_links_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch" / "not-yet")
    for text, place in {
        "runs": "scratch/not-yet",
        "runs/a": "scratch/not-yet/a",
        "b/../c": "c",
        "~/d": "home/d",
        str(tmp_path / "runs"): "scratch/not-yet",
    }.items():
        assert OutputConfig(path=text).path == str(tmp_path / place)
    assert fingerprint(OutputConfig(path="./runs/")) == fingerprint(OutputConfig(path=str(tmp_path / "scratch" / "not-yet")))


WRITTEN = {
    "synthesize": {"output.path": []},
    "train": {"output.path": [], "schedule.checkpoint_storage": ["output.path=/shared/out"]},
    "migrate": {"path": []},
    "serve": {"state": ["index=in/index"], "access_log.path": ["index=in/index", "state=/shared/state"]},
}


@pytest.mark.parametrize(("job", "key"), [(job, key) for job, keys in WRITTEN.items() for key in keys])
def test_a_submitted_job_reads_what_came_with_it_but_does_not_write_where_ray_deletes(job, key, tmp_path, monkeypatch):
    """Ray unpacks `--working-dir .` below its session's folder, starts the job there, and deletes it when no job uses it."""
    unpacked = tmp_path / "session_2026" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    given = ["images.path=in/images", "captions.paths=[in/captions]"] * (job == "train") + WRITTEN[job][key]
    for lost in ("runs/a", "../../../../a", str(unpacked / "a")):
        with pytest.raises(ConfigError) as refused:
            load_config(job_model(job), None, [*given, f"{key}={lost}"])
        assert key in str(refused.value)
        assert "every node mounts" in str(refused.value)
    kept = load_config(job_model(job), None, [*given, f"{key}={tmp_path}/a"])
    if job == "train":
        assert kept.images.path == "in/images"
        load_config(job_model(job), None, [*given, "output.path=/shared/out", "schedule.checkpoint_storage=s3://bucket/run"])


def test_a_service_names_every_place_to_its_replicas_in_full_and_what_is_no_place_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "enc").mkdir()
    (tmp_path / "live").symlink_to("enc")
    tokens, tls = {"tokens": "../tokens"}, {"certificate": "live/c.pem", "key": "/etc/k.pem"}
    given = {
        "index": "i",
        "encoder": "enc#visual",
        "state": "s",
        "access": tokens,
        "tls": tls,
        "access_log": {"path": "logs/a"},
        "adding": {"captioner": "caption/caption.yaml"},
    }
    config = ServeJob.model_validate(given)
    places = named_places(with_absolute_places(config))
    assert places == {
        "index": f"{tmp_path}/i",
        "encoder": f"{tmp_path}/enc#visual",
        "state": f"{tmp_path}/s",
        "access.tokens": f"{tmp_path}/../tokens",
        "tls.certificate": f"{tmp_path}/live/c.pem",
        "tls.key": "/etc/k.pem",
        "access_log.path": f"{tmp_path}/logs/a",
        "adding.captioner": "caption/caption.yaml",
    }
    assert set(places) == set(named_places(config))
    at_store = config.model_copy(update={"index": "s3://bucket/i", "encoder": "openai/clip"})
    kept = named_places(with_absolute_places(at_store))
    assert (kept["index"], kept["encoder"]) == ("s3://bucket/i", "openai/clip")


def test_an_encoder_given_in_python_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert split_encoder("~/m#visual") == (tmp_path / "m", "visual")


# Texts that name no place. A new text field must be one of these, or have a type of reid_ray.config.paths.
NO_PLACES = {
    *("revision", "split", "query_split", "train_split", "val_split", "test_split", "name", "pattern", "columns", "script", "device"),
    *("regex", "grammar", "choice", "chat_template", "address", "overrides", "query", "host", "project", "mlflow_uri"),
    *("llm", "visual", "common", "specific", "LogConfig.run", "TransferCell.train", "TransferCell.test", "splits"),
    *("ReferenceFolderConfig.values", "ImagesConfig.own", "SourceConfig.own", "table_encoding", "table_key"),
    *("camera", "start", "time_format", "time_zone", "DetectorConfig.label"),
}


def _text_fields(section, seen):
    """(name, annotation, metadata) of every field whose type holds a str, over all sections below."""
    for name, field in section.model_fields.items():
        types = [field.annotation]
        while types:
            kind = types.pop()
            if isinstance(kind, type) and issubclass(kind, Section):
                if kind not in seen:
                    seen.add(kind)
                    yield from _text_fields(kind, seen)
            elif kind is str:
                yield section, name
            elif get_origin(kind) is dict:
                types.append(get_args(kind)[1])
            elif get_origin(kind) is not Literal and not isinstance(kind, str):
                types += get_args(kind)


@pytest.mark.parametrize("job", JOBS)
def test_every_text_of_a_job_names_a_place_by_its_type_or_is_known_to_name_none(job):
    untyped = {
        (section.__name__, name)
        for section, name in _text_fields(job_model(job), set())
        if not (names_place(section.model_fields[name]) or {name, f"{section.__name__}.{name}"} & NO_PLACES)
    }
    assert not untyped
