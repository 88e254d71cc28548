"""The layout of each kind of thing on disk, as today's code writes it: columns, keys and files, in words that can be compared.

`python tests/shared/layouts.py` adds the layouts of new numbers to layouts.json and leaves those that are there alone:
a number that was never released may be made again by deleting its entry first.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors import safe_open

from reid_ray import versions
from reid_ray.caption.calibrate.config import CalibrateJob
from reid_ray.caption.calibrate.job import calibrate
from reid_ray.caption.calibrate.labelled_pairs import CHANGED, SAME, LabelledPair
from reid_ray.caption.ledger.write_ahead_log import DIGEST_CACHE, LEDGER, open_ledger
from reid_ray.caption.mine.job import _as_yaml
from reid_ray.caption.mine.patterns import Pattern
from reid_ray.config.base import Section
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.failures import FAILURES
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.verify.attribute_reader import AttributeReader
from reid_ray.edit.verify.config import ReaderConfig
from reid_ray.edit.verify.verifier import save_reader
from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.manifest import Erasure
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.model.editor.config import EditorModelConfig
from reid_ray.model.editor.editor_folder import save_editor, start_editor
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.model_folder import open_mllm, save_mllm
from reid_ray.records import CAPTIONS, EDITS, EMBEDDINGS, HITS, IMAGES, REFERENCES, SEEN, SEGMENTS, table_of
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.serve.access.audit.audit_log import AuditedAct, AuditLog
from reid_ray.serve.access.config import AuditConfig
from reid_ray.serve.access.roles import AccessRole, Caller
from reid_ray.serve.access.tokens.token_file import create_token
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_board import JobBoard
from reid_ray.serve.api.schema import HitOut, InfoOut, ItemOut, LatencyOut, Question, SearchOut
from reid_ray.serve.operations.remembered_answers import ChangeAnswer, RememberedAnswers
from reid_ray.serve.same_person.decision_log import DecisionLog
from reid_ray.storage import Counts, JobOutput
from reid_ray.storage.listing import MARK, write_mark
from reid_ray.storage.object_store.pointer import Pointer
from reid_ray.train.checkpoint.checkpoint_place import CheckpointPlace
from reid_ray.train.checkpoint.contents import Progress, write_parts
from reid_ray.train.checkpoint.run_folders import Record, write_record
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.masking.noise_export import NOISE
from reid_ray.train.masking.noise_store import NoiseStore

FILE = Path(__file__).with_name("layouts.json")


def todays_layouts(folder: Path) -> dict[str, list[str]]:
    """Kind -> its layout; `folder` is a place to write to."""
    evaluation = _evaluation(folder / "evaluation")
    schemas = {
        "images": IMAGES,
        "captions": CAPTIONS,
        "segments": SEGMENTS,
        "references": REFERENCES,
        "edits": EDITS,
        "embeddings": EMBEDDINGS,
        "hits": HITS,
        "failures": FAILURES,
        "noise": NOISE,
        "seen": SEEN,
    }
    schemas["queries"] = pq.read_schema(evaluation / "queries.parquet")
    return {
        **{kind: _columns(schema) for kind, schema in schemas.items()},
        "mark": _mark(folder / "mark"),
        "decisions": _decisions(folder / "decisions.jsonl"),
        "pointer": sorted(json.loads(Pointer(None, None, None, "").encoded())),
        "output": _output(folder / "output"),
        "encoder": _encoder(folder / "encoder"),
        "mllm": _mllm(folder / "mllm"),
        "verifier": _verifier(folder / "verifier"),
        "editor": _editor(folder / "editor"),
        "checkpoint": _checkpoint(folder / "checkpoint"),
        "noise_levels": _noise_levels(folder / "noise"),
        "run": _run(folder / "run"),
        "prepared": _prepared(folder / "prepared"),
        "ledger": _ledger(folder / "ledger"),
        **_gallery(folder / "gallery"),
        "service_job": _service_job(folder / "service"),
        "service_answer": _service_answer(folder / "answers"),
        "evaluation": _keys(evaluation / "result.json"),
        "calibration": _calibration(),
        "templates": _templates(),
        "audit": _audit(folder / "audit"),
        "tokens": _tokens(folder / "tokens.json"),
        "service": [
            f"{each.__name__}: {name}" for each in (Question, InfoOut, SearchOut, HitOut, LatencyOut, ItemOut) for name in each.model_fields
        ],
    }


def _audit(folder: Path) -> list[str]:
    log = AuditLog(folder, AuditConfig())
    caller = Caller("anna", AccessRole.WRITE, "0" * 12)
    log.record(AuditedAct(caller, "search", 200, purpose="p", request="r", items=1, sought=["a"], ids=["b"], what={"k": 1}))
    log.close()
    first, last = (json.loads(line) for line in (folder / "audit-000001.jsonl").read_text(encoding="utf-8").splitlines())
    return [*_files(folder), *sorted(first), *sorted(last.keys() - first.keys())]


def _tokens(file: Path) -> list[str]:
    create_token(file, "anna", AccessRole.SEARCH, days=None)
    found = json.loads(file.read_text(encoding="utf-8"))
    return [*sorted(found), *(f"tokens.{name}" for name in sorted(found["tokens"][0]))]


def _output(folder: Path) -> list[str]:
    class Nothing(Section):
        pass

    with JobOutput("test", folder, Nothing()):
        pass
    return [*_keys(folder / "manifest.json"), *_files(folder)]


def _mark(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "a").write_text("1234")
    write_mark(folder, {"run_id": "", "job": ""}, listed=True)
    first, *lines = (folder / MARK).read_text(encoding="utf-8").splitlines()
    return [MARK, *sorted(json.loads(first)), *lines]


def _encoder(folder: Path) -> list[str]:
    shape = {"vision_width": 8, "vision_layers": 1, "text_width": 8, "text_layers": 1, "embed_dim": 8, "vocab_size": 300, "context": 16}
    config = ModelConfig.model_validate({"image_height": 32, "image_width": 16, "scratch": shape})
    build_dual_encoder(config, ["a man in a red coat"]).save(folder, {})
    return [*_keys(folder / "manifest.json"), *_files(folder)]


def _mllm(folder: Path) -> list[str]:
    opened = open_mllm(MllmConfig.model_validate({"lora": {"rank": 1, "llm": ["q_proj"]}}))
    trained = {name: weight.detach() for name, weight in opened.mllm.model.named_parameters() if weight.requires_grad}
    save_mllm(opened, folder, trained=trained, heads={"neck.weight": torch.ones(1)}, facts={})
    return [*_keys(folder / "manifest.json"), *_files(folder)]


def _verifier(folder: Path) -> list[str]:
    save_reader(AttributeReader({"upper_color": ["blue", "red"]}, ReaderConfig(hidden=8)), folder, {})
    return [*_keys(folder / "manifest.json"), *_files(folder)]


def _editor(folder: Path) -> list[str]:
    scratch = {"patch": 2, "channels": [16, 32], "width": 32, "vocab_size": 300, "head_width": 8}
    config = EditorModelConfig.model_validate({"height": 16, "width": 16, "crop": 16, "context": 24, "grow": 1, "scratch": scratch})
    save_editor(start_editor(config, ["a man in a red coat"] * 3, seed=0, steps=1, guidance=1.0), folder, {})
    return [*_keys(folder / "manifest.json"), *_files(folder)]


class _Engine:
    """One weight of a training, as write_parts asks for it."""

    rank, stage = 0, 2

    def full_state(self, *, frozen: bool) -> dict[str, torch.Tensor]:
        return {"weight": torch.ones(1)}

    def training_state(self) -> list[tuple[str, dict[str, torch.Tensor]]]:
        return [("weight", {name: torch.ones(1) for name in ("weight", "exp_avg", "exp_avg_sq")})]

    def buffers(self) -> dict[str, torch.Tensor]:
        return {"seen": torch.ones(1)}


class _Parts:
    engine, masking, whole_model = _Engine(), None, True

    def write(self, state: Any, folder: Path, facts: Any) -> None:
        folder.mkdir(parents=True)


def _checkpoint(folder: Path) -> list[str]:
    import pyarrow.fs

    place = CheckpointPlace(pyarrow.fs.LocalFileSystem(), str(folder))
    place.begin()
    with place.folder() as staging:
        manifest = write_parts(staging, _Parts(), Progress(), world=1)  # type: ignore[arg-type]
    place.commit(manifest)
    progress = [f"progress.{name}" for name in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["progress"]]
    tensors = []
    for file in ("training/00000.safetensors", "workers/00000-of-00001.safetensors"):
        with safe_open(folder / file, framework="pt") as opened:
            tensors += [f"{file}: {name}" for name in sorted(opened.keys()) if "cuda" not in name]
    return [*_keys(folder / "manifest.json"), *progress, *_files(folder), *tensors]


def _noise_levels(folder: Path) -> list[str]:
    folder.mkdir()
    store = NoiseStore(3, 4)
    store.save(folder)
    levels = np.load(folder / "noise-00000-of-00001.npy")
    return [*_files(folder), f"{levels.dtype} {levels.shape}"]


def _run(folder: Path) -> list[str]:
    folder.mkdir()
    write_record(folder, Record("train", {}, {}))
    return [*_files(folder), *_keys(folder / "run.json")]


def _prepared(folder: Path) -> list[str]:
    folder.mkdir()
    people = SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=2, height=32, width=16, val_share=0.25, test_share=0))
    pq.write_table(people.image_table(), folder / "images.parquet")
    pq.write_table(people.caption_table(), folder / "captions.parquet")
    paths = {"images": {"path": f"{folder}/images.parquet"}, "captions": {"paths": [f"{folder}/captions.parquet"]}}
    config = {**paths, "batches": {"size": 4}, "workers": {"count": 1}, "output": {"path": f"{folder}/out"}}
    data = folder / "data"
    data.mkdir()
    prepare_pairs(TrainJob.model_validate(config), data, Counts())
    columns = []
    for file in sorted(path for path in data.rglob("*.arrow") if path.is_file()):
        with pa.memory_map(str(file)) as source:
            columns += [f"{file.relative_to(data)}: {column}" for column in _columns(pa.ipc.open_file(source).schema)]
    return [*_keys(data / "facts.json"), *_files(data), *columns]


def _ledger(folder: Path) -> list[str]:
    folder.mkdir()
    with open_ledger(folder / "out"):
        there = sorted(path.name for path in (folder / ".out.ledger").iterdir())
    return [*there, *(f"rows: {column}" for column in _columns(LEDGER)), *(f"images: {column}" for column in _columns(DIGEST_CACHE))]


def _gallery(folder: Path) -> dict[str, list[str]]:
    """Layouts of a gallery that has segments, one with a dead row, a log, a snapshot and an erasure, and of the erasure's receipt."""
    create_gallery(folder, dim=1, encoder="", config=GalleryConfig(segment_rows=2, merge_rows=4))
    with GalleryWriter(folder) as writer:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 1.0], pa.float32()), 1)
        for ids in ("ab", "cd"):
            writer.add(pa.table({"item_id": list(ids), "embedding": vectors, "thumbnail": [b"", b""]}), encoder="")
        writer.delete(["a"])
        writer.snapshot("kept")
        writer.erase(["c"], request="done")
        writer.carry_out_erasures()
    manifest = json.loads((folder / "snapshots" / "kept.json").read_text(encoding="utf-8"))
    segment = next(each for each in manifest["segments"] if each["dead"])
    parts = {"": manifest, "segments.": segment, "segments.files.": segment["files"], "erasures.": {each.name for each in fields(Erasure)}}
    names = {re.sub(r"[0-9a-f]{8,}", "*", name) for name in _files(folder)}
    layout = [*(f"{part}{key}" for part in parts for key in sorted(parts[part])), *sorted(names)]
    return {"gallery": layout, "receipt": _keys(folder / "receipts" / "done.json")}


