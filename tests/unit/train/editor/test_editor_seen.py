"""What an editor has seen is written beside it, and weights that learn from its pictures have seen it, too."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from refusals import refused
from safetensors.torch import load_file, save_file

from reid_ray.data.seen_rows import all_seen, seen_by
from reid_ray.errors import DataError
from reid_ray.model.editor.editor_folder import open_editor, save_editor
from reid_ray.model.model_files import model_revision
from reid_ray.records import CAPTIONS, EDITS, IMAGES, SEEN, SEEN_FILE, SEGMENTS, content_hash64, table_of, text_hash64
from reid_ray.storage import read_table
from reid_ray.train.editor.job import EditorRecipe
from reid_ray.train.feed.seen import editors_of
from reid_ray.train.recipe import DATA, START

pytestmark = pytest.mark.slow


@pytest.fixture
def published(job_of, prepared, tmp_path):
    """The folder of a run's output, its model/ with what it has seen."""
    save_editor(open_editor(prepared[0] / START), tmp_path / "model", {})
    EditorRecipe(job_of()).publish(prepared[0], tmp_path, dict.fromkeys(("mode", "height", "width", "steps", "guidance", "parameters"), 0))
    return tmp_path


def test_it_has_seen_the_pictures_of_train_that_it_learnt_from_and_their_captions(people, prepared, published):
    seen = pa.concat_tables(seen_by(published / "model"))
    assert set(seen["role"].to_pylist()) == {"train"}
    segments = read_table(people / "segments", SEGMENTS)
    used = pc.and_(pc.equal(segments["status"], "ok"), pc.and_(pc.equal(segments["split"], "train"), pc.is_valid(segments["caption_id"])))
    images, captions = read_table(people / "images", IMAGES), read_table(people / "captions", CAPTIONS)
    of = images.filter(pc.is_in(images["image_id"], value_set=segments.filter(used)["image_id"]))
    assert set(seen["content"].filter(pc.equal(seen["kind"], "image")).to_pylist()) == set(content_hash64(of["image_sha256"]).to_pylist())
    said = captions.filter(pc.is_in(captions["caption_id"], value_set=segments.filter(used)["caption_id"]))
    texts = set(seen["content"].filter(pc.equal(seen["kind"], "text")).to_pylist())
    assert texts
    assert texts <= set(text_hash64(said["text"]).tolist())


def edits(folder, editor, revision):
    row = {"edit_id": "e", "source_image_id": "i", "editor": str(editor), "revision": revision, "status": "ok"}
    pq.write_table(table_of(EDITS, [row, {**row, "edit_id": "f"}]), folder / "edits.parquet")
    return [str(folder / "edits.parquet")]


def test_who_learns_from_its_pictures_has_seen_what_it_has_and_it_is_unknown_of_an_editor_that_is_gone_or_changed(prepared, published):
    editor = published / "model"
    revision = model_revision(str(editor))
    found = editors_of(edits(published, editor, revision))
    assert list(found.values()) == [editor]
    rows = pa.concat_tables(all_seen(prepared[0] / DATA, found))
    through = rows.filter(pc.is_valid(rows["weights"]))
    assert through.num_rows == pq.read_table(editor / SEEN_FILE, schema=SEEN).num_rows > 0
    assert "unknown" not in through["role"].to_pylist()
    for gone in (editors_of(edits(published, editor, "another")), editors_of(edits(published, published / "nowhere", revision))):
        assert list(gone.values()) == [None]
        assert "unknown" in pa.concat_tables(all_seen(prepared[0] / DATA, gone))["role"].to_pylist()


def test_an_editor_whose_weights_were_changed_is_refused(published):
    shutil.copytree(published / "model", published / "changed")
    file = published / "changed" / "fusion.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    with refused(DataError, "changed", "manifest.json"):
        open_editor(published / "changed")
