"""The search of a user's crops: what her command line means, and what she is told before and after."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused
from small_galleries import make_gallery

from reid_ray.config import load_config
from reid_ray.config.shipped import find_config
from reid_ray.demo.first_search import job
from reid_ray.demo.first_search.command_line import changes_of, parsed, split_words
from reid_ray.demo.first_search.config import SearchJob
from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.retrieval.encoder_identity import knows_drawn_people_only
from reid_ray.model.pretrained import encoder_folder
from reid_ray.records import SEEN_FILE
from reid_ray.serve.process.http_thread import bound_socket

TEXT_SCORES = ("R@1", "mAP", "chance")


def configured(*overrides):
    return load_config(SearchJob, find_config("search.yaml"), list(overrides))


@pytest.mark.parametrize("folder", ["/data/crops #2", "/data/[2024], {a}: 'b' \"c\"", "0012", "null", "/data/\u00e9\\n"])
def test_the_users_crops_are_the_folder_that_was_named(folder):
    assert configured(*changes_of(folder, None, None)).index.images.path == folder


def test_the_first_word_is_a_folder_unless_it_sets_a_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert split_words(["crops", "serve.serve.port=0"]) == ("crops", ["serve.serve.port=0"])
    assert split_words(["serve.serve.port=0"]) == (None, ["serve.serve.port=0"])
    assert split_words(["a=b"]) == ("a=b", [])
    assert split_words([]) == (None, [])


def test_options_and_keys_come_in_any_order():
    for line in ("crops --out g --encoder e a=1 b=2", "--encoder e crops a=1 --out g b=2", "crops a=1 b=2 --out g --encoder e"):
        found = parsed(line.split(), "", "reid-ray search")
        assert (found.words, found.out, found.encoder) == (["crops", "a=1", "b=2"], "g", "e")


def test_encoder_and_place_are_those_that_were_named_and_the_service_searches_that_place(tmp_path):
    config = configured(*changes_of("crops", "runs/train/model", str(tmp_path / "g")))
    assert (config.index.encoder, config.index.output.path, config.serve.index) == ("runs/train/model", *2 * [str(tmp_path / "g")])
    with refused(ConfigError, "serve.index", "runs/search", "runs/another"):
        configured("index.output.path=runs/another")


def test_a_port_that_is_taken_is_told_before_anything_is_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "run_index", lambda _, **__: pytest.fail("it was embedded first"))
    with bound_socket("127.0.0.1", 0) as taken, refused(ConfigError, "serve.port", str(taken.getsockname()[1])):
        job.run_search(configured(f"serve.serve.port={taken.getsockname()[1]}"))


def searched(tmp_path, *overrides):
    """Runs the search job at a free port."""
    with bound_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    job.run_search(configured(*changes_of(str(tmp_path / "crops"), None, str(tmp_path / "g")), f"serve.serve.port={port}", *overrides))


def test_what_is_refused_names_keys_and_arguments_as_they_are_written_here(tmp_path):
    with refused(DataError, "crops: does not exist; set index.images.path (FOLDER) to"):
        searched(tmp_path)
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_bytes(b"a")
    with refused(DataError, "nowhere.csv: is no file; set index.images.table to"):
        searched(tmp_path, "index.images.table=nowhere.csv")
    with refused(DataError, "index.encoder (--encoder): nowhere is no folder"):
        searched(tmp_path, "index.encoder=nowhere")
    with refused(ConfigError, "serve.tls.certificate nowhere.pem: cannot be read"):
        searched(tmp_path, "serve.tls.certificate=nowhere.pem", "serve.tls.key=nowhere.pem")


def test_what_is_refused_without_naming_a_key_says_nothing_of_keys(tmp_path, monkeypatch):
    def refusing(_: object, **__: object) -> None:
        raise DataError("crops: holds one picture that cannot be read; mend it")

    monkeypatch.setattr(job, "run_index", refusing)
    with pytest.raises(DataError) as refusal:
        searched(tmp_path)
    assert str(refusal.value) == "crops: holds one picture that cannot be read; mend it"


def test_a_gallery_that_another_search_serves_is_not_made_anew_and_one_that_nobody_does_is(tmp_path):
    asked = configured(*changes_of(str(tmp_path), "builtin:tiny-encoder", str(tmp_path / "g")))
    same, config = asked.index, asked.serve
    other = configured(*changes_of(str(tmp_path), "builtin:tiny-encoder", str(tmp_path / "g")), "index.images.table=own.csv").index
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "manifest.json").write_text(json.dumps({"format": 1, "job": "index", "config": same.model_dump(mode="json")}))
    job.refuse_searched(other, config)  # nobody ever searched it
    with job.searched(config), job.searched(config):
        job.refuse_searched(same, config)  # more pictures of the same folder
        with refused(DataError, str(tmp_path / "g"), "--out"):
            job.refuse_searched(other, config)
    job.refuse_searched(other, config)
    with job.searched(config):
        pass


def test_she_is_told_of_pictures_first_and_of_what_words_are_good_for_and_no_score_of_drawn_people():
    shipped = job.how_to_search(529, 12.0, "builtin:tiny-encoder", drawn_people_only=knows_drawn_people_only("builtin:tiny-encoder"))
    assert shipped.index("by picture") < shipped.index("by words")
    assert "529 pictures" in shipped
    assert "drawn people" in shipped
    assert "drawn people" not in job.how_to_search(530, 12.0, "openai/clip-vit-base-patch16", drawn_people_only=False)
    assert not [score for score in TEXT_SCORES if score in shipped]


def test_an_encoder_is_said_to_know_drawn_people_only_where_its_record_of_all_it_saw_says_so(tmp_path):
    shipped, _ = encoder_folder("builtin:tiny-encoder")
    seen = pq.read_table(shipped / SEEN_FILE)
    real = seen.slice(0, 1).set_column(seen.column_names.index("dataset"), "dataset", pa.array(["msmt17"]))
    untold = seen.slice(0, 1).set_column(seen.column_names.index("dataset"), "dataset", pa.array([None], pa.string()))
    for name, rows in {"drawn": seen, "real": pa.concat_tables([seen, real]), "untold": pa.concat_tables([seen, untold]), "none": None}.items():
        folder = tmp_path / name
        shutil.copytree(shipped, folder, ignore=shutil.ignore_patterns(SEEN_FILE))
        if rows is not None:
            pq.write_table(rows.cast(seen.schema), folder / SEEN_FILE)
        assert knows_drawn_people_only(str(folder)) == (name == "drawn"), name


def gallery_of_the_index_job(folder, **facts):
    make_gallery(folder, np.eye(4, dtype=np.float32)[:3], [{"item_id": item} for item in "abc"])
    made = {"job": "index", "facts": {"encoder_fingerprint": "e", "generation": GalleryView(folder).generation, "items": 3, **facts}}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, **made}))
    return configured(*changes_of("crops", None, str(folder))).index


@pytest.mark.slow
def test_a_gallery_that_was_changed_since_is_searched_as_it_is_and_not_made_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "encoder_identity", lambda _: (4, "e"))
    config = gallery_of_the_index_job(tmp_path / "g")
    assert job.changed_since(config) is None
    with GalleryWriter(tmp_path / "g") as writer:
        writer.delete(["b"])
    assert job.changed_since(config)["job"] == "index"
    assert "as it is" in capsys.readouterr().out
    monkeypatch.setattr(job, "encoder_identity", lambda _: (4, "another"))
    assert job.changed_since(config) is None  # and the index job refuses to replace it


@pytest.mark.slow
def test_what_is_no_gallery_of_the_index_job_is_left_to_that(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "encoder_identity", lambda _: (4, "e"))
    assert job.changed_since(configured(*changes_of("crops", None, str(tmp_path / "nothing"))).index) is None
    changed = gallery_of_the_index_job(tmp_path / "g", items=4)
    assert job.changed_since(changed) is not None
    again = changed.model_copy(update={"output": changed.output.model_copy(update={"if_exists": "replace"})})
    assert job.changed_since(again) is None