def _service_job(folder: Path) -> list[str]:
    """Layout of an add job's folder while it waits."""
    board = JobBoard(folder, AddingConfig())
    upload = board.receive()
    upload.begin_file("a.png")
    status = upload.finish_pictures(board.new_status("pictures", by="", before=ErasuresBefore(1, ())), None, pa.schema([]))
    place = folder / "jobs" / status.job_id
    rows = json.loads((place / "rows.json").read_text(encoding="utf-8"))["rows"]
    return [*_keys(place / "status.json"), *_files(place), *(f"rows.{key}" for key in sorted(rows[0]))]


def _service_answer(folder: Path) -> list[str]:
    """Layout of an answer that a service remembers, once it is there and before."""

    async def change() -> ChangeAnswer:
        begun.extend(_keys(next(folder.iterdir())))
        return ChangeAnswer(200, {})

    begun: list[str] = []
    asyncio.run(RememberedAnswers(folder).once("key", of="", request={}, do=change))
    return [*begun, *_keys(next(folder.iterdir()))]


def _evaluation(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        {
            "item_id": f"i{n}",
            "image_id": f"i{n}",
            "kind": "image",
            "embedding": [1.0, n],
            "status": "ok",
            "person_id": n // 2,
            "camera_id": n,
        }
        for n in range(4)
    ]
    pq.write_table(table_of(EMBEDDINGS, [{**row, "split": "test"} for row in rows]), folder / "embeddings.parquet")
    both = dict.fromkeys(("query_embeddings", "gallery_embeddings"), f"{folder}/embeddings.parquet")
    run_evaluate(EvaluateJob.model_validate({"protocol": "image_to_image", **both, "output": {"path": f"{folder}/out"}}))
    return folder / "out"


