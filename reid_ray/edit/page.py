"""The page of an edit run: before, references and after of some edits, with what the verifier read. The template is pages/edits.html.jinja.

Holds the edits that it shows, spread over the run, and reads their sources and references again, those alone; makes no picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from reid_ray.data.images import BadImageError, decode_image, jpeg_thumbnail
from reid_ray.data.sources import ImageListing, iter_images
from reid_ray.edit.config import EditJob
from reid_ray.edit.edit_rows import CAPTION, EDIT
from reid_ray.pages import jpeg_url, render
from reid_ray.records import REFERENCES
from reid_ray.storage import iter_table, write_bytes

PAGE = "edits.html"
_HEIGHT, _WIDTH = 192, 192  # of a picture on the page, at most


class EditSheet:
    """Collects the edits that the page shows.

    Args:
        config: the job.
        planned: edits of the run, of which every so-manieth is shown.
    """

    def __init__(self, config: EditJob, planned: int) -> None:
        self._config = config
        self._every = max(1, planned // config.page_edits) if config.page_edits else 0
        self._seen = 0
        self._edits: dict[str, dict[str, Any]] = {}
        self._captions: dict[str, dict[str, Any]] = {}

    def see(self, rows: pa.Table) -> None:
        """Look at rows of the ledger; a caption's row comes in the table of its edit."""
        if not self._every:
            return
        kinds = rows["kind"].to_pylist()
        for at, kind in enumerate(kinds):
            if kind == EDIT:
                if self._seen % self._every == 0 and len(self._edits) < self._config.page_edits:
                    (row,) = rows.slice(at, 1).to_pylist()
                    self._edits[row["edit_id"]] = row
                self._seen += 1
            elif kind == CAPTION and (name := rows["edit_id"][at].as_py()) in self._edits:
                (self._captions[name],) = rows.slice(at, 1).to_pylist()

    def write(self, folder: Path, listing: ImageListing, facts: Mapping[str, Any]) -> None:
        """Write edits.html into the output's folder.

        Args:
            folder: of the output.
            listing: of the sources.
            facts: of the edits, from the manifest.
        """
        sources = self._sources(listing)
        crops = self._crops()
        shown = [self._shown(edit, sources, crops) for edit in self._edits.values()]
        write_bytes(folder / PAGE, render("edits", title="Edited people", facts=facts, edits=shown).encode())

    def _sources(self, listing: ImageListing) -> dict[str, str]:
        wanted = pa.array(sorted({edit["source_image_id"] for edit in self._edits.values()}), pa.string())
        found: dict[str, str] = {}
        for table in iter_images(self._config.images, listing=listing, only=wanted):
            for name, data in zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True):
                if (url := _url(data)) is not None:
                    found[name] = url
        return found

    def _crops(self) -> dict[str, str]:
        wanted = pa.array(sorted({slot["reference_id"] for edit in self._edits.values() for slot in edit["slots"]}), pa.string())
        found: dict[str, str] = {}
        for table in iter_table(self._config.references, REFERENCES, columns=["reference_id", "image"]):
            for row in table.filter(pc.is_in(table["reference_id"], wanted)).to_pylist():
                if (url := _url(row["image"])) is not None:
                    found[row["reference_id"]] = url
        return found

    def _shown(self, edit: Mapping[str, Any], sources: Mapping[str, str], crops: Mapping[str, str]) -> dict[str, Any]:
        written = self._captions.get(edit["edit_id"])
        by_model = written is not None and written["status"] == "ok"
        return {
            "image_id": edit["source_image_id"],
            "status": edit["status"],
            "reason": edit["reason"],
            "tries": edit["tries"],
            "difference": edit["difference_outside"],
            "before": sources.get(edit["source_image_id"]),
            "after": _url(edit["image"]),
            "original": edit["original"],
            "text": written["text"] if written is not None and by_model else edit["text"],
            "by": "a language model" if by_model else "a rule",
            "slots": [dict(_read_slot(slot)) | {"reference": crops.get(slot["reference_id"])} for slot in edit["slots"]],
        }


def _read_slot(slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "slot", slot["slot"]
    for name in ("old", "new", "read"):
        yield name, "" if slot[name] is None else ", ".join(json.loads(slot[name]).values())


def _url(data: bytes | None) -> str | None:
    """A small picture as a data: URL; None where there is none."""
    if data is None:
        return None
    try:
        picture: Image.Image = decode_image(data)
    except BadImageError:
        return None
    return jpeg_url(jpeg_thumbnail(picture, width=_WIDTH, height=_HEIGHT))
