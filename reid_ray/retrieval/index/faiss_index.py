"""The gallery index: nearest-neighbour search over unit vectors in FAISS, with each row's item. The only file that imports FAISS.

Knows vectors, rows and identity columns; not images, models, Ray or HTTP. A row number is the identity of
an item: row i of FAISS is row i of `items` and of the thumbnails. An index remembers which encoder made its vectors and refuses any
other, because cosines between two models' spaces mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.errors import ConfigError, DataError
from reid_ray.model.encoder import Encoder
from reid_ray.records import EMBEDDINGS, conform
from reid_ray.retrieval.index.config import IndexConfig
from reid_ray.storage import write_json
from reid_ray.storage.table_files import reading_parquet
from reid_ray.versions import check_json, numbered

VECTORS_FILE, ITEMS_FILE, FACTS_FILE = "index.faiss", "gallery.parquet", "index.json"
ITEMS = pa.schema([field for field in EMBEDDINGS if field.name != "embedding"])

# FAISS sums in float32 in an order that depends on the batch; scores closer than this may come back in either order.
_TIE = 1e-5
_NORM_TOLERANCE = 1e-3
_NOT_FOUND = -1  # row of a place that an approximate search could not fill; its score is -inf


class GalleryIndex:
    """Nearest gallery items by cosine.

    Attributes:
        dim: dimension of the vectors.
        items: what each row is (EMBEDDINGS without the vector).
        config: how the vectors are stored and searched.
        encoder_fingerprint: of the encoder that made the vectors.
        encoder_path: where that encoder lay, or None.
    """

    def __init__(self, vectors: Any, items: pa.Table, config: IndexConfig, encoder_fingerprint: str, encoder_path: str | None) -> None:
        self._vectors = vectors
        self.dim: int = vectors.d
        self.items, self.config = items, config
        self.encoder_fingerprint, self.encoder_path = encoder_fingerprint, encoder_path
        self._camera_N = pc.fill_null(items["camera_id"].cast(pa.int64()), np.iinfo(np.int64).min).to_numpy()

    def __len__(self) -> int:
        return int(self._vectors.ntotal)

    @classmethod
    def build(
        cls, vector_ND: np.ndarray, items: pa.Table, config: IndexConfig, *, encoder_fingerprint: str, encoder_path: str | None = None
    ) -> Self:
        """Index N unit vectors; row i is described by row i of `items` (EMBEDDINGS columns; the vector itself is not needed).

        Raises:
            DataError: no vectors, a vector that is not of length 1 (its row and item are named), or an item twice.
            ConfigError: too few vectors to train what `config` asks for, or code_bytes that do not divide the dimension.
        """
        items = conform(items, ITEMS, origin="gallery items")
        vector_ND = np.ascontiguousarray(vector_ND, dtype=np.float32)
        if vector_ND.ndim != 2 or len(vector_ND) != items.num_rows:
            raise DataError(f"{items.num_rows} gallery items do not go with vectors of shape {vector_ND.shape}; expected one row each")
        if not len(vector_ND):
            raise DataError("the gallery is empty: no image could be embedded, so there is nothing to search")
        _refuse_not_unit(vector_ND, lambda row: f"gallery row {row} ({items['item_id'][row].as_py()})")
        _refuse_duplicates(items["item_id"])
        vectors = _new_index(len(vector_ND), vector_ND.shape[1], config)
        if not vectors.is_trained:
            vectors.train(_training_sample(vector_ND, config))
        vectors.add(vector_ND)
        return cls(vectors, items, config, encoder_fingerprint, encoder_path)

    def save(self, folder: str | Path) -> None:
        """Write index.faiss, gallery.parquet and index.json into an existing folder."""
        folder = Path(folder)
        faiss.write_index(self._vectors, str(folder / VECTORS_FILE))
        pq.write_table(self.items, folder / ITEMS_FILE, compression="zstd")
        write_json(folder / FACTS_FILE, {**numbered("index"), **self.facts()})

    def facts(self) -> dict[str, Any]:
        """What index.json says: kind, dimension, size and the encoder."""
        return {
            "dim": self.dim,
            "items": len(self),
            "encoder_fingerprint": self.encoder_fingerprint,
            "encoder_path": self.encoder_path,
            "config": self.config.model_dump(mode="json"),
        }

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | None = None) -> Self:
        """Read an index; if `encoder` is given, refuse one that did not make these vectors.

        Raises:
            DataError: a file is missing or unreadable, or index and encoder do not belong together; names both.
        """
        folder = Path(folder)
        facts = read_facts(folder)
        if encoder is not None:
            refuse_other_encoder(facts, folder=folder, dim=encoder.dim, fingerprint=encoder.fingerprint)
        try:
            vectors = faiss.read_index(str(folder / VECTORS_FILE))
            items = conform(pq.read_table(folder / ITEMS_FILE), ITEMS, origin=str(folder / ITEMS_FILE))
        except (RuntimeError, OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{folder}: is no readable index ({error}); run the index job again") from None
        if (vectors.d, vectors.ntotal, items.num_rows) != (facts["dim"], facts["items"], facts["items"]):
            raise DataError(
                f"{folder}: {VECTORS_FILE} holds {vectors.ntotal} vectors of dimension {vectors.d} and {ITEMS_FILE} {items.num_rows} "
                f"items, but {FACTS_FILE} says {facts['items']} of {facts['dim']}; run the index job again"
            )
        config = IndexConfig.model_validate(facts["config"])
        return cls(vectors, items, config, facts["encoder_fingerprint"], facts["encoder_path"])

    def search(self, query_QD: np.ndarray, k: int, *, camera_ids: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The best gallery rows of each query: (float32 scores [Q, K], int64 rows [Q, K]), best first.

        K is k, or the number of items (that pass the filter) where that is smaller; so K may be 0. Kind flat is exact: scores are
        summed in float64, equal scores (as float32) are ordered by row, and neither depends on what else is in the batch. The other
        kinds give FAISS's own scores, and pad what they did not find with row -1 and score -inf.

        Args:
            query_QD: Q unit vectors.
            k: how many, at least 1.
            camera_ids: only items of these cameras; None takes all.

        Raises:
            DataError: queries of another dimension, or one that is not of length 1.
            ConfigError: k below 1.
        """
        query_QD = np.ascontiguousarray(query_QD, dtype=np.float32)
        if query_QD.ndim != 2 or query_QD.shape[1] != self.dim:
            raise DataError(f"queries of shape {query_QD.shape} do not fit an index of dimension {self.dim}")
        if k < 1:
            raise ConfigError(f"k is {k}, but must be at least 1")
        _refuse_not_unit(query_QD, lambda row: f"query {row}")
        passing_N = None if camera_ids is None else np.isin(self._camera_N, list(camera_ids))
        passing = len(self) if passing_N is None else int(passing_N.sum())
        k = min(k, passing)
        if not k or not len(query_QD):
            return np.zeros((len(query_QD), k), np.float32), np.zeros((len(query_QD), k), np.int64)
        if self.config.kind == "flat":
            return self._search_exactly(query_QD, k, passing_N, passing)
        score_QK, row_QK = self._vectors.search(query_QD, k, params=self._parameters(k, passing_N))
        return _best_first(np.where(row_QK == _NOT_FOUND, -np.inf, score_QK).astype(np.float32), row_QK)

    def _search_exactly(self, query_QD: np.ndarray, k: int, passing_N: np.ndarray | None, passing: int) -> tuple[np.ndarray, np.ndarray]:
        parameters = self._parameters(k, passing_N)
        fetched = min(k + 8, passing)
        while True:  # until nothing that might tie with the k-th place is left outside
            score_QF, row_QF = self._vectors.search(query_QD, fetched, params=parameters)
            if fetched == passing or (score_QF[:, k - 1] - score_QF[:, -1] > _TIE).all():
                break
            fetched = min(4 * fetched, passing)
        score_QK, row_QK = np.empty((len(query_QD), k), np.float32), np.empty((len(query_QD), k), np.int64)
        for query, (query_D, row_F) in enumerate(zip(query_QD.astype(np.float64), row_QF, strict=True)):
            # A sum per row, not a matrix product: its order of summation is the same for every row, so equal vectors tie exactly.
            score_F = (self._vectors.reconstruct_batch(row_F) * query_D).sum(axis=1).astype(np.float32)
            order = np.lexsort((row_F, -score_F))[:k]
            score_QK[query], row_QK[query] = score_F[order], row_F[order]
        return score_QK, row_QK

    def _parameters(self, k: int, passing_N: np.ndarray | None) -> Any:
        options: dict[str, Any] = {}
        if passing_N is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(passing_N, bitorder="little"))
        if self.config.kind in ("ivf_flat", "ivf_pq"):
            return faiss.SearchParametersIVF(nprobe=min(self.config.probes, self._vectors.nlist), **options)
        if self.config.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(self.config.search_depth, k), **options)
        return faiss.SearchParameters(**options) if options else None


def read_facts(folder: str | Path) -> dict[str, Any]:
    """The content of an index folder's index.json.

    Raises:
        DataError: the folder holds no index.
    """
    path = Path(folder) / FACTS_FILE
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        check_json("index", facts, origin=path)
        missing = {"dim", "items", "encoder_fingerprint", "encoder_path", "config"} - set(facts)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), so {folder} holds no index; run the index job first") from None
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); run the index job again") from None
    if missing:
        raise DataError(f"{path}: lacks {sorted(missing)}; run the index job again")
    return facts


def refuse_synthetic(folder: str | Path) -> None:
    """Refuse an index that holds pictures that an editor made; one that an older version wrote tells of none.

    Raises:
        DataError: it does, or its items cannot be read.
    """
    path = Path(folder) / ITEMS_FILE
    with reading_parquet(str(path)):
        names = pq.read_schema(path).names
        edited = pc.sum(pq.read_table(path, columns=["synthetic"])["synthetic"]).as_py() if "synthetic" in names else 0
    if edited:
        raise DataError(
            f"{folder}: an editor made {edited} of its pictures, so nobody looks like them; set include_synthetic to true to show them, or "
            "run the index job again without them"
        )


def refuse_other_encoder(facts: dict[str, Any], *, folder: str | Path, dim: int, fingerprint: str) -> None:
    """Refuse an encoder whose vectors cannot be compared with those of the index.

    Raises:
        DataError: names both dimensions, or both fingerprints.
    """
    remedy = "index the gallery again with this encoder, or give the encoder that made the index"
    if facts["dim"] != dim:
        raise DataError(f"{folder}: the index has dimension {facts['dim']}, but the encoder gives {dim}; {remedy}")
    if facts["encoder_fingerprint"] != fingerprint:
        made_by = f"{facts['encoder_fingerprint']} ({facts['encoder_path']})"
        raise DataError(f"{folder}: the index was made by encoder {made_by}, but the encoder at hand is {fingerprint}; {remedy}")