def _decisions(file: Path) -> list[str]:
    with closing(DecisionLog(file)) as log:
        log.add("same", "a", "b", who="me")
        log.add("undo", of=1, who="me")
    return sorted({name for line in file.read_text().splitlines() for name in json.loads(line)})


def _calibration() -> list[str]:
    class Half:
        def score(self, originals: Any, rewrites: Any) -> np.ndarray:
            return np.linspace(0, 1, len(rewrites), dtype=np.float32)

    pairs = [
        LabelledPair("A man in a red coat.", f"A man in a {colour} coat.", label, "file", n) for n in range(8) for label, colour in _LABELS
    ]
    config = CalibrateJob.model_validate({"rewrites": 0, "output": {"path": "nowhere"}})
    return ["format", *(name for name in calibrate(pairs, Half(), config) if name not in {"scores", "curves"})]


_LABELS = ((SAME, "red"), (CHANGED, "blue"))


def _templates() -> list[str]:
    value = yaml.safe_load(_as_yaml([Pattern("A [gender].", 1, "captions")]))
    return [*value, *(f"templates.{name}" for name in value["templates"][0])]


def _keys(file: Path) -> list[str]:
    return sorted(json.loads(file.read_text(encoding="utf-8")))


def _files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _columns(schema: pa.Schema) -> list[str]:
    return [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema]


if __name__ == "__main__":
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as place:
        todays = {f"{kind} {versions.number_of(kind)}": layout for kind, layout in todays_layouts(Path(place)).items()}
    FILE.write_text(json.dumps(dict(sorted({**todays, **known}.items())), indent=1) + "\n", encoding="utf-8")
