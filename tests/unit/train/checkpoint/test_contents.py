"""A checkpoint brings any number of workers, at any ZeRO stage, to where the run was; it is whole or it is refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pyarrow.fs
import pytest
import torch
import torch.distributed as dist
from refusals import refused
from safetensors.torch import load_file, save_file
from torch import nn
from torch_workers import start_workers

from reid_ray.errors import DataError
from reid_ray.storage import write_json
from reid_ray.train.checkpoint import contents as checkpoint
from reid_ray.train.checkpoint.checkpoint_place import CheckpointPlace, open_checkpoint_storage
from reid_ray.train.checkpoint.contents import Progress, check, read_parts, write_parts
from reid_ray.train.config import DeepSpeedConfig, OptimizerConfig
from reid_ray.train.losses.logit_scale import LogitScale

CASES = {
    "stage0": DeepSpeedConfig(zero_stage=0),
    "stage1": DeepSpeedConfig(zero_stage=1),
    "stage2-offload": DeepSpeedConfig(zero_stage=2, offload_optimizer=True),
    "stage3": DeepSpeedConfig(zero_stage=3, persistence_threshold=0),
    "stage3-offload": DeepSpeedConfig(zero_stage=3, offload_optimizer=True, offload_parameters=True),
    "bf16-stage2": DeepSpeedConfig(zero_stage=2, precision="bf16"),
    "bf16-stage3": DeepSpeedConfig(zero_stage=3, precision="bf16", persistence_threshold=20),
}
# What each case's checkpoint goes on as, on another number of workers.
OTHER = {"stage0": "stage3", "stage1": "stage0", "stage2-offload": "stage1", "stage3": "stage2-offload", "bf16-stage2": "bf16-stage3"}


class Net(nn.Module):
    """Weights that two workers cannot halve, one that is frozen, a logit scale, and a running mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.frozen, self.last = nn.Linear(3, 7), nn.Linear(7, 7), nn.Linear(7, 1)
        self.scale = LogitScale(0.0)
        self.frozen.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x_A3):
        self.seen += 1
        return self.last(torch.tanh(self.frozen(torch.tanh(self.first(x_A3))))) * self.scale().exp()