def set_search_threads(threads: int) -> None:
    """Threads that FAISS uses in this process."""
    faiss.omp_set_num_threads(threads)


def _new_index(count: int, dim: int, config: IndexConfig) -> Any:
    metric = faiss.METRIC_INNER_PRODUCT
    if config.kind == "flat":
        return faiss.IndexFlatIP(dim)
    if config.kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, config.links, metric)
        graph.hnsw.efConstruction = config.build_depth
        return graph
    training = min(count, config.train_vectors)
    # k-means wants 39 points a cluster (FAISS warns below that); 4 sqrt(N) balances finding clusters against scanning them.
    lists = config.lists or max(1, min(int(4 * count**0.5), training // 39))
    if training < lists:
        raise ConfigError(f"index.lists is {lists}, but only {training} vectors are there to train them; lower it or use kind flat")
    coarse = faiss.IndexFlatIP(dim)
    if config.kind == "ivf_flat":
        clustered = faiss.IndexIVFFlat(coarse, dim, lists, metric)
    else:
        if dim % config.code_bytes:
            raise ConfigError(f"index.code_bytes is {config.code_bytes}, which does not divide the dimension {dim}")
        if training < 256:
            raise ConfigError(f"index.kind ivf_pq needs 256 training vectors, but only {training} are there; use kind flat")
        clustered = faiss.IndexIVFPQ(coarse, dim, lists, config.code_bytes, 8, metric)
        clustered.pq.cp.seed = config.seed
    clustered.cp.seed = config.seed
    return clustered


def _training_sample(vector_ND: np.ndarray, config: IndexConfig) -> np.ndarray:
    if len(vector_ND) <= config.train_vectors:
        return vector_ND
    drawn = np.random.default_rng(config.seed).choice(len(vector_ND), config.train_vectors, replace=False)
    return np.ascontiguousarray(vector_ND[np.sort(drawn)])


def _refuse_not_unit(vector_ND: np.ndarray, name: Any) -> None:
    norm_N = np.linalg.norm(vector_ND, axis=1)
    wrong = np.flatnonzero(~(np.abs(norm_N - 1) <= _NORM_TOLERANCE))  # written so that NaN is wrong too
    if len(wrong):
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        raise DataError(f"{name(int(wrong[0]))} has a vector of length {norm_N[wrong[0]]:g}, not 1{more}; L2-normalise vectors first")


def _refuse_duplicates(item_ids: pa.ChunkedArray) -> None:
    counted = pc.value_counts(item_ids)
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        first = twice[0]["values"].as_py()
        raise DataError(f"item {first!r} is in the gallery {twice[0]['counts'].as_py()} times; ids must be unique")


def _best_first(score_QK: np.ndarray, row_QK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order_QK = np.lexsort((row_QK, -score_QK), axis=1)
    return np.take_along_axis(score_QK, order_QK, 1), np.take_along_axis(row_QK, order_QK, 1)
