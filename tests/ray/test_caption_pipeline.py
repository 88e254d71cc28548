"""The caption job on real engines: vLLM with the tiny multimodal model and SmolLM2, and the real sentence encoder, in Ray Data actors."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_files import seed
from PIL import Image

from reid_ray.caption.config import CaptionJob, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.job import run_caption
from reid_ray.config.common import ImagesConfig, OutputConfig, SyntheticConfig
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.pieces import SOURCED
from reid_ray.data.sources import iter_images, read_images
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS
from reid_ray.runtime import Need, on_each_node
from reid_ray.storage import read_manifest, read_table

pytestmark = pytest.mark.slow

PEOPLE = SyntheticPeople(SyntheticConfig(identities=14, images_per_identity=1, seed=5))


@pytest.fixture
def crops(tmp_path):
    """14 good crops, 16 odd ones, 30 files that are none in 30 ways; and what each must come to."""
    folder = tmp_path / "crops"
    (folder / "camera 1").mkdir(parents=True)
    expected = seed(folder, Image.fromarray(PEOPLE.pictures(0, 1)[0]))
    for number, data in enumerate(PEOPLE.image_table()["image"].to_pylist()):
        (folder / "camera 1" / f"{number:02d}.jpg").write_bytes(data)
        expected[f"camera 1/{number:02d}.jpg"] = "ok"
    return folder, expected


def test_every_image_of_a_folder_ends_in_a_caption_or_a_reason_and_rewrites_are_scored(local_ray, crops, tmp_path):
    folder, expected = crops
    job = CaptionJob(
        images=ImagesConfig(source="folder", path=str(folder)),
        rewriter=RewriterConfig(share=1.0),
        faithfulness=FaithfulnessConfig(alpha=0.7, max_tries=2),
        output=OutputConfig(path=str(tmp_path / "out")),
    )
    returned = run_caption(job)
    manifest = read_manifest(tmp_path / "out")
    rows = read_table(tmp_path / "out" / "captions", CAPTIONS).to_pylist()
    captions = [row for row in rows if row["kind"] != "rewrite"]
    rewrites = [row for row in rows if row["kind"] == "rewrite"]

    assert [row["image_id"] for row in captions] == sorted(expected, key=lambda name: ("/" in name, name))
    outcomes = {row["image_id"]: "ok" if row["status"] == "ok" else row["reason"].split(":")[0] for row in captions}
    assert outcomes == expected
    assert len({row["caption_id"] for row in rows}) == len(rows)
    assert all((row["text"] is None) == (row["status"] == "failed") for row in rows)

    good = {row["caption_id"] for row in captions if row["status"] == "ok"}
    assert sorted(row["parent_id"] for row in rewrites) == sorted(good)
    for row in rewrites:
        if row["status"] == "ok":
            assert row["faithfulness"] >= 0.7
        elif row["status"] == "unfaithful":
            assert row["reason"].startswith("unfaithful: ")
            assert row["tries"] == 2
        else:
            assert row["faithfulness"] is None
            assert row["reason"]
    assert any(row["faithfulness"] is not None for row in rewrites)

    failed = Counter(outcome for outcome in expected.values() if outcome != "ok")
    assert manifest["counts"] == {"read": 60, "written": 30, "failed": dict(sorted(failed.items())), "left_out": {}}
    facts, status = manifest["facts"], Counter(row["status"] for row in rewrites)
    assert facts["captions"] == {
        "ok": {"static": 30, "dynamic": 0},
        "failed": {f"static: {reason}": failed[reason] for reason in sorted(failed)},
    }
    assert facts["rewrites"] | {"mean_faithfulness": 0} == {
        "asked": 30,
        "generated": sum(row["tries"] for row in rewrites),
        "accepted": status["ok"],
        "unfaithful": status["unfaithful"],
        "failed": status["failed"],
        "mean_faithfulness": 0,
    }
    assert facts["passes"]["main"]["rewriter"]["tokens_per_second"] > 0
    assert facts["guesses"] == {"main": 30 + status["ok"]}  # a folder's pictures may be of anybody
    assert facts["plausibility"]["captioners"]["main static"]["captions"] == 30
    assert facts["plausibility"]["verdict"] == "not judged"
    assert {"counts": returned["counts"], "facts": returned["facts"]} == {"counts": manifest["counts"], "facts": facts}


@pytest.mark.soak("street")
def test_real_crops_get_static_and_dynamic_captions_or_reasons(local_ray, street, tmp_path):
    job = CaptionJob.model_validate(
        {
            "images": {"source": "folder", "path": str(street), "limit": 20},
            "captioners": {"main": {"instructions": ["static", "dynamic"]}},
            "rewriter": {"share": 0},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    counts = run_caption(job)["counts"]
    rows = read_table(tmp_path / "out" / "captions", CAPTIONS).to_pylist()
    assert Counter(row["kind"] for row in rows) == {"static": 20, "dynamic": 20}
    assert counts["read"] == 20 == counts["written"] + sum(counts["failed"].values())
    assert counts["written"] >= 15
    assert len({row["text"] for row in rows if row["status"] == "ok"}) > 5


def test_two_captioners_give_the_four_caption_files_of_luperson_mllm(local_ray, tmp_path):
    people = SyntheticConfig(identities=9, images_per_identity=1, seed=8)
    (tmp_path / "tables" / "images").mkdir(parents=True)
    pq.write_table(SyntheticPeople(people).image_table(), tmp_path / "tables" / "images" / "part.parquet")
    both = {"instructions": ["static", "dynamic"], "pool": {"batch_size": 4}}
    job = CaptionJob.model_validate(
        {
            "images": {"source": "parquet", "path": str(tmp_path / "tables" / "images")},
            "captioners": {"qwen": both, "tiny-warm": both | {"sampling": {"temperature": 0.9, "seed": 3}}},
            "rewriter": {"share": 0},
            "output": {"path": str(tmp_path / "run")},
        }
    )
    facts = run_caption(job)["facts"]
    rows = read_table(tmp_path / "run" / "captions", CAPTIONS).to_pylist()
    assert len({row["caption_id"] for row in rows}) == len(rows) == 9 * 2 * 2
    assert Counter((row["captioner"], row["kind"]) for row in rows) == dict.fromkeys(
        ((name, kind) for name in ("qwen", "tiny-warm") for kind in ("static", "dynamic")), 9
    )
    for name in ("qwen", "tiny-warm"):
        engine = facts["passes"][name]["captioner"]
        assert facts["passes"][name]["images"] == 9
        assert engine["prefix_cache"]["queries"] > 18 * 50  # every prompt token of every request is looked up

    run_export(
        ExportJob(
            tables=str(tmp_path / "tables"),
            captions=str(tmp_path / "run"),
            format="luperson_mllm",
            kinds=("static", "dynamic"),
            output=OutputConfig(path=str(tmp_path / "exported")),
        )
    )
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "exported").glob("T*.json")}
    assert set(files) == {"Ts-qwen.json", "Td-qwen.json", "Ts-tiny-warm.json", "Td-tiny-warm.json"}
    texts = {(row["captioner"], row["kind"], row["image_id"]): row["text"] for row in rows if row["status"] == "ok"}
    said = {
        (name.removesuffix(".json")[3:], {"s": "static", "d": "dynamic"}[name[1]], image): text
        for name, captions in files.items()
        for image, text in captions.items()
    }
    assert said == {(captioner, kind, image.rpartition("/")[2]): text for (captioner, kind, image), text in texts.items()}
    assert len(texts) >= 30


def test_ray_reads_the_rows_that_one_process_reads_in_small_blocks(local_ray, tmp_path):
    people = SyntheticConfig(identities=40, images_per_identity=4)
    pq.write_table(SyntheticPeople(people).image_table(), tmp_path / "images.parquet")
    for config in (
        ImagesConfig(synthetic=people, split="train", limit=70),
        ImagesConfig(source="parquet", path=str(tmp_path / "images.parquet"), split="test"),
    ):
        with ray_data_execution(no_progress_timeout_s=120):
            blocks = list(read_images(config).iter_batches(batch_size=None, batch_format="pyarrow"))
        assert max(block.num_rows for block in blocks) <= 64
        assert pa.concat_tables(blocks).cast(SOURCED).to_pylist() == pa.concat_tables(iter_images(config)).to_pylist()


def test_work_for_each_node_is_done_there_and_its_error_for_the_user_comes_back_as_itself(local_ray):
    anywhere = Need("captioners.main.pool", 4, 1.0, 0.0)
    (pid,) = on_each_node(os.getpid, anywhere)
    assert pid != os.getpid()
    assert on_each_node(os.getpid, replace(anywhere, num_gpus=8.0)) == []

    def refuse():
        raise DataError("rewriter.model people/nobody: is not there")

    with pytest.raises(DataError, match=r"\Arewriter.model people/nobody: is not there\Z"):
        on_each_node(refuse, anywhere)
