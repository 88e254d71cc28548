"""All terms with noise-aware masking: two processes, encoding in chunks, give the losses, weights and noise levels of one."""

import json

import numpy as np
import pytest
import torch
from torch_workers import outputs_of

from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.masking.noise_aware import Vocabulary, masking_draws
from reid_ray.train.masking.noise_store import NoiseStore, decode
from reid_ray.train.masking.step_masks import StepMasks

TRAIN = """
import json, sys
from types import SimpleNamespace
import torch
import torch.distributed as dist
from reid_ray.model.dual.config import ScratchConfig
from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.model.dual.clip import CLIP, clip_from_scratch
from reid_ray.train.masking.step_masks import StepMasks
from reid_ray.train.masking.noise_aware import Vocabulary
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.dual.towers import LossHeads, TwoTowers
import numpy as np

torch.set_num_threads(1)
rank, world, folder, chunk = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
terms = {name: {"weight": 1.0} for name in ("sdm", "infonce", "sigmoid", "triplet", "id", "irr")}
terms["sdm"]["temperature"] = 0.1
terms["irr"] |= {"blocks": 1, "heads": 2}
objective = ObjectiveConfig(**terms, tile=json.loads(sys.argv[5]))
shape = ScratchConfig(vision_width=16, vision_layers=2, text_width=16, text_layers=2, embed_dim=8, vocab_size=300, context=9)
clip = clip_from_scratch(shape, height=32, width=16, vocab_size=300, end_id=299, seed=0)
torch.manual_seed(0)
encoder = SimpleNamespace(model=clip, family=CLIP, tokenizer=SimpleNamespace(eos_token_id=299))
module = TwoTowers(encoder, LossHeads(objective, dim=8, persons=5, vocab_size=300), chunk=chunk, depth=0.5).double()
optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
masker = StepMasks(
    MaskingConfig(kind="nam", probability=0.3), Vocabulary(298, 299, 298, np.arange(298)), NoiseStore(12, 9, rank=rank, world=world),
    seed=3, steps_per_epoch=2, device=torch.device("cpu"), targets=True,
)
draw = torch.Generator().manual_seed(1)
pixels = torch.randn(12, 3, 32, 16, generator=draw, dtype=torch.float64)
ids = torch.randint(0, 298, (12, 9), generator=draw)
ids[:, 0] = 298
for row in range(12):
    ids[row, 4 + row % 5 :] = 299
person = torch.arange(12) % 5
losses = []
for step in range(6):
    order = np.random.default_rng([step // 2]).permutation(12)[step % 2 * 6 :][:6]
    own = torch.from_numpy(order[rank * 6 // world : (rank + 1) * 6 // world])
    inputs = masker.before({"pixel_values": pixels[own], "input_ids": ids[own]}, own, step)
    features = module(**inputs)
    loss = build_objective(objective)(features, person[own])
    optimizer.zero_grad()
    loss.total.backward()
    masker.after(inputs, own, features)
    value = loss.total.detach()
    for tensor in [value, *(weight.grad for weight in module.parameters())]:
        if world > 1:
            dist.all_reduce(tensor)
            tensor /= world
    optimizer.step()
    losses.append(value.item())
codes = torch.from_numpy(masker.store.read(np.arange(12))).int()
if world > 1:
    dist.all_reduce(codes)
masker.save(__import__("pathlib").Path(folder))
weights = {name: weight.flatten().tolist() for name, weight in module.state_dict().items()}
print(json.dumps({"losses": losses, "weights": weights, "codes": codes.tolist()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 16])
def test_two_processes_in_chunks_train_like_one(tmp_path, tile):
    for world in (1, 2):
        (tmp_path / f"{world}").mkdir()
    cases = [(0, 1, None), (0, 2, 2), (1, 2, 2)]
    arguments = [(rank, world, tmp_path / f"{world}", json.dumps(chunk), json.dumps(tile)) for rank, world, chunk in cases]
    one, *two = map(json.loads, outputs_of(TRAIN, arguments, tmp_path))
    assert one["losses"][-1] < one["losses"][0]
    for other in two:
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        assert np.abs(np.array(other["codes"]) - one["codes"]).max() <= 1  # a level on the edge between two codes
        for name, weight in one["weights"].items():
            np.testing.assert_allclose(other["weights"][name], weight, rtol=1e-4, atol=1e-6, err_msg=name)
    saved = NoiseStore(12, 9)
    saved.load(tmp_path / "2")
    np.testing.assert_array_equal(saved.read(np.arange(12)), two[0]["codes"])


VOCABULARY = Vocabulary(98, 99, 98, np.arange(98))


def _masker(kind, probability=0.4, targets=False):
    config = MaskingConfig(kind=kind, probability=probability)
    store = NoiseStore(4, 8)
    return StepMasks(config, VOCABULARY, store, seed=0, steps_per_epoch=2, device=torch.device("cpu"), targets=targets)


INPUTS = {"input_ids": torch.tensor([[98, 1, 2, 3, 4, 99], [98, 5, 6, 99, 99, 99]])}
TEXTS = torch.tensor([2, 0])


def test_without_masking_nothing_is_touched_or_asked_for():
    assert _masker("none").before(INPUTS, TEXTS, 0) is INPUTS


def test_equal_masking_ignores_levels_and_never_masks_marks():
    masker = _masker("equal", probability=0.99, targets=True)
    inputs = masker.before(INPUTS, TEXTS, 0)
    assert set(inputs) == {"input_ids", "irr_targets"}
    assert (inputs["irr_targets"] >= 0).tolist() == [[False, *[True] * 4, False], [False, True, True, False, False, False]]
    assert (inputs["irr_targets"][inputs["irr_targets"] >= 0] == INPUTS["input_ids"][inputs["irr_targets"] >= 0]).all()


def test_masking_for_irr_alone_leaves_the_text_whole_and_puts_the_masked_one_beside_it():
    whole = StepMasks(
        MaskingConfig(kind="equal", probability=0.4, masked_for="irr"),
        VOCABULARY,
        NoiseStore(0, 8),
        seed=0,
        steps_per_epoch=2,
        device=torch.device("cpu"),
        targets=True,
    ).before(INPUTS, TEXTS, 0)
    masked = _masker("equal", targets=True).before(INPUTS, TEXTS, 0)
    assert whole["input_ids"] is INPUTS["input_ids"]
    assert torch.equal(whole["masked_ids"], masked["input_ids"])
    assert torch.equal(whole["irr_targets"], masked["irr_targets"])
    assert not torch.equal(masked["input_ids"], INPUTS["input_ids"])


def test_levels_of_one_epoch_mask_the_next():
    masker = _masker("nam")
    first = masker.before(INPUTS, TEXTS, 0)
    level = torch.tensor([[9, 0.0, 1.0, 0.0, 0.0, 9], [9, 0.1, 0.1, 9, 9, 9]])
    masker.after(first, TEXTS, {"noise": level})
    stored = decode(masker.store.read(np.array([0, 1, 2])))
    np.testing.assert_allclose(stored[2, 1:5], [0, 1, 0, 0], atol=0.004)
    assert np.isnan(stored[1]).all()
    assert np.isnan(stored[2, [0, 5, 6, 7]]).all()
    # Token 2 has probability 1 - 0.25 + 0.4, so it is certain; its neighbours 0.15.
    chosen = [masker.before(INPUTS, TEXTS, step)["input_ids"][0] != INPUTS["input_ids"][0] for step in range(2, 400, 2)]
    share = torch.stack(chosen).float().mean(dim=0)
    assert share[2] == pytest.approx(0.9 - 0.1 / 98, abs=0.09)
    assert share[[1, 3, 4]].numpy() == pytest.approx(np.full(3, 0.15 * 0.9), abs=0.1)


def test_levels_of_another_text_in_the_same_row_are_not_used():
    masker = _masker("nam")
    masker.after(masker.before(INPUTS, TEXTS, 0), TEXTS, {"noise": torch.rand(2, 6)})
    swapped = {"input_ids": INPUTS["input_ids"].flip(0)}
    expected = masking_draws(0, 1, TEXTS.numpy(), 6)[..., 0] < np.where(swapped["input_ids"].numpy() < 98, 0.4, 0)
    changed = (masker.before(swapped, TEXTS, 2)["input_ids"] != swapped["input_ids"]).numpy()
    assert not (changed & ~expected).any()
