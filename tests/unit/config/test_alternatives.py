import json

import pytest
from refusals import refused

from reid_ray.config import load_config
from reid_ray.config.reference import job_model, job_of_config
from reid_ray.config.shipped import configs_folder, shipped_configs
from reid_ray.config.yaml_tree import RawScalar, read_yaml
from reid_ray.errors import ConfigError
from reid_ray.jobs import JOBS

MUST_AGREE = ("engine.tensor_parallel_size", "admit_together", "schedule.patience", "zero_stage", "time_format")


def _plain(tree):
    if isinstance(tree, RawScalar):
        return None if tree.null else tree.text
    return [_plain(each) for each in tree] if isinstance(tree, list) else {key: _plain(each) for key, each in tree.items()}


def _overrides(tree, prefix=""):
    """Every leaf of a file as an override."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            plain = _plain(value)
            text = "null" if plain is None else plain if isinstance(plain, str) else json.dumps(plain)
            yield f"{prefix}{key}={json.dumps(text) if isinstance(value, RawScalar) and value.quoted else text}"


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_what_one_shipped_configuration_says_can_be_typed_beside_any_other_of_its_job(job):
    names = [name for name in shipped_configs() if job_of_config(configs_folder() / name) == job]
    said = {name: list(_overrides(read_yaml(configs_folder() / name))) for name in names}
    for file in names:
        for other in names:
            problem = _problem(job, configs_folder() / file, said[other])
            # numbers that must agree are no alternatives: only who types them knows which is meant
            assert problem is None or any(key in problem for key in MUST_AGREE), f"{file} with what {other} says: {problem}"


def _problem(job, path, overrides):
    try:
        load_config(job_model(job), path, overrides)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("file", "override", "gone"),
    [
        ("train/train.yaml", "model.init=runs/train/model", "model.scratch"),
        ("train/train_irra_rstpreid.yaml", "model.scratch.vision_width=96", "model.init"),
        ("retrieval/index.yaml", "embeddings=[runs/embeddings]", "images"),
        ("retrieval/embed.yaml", "captions=runs/synthetic/captions", "images"),
        ("retrieval/embed_captions.yaml", "images.source=synthetic", "captions"),
        ("retrieval/evaluate.yaml", "query_embeddings=runs/queries", "captions"),
        ("retrieval/evaluate.yaml", "protocol=image_to_image", "captions"),
        ("train/train_irra_icfg_pedes.yaml", "images.val_split=val", "images.val_share"),
        ("edit/segment.yaml", "segments=runs/synthetic/segments", "images"),
        ("edit/train_editor.yaml", "model.init=runs/editor", "model.scratch"),
        ("data/ingest_cuhk03.yaml", "source.format=folder", "source.boxes"),
    ],
)
def test_an_override_of_one_alternative_takes_the_files_other_out(file, override, gone):
    path = configs_folder() / file
    model = job_model(job_of_config(path))
    node = load_config(model, path, [override])
    *sections, leaf = gone.split(".")
    for name in sections:
        node = getattr(node, name)
    field = type(node).model_fields[leaf]
    assert getattr(node, leaf) == field.get_default(call_default_factory=True)


@pytest.mark.parametrize(
    "overrides", [["model.init=a", "model.scratch.vision_width=96"], ["model={init: a}", "model.scratch={vision_width: 96}"]]
)
def test_two_alternatives_typed_together_are_refused(overrides):
    with refused(ConfigError, "model"):
        load_config(job_model("train"), configs_folder() / "train/train.yaml", overrides)


def test_null_and_nought_choose_no_alternative():
    model, path = job_model("train"), configs_folder() / "train/train.yaml"
    assert load_config(model, path, ["model.init=null", "images.val_share=0"]) == load_config(model, path)


def test_a_share_held_out_takes_the_place_of_a_split_that_validates_by_default():
    images = load_config(job_model("train"), configs_folder() / "train/train.yaml", ["images.val_share=0.2"]).images
    assert (images.val_split, images.val_share, images.watched) == (None, 0.2, "held_out")


def test_what_gives_way_is_a_key_of_its_section():
    sections, seen, declared = [job_model(job) for job in JOBS], set(), 0
    while sections:
        section = sections.pop()
        if section in seen:
            continue
        seen.add(section)
        for name, entries in section.gives_way.items():
            declared += 1
            others = [entry.removesuffix("=null") for entry in entries]
            assert {name.partition("=")[0], *others} <= section.model_fields.keys()
            assert name.partition("=")[0] not in others
        for field in section.model_fields.values():
            sections += [each for each in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(each, "gives_way")]
    assert declared > 10
