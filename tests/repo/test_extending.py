"""docs/extending.md, done: its blocks are put into a copy of the package, and the copy reads, trains and embeds what they add."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # a copy of the package is imported with torch and transformers
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
# The last file that the prose names before a block is the file that the block is of.
BLOCK = re.compile(r"```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`(?:reid_ray/)?((?:data|train|model)/[\w/]+\.py)`")
COMMANDS = [shlex.split(block)[1:] for language, block in BLOCK.findall(PAGE) if language == "console"]

# Runs in the copy, once, because torch and transformers take seconds to import.
SCRIPT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from reid_ray.cli.main import main
from reid_ray.config.base import load_config
from reid_ray.config.reference import render
from reid_ray.model.dual.config import ModelConfig, ScratchConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise
from reid_ray.model.pretrained import load_encoder, open_pretrained
from reid_ray.train.checkpoint.contents import Progress
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.towers import LossHeads, TwoTowers
from reid_ray.train.log.run_log import RunLog
from reid_ray.train.loop import train
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.parts import TrainBatch

torch.set_num_threads(1)
ingest, training, _ = json.loads(sys.argv[1])
found = {"reference": render(), "ingest": main([*ingest, "load.processes=0"])}

config = load_config(TrainJob, training[2], [*training[3:], "workers.count=1", "schedule.log_every=1", "log.to=[]"])
texts = [f"a person in {colour}" for colour in ("red", "blue", "green", "white")]
shape = ScratchConfig(vision_width=16, vision_layers=1, text_width=16, text_layers=1, embed_dim=8, vocab_size=300, context=16)
encoder = build_dual_encoder(ModelConfig(image_height=32, image_width=16, scratch=shape), texts)
module = TwoTowers(encoder, LossHeads(config.objective, dim=8, persons=3, vocab_size=300))
draw = torch.Generator().manual_seed(0)
inputs = {"pixel_values": torch.randn(4, 3, 32, 16, generator=draw), "input_ids": tokenise(encoder.tokenizer, texts, context=16)}
person_A = torch.tensor([0, 0, 1, 2])
with torch.no_grad():
    found["features"] = {name: value.tolist() for name, value in module(**inputs).items()}
optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

def step(loss, *, lr):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))

engine = SimpleNamespace(
    stage=0, rank=0, device=torch.device("cpu"), forward=lambda batch: module(**batch), step=step, train=module.train,
    weights_finite=lambda: True, full_state=lambda *, frozen: {}, barrier=lambda: None,
)
feed = SimpleNamespace(
    plan=SimpleNamespace(steps_per_epoch=1),
    batches=lambda start, stop: (TrainBatch(inputs, person_A, torch.arange(4)) for _ in range(start, stop)),
    names_of=lambda rows: ["a caption"] * len(rows),
)
parts = SimpleNamespace(
    engine=engine, objective=build_objective(config.objective), feed=feed, masking=None, validate=None, transfer=(), whole_model=True,
    write=lambda state, path, facts: (path.mkdir(), (path / "manifest.json").write_text(json.dumps({"facts": facts}))),
)
Path("run").mkdir()
log = RunLog(Path("run"), config.log, start=0, writes=True, settings={})
checkpoints = SimpleNamespace(save=lambda parts, progress: None, steps=lambda: [])
train(parts, folder=Path("run"), selection=None, checkpoints=checkpoints, log=log, progress=Progress(), steps=2, config=config)
log.close()

from transformers import MetaClip2Config, MetaClip2Model

words = encoder.tokenizer
tower = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "hidden_act": "gelu"}
text = {"vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
shape = MetaClip2Config(text_config={**tower, **text}, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=8)
torch.manual_seed(0)
published = MetaClip2Model(shape).eval()
published.save_pretrained("metaclip")
words.save_pretrained("metaclip")
loaded = load_encoder("metaclip")
picture = Image.effect_noise((32, 32), 80).convert("RGB")
pixels = torch.from_numpy(loaded.transform.normalise(loaded.transform.resize(picture)[None]))
with torch.no_grad():
    image = published.get_image_features(pixel_values=pixels).pooler_output
    text = published.get_text_features(input_ids=words(texts, return_tensors="pt", padding=True)["input_ids"]).pooler_output
person = open_pretrained(ModelConfig(init="metaclip", image_height=48, image_width=16))
found["encoder"] = {
    "published": [torch.nn.functional.normalize(each, dim=-1).tolist() for each in (image, text)],
    "ours": [loaded.encode_images([picture]).tolist(), loaded.encode_texts(texts).tolist()],
    "upright": list(person.encode_images([picture]).shape),
}
Path("found.json").write_text(json.dumps(found))
"""


