"""What vLLM cannot serve is refused by its key before Ray starts; a run that captioned nothing publishes nothing."""

from __future__ import annotations

import json
import logging
import logging.config
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from refusals import refused
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from reid_ray.caption.config import CaptionerConfig, CaptionJob, RewriterConfig, SamplingConfig, VllmConfig
from reid_ray.caption.engines import kv_cache, preflight
from reid_ray.caption.engines import vllm_engine as engine
from reid_ray.caption.engines.preflight import check_servable
from reid_ray.caption.engines.rendering import Rendering
from reid_ray.caption.engines.vllm_arguments import seeded_arguments
from reid_ray.caption.job import _publish
from reid_ray.caption.rows import staged_table
from reid_ray.config.common import PoolConfig
from reid_ray.data.sources import image_listing
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.model_files import resolve_model
from reid_ray.model.strict_loading import check_names
from reid_ray.storage import JobOutput

MODEL = Path(resolve_model("builtin:tiny-mllm"))


def bare(target):
    """A copy of the tiny model without its chat template."""
    shutil.copytree(MODEL, target)
    (target / "chat_template.jinja").unlink()
    file = target / "tokenizer_config.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "chat_template"}))
    return target


def check(folder, **engine):
    check_servable(CaptionerConfig(model=str(folder), engine=engine), str(folder), field="captioners.main")


def test_a_model_without_a_chat_template_is_refused_and_each_way_to_have_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "fallback_template", lambda *_: None)
    folder = bare(tmp_path / "bare")
    with refused(ConfigError, "captioners.main.model", "captioners.main.engine.chat_template"):
        check(folder)
    with refused(ConfigError, "rewriter.model", "rewriter.engine.chat_template"):
        check_servable(RewriterConfig(model=str(folder)), str(folder), field="rewriter")
    check(folder, chat_template="{{ messages }}")
    for name in ("tokenizer_config.json", "processor_config.json"):
        file = folder / name
        before = file.read_text() if file.exists() else None
        file.write_text(json.dumps({"chat_template": "{{ messages }}"}))
        check(folder)
        file.write_text(before or "{}")
    (folder / "chat_template.json").write_text("{}")
    check(folder)
    check(MODEL)


@pytest.mark.parametrize("size", [1, 16, 48])
def test_a_block_size_that_a_cpu_cannot_do_is_refused_by_its_key(size):
    with refused(ConfigError, "captioners.main.engine.block_size", f"{size}", "32"):
        check(MODEL, block_size=size)
    for fine in (32, 64, None):
        check(MODEL, block_size=fine)
    on_gpus = CaptionerConfig(engine={"block_size": size}, pool={"num_gpus": 1})
    check_servable(on_gpus, str(MODEL), field="captioners.main")


@pytest.mark.slow
def test_names_are_checked_from_headers_before_another_program_loads_them(tmp_path):
    check_names(MODEL)
    for name, change, words in (
        ("less", lambda s: {key: value for key, value in s.items() if "blocks.1." not in key}, r"missing \(.*blocks\.1\."),
        ("wrapped", lambda s: {f"module.{key}": value for key, value in s.items()}, r"unknown \(module\."),
        ("shape", lambda s: s | {"lm_head.weight": s["lm_head.weight"][:5].clone()}, "lm_head.weight is 5 x 128"),
    ):
        copy = shutil.copytree(MODEL, tmp_path / name)
        save_file(change(load_file(copy / "model.safetensors")), copy / "model.safetensors", {"format": "pt"})
        with pytest.raises(DataError, match=words):
            check_names(copy)
    (tmp_path / "config.json").write_text("{}")
    check_names(tmp_path)  # an architecture that is not known is for its own program to judge


def rows_of(outcomes):
    return staged_table(
        [
            {
                "caption_id": f"c{number}",
                "image_id": f"i{number}",
                "kind": "static",
                "status": "ok" if outcome == "ok" else "failed",
                "text": "A man." if outcome == "ok" else None,
                "reason": None if outcome == "ok" else f"{outcome}: because of {number}",
                "image_outcome": outcome,
                "captioner": "a",
                "model": "m",
                "revision": "r",
                "instruction_id": "static",
                "prompt_fingerprint": "p",
                "seed": 0,
                "tries": 1,
            }
            for number, outcome in enumerate(outcomes)
        ]
    )


def publish(path, outcomes):
    images = path.parent / "crops"
    images.mkdir(exist_ok=True)
    for number in range(len(outcomes)):
        Image.new("RGB", (8, 16)).save(images / f"i{number}.jpg")
    config = CaptionJob.model_validate({"images": {"source": "folder", "path": str(images)}, "output": {"path": str(path)}})
    run = SimpleNamespace(names=["a"], listing=image_listing(config.images), rows=lambda _, own: iter([rows_of(outcomes)]), throughput={})
    with JobOutput("caption", path, config, if_exists=config.output.if_exists) as output:
        _publish(run, config, output, None, None)


def test_a_run_that_captioned_nothing_publishes_nothing_and_says_the_commonest_reason(tmp_path):
    with refused(DataError, "crops", "2 of 3", "i1", "because of 1"):
        publish(tmp_path / "none", ["not_an_image", "rejected", "rejected"])
    assert not (tmp_path / "none").exists()
    publish(tmp_path / "one", ["rejected", "ok", "rejected"])
    assert (tmp_path / "one" / "manifest.json").is_file()


