"""Training under Ray and DeepSpeed equals a plain torch loop on the same batches, whether or not a worker dies on the way."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from kills import kill_driver_after, lines_of, saved, wait_for
from refusals import refused
from safetensors.torch import load_file

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.labels.doubted_captions import DOUBTED, DOUBTED_CAPTIONS, PLAUSIBILITY
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import ReidRayError, TrainingError
from reid_ray.model.dual.dual_encoder import build_dual_encoder, tokenise
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import MANIFEST, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.feed.batches import BatchPlan, ShuffledOrder
from reid_ray.train.log.run_log import read_metrics

pytestmark = pytest.mark.slow
SHAPE = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 400, "context": 32}


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    made = SyntheticPeople(SyntheticConfig(identities=20, images_per_identity=2))
    captions = made.caption_table()
    # Two rewrites for every other caption, so that balanced sampling has something to choose from.
    rewrites = captions.take(pa.array(range(0, captions.num_rows, 2)))
    tables = [captions]
    for number in range(2):
        columns = {
            "caption_id": [f"{name}-{number}" for name in rewrites["caption_id"].to_pylist()],
            "parent_id": rewrites["caption_id"].to_pylist(),
            "kind": ["rewrite"] * rewrites.num_rows,
            "text": [f"rewritten {number}: {text}" for text in rewrites["text"].to_pylist()],
        }
        changed = rewrites
        for name, values in columns.items():
            changed = changed.set_column(CAPTIONS.get_field_index(name), CAPTIONS.field(name), pa.array(values, pa.string()))
        tables.append(changed)
    with TableWriter(folder / "images", IMAGES) as images, TableWriter(folder / "captions", CAPTIONS) as written:
        images.append(made.image_table())
        written.append(pa.concat_tables(tables))
    statement = {"verdict": DOUBTED, "words": "99% of coats are black"}
    judged = {"verdict": DOUBTED, "captioners": {"somebody": {"verdict": DOUBTED, "statements": [statement]}}}
    (folder / MANIFEST).write_text(json.dumps({"job": "caption", "run_id": "0" * 32, "facts": {PLAUSIBILITY: judged}}))
    return folder


def job(people: Path, out: Path, *overrides: str) -> TrainJob:
    values = [
        f"images.path={people}/images",
        f"captions.paths=[{people}/captions]",
        f"output.path={out}",
        "images.val_split=null",
        "model.image_height=64",
        "model.image_width=32",
        f"model.scratch={SHAPE}",
        "batches.size=12",
        "batches.flip=0",
        "batches.crop_padding=0",
        "batches.erase=0",
        "objective.sdm.temperature=0.1",
        "objective.infonce={weight: 0.5, temperature: learned}",
        "optimizer.lr=0.001",
        "optimizer.weight_decay=0.05",
        "optimizer.name=adamw",
        "optimizer.clip_norm=1.0",
        # Where a gradient is rounding noise, Adam with a tiny eps turns its sign into a step of full size.
        "optimizer.eps=0.0001",
        "schedule.epochs=20",
        "schedule.max_steps=12",
        "schedule.checkpoint_every=4",
        "schedule.log_every=1",
        "workers.count=2",
        "workers.num_cpus=0.5",
        "engine.persistence_threshold=0",
        *overrides,
    ]
    return load_config(TrainJob, None, values)


def plain_torch_run(people: Path, config: TrainJob) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """One process, no Ray, no DeepSpeed, no loss or loop of the package: each step's loss and weights, which two workers must reproduce."""
    import pyarrow.parquet as pq

    images = {row["image_id"]: row for row in pq.read_table(people / "images").to_pylist()}
    captions = pq.read_table(people / "captions").to_pylist()
    originals = [row for row in captions if row["kind"] == "human" and images[row["image_id"]]["split"] == "train"]
    rewrites = {row["caption_id"]: [r["text"] for r in captions if r["parent_id"] == row["caption_id"]] for row in originals}
    texts = [row["text"] for row in originals] + [text for row in originals for text in rewrites[row["caption_id"]]]
    encoder = build_dual_encoder(config.model, texts, seed=config.batches.seed)
    counts = np.array([len(rewrites[row["caption_id"]]) for row in originals])
    seed = config.batches.seed
    plan = BatchPlan(counts, ShuffledOrder(len(counts), size=12, seed=seed), rewrite_share=config.captions.rewrite_share, seed=seed)
    weights = list(encoder.model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.05},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0},  # the logit scale has no dimension
        ],
        eps=1e-4,
    )
    losses, weights_after = [], []
    encoder.model.train()
    for step in range(12):
        batch = plan.batch(step)
        chosen = [originals[index] for index in batch.sample_B]
        said = [row["text"] if pick < 0 else rewrites[row["caption_id"]][pick] for row, pick in zip(chosen, batch.rewrite_B, strict=True)]
        pixels = np.stack([encoder.transform.resize(decode_image(images[row["image_id"]]["image"])) for row in chosen])
        image = encoder.model.get_image_features(torch.from_numpy(encoder.transform.normalise(pixels))).pooler_output
        text = encoder.model.get_text_features(tokenise(encoder.tokenizer, said, context=32)).pooler_output
        cosine = (image / image.norm(dim=1, keepdim=True)) @ (text / text.norm(dim=1, keepdim=True)).T
        person = torch.tensor([row["person_id"] for row in chosen])
        same = (person[:, None] == person[None]).float()
        loss = torch.zeros(())
        for score in (cosine, cosine.T):
            p = (score / 0.1).softmax(dim=1)
            loss = loss + (p * torch.log(p / (same / same.sum(1, keepdim=True) + 1e-8))).sum(1).mean()
            loss = loss - 0.5 * torch.diagonal((score * encoder.model.logit_scale.exp()).log_softmax(dim=1)).mean() / 2
        warmup = 1  # 0.1 of 12 steps
        lr = 1e-3 * ((step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (12 - warmup))))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
        weights_after.append({name: weight.detach().clone() for name, weight in encoder.model.named_parameters()})
    return losses, weights_after


