"""`reid-ray noise`: the page of noise levels of a finished training, with the pictures that its captions describe.

Knows a training's output and the tables that it was trained on; the page itself is page.py's. One pass over the captions and one over the
images find the few that are shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.sources import iter_images
from reid_ray.errors import DataError
from reid_ray.exit_codes import exit_code_of
from reid_ray.records import CAPTIONS
from reid_ray.storage import iter_table, read_manifest
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say
from reid_ray.terminal.quiet import quiet_terminal
from reid_ray.train.masking.page import write_noise_page


def noise_command(argv: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-ray noise",
        description="Write the page of a finished training's noise levels, each caption beside the picture that it describes.",
    )
    parser.add_argument("run", help="output folder of a train job with masking.kind nam")
    parser.add_argument("page", help="HTML file to write")
    parser.add_argument("--captions", type=int, default=500, help="captions on the page at most")
    asked = parser.parse_args(argv)
    with quiet_terminal("noise"):
        return exit_code_of(lambda: _write(asked))


def _write(asked: argparse.Namespace) -> None:
    table = Path(asked.run) / "noise"
    if not Path(asked.run).is_dir():
        raise DataError(f"{asked.run}: there is no such folder; give the output of a train job with masking.kind nam")
    if not table.is_dir():
        raise DataError(f"{asked.run}: holds no noise/; give the output of a train job with masking.kind nam and masking.export true")
    config = read_manifest(asked.run)["config"]
    images, captions = [config["images"]["path"], *config["images"]["further"]], config["captions"]["paths"]
    count = write_noise_page(table, asked.page, pictures=lambda rows: pictures_of(rows, captions, images), captions=asked.captions)
    say(f"noise: {counted(count, 'caption')} -> {asked.page}")


def pictures_of(rows: Sequence[dict[str, Any]], captions: Sequence[str], images: Sequence[str]) -> dict[int, bytes]:
    """The picture of each NOISE row, by its `row`: of several images with one caption the first.

    Args:
        rows: with row and text.
        captions: CAPTIONS tables that hold the texts.
        images: IMAGES tables that hold their images.
    """
    texts = pa.array(sorted({row["text"] for row in rows}), pa.string())
    image_of: dict[str, str] = {}
    for path in captions:
        for table in iter_table(path, CAPTIONS, columns=["image_id", "text"]):
            some = table.filter(pc.fill_null(pc.is_in(table["text"], texts), False))
            for image_id, text in zip(some["image_id"].to_pylist(), some["text"].to_pylist(), strict=True):
                image_of.setdefault(text, image_id)
    wanted = pa.array(sorted(set(image_of.values())), pa.string())
    found: dict[str, bytes] = {}
    for path in images:
        for table in iter_images(ImagesConfig(source="parquet", path=path), only=wanted):
            found |= {name: data for name, data in zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True) if data}
    return {row["row"]: found[image_of[row["text"]]] for row in rows if image_of.get(row["text"]) in found}
