"""The scripted GPU of the captioning benchmarks: a batch that fills as vLLM's does, and answers as long as a captioner's."""

import random
import statistics

import pytest
from PIL import Image

from benchmarks.caption_engines.answer_lengths import DEVIATION, LONGEST, MEAN, SHORTEST, answer_tokens
from benchmarks.caption_engines.continuous_batch import ContinuousBatch, Request, steps_at_best
from benchmarks.caption_engines.scripted_gpu import GpuLike, ScriptedGpu, logged_requests
from benchmarks.caption_engines.step_log import read_logs


def requests(count, *, prompt=lambda: 1, answer=lambda: 10):
    return [Request(str(number), prompt(), answer()) for number in range(count)]


def filled(asked, **room):
    batch = ContinuousBatch(**room)
    for request in asked:
        batch.add(request)
    return batch


def token_by_token(asked, *, max_num_seqs, tokens_a_step):
    """{name: the step its answer ends with}, every token of every request counted by itself."""
    waiting, batch, ends, step = list(asked), {}, {}, 0
    while waiting or batch:
        step += 1
        room, moved = tokens_a_step, set()
        for name, (read, written, request) in batch.items():
            if read == request.prompt_tokens:
                batch[name], room = (read, written + 1, request), room - 1
                moved.add(name)
        while room:
            unread = next((name for name, (read, _, request) in batch.items() if read < request.prompt_tokens), None)
            if unread is None and waiting and len(batch) < max_num_seqs:
                unread = waiting[0].name
                batch[unread] = (0, 0, waiting.pop(0))
            if unread is None:
                break
            read, written, request = batch[unread]
            batch[unread], room = (read + 1, written + (read + 1 == request.prompt_tokens), request), room - 1
        for name in [name for name, (_, written, request) in batch.items() if written == request.answer_tokens]:
            ends[name] = step
            del batch[name]
    return ends


@pytest.mark.parametrize("seed", range(20))
def test_answers_end_with_the_step_that_counting_every_token_finds(seed):
    draw = random.Random(seed)
    room = {"max_num_seqs": draw.randint(1, 9), "tokens_a_step": draw.randint(9, 40)}
    asked = requests(40, prompt=lambda: draw.randint(1, 90), answer=lambda: draw.randint(1, 25))
    batch, ends = filled(asked, **room), {}
    while batch.unfinished:
        ends |= dict.fromkeys(batch.step(), batch.steps)
    assert ends == token_by_token(asked, **room)
    assert steps_at_best(asked, **room) == max(ends.values())


def test_equal_answers_take_as_many_rounds_as_the_batch_is_full():
    assert steps_at_best(requests(12, answer=lambda: 7), max_num_seqs=4, tokens_a_step=100) == 3 * 7


def test_an_aborted_request_never_ends_and_leaves_its_room_to_the_next():
    batch = filled(requests(3), max_num_seqs=1, tokens_a_step=10)
    batch.step()
    batch.abort(["0", "1", "none such"])
    ended = [batch.step() for _ in range(10)]
    assert ended == [[]] * 9 + [["2"]]
    assert batch.unfinished == 0


def test_a_request_aborted_while_it_is_read_is_read_no_further():
    batch = filled(requests(2, prompt=lambda: 15, answer=lambda: 1), max_num_seqs=2, tokens_a_step=10)
    batch.step()
    batch.abort(["0"])
    assert [batch.step(), batch.step()] == [[], ["1"]]


def test_answers_are_as_long_as_is_said_and_the_same_for_the_same_name():
    lengths = [answer_tokens(str(name).encode()) for name in range(20_000)]
    assert statistics.fmean(lengths) == pytest.approx(MEAN, rel=0.01)
    assert statistics.stdev(lengths) == pytest.approx(DEVIATION, rel=0.05)
    assert (min(lengths), max(lengths)) == (SHORTEST, LONGEST)
    assert lengths[:9] == [answer_tokens(str(name).encode()) for name in range(9)]


def test_the_scripted_engine_logs_what_it_needs_at_best_and_answers_by_the_name_alone(tmp_path):
    gpu = GpuLike(step_s=0.0, max_num_seqs=8, tokens_a_step=900)
    picture = Image.new("RGB", (280, 140))
    asked = [[{"role": "user", "content": [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": "Who is it?"}]}]] * 30
    keys = [f"{number:08x}" for number in range(30)]
    engine = ScriptedGpu(tmp_path, gpu)
    replies = engine.chat(asked, keys)
    (log,) = read_logs(tmp_path)
    requests = logged_requests(log)
    assert {request.prompt_tokens for request in requests} == {10 * 5 + 3}
    assert sum(step.running for step in log.steps) == sum(request.answer_tokens for request in requests)
    assert len(log.steps) == steps_at_best(requests, max_num_seqs=8, tokens_a_step=900)
    assert log.steps[0].waiting == 22
    for name, reply in zip(keys, replies, strict=True):
        assert engine.chat(asked[:1], [name]) == [reply]