def _write_blocks(package: Path) -> dict[str, list[str]]:
    """Put the page's files and lines into the copy; returns the lines that each of its files got."""
    added: dict[str, list[str]] = {}
    for found in BLOCK.finditer(PAGE):
        file = f"reid_ray/{FILE.findall(PAGE[: found.start()])[-1]}"
        if found[1] == "python":
            assert not (package / file).exists()
            (package / file).write_text(found[2])
        elif found[1] == "diff":
            before, after = ("".join(line[1:] for line in found[2].splitlines(True) if line[0] in signs) for signs in (" ", " +"))
            source = (package / file).read_text()
            assert source.count(before) == 1, before
            (package / file).write_text(source.replace(before, after))
            added.setdefault(file, []).extend(line[1:] for line in found[2].splitlines() if line.startswith("+"))
    return added


def _copy_if_there(source, target):
    """What is compiled already is not compiled for the copy; files that another process is about to put there may be gone."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """(what the copy says of itself, lines that its files got, its folder)."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("extended")
    for part in ("reid_ray", "jobs"):
        shutil.copytree(ROOT / part, folder / part, copy_function=_copy_if_there)
    added = _write_blocks(folder)
    for camera, persons in (("cam_a", (1, 2)), ("cam_b", (1, 2, 201))):
        place = folder / "data" / "PRID-2011" / "single_shot" / camera
        place.mkdir(parents=True)
        for person in persons:
            Image.effect_noise((64, 128), 60).save(place / f"person_{person:04}.png")
    (place / "Thumbs.db").write_bytes(b"no picture")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text()), added, folder


def test_each_is_one_line_beside_its_import(extended):
    _, added, _ = extended
    assert {file: [line for line in lines if not line.startswith("from ")] for file, lines in added.items()} == {
        file: [next(line for line in lines if not line.startswith("from "))] for file, lines in added.items()
    }
    assert len(added) == 3


def test_the_package_has_room_for_them(extended):
    """The extended copy is as the layering test wants it: no folder too large, no two names alike."""
    _, _, folder = extended
    options = ["-q", "-p", "no:cacheprovider", "-k", "glance or ending or one_name", "tests/repo/test_layering.py"]
    (folder / "tests" / "repo").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "repo" / "test_layering.py", folder / "tests" / "repo")
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "4 passed" in done.stdout


def test_ingest_reads_the_new_layout(extended):
    from reid_ray.records import IMAGES
    from reid_ray.storage import read_table

    found, _, folder = extended
    assert found["ingest"] == 0
    rows = read_table(folder / "runs" / "prid2011" / "images", IMAGES).to_pylist()
    assert sorted((row["person_id"], row["camera_id"], row["split"]) for row in rows) == [
        (1, 1, "query"),
        (1, 2, "gallery"),
        (2, 1, "query"),
        (2, 2, "gallery"),
        (201, 2, "gallery"),
    ]
    counts = json.loads((folder / "runs" / "prid2011" / "manifest.json").read_text())["counts"]
    assert counts["failed"] == {"unexpected_name": 1}


def test_a_training_step_has_the_new_loss_in_its_log(extended):
    from reid_ray.train.log.run_log import read_metrics

    found, _, folder = extended
    image, text = (np.array(found["features"][name]) for name in ("image", "text"))
    person, margin, expected = [0, 0, 1, 2], 0.2, 0.0
    for anchor in range(4):
        others = [other for other in range(4) if person[other] != person[anchor]]
        own = image[anchor] @ text[anchor]
        expected += max(0.0, margin - own + max(image[anchor] @ text[other] for other in others)) / 4
        expected += max(0.0, margin - own + max(text[anchor] @ image[other] for other in others)) / 4
    first, second = [line for line in read_metrics(folder / "run") if line.get("kind") == "train"]
    assert first["hardest"] == pytest.approx(expected, rel=1e-4)
    assert first["loss"] == pytest.approx(sum(value for name, value in first.items() if name.startswith("weighted_")), rel=1e-5)
    assert first["weighted_hardest"] == first["hardest"]
    assert second["hardest"] != first["hardest"]


def test_the_new_architecture_embeds_as_transformers_does(extended):
    encoder = extended[0]["encoder"]
    for published, ours in zip(encoder["published"], encoder["ours"], strict=True):
        np.testing.assert_allclose(ours, published, atol=1e-5)
    assert encoder["upright"] == [1, 8]


def test_the_reference_has_the_new_keys(extended):
    reference = extended[0]["reference"]
    assert "`objective.hardest.margin`" in reference
    assert re.search(r"`source.format` \|[^\n]*prid2011", reference)
