"""What keys are called: by their dotted names, unless a command has words of its own, and then until it has ended."""

import threading

import pytest
from refusals import refused

from reid_ray.config.base import Section, load_config
from reid_ray.config.called import called, keys_called
from reid_ray.errors import ConfigError


class CalledSection(Section):
    """A configuration of one key."""

    height: int = 1


def test_a_key_has_its_dotted_name_but_within_a_command_that_calls_it_otherwise():
    assert called("images.path") == "images.path"
    with keys_called(lambda key: f"index.{key}"):
        assert called("images.path") == "index.images.path"
        with keys_called({"images.path": "FOLDER"}.__getitem__):
            assert called("images.path") == "FOLDER"
        assert called("images.path") == "index.images.path"
    with pytest.raises(LookupError), keys_called(str.upper):
        raise LookupError
    assert called("images.path") == "images.path"


def test_commands_side_by_side_have_their_own_names():
    found = []

    def command(word):
        with keys_called(lambda key: f"{word}.{key}"):
            barrier.wait(10)
            found.append(called("path"))

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=command, args=(word,)) for word in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == ["a.path", "b.path"]


def test_what_was_typed_is_refused_by_its_name_and_what_a_file_holds_by_its_key(tmp_path):
    (tmp_path / "file.yaml").write_text("height: tall\n")
    with keys_called(lambda key: f"--{key}"):
        with refused(ConfigError, "the command line: --height: "):
            load_config(CalledSection, None, ["height=tall"])
        with refused(ConfigError, "file.yaml: height: "):
            load_config(CalledSection, tmp_path / "file.yaml")
