import os

import pytest

from reid_ray.config import Section, fingerprint, load_config
from reid_ray.config.common import ImagesConfig, OutputConfig, PoolConfig
from reid_ray.errors import ConfigError


class Job(Section):
    images: ImagesConfig = ImagesConfig()
    output: OutputConfig
    pool: PoolConfig = PoolConfig()


def test_file_and_overrides_become_one_frozen_config(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("output: {path: runs/a}\npool: {replicas: 2}\n")
    job = load_config(Job, file, ["pool.batch_size=32", "output.path=runs/b"])
    assert (job.pool.replicas, job.pool.batch_size, job.output.path) == (2, 32, os.path.realpath("runs/b"))
    with pytest.raises(Exception, match="frozen"):
        job.pool.replicas = 3


class Nested(Section):
    inner: Job = Job(output=OutputConfig(path="/set/inside"), pool=PoolConfig(batch_size=32, num_cpus=2))


@pytest.mark.parametrize("override", ["inner.pool.replicas=3", "inner.pool={replicas: 3}", "inner={pool: {replicas: 3}}"])
def test_a_key_beside_one_that_is_written_keeps_what_the_section_around_says(override):
    inner = load_config(Nested, None, [override]).inner
    assert inner == Job(output=OutputConfig(path="/set/inside"), pool=PoolConfig(replicas=3, batch_size=32, num_cpus=2))


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("output: {path: a}\npool: {replica: 2}", [], ["pool.replica", "unknown key"]),
        ("output: {path: a}", ["pool.speed=9"], ["pool.speed", "unknown key"]),
        ("pool: {replicas: 2}", [], ["output", "required"]),
        ("output: {path: a}\npool: {replicas: 4, max_replicas: 2}", [], ["pool", "max_replicas 2 is below replicas 4"]),
        ("output: {path: a}\nimages: {source: folder}", [], ["images", "path is required"]),
        ("output: {path: a}\noutput: {path: b}", [], ["appears twice"]),
        ("- a\n- b", [], ["mapping"]),
        ("output: [", [], ["not valid YAML"]),
        ("output: {path: a}", ["pool"], ["section.key=value"]),
        ("output: {path: a}", ["output.path.deep=1"], ["output.path is a value"]),
        ("output: {path: a}\npool: {replicas: 0, num_cpus: -1}", [], ["pool.replicas", "pool.num_cpus"]),
    ],
)
def test_what_is_wrong_is_named_by_its_dotted_key(tmp_path, text, overrides, words):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Job, file, overrides)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(Job, tmp_path / "nowhere.yaml")


def test_fingerprint_follows_values_not_their_order():
    first = load_config(Job, None, ["output.path=a", "pool.replicas=2"])
    second = load_config(Job, None, ["pool.replicas=2", "output.path=a"])
    other = load_config(Job, None, ["pool.replicas=3", "output.path=a"])
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)
