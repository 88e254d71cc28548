"""The captioner that ships with the repository: what it says through vLLM is true, and vLLM runs it as transformers does."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_ray.config.common import SyntheticConfig
from reid_ray.model.tiny.config import TinyMllmTrainingConfig

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[2] / "reid_ray" / "assets" / "tiny_mllm"
# Neither the people it learnt from (seeds from 1,000,000 on) nor those its manifest reports (seed 0).
HELD_OUT = SyntheticConfig(identities=200, images_per_identity=1, seed=77)


@pytest.fixture
def engine(engines):
    """The captioner's vLLM engine in a process of its own: vLLM walks over all modules of its process, and trips over numba's."""
    from reid_ray.caption.config import SamplingConfig, VllmConfig

    engines.open(SamplingConfig(), engine=VllmConfig())
    return engines


def test_shipped_files_are_small_and_tell_how_they_were_made():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert "jobs/captioner.py" in manifest["environment"]["command"]
    assert min(score["share"] for score in manifest["facts"]["accuracy"].values()) >= 0.9
    training = TinyMllmTrainingConfig.model_validate(manifest["config"]["training"])
    assert HELD_OUT.seed < training.first_seed


def test_nine_of_ten_attribute_words_are_right_on_people_never_seen(engine):
    from reid_ray.caption.tiny.job import measure_captioner

    scores = measure_captioner(engine, HELD_OUT, 80)
    assert scores["static"]["share"] >= 0.9, scores
    assert scores["dynamic"]["share"] >= 0.9, scores
    assert scores["static"]["said"] > 80 * 8  # right by saying little would be no feat
    for kind in ("static", "dynamic"):
        assert not any("[" in text for text in scores[kind]["samples"])


def test_it_looks_at_the_picture(engine):
    """The same questions with the pictures exchanged must be answered wrongly: what it says is seen, not guessed."""
    from reid_ray.caption.prompts import STATIC
    from reid_ray.caption.tiny.job import generate_captions, judge_captions
    from reid_ray.data.synthetic.people import SyntheticPeople

    people = SyntheticPeople(HELD_OUT)
    pictures = [Image.fromarray(pixels) for pixels in people.pictures(0, 64)]
    texts = generate_captions(engine, pictures, [STATIC] * 64)
    truth, hidden = people.attributes(0, 64), people.hidden(0, 64)
    assert judge_captions(texts, truth, hidden)["share"] - judge_captions(np.roll(texts, 1).tolist(), truth, hidden)["share"] > 0.4


def test_vllm_decodes_the_tokens_that_transformers_decodes(engine):
    from tiny_answers import greedy_answers

    from reid_ray.caption.prompts import STATIC, dynamic_instruction
    from reid_ray.caption.tiny.job import generate_captions
    from reid_ray.data.synthetic.people import SyntheticPeople

    pictures = [Image.fromarray(pixels) for pixels in SyntheticPeople(HELD_OUT).pictures(100, 108)]
    questions = [STATIC, *(dynamic_instruction(str(n)).text for n in range(7))]
    assert generate_captions(engine, pictures, questions) == greedy_answers(FOLDER, pictures, questions, tokens=96)


def test_training_for_a_few_steps_writes_a_loadable_model_and_lowers_the_loss(tmp_path):
    from transformers import AutoModelForImageTextToText

    from reid_ray.model.tiny.tiny_training import train_tiny_mllm

    config = TinyMllmTrainingConfig(sight_steps=2, steps=8, batch_size=8, people_per_set=16)
    history = train_tiny_mllm(tmp_path / "model", config, seed=0, instructions=[])
    assert [step for step, _ in history] == [8]
    assert history[0][1] < np.log(768)  # an untrained model's loss
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "model").num_parameters() < 2_000_000
    on = config.model_copy(update={"init": str(tmp_path / "model"), "sight_steps": 0})
    assert train_tiny_mllm(tmp_path / "again", on, seed=0, instructions=[])[0][1] < history[0][1]  # it goes on from there