def trained(out: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    weights = load_file(out / "model" / "model.safetensors")
    return [line["loss"] for line in read_metrics(out) if line.get("kind") == "train"], weights


def assert_same(result, expected, *, step: int = 12) -> None:
    """The loss of every step, and the weights after one."""
    np.testing.assert_allclose(result[0], expected[0], rtol=1e-5)
    weights = expected[1][step - 1]
    assert set(result[1]) == set(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(result[1][name], weight, rtol=1e-4, atol=1e-6, msg=lambda text, at=name: f"{at}: {text}")


@pytest.fixture(scope="module")
def expected(people, tmp_path_factory):
    torch.set_num_threads(1)
    return plain_torch_run(people, job(people, tmp_path_factory.mktemp("unused") / "out"))


# The weights of the last step, validated once.
VALIDATED = ("images.val_split=val", "schedule.validate_every=100")


@pytest.fixture(scope="module")
def undisturbed(local_ray, people, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run_train(job(people, out, *VALIDATED))
    return out


def test_two_zero_workers_equal_one_plain_torch_process(undisturbed, expected):
    assert_same(trained(undisturbed), expected)


@pytest.fixture(scope="module")
def sparing(local_ray, people, tmp_path_factory) -> tuple[Path, dict]:
    """Everything sharded and offloaded, no activations kept, and weights chosen on val; the manifest."""
    out = tmp_path_factory.mktemp("sparing") / "out"
    engine = "engine={zero_stage: 3, persistence_threshold: 0, offload_optimizer: true, offload_parameters: true}"
    chosen = ["images.val_split=val", "schedule.validate_every=5"]
    manifest = run_train(job(people, out, engine, "batches.chunk=4", "model.gradient_checkpointing=true", *chosen))
    assert not list(out.parent.glob(".*"))
    return out, manifest


def test_two_workers_that_offload_and_keep_no_activations_equal_one_plain_torch_process(sparing, expected):
    out, manifest = sparing
    facts = manifest["facts"]
    assert_same(trained(out), expected, step=facts["selected"]["step"])
    assert facts["workers"] == 2
    assert facts["restarts"] == 0


def test_weights_are_chosen_on_val_and_say_so(sparing, people):
    out, manifest = sparing
    validations = {line["step"]: line["r1"] for line in read_metrics(out) if line.get("kind") == "validation"}
    assert sorted(validations) == [5, 10, 12]
    best = max(validations, key=lambda step: (validations[step], -step))
    assert manifest["facts"]["selected"] == {
        "step": best,
        "selected_on": "val",
        "selection": "best text-to-image R@1",
        "exposure": [],
        "r1": validations[best],
    }
    assert validations[best] == pytest.approx(r1_by_hand(people, out / "model"))
    counts = manifest["counts"]
    assert counts["read"] == counts["written"] + sum(counts["left_out"].values())
    assert counts["failed"] == {}


def test_captions_that_their_maker_found_hardly_true_are_noted(sparing, people):
    (found,) = sparing[1]["facts"][DOUBTED_CAPTIONS]
    assert (found["captions"], found["found_by"]) == (f"{people}/captions", "caption")
    assert found["doubts"] == ["somebody: 99% of coats are black"]


def r1_by_hand(people: Path, model: Path) -> float:
    import pyarrow.parquet as pq

    encoder = load_encoder(model)
    images = [row for row in pq.read_table(people / "images").to_pylist() if row["split"] == "val"]
    queries = [row for row in pq.read_table(people / "captions").to_pylist() if row["split"] == "val" and row["kind"] == "human"]
    score = encoder.encode_texts([q["text"] for q in queries]) @ encoder.encode_images([decode_image(i["image"]) for i in images]).T
    return float(np.mean([images[best]["person_id"] == q["person_id"] for best, q in zip(score.argmax(1), queries, strict=True)]))


def assert_equal_bit_by_bit(out: Path, undisturbed: Path) -> None:
    """Every loss of every step, the validation at the end and every weight."""
    measured = {"steps_per_second", "images_per_second", "data_wait_share", "memory_peak_mb"}
    logs = [
        [{key: value for key, value in line.items() if key not in measured} for line in read_metrics(folder) if "kind" in line]
        for folder in (out, undisturbed)
    ]
    assert logs[0] == logs[1]
    assert {line["kind"] for line in logs[0]} == {"train", "validation"}
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (out, undisturbed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_killing_a_worker_once_does_not_change_a_bit_of_the_result(local_ray, people, tmp_path, undisturbed):
    killed = []

    def kill_when_a_checkpoint_is_there() -> None:
        if wait_for(lambda: saved(lines_of(tmp_path))) and (lines := lines_of(tmp_path))[-1]["step"] < 10:
            killed.append(next(line for line in lines if line.get("event") == "start")["workers"][1]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_a_checkpoint_is_there)
    killer.start()
    # Not pyarrow's own file system: checkpoints are copied there, and from there to the new workers.
    storage = f"schedule.checkpoint_storage=fsspec+file://{tmp_path}/storage"
    # Both workers, and the one that comes after, read a copy of what was prepared, as on a node that does not see the run's folder.
    copies = f"staging.path={tmp_path}/node"
    manifest = run_train(job(people, tmp_path / "out", *VALIDATED, "schedule.checkpoint_every=2", storage, copies))
    killer.join()
    assert killed
    assert len(list((tmp_path / "node").glob("*/data/facts.json"))) == 1
    assert manifest["facts"]["restarts"] == 1
    starts = [line["step"] for line in read_metrics(tmp_path / "out") if line.get("event") == "start"]
    assert starts[0] == 0 < starts[1]
    assert_equal_bit_by_bit(tmp_path / "out", undisturbed)
    assert not list((tmp_path / "storage").iterdir())


@pytest.mark.soak("training")
def test_a_driver_killed_on_the_way_goes_on_with_one_worker_of_another_stage(local_ray, root, people, tmp_path, expected, capsys):
    config = job(people, tmp_path / "out", "schedule.checkpoint_every=2", "schedule.log_every=1")
    (tmp_path / "train.yaml").write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, str(root / "jobs" / "train.py"), "--config", str(tmp_path / "train.yaml"), "ray.address=local"]
    kill_driver_after(2, command, tmp_path)
    checkpoints = sorted(path for path in tmp_path.glob(".out.*.run/checkpoints/step-*"))
    assert load_encoder(checkpoints[0] / "model").dim == SHAPE["embed_dim"]
    # What a run of another configuration would have left: it is named, and gone when this one is done.
    left = tmp_path / ".out.0123456789abcdef.run"
    (left / "checkpoints" / "step-00000077").mkdir(parents=True)
    (left / "lock").touch()
    (left / "checkpoints" / "step-00000077" / "manifest.json").write_text("{}")
    other = ["ray.address=local", "workers.count=1", "engine.zero_stage=1"]
    manifest = run_train(load_config(TrainJob, tmp_path / "train.yaml", other))
    said = capsys.readouterr().out
    assert re.search(r"train: goes on from the checkpoint of step \d+ in .*\.run", said)
    assert re.search(rf"{re.escape(str(left))} is a run of another configuration .* step 77", said)
    assert not list(tmp_path.glob(".out.*"))
    starts = [(line["step"], len(line["workers"])) for line in read_metrics(tmp_path / "out") if line.get("event") == "start"]
    assert starts[0] == (0, 2)
    assert 0 < starts[1][0] < 12
    assert starts[1][1] == 1
    facts = manifest["facts"]
    assert facts["restarts"] == 1
    assert facts["selected"]["selected_on"] is None
    assert facts["texts_cut"]["of"] == facts["samples"] + facts["rewrites"] + facts["validation_queries"]
    assert facts["texts_cut"]["longest"] > SHAPE["context"]
    assert facts["texts_cut"]["truncated"] > 0
    assert_same(trained(tmp_path / "out"), expected)


@pytest.mark.soak("training")
def test_losing_a_node_goes_on_with_the_workers_that_are_left(root, people, tmp_path, expected):
    command = [sys.executable, __file__, str(people), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root / "tests/shared"), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    starts = [(line["step"], len(line["workers"])) for line in read_metrics(tmp_path / "out") if line.get("event") == "start"]
    assert [workers for _, workers in starts] == [2, 1]
    assert 0 < starts[1][0] < 12
    assert_same(trained(tmp_path / "out"), expected)


def lose_a_node(people: Path, folder: Path) -> None:
    """Train on two nodes of a cluster of its own, and kill one of them after the second checkpoint."""
    quick = {"initial_delay_ms": "500", "period_ms": "500", "timeout_ms": "500", "failure_threshold": "2"}
    os.environ.update({f"RAY_health_check_{name}": value for name, value in quick.items()})
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    elastic = ["workers={count: 2, min_count: 1, num_cpus: 1, patience_seconds: 5}", "schedule.checkpoint_every=1"]
    run = threading.Thread(target=run_train, args=(job(people, folder / "out", *elastic),))
    run.start()
    assert wait_for(lambda: saved(lines_of(folder)) >= 2, alive=run.is_alive)
    cluster.remove_node(nodes[1], allow_graceful=False)
    run.join()
    ray.shutdown()
    cluster.shutdown()


def test_a_loss_that_is_not_a_number_ends_the_run_at_once_and_keeps_the_checkpoint(local_ray, people, tmp_path):
    diverging = ["optimizer={lr: 1.0e+30, warmup_share: 0}", "schedule.checkpoint_every=1", "workers.count=1"]
    config = job(people, tmp_path / "out", *diverging)
    for checkpoint in (1, 1):  # the same command ends the same way
        with refused(TrainingError, "step 2", "checkpoint of step 1", "the same command"):
            run_train(config)
        (run,) = tmp_path.glob(".out.*.run")
        assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{checkpoint:08d}"]
        assert not (tmp_path / "out").exists()
    lines = read_metrics(run)
    assert [line["step"] for line in lines if line.get("event") == "start"] == [0, 1]  # neither was tried again
    stops = [line for line in lines if line.get("event") == "not_finite"]
    assert all("sdm" in line["what"] and len(line["rows"]) == config.batches.size for line in stops)
    assert stops[0]["rows"][0].startswith(("caption ", "a rewrite of caption "))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model={init: /no/such/weights}"], r"model\.init: /no/such/weights is no folder"),
        (["workers.count=3", "workers.num_cpus=100"], r"workers asks for 100 CPU"),
        (["images.path=/no/such/images"], "/no/such/images: does not exist"),
        (["captions.kinds=[dynamic]"], r"0 captions of split 'train' are usable.*other_kind"),
        (["images.val_split=query"], r"no usable caption of split 'query'"),
    ],
)
def test_what_cannot_run_is_refused_before_any_worker_starts(local_ray, people, tmp_path, overrides, message):
    with pytest.raises(ReidRayError, match=message):
        run_train(job(people, tmp_path / "out", *overrides))
    assert not (tmp_path / "out").exists()


if __name__ == "__main__":
    lose_a_node(Path(sys.argv[1]), Path(sys.argv[2]))
