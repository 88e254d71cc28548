"""What the caption job refuses, before a Ray session or an actor starts and before an output folder appears."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_ray.caption import job as pipeline
from reid_ray.caption.config import CaptionJob
from reid_ray.cli.run_job import run_job
from reid_ray.config import load_config
from reid_ray.errors import ConfigError, DataError


@pytest.fixture
def crops(tmp_path, monkeypatch):
    def started(*_):
        raise AssertionError("a Ray session was started")

    monkeypatch.setattr(pipeline, "ray_session", started)
    folder = tmp_path / "crops"
    folder.mkdir()
    Image.new("RGB", (8, 16)).save(folder / "a.jpg")
    return folder


def _run(tmp_path, crops, *overrides: str) -> None:
    basic = [f"output.path={tmp_path / 'out'}", "images.source=folder", f"images.path={crops}", "rewriter.share=0"]
    pipeline.run_caption(load_config(CaptionJob, None, [*basic, *overrides]))


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["captioners.main.model=/no/such/weights"], ConfigError, r"captioners\.main\.model: /no/such/weights does not exist"),
        (["rewriter.share=1", "rewriter.model=./nothing"], ConfigError, r"rewriter\.model: \./nothing does not exist"),
        (["rewriter.share=1", "faithfulness.model=nothing"], ConfigError, r"faithfulness\.model: nothing does not exist"),
        (
            ["rewriter.share=1", "faithfulness.device=cuda:0"],
            ConfigError,
            r"faithfulness\.device is cuda:0, but rewriter\.pool\.num_gpus is 0",
        ),
        (["captioners.main.pool.gpus=1"], ConfigError, r"captioners\.main\.pool\.gpus: unknown key"),
        (["captioners.main.engine.tensor_parallel_size=2"], ConfigError, r"captioners\.main: engine\.tensor_parallel_size is 2"),
        (["captioners.main.instructions=[static, static]"], ConfigError, r"captioners\.main: instructions .* twice"),
        (["captioners.main.engine.extra={dtype: float16}"], ConfigError, r"captioners\.main\.engine: extra repeats dtype"),
        (["captioners.main.adapter=nowhere"], ConfigError, r"captioners\.main\.adapter: nowhere holds no LoRA adapter"),
        (["captioners.main.sampling.structure={regex: a, choice: [b]}"], ConfigError, r"structure: set exactly one of .*choice, regex"),
        (["captioners.main.sampling.structure={json_schema: {type: object}}"], ConfigError, r"structure: json_schema must have a property"),
        (["captioners.main.sampling.extra={seed: 3}"], ConfigError, r"sampling: extra repeats seed"),
        (["captioners={Qwen 7B: {}}"], ConfigError, r"captioners\.Qwen 7B.*should match pattern"),
        (["captioners={}"], ConfigError, r"captioners: .*at least 1 item"),
        (["rewriter.share=1.5"], ConfigError, r"rewriter\.share"),
    ],
)
def test_what_cannot_run_is_refused_by_its_dotted_name(tmp_path, crops, overrides, error, words):
    with pytest.raises(error, match=words):
        _run(tmp_path, crops, f"captioners.main.model={_weights(tmp_path)}", *overrides)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_refused_and_the_job_ends_with_2(tmp_path, crops, capsys):
    (crops / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"images\.path"):
        _run(tmp_path, crops, f"captioners.main.model={_weights(tmp_path)}")
    arguments = [
        "images.source=folder",
        f"images.path={crops}",
        f"output.path={tmp_path / 'out'}",
        f"captioners.main.model={_weights(tmp_path)}",
    ]
    assert run_job("", CaptionJob, pipeline.run_caption, [*arguments, "rewriter.share=0"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {crops}: holds no file")


@pytest.mark.slow
def test_a_model_without_a_chat_template_ends_the_job_with_2_before_ray(tmp_path, crops, capsys):
    (_weights(tmp_path) / "chat_template.jinja").unlink()
    arguments = [f"images.path={crops}", f"output.path={tmp_path / 'out'}", f"captioners.main.model={tmp_path / 'weights'}"]
    assert run_job("", CaptionJob, pipeline.run_caption, ["images.source=folder", "rewriter.share=0", *arguments]) == 2
    assert "has no chat template; set captioners.main.engine.chat_template" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _weights(tmp_path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder
