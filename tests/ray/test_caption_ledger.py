"""Runs of the caption job that follow one another, or die: what is made again and what is not, in real actors.

The engine is a double with an engine's shape that writes down what it is asked, and dies, hangs or fails on marked pictures; the kill
test of benchmarks/caption_kills.py does the same to vLLM.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
from bucket import s3_server
from PIL import Image
from refusals import refused

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.existing.job import run_rewrite
from reid_ray.caption.job import run_caption
from reid_ray.caption.ledger.content_keys import falls_in_share
from reid_ray.caption.plausibility.judgement import NOT_JUDGED
from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.caption.refilter.job import run_refilter
from reid_ray.caption.report.config import ReportJob
from reid_ray.caption.report.job import run_report
from reid_ray.config.base import load_config
from reid_ray.config.common import OutputConfig
from reid_ray.errors import DataError, EngineDownError
from reid_ray.records import CAPTIONS, table_of
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed
from reid_ray.storage import TableWriter, read_manifest, read_table

pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

COLOURS = ["red", "blue", "green", "black", "white", "grey", "brown", "yellow", "pink", "purple"]
DEADLY, HANGING, RAISING, FLAKY, REFUSED = 201, 202, 203, 204, 205  # red of a picture's first pixel


class LoggedEngine:
    """Answers at once, or after a pause; appends a line per question to a log."""

    def __init__(self, log: Path, *, pause_s: float = 0.0, flaky_fails: bool = True) -> None:
        self.log, self.pause_s, self.flaky_fails = log, pause_s, flaky_fails

    def chat(self, conversations, keys):
        time.sleep(self.pause_s)
        reds = [self._red(messages) for messages in conversations]
        with self.log.open("a") as log:
            log.writelines(f"{json.dumps([red, key])}\n" for red, key in zip(reds, keys, strict=True))
        if DEADLY in reds:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGING in reds:
            time.sleep(3600)
        if REFUSED in reds:
            raise EngineDownError("this engine takes nobody")
        if RAISING in reds:
            raise RuntimeError("the engine core is dead")
        return [self._reply(red, key) for red, key in zip(reds, keys, strict=True)]

    def _red(self, messages):
        content = messages[0]["content"]
        return None if isinstance(content, str) else int(np.asarray(content[0]["image_pil"])[0, 0, 0])

    def _reply(self, red, key):
        if red == FLAKY and self.flaky_fails:
            return Reply(None, error="too odd")
        drawn = hashlib.sha256(key.encode()).digest()  # of the whole key: another try is another answer
        return Reply(f"A man in a {COLOURS[drawn[0] % 10]} coat and {COLOURS[drawn[1] % 10]} shoes.", tokens=9)

    def asked(self) -> list[int]:
        """Reds of the pictures asked about so far; forgets them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [json.loads(line)[0] for line in lines]