class Run:
    """An engine that can train, and be handed to write_parts as Parts."""

    masking, whole_model = None, True

    def __init__(self, config: DeepSpeedConfig) -> None:
        from reid_ray.train.optimizer import build_optimizer
        from reid_ray.train.zero import ZeroEngine

        self.dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        module, self.world = Net(), dist.get_world_size()
        optimizer = build_optimizer(module, OptimizerConfig(name="adamw", eps=1e-4))
        self.engine = ZeroEngine(module, optimizer, config=config, clip_norm=0.5, batch_size=12 // self.world)

    def write(self, state, folder, facts):
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors")

    def train(self, start, stop):
        for step in range(start, stop):
            x_B3 = torch.randn(12, 3, generator=torch.Generator().manual_seed(step))
            share = slice(self.engine.rank * 12 // self.world, (self.engine.rank + 1) * 12 // self.world)
            output_A1 = self.engine.forward({"x_A3": x_B3[share].to(self.dtype)})
            self.engine.step((output_A1.float() - x_B3[share].prod(1, keepdim=True)).square().mean(), lr=0.01 / (1 + step))
        return self.engine.full_state()


def _worker(rank: int, world: int, folder: Path, source: Path | None) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{world}{source is not None}", rank=rank, world_size=world)
    for name, config in CASES.items():
        if source is not None:
            on = Run(CASES[OTHER.get(name, name)])
            assert read_parts(source / name, on.engine, None).step == 3
            drawn: list[float] = [0.0] * world
            dist.all_gather_object(drawn, torch.rand(1).item())
            assert len(set(drawn)) == world  # of other random numbers each, as their number has changed
            _keep(rank, on.train(3, 6), folder / f"{name}-from-others.safetensors")
            continue
        undisturbed = Run(config)
        undisturbed.train(0, 3)
        # A file system that is not pyarrow's own for one of them: written elsewhere and copied, the manifest last.
        where = f"fsspec+file://{folder}" if name == "stage1" else str(folder)
        place = CheckpointPlace(open_checkpoint_storage(where)[0], f"{folder}/{name}")
        if rank == 0:
            place.begin()
        dist.barrier()
        with place.folder() as part:
            manifest = write_parts(part, undisturbed, Progress(step=3, best_score=0.5), world=world)
        dist.barrier()
        if rank == 0:
            place.commit(manifest)
        dist.barrier()
        expected = undisturbed.train(3, 6)
        resumed = Run(config)
        torch.manual_seed(rank)
        assert read_parts(folder / name, resumed.engine, None) == Progress(step=3, best_score=0.5)
        assert torch.equal(resumed.engine.buffers()["seen"], torch.tensor([3.0]))
        state = resumed.train(3, 6)
        for key, value in expected.items():  # bit by bit
            assert torch.equal(state[key], value), f"{name}: {key} differs by {(state[key] - value).abs().max()}"
        _keep(rank, expected, folder / f"{name}-undisturbed.safetensors")
    dist.destroy_process_group()


def _norms(rank: int, folder: Path) -> None:
    os.environ["LOCAL_RANK"] = "0"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-norms", rank=0, world_size=1)
    for name in ("stage0", "stage1", "stage2-offload", "stage3", "bf16-stage2"):
        run, x_B3 = Run(CASES[name]), torch.randn(12, 3)
        plain = Net().to(run.dtype)
        plain(x_B3.to(run.dtype)).float().square().mean().backward()
        expected = nn.utils.get_total_norm([weight.grad.float() for weight in plain.parameters() if weight.grad is not None])
        norm = run.engine.step(run.engine.forward({"x_A3": x_B3.to(run.dtype)}).float().square().mean(), lr=0.01)
        torch.testing.assert_close(norm, expected.item(), rtol=0.05 if run.dtype == torch.bfloat16 else 1e-4, atol=0, msg=name)
        assert run.engine.weights_finite()
        x_B3[5, 1] = float("nan")
        norm = run.engine.step(run.engine.forward({"x_A3": x_B3.to(run.dtype)}).float().square().mean(), lr=0.01)
        assert not math.isfinite(norm), name
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_norm_of_gradients_is_known_at_each_stage_also_when_it_is_no_number(tmp_path):
    start_workers(_norms, (tmp_path,), 1)


def _keep(rank, state, path):
    if rank == 0:
        save_file(state, path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """What one worker wrote, what two wrote and how two went on from one, and how one went on from two."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "one-from-two")}
    _spawn(1, made["one"], None)
    _spawn(2, made["two"], None)
    _spawn(2, made["two"], made["one"])
    _spawn(1, made["one-from-two"], made["two"])
    return made


def _spawn(world: int, folder: Path, source: Path | None) -> None:
    start_workers(_worker, (world, folder, source), world)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("read_by", "written_by"), [("two", "one"), ("one-from-two", "two")])
def test_another_number_of_workers_at_another_stage_goes_on_as_if_nothing_had_been(folders, case, read_by, written_by):
    resumed = load_file(folders[read_by] / f"{case}-from-others.safetensors")
    expected = load_file(folders[written_by] / f"{case}-undisturbed.safetensors")
    assert resumed.keys() == expected.keys() >= {"scale.shift", "seen", "frozen.weight"}
    close = {"rtol": 0, "atol": 2e-3} if case.startswith("bf16") else {"rtol": 1e-5, "atol": 1e-6}
    start = load_file(folders[written_by] / case / "model" / "model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, **close, msg=lambda text, at=name: f"{at}: {text}")
    # Three steps move further than the tolerance.
    assert (expected["first.weight"] - start["first.weight"]).abs().max() > 4e-3
    assert (expected["scale.shift"] - start["scale.shift"]).abs() > 2e-3


@pytest.mark.slow
def test_only_what_trains_is_in_the_training_state_and_no_hidden_folder_stays(folders):
    manifest = check(folders["two"] / "stage3")
    assert set(manifest["training"]) == {"first.weight", "first.bias", "last.weight", "last.bias", "scale.shift"}
    assert {name for name in manifest["files"] if name.startswith("workers/")} == {
        f"workers/{rank:05d}-of-00002.safetensors" for rank in range(2)
    }
    assert not [path for path in folders["two"].iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json, so it is no whole checkpoint"),
        (lambda folder: (folder / "training" / "00000.safetensors").unlink(), "00000.safetensors: is missing"),
        (lambda folder: (folder / "model" / "model.safetensors").write_bytes(b"x"), "model.safetensors: has 1 bytes"),
        (lambda folder: write_json(folder / "manifest.json", {"kind": "dual-encoder"}), "kind is 'dual-encoder'"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(folders, tmp_path, spoil, message):
    import shutil

    shutil.copytree(folders["one"] / "stage2-offload", tmp_path / "checkpoint")
    spoil(tmp_path / "checkpoint")
    with refused(DataError, message):
        check(tmp_path / "checkpoint")


def test_a_store_without_renaming_shows_the_manifest_last_and_is_emptied_before(tmp_path):
    filesystem = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "of-an-attempt-before").write_text("")
    place = CheckpointPlace(filesystem, "step")
    place.begin()
    with place.folder() as folder:
        (folder / "part").write_text("1234")
        assert not list((tmp_path / "step").iterdir())
    assert [path.name for path in (tmp_path / "step").iterdir()] == ["part"]
    place.commit({"kind": "training-checkpoint"})
    assert json.loads((tmp_path / "step" / "manifest.json").read_text())["files"] == {"part": 4}


def test_a_place_that_cannot_be_opened_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    for location in (f"{tmp_path}/file/below", "no-such-scheme://bucket"):
        with refused(DataError, "schedule.checkpoint_storage", str(location)):
            open_checkpoint_storage(location)


def test_trained_weights_of_other_names_or_shapes_are_refused_before_any_is_taken_over(tmp_path):
    parts = ("weight", "exp_avg", "exp_avg_sq")
    (tmp_path / "training").mkdir()
    state = {f"{name}/{part}": torch.ones(3, 2) for name in ("a", "b") for part in parts}
    index = {"a": "training/0.safetensors", "b": "training/0.safetensors"}
    cases = [
        (state, {"a": (3, 2), "b": (3, 2)}, None),
        (state, {"a": (3, 2)}, r"1 unknown \(b\)"),
        (state, {"a": (3, 2), "b": (3, 2), "c": (1,)}, r"1 missing \(c\)"),
        (state, {"a": (3, 2), "b": (3, 1)}, "b is 3 x 2, should be 3 x 1"),  # torch would broadcast some such
        ({name: value for name, value in state.items() if name != "b/exp_avg"}, {"a": (3, 2), "b": (3, 2)}, r"1 missing \(b\)"),
    ]
    for saved, needed, words in cases:
        save_file(saved, tmp_path / "training" / "0.safetensors")
        reader = checkpoint._Training(tmp_path, index)
        if words is None:
            reader.check(needed)
            continue
        with pytest.raises(DataError, match=words):
            reader.check(needed)
