"""What an older version wrote is read by today's code with the right contents: as it lies there, and brought to today's formats."""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from refusals import refused
from torch_workers import start_workers

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.ledger.missing import caption_states
from reid_ray.caption.ledger.row_keys import CaptionRecipe, RewriteRecipe
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, LEDGER, as_keys, open_ledger, read_index
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.caption.refilter.job import run_refilter
from reid_ray.caption.report.config import ReportJob
from reid_ray.caption.report.job import run_report
from reid_ray.data.failures import FAILURES
from reid_ray.data.images import decode_image
from reid_ray.errors import DataError
from reid_ray.migrate.config import MigrateJob
from reid_ray.migrate.job import run_migrate
from reid_ray.model.model_files import resolve_model, weights_digest
from reid_ray.reasons import LEFT_OUT
from reid_ray.records import CAPTIONS, EMBEDDINGS, HITS, IMAGES
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import run_compare
from reid_ray.retrieval.embed.features import read_features
from reid_ray.retrieval.evaluate.job import evaluated_queries, read_result
from reid_ray.retrieval.searched_folder import SearchedGallery, encoder_of
from reid_ray.storage import read_manifest, read_table
from reid_ray.train.checkpoint.contents import check, read_parts
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.prepared import SAMPLES, RowFile, read_prepared, texts_of
from reid_ray.train.masking.noise_export import NOISE
from reid_ray.train.masking.noise_store import NoiseStore

SOURCE = Path(__file__).resolve().parents[1] / "golden" / "96cb249"
CONTENTS = json.loads((SOURCE / "contents.json").read_text(encoding="utf-8"))
STEP = "run/checkpoints/step-00000002"
OUTPUTS = ("people", "ingest", "caption", "refilter", "training", "tuning", "index", "embeddings", "evaluation")
TABLES = {
    "people/images": IMAGES,
    "people/captions": CAPTIONS,
    "ingest/images": IMAGES,
    "ingest/captions": CAPTIONS,
    "ingest/failures": FAILURES,
    "caption/captions": CAPTIONS,
    "refilter/captions": CAPTIONS,
    "embeddings/embeddings": EMBEDDINGS,
    "evaluation/hits": HITS,
    "index/failed": EMBEDDINGS,
    "training/noise": NOISE,
}


@pytest.fixture(scope="module", params=["as it was written", "migrated"])
def golden(request, tmp_path_factory) -> Path:
    """A copy of the golden outputs, where jobs would have put them."""
    folder = tmp_path_factory.mktemp("golden") / "outputs"
    shutil.copytree(SOURCE, folder)
    (folder / "ledger").rename(folder / ".caption.ledger")
    (folder / "run").rename(folder / ".killed.0123456789abcdef.run")
    (folder / "run").symlink_to(".killed.0123456789abcdef.run")
    if request.param == "migrated":
        for name in (*OUTPUTS, ".killed.0123456789abcdef.run"):
            assert run_migrate(MigrateJob(path=str(folder / name)))["migrated"]
    return folder


def rows_of(name: str) -> list[dict]:
    """The rows that lay below `name` when they were written."""
    return [row for file, rows in CONTENTS["tables"].items() if file.startswith(f"{name}/") or file == name for row in rows]