def stages_of(pid: int) -> list[psutil.Process]:
    """Processes below `pid` that hold a stage."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("Actor(" in word or ("Actor)" in word and word.startswith("ray::")) for word in process.cmdline()):
                found.append(process)
    return found


def crops(folder: Path, reds) -> Path:
    folder.mkdir(exist_ok=True)
    for red in reds:
        Image.fromarray(np.full((32, 16, 3), (red, 90, 90), np.uint8)).save(folder / f"{red:03d}.png")
        old = time.time() - 60
        os.utime(folder / f"{red:03d}.png", (old, old))
    return folder


def job(folder: Path | str, out: Path, *overrides: str) -> CaptionJob:
    values = ["images.source=folder", f"images.path={folder}", f"output.path={out}", "output.if_exists=reuse", "rewriter.share=0"]
    return load_config(CaptionJob, None, [*values, "captioners.main.pool.batch_size=8", *overrides])


def rows_of(out: Path) -> list[dict]:
    return read_table(out / "captions", CAPTIONS).to_pylist()


def test_a_run_from_and_to_a_bucket_gives_what_folders_do_and_what_changed_is_made_again_and_nothing_else(local_ray, tmp_path):
    folder, engine = crops(tmp_path / "crops", range(40)), LoggedEngine(tmp_path / "log")
    (folder / "broken.png").write_bytes(b"no picture")
    with s3_server() as bucket:
        address, out = bucket.put(folder, "crops"), bucket.address("runs/out")
        captions = bucket.address("runs/out/captions")
        here = run_caption(job(folder, tmp_path / "here", "captioners.main.engine.admit_together=8"), engine=engine)
        assert sorted(engine.asked()) == list(range(40))
        there = run_caption(job(address, out), engine=engine)
        assert sorted(engine.asked()) == list(range(40))
        assert there["counts"] == here["counts"] == {"read": 41, "written": 40, "failed": {"not_an_image": 1}, "left_out": {}}
        assert read_table(captions, CAPTIONS).to_pylist() == rows_of(tmp_path / "here")
        assert run_caption(job(address, out), engine=engine)["run_id"] == read_manifest(out)["run_id"] == there["run_id"]
        crops(folder, [77])
        bucket.write("crops/003.png", (folder / "077.png").read_bytes())
        bucket.filesystem.delete_file("data/crops/004.png")
        bucket.requests_of.clear()
        again = run_caption(job(address, out), engine=engine)
        assert engine.asked() == [77]
        assert again["counts"]["written"] == read_table(captions, CAPTIONS).num_rows - 1 == 39
        assert bucket.requests_of["LIST", "crops"] <= 4  # listed once, and what was seen before is not read again
        assert 0 < bucket.requests_of["GET", "crops"] < 2 * 41
        read_from_there(captions, bucket.address("runs/rewritten"), tmp_path, engine)


def test_columns_of_her_own_stand_beside_the_captions_and_go_on_with_them(local_ray, tmp_path, capsys):
    folder, engine, out = crops(tmp_path / "crops", range(30)), LoggedEngine(tmp_path / "log"), tmp_path / "out"
    pattern = r"images.pattern=0(?P<zone>\d)(?P<seed>\d)\.png"
    facts = run_caption(job(folder, out, pattern, "rewriter.share=1", "faithfulness.alpha=-1"), engine=engine)["facts"]
    assert (facts["own_columns"], facts["own_columns_left"]) == (["zone"], ["seed"])
    assert "columns zone carried; columns seed stay with the images" in capsys.readouterr().out
    run_refilter(RefilterJob(run=str(out), alpha=0.99, output=OutputConfig(path=f"{tmp_path}/again")))
    embed = {"captions": str(tmp_path / "again" / "captions"), "caption_kinds": ["static", "dynamic"], "encoder": "builtin:tiny-encoder"}
    run_embed(EmbedJob.model_validate({**embed, "output": {"path": str(tmp_path / "vectors")}}))
    for table in (out / "captions", tmp_path / "again" / "captions", tmp_path / "vectors" / "embeddings"):
        rows = pq.read_table(table).to_pylist()
        assert len(rows) >= 30
        assert {row["zone"] for row in rows} == {"0", "1", "2"}
        assert [row["zone"] for row in rows] == [row["image_id"][1] for row in rows]


def read_from_there(captions: str, out: str, folder: Path, engine: LoggedEngine) -> None:
    """Jobs that read captions, from an output at an address; the first to another one there."""
    values = [f"captions.path={captions}", "captions.splits=[null]", f"output.path={out}", "faithfulness.alpha=-1"]
    rewritten = run_rewrite(load_config(RewriteJob, None, values), engine=engine)["facts"]
    assert (rewritten["rewrites"]["accepted"], rewritten["plausibility"]["verdict"]) == (39, NOT_JUDGED)
    assert set(rewritten["guesses"]) == {"main"}  # whose name the table bears knows drawn people alone
    refiltered = run_refilter(RefilterJob(run=out, alpha=0.99, output=OutputConfig(path=f"{folder}/refiltered")))
    assert refiltered["counts"]["read"] == 40 + 39
    page = run_report(ReportJob(run=out, sample_images=0, output=OutputConfig(path=f"{folder}/report")))
    assert page["counts"]["read"] == 40 + 39


def test_a_second_run_makes_what_is_new_or_failed_and_nothing_else(local_ray, tmp_path):
    folder, out, engine = crops(tmp_path / "crops", range(20)), tmp_path / "out", LoggedEngine(tmp_path / "log")
    crops(folder, [FLAKY])
    (folder / "broken.png").write_bytes(b"no picture")
    run_caption(job(folder, out), engine=engine)
    first = {row["image_id"]: row for row in rows_of(out)}
    assert Counter(engine.asked()) == Counter([*range(20), FLAKY])
    assert first["204.png"]["reason"].startswith("rejected")
    assert first["broken.png"]["reason"].startswith("not_an_image")

    # Nothing changed: only the failure that another try might mend is asked for again.
    run_caption(job(folder, out), engine=engine)
    assert engine.asked() == [FLAKY]

    # One image is new, one has other content under its old name, one has left; the failure is mended.
    crops(folder, [30])
    (folder / "003.png").write_bytes((folder / "030.png").read_bytes())
    os.remove(folder / "004.png")
    engine.flaky_fails = False
    manifest = run_caption(job(folder, out), engine=engine)
    again = {row["image_id"]: row for row in rows_of(out)}
    assert sorted(engine.asked()) == [30, 30, FLAKY]
    assert list(again) == sorted([*(f"{n:03d}.png" for n in [*range(20), 30, FLAKY] if n != 4), "broken.png"])
    unchanged = set(first) & set(again) - {"003.png", "204.png"}
    assert all(again[name] == first[name] for name in unchanged)
    assert again["003.png"]["image_sha256"] == again["030.png"]["image_sha256"] != first["003.png"]["image_sha256"]
    assert manifest["counts"] == {"read": 22, "written": 21, "failed": {"not_an_image": 1}, "left_out": {}}
    held = manifest["facts"]["resources"]
    assert 0 < held["stages"]["main"]["captioner"]["tokens"] <= 3 * 9
    assert held["cpu_hours"] > held["gpu_hours"] == 0

    # All is there: the finished output stands.
    assert run_caption(job(folder, out), engine=engine)["run_id"] == manifest["run_id"]
    assert engine.asked() == []


def test_a_change_makes_again_what_depends_on_it_and_a_return_finds_the_old_rows(local_ray, tmp_path):
    folder, out, engine = crops(tmp_path / "crops", range(12)), tmp_path / "out", LoggedEngine(tmp_path / "log")
    run_caption(job(folder, out), engine=engine)
    assert len(engine.asked()) == 12
    first = rows_of(out)

    # Another kind of caption beside the first.
    run_caption(job(folder, out, "captioners.main.instructions=[static,dynamic]"), engine=engine)
    assert len(engine.asked()) == 12
    assert [row for row in rows_of(out) if row["kind"] == "static"] == first

    # Sampling, limits and the longest side shape the text (each of them: tests/unit/caption/ledger); batch size and cache do not, and nor
    # does the captioner's name.
    run_caption(job(folder, out, "captioners.main.sampling.repetition_penalty=1.1"), engine=engine)
    assert len(engine.asked()) == 12
    other = "captioners={other: {engine: {kv_cache_mb: 128}, pool: {batch_size: 5}}}"
    values = [f"images.path={folder}", "images.source=folder", other, "rewriter.share=0", f"output.path={out}", "output.if_exists=replace"]
    run_caption(load_config(CaptionJob, None, values), engine=engine)
    assert engine.asked() == []
    assert [row | {"captioner": "main"} for row in rows_of(out)] == first
    assert {row["captioner"] for row in rows_of(out)} == {"other"}


def test_another_rewriter_or_threshold_makes_rewrites_again_and_no_caption(local_ray, tmp_path):
    folder, out, engine = crops(tmp_path / "crops", range(6)), tmp_path / "out", LoggedEngine(tmp_path / "log")
    tries = "faithfulness.max_tries=1"
    run_caption(job(folder, out, "rewriter.share=1", "faithfulness.alpha=-1", tries), engine=engine)
    assert Counter(red is None for red in engine.asked()) == {False: 6, True: 6}
    for override in ("faithfulness.alpha=-0.9", "rewriter.sampling.seed=1"):
        run_caption(job(folder, out, "rewriter.share=1", "faithfulness.alpha=-1", tries, override), engine=engine)
        assert engine.asked() == [None] * 6, override
    captions = [row for row in rows_of(out) if row["kind"] != "rewrite"]
    rewrites = [row for row in rows_of(out) if row["kind"] == "rewrite"]
    assert [row["parent_id"] for row in rewrites] == [row["caption_id"] for row in captions]


def test_pictures_that_kill_hang_or_break_an_engine_are_found_and_cost_nobody_else(local_ray, tmp_path):
    folder, engine = crops(tmp_path / "crops", [*range(30), DEADLY, HANGING, RAISING]), LoggedEngine(tmp_path / "log")
    manifest = run_caption(job(folder, tmp_path / "out", "ledger.batch_timeout_s=1.5", "captioners.main.pool.batch_size=33"), engine=engine)
    rows = {row["image_id"]: row for row in rows_of(tmp_path / "out")}
    assert manifest["counts"] == {"read": 33, "written": 30, "failed": {"quarantined": 3}, "left_out": {}}
    assert "died without a word" in rows["201.png"]["reason"]
    assert "timed out after 1.5 s in File" in rows["202.png"]["reason"]
    assert "RuntimeError: the engine core is dead" in rows["203.png"]["reason"]
    asked = Counter(engine.asked())
    assert max(asked[bad] for bad in (DEADLY, HANGING, RAISING)) <= 4
    # Another run tries each once more, alone, and says of each what the first said.
    run_caption(job(folder, tmp_path / "out", "ledger.batch_timeout_s=1.5"), engine=engine)
    assert sorted(engine.asked()) == [DEADLY, HANGING, RAISING]
    assert {row["image_id"]: row for row in rows_of(tmp_path / "out")} == rows


def test_an_engine_that_says_it_is_down_ends_the_job_in_its_own_words(local_ray, tmp_path):
    with refused(EngineDownError, "this engine takes nobody"):
        run_caption(job(crops(tmp_path / "crops", [REFUSED]), tmp_path / "out"), engine=LoggedEngine(tmp_path / "log"))
    assert not (tmp_path / "out").exists()


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {shared!r}]
from test_caption_ledger import LoggedEngine, job, run_caption
run_caption(job(Path({folder!r}), Path({out!r}), *{overrides!r}), engine=LoggedEngine(Path({log!r}), pause_s=0.4))
"""


