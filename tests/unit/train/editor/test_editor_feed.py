"""What an editor learns from: joined tables, draws that are functions of seed, step and place, and a step that two workers share."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from refusals import refused

from reid_ray.attributes.parser import read_attributes
from reid_ray.errors import DataError
from reid_ray.model.editor.edit_network import EditConditions
from reid_ray.model.editor.editor_folder import open_editor, start_editor
from reid_ray.records import SEGMENTS, table_of
from reid_ray.storage import Counts, TableWriter, read_table
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.editor.edit_feed import EditFeed
from reid_ray.train.editor.job import EditorRecipe
from reid_ray.train.editor.objective import EditObjective
from reid_ray.train.editor.worker_parts import build_module
from reid_ray.train.feed.prepared import SAMPLES, RowFile
from reid_ray.train.recipe import DATA, START

pytestmark = pytest.mark.slow


def feed_of(prepared, config: TrainEditorJob, *, rank=0, world=1) -> EditFeed:
    folder = prepared[0]
    return EditFeed(folder / DATA, config.batches, config.objective, opened=open_editor(folder / START), rank=rank, world=world)


def test_every_segment_is_learnt_from_or_counted(people, job_of, prepared):
    _, counts, facts = prepared
    table = read_table(people / "segments", SEGMENTS)
    assert counts.read == table.num_rows == counts.written + sum(counts.unused.values())
    splits = table["split"].to_pylist()
    usable = [status == "ok" and split == "train" for status, split in zip(table["status"].to_pylist(), splits, strict=True)]
    assert counts.written == sum(usable) - counts.unused["noun_not_read"] - counts.unused["too_long"] - counts.unused["noun_taken"]
    assert counts.unused["other_split"] == sum(split != "train" for split in splits)
    assert facts["segments"] == counts.written
    # A second call reads what the first one wrote.
    again = Counts()
    assert EditorRecipe(job_of()).prepare(prepared[0], again) == facts
    assert again.as_dict() == counts.as_dict()


def test_a_row_that_cannot_be_used_has_its_reason(people, job_of, tmp_path):
    rows = read_table(people / "segments", SEGMENTS).to_pylist()
    learnt = [row for row in rows if row["split"] == "train"]
    learnt[0]["image_id"], learnt[1]["caption_id"], learnt[2]["caption_id"] = "nobody", "nothing", None
    learnt[3]["status"], learnt[4]["noun_start"] = "absent", 0
    learnt[4]["noun_end"] = 1
    with TableWriter(tmp_path / "segments", SEGMENTS) as writer:
        writer.append(table_of(SEGMENTS, rows))
    counts = Counts()
    EditorRecipe(job_of(f"data.segments={tmp_path}/segments")).prepare(tmp_path, counts)
    assert {reason: counts.unused[reason] for reason in ("image_unknown", "caption_unknown", "no_caption", "no_segment")} == {
        "image_unknown": 1, "caption_unknown": 1, "no_caption": 1, "no_segment": 1,
    }  # fmt: skip
    assert counts.unused["noun_not_read"] >= 1
    other = tmp_path / "other"
    other.mkdir()
    with refused(DataError, "batches.size"):
        EditorRecipe(job_of("images.train_split=nobodys")).prepare(other, Counts())


def test_draws_are_functions_of_seed_step_and_place(job_of, prepared):
    config = job_of()
    whole = feed_of(prepared, config)
    halves = [feed_of(prepared, config, rank=rank, world=2) for rank in (0, 1)]
    for step in (0, 5):
        together = whole.make(step).inputs
        parts = [feed.make(step).inputs for feed in halves]
        for name, value in together.items():
            joined = parts[0][name] if name == "empty" else torch.cat([part[name] for part in parts])
            assert torch.equal(value, joined), name
        again = feed_of(prepared, config).make(step).inputs
        assert all(torch.equal(value, again[name]) for name, value in together.items())
    other = feed_of(prepared, job_of("batches.seed=1")).make(0).inputs
    assert not torch.equal(other["noise"], whole.make(0).inputs["noise"])


def test_the_prompt_gives_no_look_of_what_is_redrawn_away(job_of, prepared):
    config = job_of("batches.several_share=0.5")
    feed, tokenizer = feed_of(prepared, config), open_editor(prepared[0] / START).tokenizer
    rows = RowFile(prepared[0] / DATA / SAMPLES).take(np.arange(8)).to_pylist()
    seen = 0
    for place, row in enumerate(rows):
        sample = feed.draw(row, 3, place)
        text = tokenizer.decode(sample.prompt.token_T, skip_special_tokens=True)
        assert len(sample.crops) == len(sample.segments) == len(sample.values) <= 3
        assert sample.mask[sample.segments.any(axis=0)].all()
        nouns = {segment["start"] for segment in row["segments"]}
        assert len(nouns) == len(row["segments"])
        if len(sample.crops) == len(row["segments"]):
            said = [thing.said for thing in read_attributes(text).things if thing.slot in ("hair", "upper", "lower", "shoes")]
            assert all("color" not in each and "pattern" not in each for each in said), text
            seen += 1
    assert seen


def test_references_come_from_another_image_where_that_is_asked_for(job_of, prepared):
    rows = RowFile(prepared[0] / DATA / SAMPLES).take(np.arange(6)).to_pylist()
    own, other = (feed_of(prepared, job_of(f"batches.other_shot_share={share}", "batches.flip=0")) for share in (0, 1))
    values = json.loads((prepared[0] / DATA / "values.json").read_text())
    different = 0
    for row in rows:
        a, b = own.draw(row, 0, 0), other.draw(row, 0, 0)
        assert (a.values == b.values).all()  # it is the same thing of the same person
        assert a.values.shape[1] == len(values)
        different += any((x != y).any() for x, y in zip(a.crops, b.crops, strict=True))
    assert different


def test_a_step_of_two_workers_is_that_of_one_and_gradients_reach_what_trains(job_of, prepared):
    config = job_of("objective.localisation=0.5")
    feed = feed_of(prepared, config)
    halves = [feed_of(prepared, config, rank=rank, world=2) for rank in (0, 1)]
    values = {name: len(each) for name, each in feed.values.items()}
    module = build_module(config, open_editor(prepared[0] / START), values=values)
    objective = EditObjective(config.objective)

    def gradients(batches):
        module.zero_grad()
        for batch in batches:
            (objective(module(**batch.inputs), batch.person_A).total / len(batches)).backward()
        return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.requires_grad}

    one, two = gradients([feed.make(1)]), gradients([half.make(1) for half in halves])
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=1e-3, msg=name)
    reached = {name.split(".")[1] for name, value in one.items() if value.abs().max() > 0}
    assert {"unet", "fusion", "attribute_encoder"} <= reached
    assert not any(weight.requires_grad for weight in module.network.text_encoder.parameters())


def test_an_inside_sample_counts_its_mask_alone(job_of, prepared):
    config = job_of("objective.attribute=0", "objective.localisation=0")
    opened = open_editor(prepared[0] / START)
    module = build_module(config, opened, values={})
    inputs = feed_of(prepared, config).make(2).inputs
    with torch.no_grad():
        found = module(**inputs)["denoising"]
        network, codec = module.network, module.network.codec
        grid = codec.encode(inputs["pictures"])
        noisy = opened.scheduler.add_noise(grid, inputs["noise"], inputs["timesteps"])
        given = EditConditions(*(inputs[name] for name in ("tokens", "crops", "positions", "given")))
        sequence = torch.where(inputs["dropped"][:, None, None], network.read_prompt(inputs["empty"]), network.condition(given))
        predicted = network.predict(noisy, inputs["timesteps"], sequence, network.beside(inputs["pictures"], inputs["masks"]))
        alpha = opened.scheduler.alphas_cumprod[inputs["timesteps"]].reshape(-1, 1, 1, 1)
        error = codec.decode((predicted - (alpha.sqrt() * inputs["noise"] - (1 - alpha).sqrt() * grid)) ** 2).numpy()
    for row in range(len(found)):
        chosen = error[row][:, inputs["masks"][row, 0].numpy() > 0] if inputs["inside"][row] else error[row]
        assert found[row].item() == pytest.approx(chosen.mean(), rel=1e-4)
    assert inputs["inside"].any()


def test_a_folder_without_a_part_of_stable_diffusion_is_refused_by_its_name(job_of, tmp_path):
    (tmp_path / "sd" / "text_encoder").mkdir(parents=True)
    config = job_of().model.model_copy(update={"init": str(tmp_path / "sd")})
    with refused(DataError, "vae"):
        start_editor(config, [], seed=0, steps=1, guidance=1)