def test_engines_log_errors_but_never_a_dump_of_a_failed_batch(capfd):
    before = {name: logging.getLogger(name).__dict__.copy() for name in ("vllm", "vllm.logging_utils.dump_input")}
    logging.config.dictConfig(json.loads(engine._LOGGING.read_text()))
    try:
        logging.getLogger("vllm.logging_utils.dump_input").error("Dumping input data: tensor([[0.5]])")
        logging.getLogger("vllm.v1.engine.core").error("the engine has died")
    finally:
        for name, state in before.items():
            logging.getLogger(name).__dict__.update(state)
    said = capfd.readouterr().err
    assert "tensor" not in said
    assert "the engine has died" in said


@pytest.mark.parametrize("quoted", [True, False])
def test_a_rejected_request_keeps_why_and_nothing_of_what_it_said(quoted):
    caption = "A tall man in a red coat carries a blue bag"
    content = [{"type": "image_pil", "image_pil": object()}, {"type": "text", "text": caption}]

    def reject(conversation, **__):
        raise ValueError(f"5 tokens are too many, for {content if quoted else caption}, at {id(conversation):#x}")

    rejecting = object.__new__(engine.Engine)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    front = SimpleNamespace(_preprocess_chat_one=reject, renderer=SimpleNamespace(get_tokenizer=lambda: tokenizer))
    rejecting._rendering, rejecting._processes, rejecting._preparing = Rendering(front, None, (ValueError,)), None, threading.Lock()
    replies = rejecting.chat([[{"role": "user", "content": content}], [{"role": "user", "content": caption}]] * 2, list("abcd"))
    for reply in replies:
        assert reply.text is None
        assert reply.error.startswith("ValueError: 5 tokens are too many")
        for word in ("tall", "red", "bag", "0x", "PIL"):
            assert word not in reply.error
    assert len({reply.error for reply in replies}) == 1


def shaped(folder: Path, **text) -> Path:
    """A copy of the tiny model whose configuration says another size."""
    shutil.copytree(MODEL, folder)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    layers = {"layer_types": ["full_attention"] * text["num_hidden_layers"]} if "num_hidden_layers" in text else {}
    file.write_text(json.dumps(config | {"text_config": config["text_config"] | layers | text}))
    return folder


# Qwen2.5-VL-3B: 36 layers, 2 key-value heads of 128 numbers, keys and values: 36,864 bytes a token in bfloat16.
QWEN_3B = {"num_hidden_layers": 36, "num_key_value_heads": 2, "num_attention_heads": 16, "hidden_size": 2048}


@pytest.mark.parametrize(
    ("dtype", "tokens", "needed_mb"),
    [("float32", 1024, 75), ("bfloat16", 1024, 38), ("bfloat16", 4096, 146)],  # 32 tokens more than asked for: vLLM keeps a block
)
def test_a_given_cache_that_holds_no_request_is_refused_and_says_which_would(tmp_path, dtype, tokens, needed_mb):
    folder = shaped(tmp_path / "qwen", **QWEN_3B)
    engine = {"dtype": dtype, "max_model_len": tokens}
    with refused(ConfigError, "captioners.main.engine.kv_cache_mb", f" {needed_mb} ", "null"):
        check(folder, kv_cache_mb=needed_mb - 1, **engine)
    check(folder, kv_cache_mb=needed_mb, **engine)
    check(folder, **engine)
    # of a window of the last tokens alone, vLLM says itself what it needs
    check(shaped(tmp_path / "window", **QWEN_3B, sliding_window=64, use_sliding_window=True), kv_cache_mb=1, **engine)


def test_a_cache_without_a_size_holds_what_is_asked_for_within_a_share_of_the_machine_and_never_less_than_one_request(
    tmp_path, monkeypatch
):
    folder = str(shaped(tmp_path / "qwen", **QWEN_3B))

    def size(memory: int, *, gpus: float = 0, **engine) -> int | None:
        monkeypatch.setattr(kv_cache, "memory_bytes", lambda: memory)
        given = kv_cache.cache_arguments(folder, VllmConfig(dtype="bfloat16", **engine), PoolConfig(num_gpus=gpus))
        return given.get("kv_cache_memory_bytes")

    one = (1024 + 32) * 36_864
    assert size(1 << 40) == 64 * one
    assert size(1 << 40, max_num_seqs=8) == 8 * one
    assert size(1 << 34) == 1 << 30
    assert size(1 << 20) == one
    assert size(1 << 40, kv_cache_mb=100) == 100 << 20
    assert size(1 << 40, gpus=1) is None  # vLLM measures what the GPU has left


@pytest.mark.parametrize(("temperature", "gpus", "whole"), [(0.7, 0, True), (0.0, 0, False), (0.7, 1, False)])
def test_prompts_stay_whole_where_random_streams_cannot_be_rewound(temperature, gpus, whole):
    arguments = seeded_arguments(SamplingConfig(temperature=temperature), PoolConfig(num_gpus=gpus))
    assert arguments == ({"enable_chunked_prefill": False} if whole else {})


def test_a_vllm_without_what_captioning_calls_is_refused_by_its_version(monkeypatch):
    class Older:
        _preprocess_chat_one = None

    monkeypatch.setattr(engine, "_version", lambda: "0.99")
    with refused(ConfigError, "vLLM 0.99 lacks LLM._resolve_mm_lora"):
        engine._refuse_other_vllm(Older())