def test_a_killed_driver_loses_only_what_was_in_its_engines_hands(local_ray, tmp_path):
    folder, out, log = crops(tmp_path / "crops", range(120)), tmp_path / "out", tmp_path / "log"
    overrides = ["rewriter.share=0.5", "faithfulness.alpha=-1", "rewriter.pool.batch_size=4"]
    places = {
        "folder": str(folder),
        "out": str(out),
        "log": str(log),
        "tests": str(Path(__file__).parent),
        "shared": str(Path(__file__).parents[1] / "shared"),
        "overrides": overrides,
    }
    cold = {**os.environ, "REID_RAY_WARM_WORKERS": ""}  # the stages are the driver's own processes
    driver = subprocess.Popen([sys.executable, "-c", DRIVER.format(**places)], env=cold, start_new_session=True)
    blocks = tmp_path / ".out.ledger" / "rows"
    while len(list(blocks.glob("block-*"))) < 5:
        assert driver.poll() is None
        time.sleep(0.05)
    with refused(DataError, str(out), "another run"):
        run_caption(job(folder, out), engine=LoggedEngine(log))
    stages = stages_of(driver.pid)
    assert stages
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not out.exists()
    assert psutil.wait_procs(stages, timeout=120)[1] == []  # they notice that their driver is gone
    before = {red for red in LoggedEngine(log).asked() if red is not None}
    run_caption(job(folder, out, *overrides), engine=LoggedEngine(log))
    after = [red for red in LoggedEngine(log).asked() if red is not None]
    assert len(before) >= 40
    assert len(set(after)) == len(after)
    assert len(before & set(after)) <= 8
    captions = [row for row in rows_of(out) if row["kind"] != "rewrite"]
    rewrites = Counter(row["parent_id"] for row in rows_of(out) if row["kind"] == "rewrite")
    assert [row["image_id"] for row in captions] == [f"{n:03d}.png" for n in range(120)]
    assert rewrites == Counter(row["caption_id"] for row in captions if falls_in_share(row["caption_id"], 0.5))
    assert not list(tmp_path.glob(".out.*.partial"))
    assert read_manifest(out)["counts"] == {"read": 120, "written": 120, "failed": {}, "left_out": {}}


