"""Which reader reads which format. A new data set is one file beside this one and one line in READERS."""

from __future__ import annotations

from collections.abc import Callable

from reid_ray.data.containers.image_names import restored
from reid_ray.data.formats.config import Format, SourceConfig
from reid_ray.data.formats.cuhk03 import read_cuhk03
from reid_ray.data.formats.cuhk_pedes import read_cuhk_pedes
from reid_ray.data.formats.folder import read_folder
from reid_ray.data.formats.icfg_pedes import read_icfg_pedes
from reid_ray.data.formats.luperson import read_luperson
from reid_ray.data.formats.luperson_mllm import read_luperson_mllm
from reid_ray.data.formats.market1501 import read_dukemtmc, read_market1501
from reid_ray.data.formats.msmt17 import read_msmt17
from reid_ray.data.formats.parquet import read_parquet
from reid_ray.data.formats.rstpreid import read_rstpreid
from reid_ray.data.formats.webdataset import read_webdataset
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped
from reid_ray.data.store import Store, open_store

__all__ = ["READERS", "Caption", "ImageRecord", "Records", "Skipped", "read_source"]

READERS: dict[Format, Callable[[Store, SourceConfig], Records]] = {
    "cuhk_pedes": read_cuhk_pedes,
    "icfg_pedes": read_icfg_pedes,
    "rstpreid": read_rstpreid,
    "market1501": read_market1501,
    "dukemtmc": read_dukemtmc,
    "msmt17": read_msmt17,
    "cuhk03": read_cuhk03,
    "luperson": read_luperson,
    "luperson_mllm": read_luperson_mllm,
    "folder": read_folder,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
}


def read_source(source: SourceConfig) -> Records:
    """The records of a data set, streaming, in an order that does not change from run to run; of an export, under the ids it came from.

    Raises:
        DataError: the address or the layout cannot be used at all.
    """
    store = open_store(source.path)
    yield from restored(READERS[source.format](store, source), store)
