"""Which data set, in which published layout, at which address: the section shared by the jobs ingest and lint."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from reid_ray.config.folder_columns import FOLDER_ONLY, FolderColumnsConfig
from reid_ray.config.paths import LocalPath, PathOrAddress

# The formats, and of each the function that reads it, in a module beside or below this one: a new data set is one file and one line here.
READERS = {
    "cuhk_pedes": "cuhk_pedes.read_cuhk_pedes",
    "icfg_pedes": "icfg_pedes.read_icfg_pedes",
    "rstpreid": "rstpreid.read_rstpreid",
    "market1501": "market1501.read_market1501",
    "dukemtmc": "market1501.read_dukemtmc",
    "msmt17": "msmt17.read_msmt17",
    "cuhk03": "cuhk03.read_cuhk03",
    "luperson": "luperson.read_luperson",
    "luperson_mllm": "luperson_mllm.read_luperson_mllm",
    "ufine6926": "ufine.read_ufine6926",
    "ufine3c": "ufine.read_ufine3c",
    "interactive_pedes": "interactive_pedes.read_interactive_pedes",
    "webperson": "generated.webperson.read_webperson",
    "synth_pedes": "generated.synth_pedes.read_synth_pedes",
    "ham_pedes": "generated.ham_pedes.read_ham_pedes",
    "mals": "generated.mals.read_mals",
    "itcpr": "composed.itcpr.read_itcpr",
    "syncpr": "composed.syncpr.read_syncpr",
    "folder": "generic.folder.read_folder",
    "webdataset": "generic.webdataset.read_webdataset",
    "parquet": "generic.parquet.read_parquet",
}
if TYPE_CHECKING:
    Format: TypeAlias = str
else:
    Format = Literal[tuple(READERS)]
_ONE_JSON_FILE = frozenset(
    {"cuhk_pedes", "icfg_pedes", "rstpreid", "ufine6926", "ufine3c", "interactive_pedes", "webperson", "synth_pedes", "ham_pedes", "syncpr"}
)
# Options that mean something to some formats alone.
_OWNERS: dict[str, frozenset[str]] = {
    "annotations": _ONE_JSON_FILE,
    "images": frozenset({"luperson_mllm", "ham_pedes", "mals"}),
    "boxes": frozenset({"cuhk03"}),
    "val_as": frozenset({"msmt17"}),
    **{option: frozenset({"folder"}) for option in FOLDER_ONLY},
    "time_zone": frozenset({"folder", "parquet"}),
    "own": frozenset({"folder", "parquet"}),
    "each_its_own": frozenset({"folder"}),
    "columns": frozenset({"parquet"}),
    "captions": frozenset({"parquet"}),
}
# Formats whose images are no files of their own: nothing could be read by path later.
WITHOUT_FILES = frozenset({"webdataset", "parquet"})


class SourceConfig(FolderColumnsConfig):
    """A data set to read, and what is known of the images of a folder."""

    gives_way: ClassVar = {f"format={name}": [option for option, formats in _OWNERS.items() if name not in formats] for name in READERS}

    format: Format = Field(description="published layout of the data set; see reid_ray/data/formats for each one's files")
    path: PathOrAddress = Field(
        description="folder of the data set: a local path or any URI that pyarrow reaches (file://, s3://, gs://, hdfs://)"
    )
    name: str | None = Field(None, description="data set name in the tables; null takes the format's own (folder: the folder's name)")
    annotations: LocalPath | None = Field(
        None,
        description="caption file of a format that has one JSON file, relative to path; null takes the published name, and for webperson, "
        "ham_pedes, ufine6926 and ufine3c the only *.json there",
    )
    images: PathOrAddress | None = Field(
        None,
        description="luperson_mllm, ham_pedes and mals only: folder (or LUPerson's LMDB) of the images, relative to path or an address; "
        "null takes LUPerson-MLLM/, and path itself for the other two",
    )
    boxes: Literal["detected", "labeled"] = Field("detected", description="cuhk03 only: boxes of a detector, or drawn by hand")
    val_as: Literal["val", "train"] = Field(
        "val",
        description="msmt17 only: split of list_val.txt; train merges it as most published results do (32,621 images, 1,041 identities)",
    )
    each_its_own: bool = Field(False, description="folder only: every image is an identity of its own, numbered in order of the paths")
    columns: dict[str, str] = Field(
        {}, description="parquet only: IMAGES column, or camera, time, track, frame -> name in the file, for tables of other origin"
    )
    captions: PathOrAddress | None = Field(
        None, description="parquet only: address of a captions table that lies elsewhere; null takes captions/ beside images/, if any"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="an image whose header claims more pixels fails, undecoded")
    max_file_mb: int = Field(64, ge=1, description="a larger image file fails, so that memory stays bounded, MiB")

    @model_validator(mode="after")
    def _options_belong_to_the_format(self) -> Self:
        for option, formats in _OWNERS.items():
            if option in self.model_fields_set and self.format not in formats:
                raise ValueError(f"{option} belongs to format {' or '.join(sorted(formats))}, but format is {self.format}; drop it")
        return self

    @model_validator(mode="after")
    def _identities_come_from_one_place(self) -> Self:
        if self.each_its_own and self.pattern is not None and "(?P<person_id>" in self.pattern:
            raise ValueError("each_its_own numbers the identities, and so does pattern's group person_id; drop one of them")
        return self