class TextEngine(LoggedEngine):
    """Knows a caption by the number in it; repeats it with other clothes."""

    def __init__(self, log: Path, *, down: bool = False, flaky_fails: bool = True) -> None:
        super().__init__(log, flaky_fails=flaky_fails)
        self.down = down

    def _red(self, messages):
        number = int(messages[0]["content"].split("number ")[1].split()[0])
        return None if number == REFUSED and not self.down else number


def captions_of(numbers, *, changed=(), split="train") -> list[dict]:
    return [
        {
            "caption_id": f"{split}{number}",
            "image_id": f"{number}.jpg",
            "kind": "human",
            "status": "ok",
            "text": f"A man with the number {number} in a red coat and {'old' if number in changed else 'blue'} shoes.",
            "split": split,
        }
        for number in numbers
    ]


def test_a_table_of_captions_is_rewritten_and_what_a_dead_run_finished_is_not_asked_for_again(local_ray, tmp_path):
    rows, test = captions_of([*range(8), FLAKY, REFUSED]), captions_of(range(3), split="test")
    earlier = [rows[0] | {"caption_id": "old", "kind": "rewrite", "parent_id": "train0"}]

    def rewrite(table, engine) -> dict:
        with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
            writer.append(table_of(CAPTIONS, table))
        values = [
            f"captions.path={tmp_path}/captions",
            f"output.path={tmp_path}/out",
            "output.if_exists=reuse",
            "rewriter.pool.batch_size=1",
            "rewriter.engine.max_num_seqs=1",
        ]
        config = load_config(RewriteJob, None, [*values, "faithfulness.alpha=-1", "faithfulness.max_tries=2"])
        return run_rewrite(config, engine=engine)

    with pytest.raises(EngineDownError):
        rewrite([*test, *rows, *earlier], TextEngine(tmp_path / "log", down=True))
    before = Counter(TextEngine(tmp_path / "log").asked())
    assert before[REFUSED] == 1
    rows += captions_of([DEADLY])
    manifest = rewrite([*test, *rows, *earlier], TextEngine(tmp_path / "log"))
    after = Counter(TextEngine(tmp_path / "log").asked())
    # What failed is asked again, and what was not done: one is with the engine at a time, so all that was asked before had its answer.
    # What was finished and not yet durable when the deadly one came is made twice.
    expected = Counter({**{number: 1 for number in range(8) if not before[number]}, FLAKY: 2, DEADLY: 2, None: 1})
    assert after.keys() == expected.keys()
    assert all(expected[each] <= count <= 2 * expected[each] for each, count in after.items())
    assert after[DEADLY] == 2
    assert manifest["counts"] == {"read": 15, "written": 14, "failed": {}, "left_out": {"earlier_rewrite": 1}}
    assert manifest["facts"]["captions"] == {"asked": 11, "not_asked": {"other_split": 3}}
    assert {name: manifest["facts"]["rewrites"][name] for name in ("asked", "accepted", "unfaithful", "failed")} == {
        "asked": 11, "accepted": 9, "unfaithful": 0, "failed": 2,
    }  # fmt: skip
    found = rows_of(tmp_path / "out")
    assert [row["caption_id"] for row in found if row["kind"] == "human"] == [row["caption_id"] for row in [*test, *rows]]
    assert [row["parent_id"] for row in found if row["kind"] == "rewrite"] == [row["caption_id"] for row in rows]
    reasons = {row["parent_id"]: row["reason"].partition(":")[0] for row in found if row["status"] == "failed"}
    assert reasons == {f"train{FLAKY}": "rejected", f"train{DEADLY}": "quarantined"}

    # A caption was mended, one more came, and the deadly one has left: what was tried in vain is tried once more, the rest stands.
    mended = captions_of([*range(9), FLAKY], changed=[3])
    manifest = rewrite([*test, *mended], TextEngine(tmp_path / "log", flaky_fails=False))
    assert Counter(TextEngine(tmp_path / "log").asked()) == {3: 1, 8: 1, FLAKY: 1}
    assert manifest["facts"]["rewrites"]["accepted"] == manifest["facts"]["rewrites"]["asked"] == 10

    refiltered = run_refilter(RefilterJob(run=f"{tmp_path}/out", alpha=0.99, output=OutputConfig(path=f"{tmp_path}/again")))
    assert refiltered["facts"]["changes"]["ok -> unfaithful"] > 0
    page = run_report(ReportJob(run=f"{tmp_path}/out", output=OutputConfig(path=f"{tmp_path}/report")))
    assert page["counts"]["read"] == len(rows_of(tmp_path / "out"))


def test_a_table_without_a_caption_that_is_asked_for_is_refused_by_what_it_holds(local_ray, tmp_path):
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, [*captions_of(range(3), split="test"), *captions_of(range(2), split=None)]))
    config = load_config(RewriteJob, None, [f"captions.path={tmp_path}/captions", f"output.path={tmp_path}/out"])
    with refused(DataError, f"{tmp_path}/captions", "other_split 5", "captions.splits", "null"):
        run_rewrite(config, engine=TextEngine(tmp_path / "log"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions"]