def plain(value):
    """As contents.json has it: bytes by their digest, floats rounded, nulls left out."""
    if isinstance(value, bytes):
        return f"sha256 {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [plain(each) for each in value]
    return {key: plain(each) for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def digest(value) -> str:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_the_rows_that_were_written(golden, name):
    read = [plain(row) for row in read_table(golden / name, TABLES[name]).to_pylist()]
    known = set(TABLES[name].names)  # a table of embeddings has one column more
    assert read == [{key: value for key, value in row.items() if key in known} for row in rows_of(name)]


def unused_of(counts):
    return counts["failed"] | counts.get("left_out", {})


def _uncounted(manifest):
    """A manifest whose counts say all that is not used in one place, as older ones did."""
    captions = manifest["facts"].get("captions")
    facts = {**manifest["facts"], "captions": unused_of(captions)} if manifest["job"] == "ingest" else manifest["facts"]
    return {**manifest, "facts": facts, "counts": unused_of(manifest["counts"])}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_manifest_says_what_it_said(golden, name):
    before = json.loads((SOURCE / name / "manifest.json").read_text(encoding="utf-8"))
    now = read_manifest(golden / name)
    assert {key: _uncounted(now)[key] for key in before} == _uncounted(before)
    assert unused_of(now["counts"]) == before["counts"]["failed"]
    if "left_out" in now["counts"]:
        assert not set(now["counts"]["failed"]) & LEFT_OUT
        assert set(now["counts"]["left_out"]) <= LEFT_OUT


def test_an_index_is_searched_no_more_and_says_what_to_do(golden):
    for refuse in (SearchedGallery, lambda folder: encoder_of(str(folder), None)):
        with refused(DataError, str(golden / "index"), "run the index job again"):
            refuse(golden / "index")


@pytest.mark.slow
def test_an_encoder_gives_the_vectors_that_it_gave(golden):
    from reid_ray.model.pretrained import load_encoder
    from reid_ray.retrieval.encoder_identity import encoder_identity

    encoder = load_encoder(golden / "training" / "model")
    pictures = [decode_image(data) for data in read_table(golden / "people" / "images", IMAGES)["image"].to_pylist()]
    expected = {row["item_id"]: row["embedding"] for row in rows_of("embeddings/embeddings")}
    ids = [row["image_id"] for row in rows_of("people/images")]
    np.testing.assert_allclose(encoder.encode_images(pictures), [expected[id] for id in ids], atol=1e-5)
    assert encoder_identity(str(golden / "training" / "model")) == (encoder.dim, encoder.fingerprint)


@pytest.mark.slow
def test_a_tuned_model_opens_on_its_base_with_the_weights_that_were_trained(golden):
    from reid_ray.model.mllm.model_folder import HEADS, adapters_in, fingerprint_of, load_mllm
    from reid_ray.model.weight_files import read_state

    # The built-in base has learnt more since; whoever tuned the older one is told so, and here its place is taken by today's.
    manifest = golden / "tuning" / "model" / "manifest.json"
    with refused(DataError, "builtin:tiny-mllm", "8a31568dca097dff"):
        load_mllm(manifest.parent)
    today = weights_digest(Path(resolve_model("builtin:tiny-mllm")))
    said = json.loads(manifest.read_text(encoding="utf-8"))
    adapters, heads = adapters_in(manifest.parent), read_state(manifest.parent / HEADS)
    assert fingerprint_of(said["base"], adapters, heads) == said["fingerprint"]  # as it was written
    said["base"]["digest"] = today
    said["fingerprint"] = fingerprint_of(said["base"], adapters, heads)
    manifest.write_text(json.dumps(said), encoding="utf-8")
    opened = load_mllm(manifest.parent)
    trained = {f"base_model.model.{name}": weight for name, weight in opened.mllm.model.named_parameters() if "lora_" in name}
    named = {name.replace(".default", ""): digest(weight.detach().numpy()) for name, weight in trained.items()}
    assert named == CONTENTS["tensors"]["tuning/model/adapter/adapter_model.safetensors"]
    heads = {name: digest(weight.numpy()) for name, weight in opened.heads.items()}
    assert heads == CONTENTS["tensors"]["tuning/model/heads.safetensors"]


def test_features_and_scores_are_read_back(golden, tmp_path):
    features = read_features(str(golden / "embeddings" / "embeddings"), kind="image", split="train")
    assert features.ids == [row["item_id"] for row in rows_of("embeddings/embeddings") if row["split"] == "train"]
    before = json.loads((SOURCE / "evaluation" / "result.json").read_text(encoding="utf-8"))
    assert {key: read_result(golden / "evaluation")[key] for key in before} == before
    assert [plain(row) for row in evaluated_queries(golden / "evaluation").to_pylist()] == rows_of("evaluation/queries.parquet")
    both = {"baseline": str(golden / "evaluation"), "candidate": str(golden / "evaluation"), "resamples": 100}
    run_compare(CompareJob.model_validate({**both, "output": {"path": str(tmp_path / "comparison")}}))
    assert json.loads((tmp_path / "comparison" / "comparison.json").read_text())["r1"]["difference"] == 0


def test_captions_are_filtered_again_as_they_were(golden, tmp_path):
    out = tmp_path / "out"
    run_refilter(RefilterJob.model_validate({"run": str(golden / "caption"), "alpha": 0.99, "output": {"path": str(out)}}))
    assert [plain(row) for row in read_table(out / "captions", CAPTIONS).to_pylist()] == rows_of("refilter/captions")


def test_a_report_is_written_of_an_older_run(golden, tmp_path):
    images = {"source": "folder", "path": str(golden / "crops")}
    job = {"run": str(golden / "caption"), "images": images, "output": {"path": str(tmp_path / "report")}}
    made = run_report(ReportJob.model_validate(job))
    assert made["counts"]["read"] == len(rows_of("caption/captions"))
    page = html.unescape((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert all(row["text"] in page for row in rows_of("caption/captions") if row["kind"] == "static" and "text" in row)


def test_a_ledger_takes_over_the_rows_of_its_earlier_runs(golden):
    with open_ledger(golden / "caption") as ledger:
        index = read_index(ledger, retry_failed=True)
        rows = [row for file in ledger.row_files() for row in pq.read_table(file, schema=LEDGER).to_pylist()]
        seen = [row for file in ledger.digest_files() for row in pq.read_table(file, schema=DIGEST_CACHE).to_pylist()]
    assert [plain(row) for row in rows] == rows_of("ledger/rows")
    assert [plain(row) for row in seen] == rows_of("ledger/images")
    assert set(index.ok) == set(as_keys([row["key"] for row in rows if row["status"] != "failed"]))
    assert set(index.failed) == set(as_keys([row["key"] for row in rows if row["status"] == "failed"]))  # a truncated file stays one


def key_of_row(recipe, row):
    """The key under which a recipe asks for a row that it made."""
    image = (row["image_id"], row["image_sha256"])
    request = next(ask for ask in (*recipe.requests(*image), recipe.fallback(*image)) if ask is not None and ask.kind == row["kind"])
    assert request.caption_id == row["caption_id"]
    return request.keys[request.instruction_ids.index(row["instruction_id"])] if row["status"] == "ok" else request.keys[-1]


def test_todays_keys_are_those_of_the_rows_that_a_ledger_has(golden):
    """A default that is added to a captioner's section, or a prompt that is said in other words, would have every caption made again.

    Templates that are worded anew change the keys of their own captions alone: the others' are those of today's templates, too.
    """
    manifest = read_manifest(golden / "caption")
    config = CaptionJob.model_validate(manifest["config"])
    revisions = {name: manifest["inputs"][name]["revision"] for name in ("rewriter", "faithfulness")}
    revision = manifest["inputs"]["captioners"]["main"]["revision"]
    made_by = {"revision": revision, "max_pixels": config.images.max_pixels}
    then = json.loads((SOURCE.parent / "templates_96cb249.json").read_text(encoding="utf-8"))
    captions, today = (CaptionRecipe(config.captioners["main"], templates=templates, **made_by) for templates in (then, None))
    rewrites = RewriteRecipe(
        config.rewriter, config.faithfulness, revision=revisions["rewriter"], scorer_revision=revisions["faithfulness"]
    )
    with open_ledger(golden / "caption") as ledger:
        rows = [row for file in ledger.row_files() for row in pq.read_table(file, schema=LEDGER).to_pylist()]
        index = read_index(ledger, retry_failed=False)
    keys = {row["caption_id"]: key_of_row(captions, row) for row in rows if row["kind"] != "rewrite"}
    for row in rows:
        if row["kind"] == "static" or row["instruction_id"].removeprefix("dynamic/") in TEMPLATES:
            assert key_of_row(today, row) == row["key"]
    for row in rows:
        made = keys[row["caption_id"]] if row["kind"] != "rewrite" else rewrites.keys(row["parent_id"], keys[row["parent_id"]])[0]
        assert made == row["key"]
    images = sorted({(row["image_id"], row["image_sha256"]) for row in rows})
    assert [each.missing for each in caption_states(images, captions, index)] == [None] * len(images)


def test_prepared_data_are_taken_over(golden):
    assert read_prepared(golden / "run" / "data")["facts"]["samples"] == 12
    texts = [row["text"] for row in rows_of("people/captions") if row["split"] == "train"]
    assert sorted(texts_of(RowFile(golden / "run" / "data" / SAMPLES))) == sorted(texts)


def test_noise_levels_are_taken_over(golden):
    codes_NT = np.load(SOURCE / STEP / "noise-00000-of-00001.npy")
    store = NoiseStore(*codes_NT.shape)
    store.load(golden / STEP)
    np.testing.assert_array_equal(store.read(np.arange(len(codes_NT))), codes_NT)


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint_where_it_was(golden, tmp_path):
    assert check(golden / STEP)["progress"]["step"] == 2
    start_workers(_go_on, (golden, tmp_path), 1)
    state = torch.load(tmp_path / "state.pt")
    assert state["step"] == 2
    assert state["weights"] == CONTENTS["tensors"][f"{STEP}/training/00000.safetensors"]


def _go_on(rank: int, golden: Path, folder: Path) -> None:
    """A worker of the training that was killed: reads the checkpoint, writes down what it has then."""
    from reid_ray.train.dual.worker_parts import build_parts

    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=1)
    run = folder / "run"
    shutil.copytree(golden / "run" / "data", run / "data")
    shutil.copytree(golden / STEP / "model", run / "start")
    config = read_manifest(golden / "training")["config"]
    config["images"]["val_split"] = None
    parts = build_parts(TrainJob.model_validate(config), run, run)
    with torch.no_grad():
        for weight in parts.engine.module.parameters():
            weight.zero_()
    progress = read_parts(golden / STEP, parts.engine, parts.masking)
    weights = {f"{name}/{key}": digest(value.numpy()) for name, state in parts.engine.training_state() for key, value in state.items()}
    torch.save({"step": progress.step, "weights": weights}, folder / "state.pt")
