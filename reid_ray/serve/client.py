"""Client of the retrieval service, for scripts: all its verbs, in Python's words, with patience where the service is busy.

Knows routes and answers; not models or galleries. Requests are made again where that is safe: patient_http.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from PIL import Image

from reid_ray.serve.client_answers import (
    Deletion,
    ErasureReport,
    FacetsFound,
    GalleryState,
    HitFound,
    ItemFound,
    ItemsFound,
    JobState,
    SearchFound,
)
from reid_ray.serve.client_requests import SentFile, asked, change_key, given, in_path
from reid_ray.serve.patient_http import PatientHttp
from reid_ray.versions import check_json

_WAIT_S = 20.0
FINISHED = frozenset({"done", "failed", "cancelled"})


class SearchClient:
    """Asks a running service, as in `with SearchClient(url) as search: search.text("a man in a green coat", k=5)["hits"]`.

    Args:
        url: of the service.
        token: as `reid-ray tokens create` made it; None where the service asks for none.
        ca: file of certificates to trust, of a service with a certificate of its own.
        purpose: what searches are for; the service's audit log has it.
        timeout_s: a try without a sign of life ends then, seconds.
        patience_s: how long a request is tried again while the service is busy or restarts, seconds.
        plain: send the token to another machine without encryption.
        told: is told in a sentence, once, that a request is being tried again, and why.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        purpose: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 60.0,
        plain: bool = False,
        told: Callable[[str], None] | None = None,
        transport: Any = None,
    ) -> None:
        self._http = PatientHttp(
            url,
            token=token,
            ca=ca,
            purpose=purpose,
            timeout_s=timeout_s,
            patience_s=patience_s,
            plain=plain,
            told=told,
            transport=transport,
        )

    def search(self, question: Mapping[str, Any] | None = None, **fields: Any) -> SearchFound:
        """The best items for a question: fields of the service's Question, such as text, clues, k, where, one_per, cursor.

        A clue is {"text": ...}, {"image": bytes or a path} or {"item": id}, with a weight if it should count more or less.
        """
        return cast(SearchFound, self._post("/v1/search", asked(question, fields)))

    def text(self, text: str, *, k: int | None = None, **fields: Any) -> SearchFound:
        """The best items for a description."""
        return self.search(text=text, k=k, **fields)

    def image(self, data: bytes | Path, *, k: int | None = None, **fields: Any) -> SearchFound:
        """The best items for a picture, encoded; clues may be given beside it."""
        body = {"question": json.dumps(asked(None, {"k": k, **fields}))}
        picture = data.read_bytes() if isinstance(data, Path) else data
        return cast(SearchFound, self._http.ask("POST", "/v1/search/upload", files={"image": ("image", picture)}, data=body).json())

    def pages(self, question: Mapping[str, Any] | None = None, **fields: Any) -> Iterator[HitFound]:
        """All hits of a question, page after page."""
        found = self.search(question, **fields)
        yield from found["hits"]
        while found["cursor"] is not None:
            found = self.search(question, **{**fields, "cursor": found["cursor"]})
            yield from found["hits"]

    def batch(self, questions: Sequence[Mapping[str, Any]]) -> list[SearchFound | dict[str, str]]:
        """The answer of each question, in order; {"detail": why} where it has none."""
        body = {"questions": [asked(each, {}) for each in questions]}
        return cast(list[SearchFound | dict[str, str]], self._post("/v1/search/batch", body)["answers"])

    def browse(self, *, k: int | None = None, where: Mapping[str, Any] | None = None, cursor: str | None = None) -> ItemsFound:
        """A page of the gallery, the newest items first."""
        return cast(ItemsFound, self._post("/v1/browse", given({"k": k, "where": where, "cursor": cursor})))

    def items(self, *, where: Mapping[str, Any] | None = None, k: int | None = None) -> Iterator[ItemFound]:
        """All items that pass a filter, the newest first, fetched k at a time."""
        found = self.browse(k=k, where=where)
        yield from found["items"]
        while found["cursor"] is not None:
            found = self.browse(k=k, where=where, cursor=found["cursor"])
            yield from found["items"]

    def facets(self, columns: Sequence[str], *, where: Mapping[str, Any] | None = None, limit: int | None = None) -> FacetsFound:
        """How many items that pass have each value of some columns."""
        return cast(FacetsFound, self._post("/v1/facets", given({"columns": list(columns), "where": where, "limit": limit})))

    def item(self, item_id: str) -> ItemFound:
        """What is known of an item."""
        return cast(ItemFound, self._http.ask("GET", "/v1/items", params={"id": item_id}).json())

    def thumbnail(self, item: str | Mapping[str, Any]) -> Image.Image:
        """The small picture of an item or hit."""
        return Image.open(io.BytesIO(self.thumbnail_bytes(item))).convert("RGB")

    def thumbnail_bytes(self, item: str | Mapping[str, Any]) -> bytes:
        """The same as JPEG."""
        item_id = item if isinstance(item, str) else item["item_id"]
        return self._http.ask("GET", "/v1/thumbnails", params={"id": item_id}).content

    def explain(self, item_id: str, question: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Which words and which patches of an item its score comes from."""
        return dict(self._post("/v1/explain", {**asked(question, fields), "item_id": item_id}))

    def info(self) -> dict[str, Any]:
        """What the service searches, and its limits.

        Raises:
            DataError: the service is of a newer version, whose answers this client may not understand.
        """
        facts = self._http.ask("GET", "/v1/info").json()
        check_json("service", facts, origin=self._http.url)
        return dict(facts)

    def add(
        self,
        pictures: Mapping[str, bytes | Path],
        *,
        items: Sequence[Mapping[str, Any]] | None = None,
        caption: bool = False,
        sent: Callable[[int], object] = lambda size: None,
    ) -> JobState:
        """Add pictures: a job, for `job` and `finished`.

        Args:
            pictures: encoded, or files of them, by name.
            items: {"file": name, "item_id": ..., column: value} of each; None adds every picture, named by its bytes.
            caption: have them captioned first.
            sent: called with bytes as they are sent.
        """
        fields = {"caption": json.dumps(caption)} | ({} if items is None else {"items": json.dumps(list(items))})
        return self._add([("image", name, data) for name, data in pictures.items()], fields, sent)

    def add_table(self, table: Path, *, caption: bool = False, sent: Callable[[int], object] = lambda size: None) -> JobState:
        """Add the rows of a Parquet table, of the embed job or of pictures: a job, for `job` and `finished`."""
        return self._add([("table", table.name, table)], {"caption": json.dumps(caption)}, sent)

    def jobs(self, *, most: int = 100) -> list[JobState]:
        """Jobs of the service, the latest first, at most so many; each with the first ten of what it refused."""
        found: list[JobState] = []
        before = None
        while True:
            page = self._http.ask("GET", "/v1/jobs", params=given({"limit": min(most - len(found), 1_000), "before": before})).json()
            found += page["jobs"]
            before = page["before"]
            if before is None or len(found) >= most:
                return found

    def job(self, job_id: str, *, wait_s: float = 0.0) -> JobState:
        """How far a job is, once it has ended or some time is over."""
        timeout_s = wait_s + 60.0
        return cast(JobState, self._http.ask("GET", f"/v1/jobs/{in_path(job_id)}", params={"wait": wait_s}, timeout_s=timeout_s).json())

    def finished(
        self, job: JobState | str, *, progress: Callable[[JobState], object] = lambda job: None, every_s: float = _WAIT_S
    ) -> JobState:
        """Wait for a job's end; `progress` is called with its state now and then."""
        state = self.job(job) if isinstance(job, str) else job
        while state["state"] not in FINISHED:
            progress(state)
            state = self.job(state["job_id"], wait_s=every_s)
        progress(state)
        return state

    def cancel(self, job_id: str) -> JobState:
        """Have a job end after its batch; what it added stays."""
        return cast(JobState, self._change("DELETE", f"/v1/jobs/{in_path(job_id)}"))

    def delete(
        self, item_ids: Sequence[str] | None = None, *, where: Mapping[str, Any] | None = None, expect: int | None = None
    ) -> Deletion:
        """Hide items for good: some, or all that pass a filter; refused (409) if they are not as many as expected."""
        body = given({"item_ids": None if item_ids is None else list(item_ids), "where": where, "expect": expect})
        return cast(Deletion, self._change("POST", "/v1/items/delete", body))

    def erase(
        self,
        item_ids: Sequence[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        request: str,
        now: bool = False,
        expect: int | None = None,
    ) -> ErasureReport:
        """Hide items, and have them gone from every file by the gallery's deadline, or before this returns (`now`)."""
        ids = None if item_ids is None else list(item_ids)
        body = given({"item_ids": ids, "where": where, "request": request, "now": now, "expect": expect})
        return cast(ErasureReport, self._change("POST", "/v1/items/erase", body))

    def erasures(self) -> list[ErasureReport]:
        """All erasures: those to be carried out first, then the latest."""
        return cast(list[ErasureReport], self._http.ask("GET", "/v1/erasures").json()["erasures"])

    def erasure(self, request: str) -> ErasureReport:
        """What became of one, with its receipt once it is carried out."""
        return cast(ErasureReport, self._http.ask("GET", f"/v1/erasures/{in_path(request)}").json())

    def generations(self) -> dict[str, Any]:
        """The generation that counts: its segments, its log, and the snapshots."""
        return dict(self._http.ask("GET", "/v1/generations").json())

    def snapshot(self, name: str) -> GalleryState:
        """Keep the gallery as it is now under a name."""
        return cast(GalleryState, self._change("POST", "/v1/snapshots", {"name": name}))

    def restore(self, name: str) -> GalleryState:
        """Go back to a snapshot; what was erased stays erased."""
        return cast(GalleryState, self._change("POST", f"/v1/snapshots/{in_path(name)}/restore"))

    def drop(self, name: str) -> GalleryState:
        """Forget a snapshot."""
        return cast(GalleryState, self._change("DELETE", f"/v1/snapshots/{in_path(name)}"))

    def compact(self) -> JobState:
        """Carry out erasures and retention, drop what was deleted, merge small segments: a job."""
        return cast(JobState, self._change("POST", "/v1/compact"))

    def audit(self, *, before: int | None = None, limit: int | None = None) -> dict[str, Any]:
        """Records of the audit log, the latest first, before a number."""
        return dict(self._http.ask("GET", "/v1/audit", params=given({"before": before, "limit": limit})).json())

    def verify_audit(self) -> dict[str, Any]:
        """Whether the audit log is as it was written."""
        return dict(self._http.ask("GET", "/v1/audit/verify", timeout_s=600.0).json())

    def is_ready(self) -> bool:
        """Whether searches succeed now."""
        from reid_ray.errors import ReidRayError

        try:
            self._http.ask("GET", "/v1/ready")
        except ReidRayError:
            return False
        return True

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._http.ask("POST", path, json=dict(body)).json())

    def _change(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {} if body is None else {"json": dict(body)}
        return dict(self._http.ask(method, path, headers=change_key(), timeout_s=600.0, **options).json())

    def _add(self, files: Sequence[tuple[str, str, bytes | Path]], fields: Mapping[str, str], sent: Callable[[int], object]) -> JobState:
        def again() -> dict[str, Any]:
            return {"files": [(field, (name, SentFile(data, sent))) for field, name, data in files]}

        return cast(
            JobState, self._http.ask("POST", "/v1/jobs", again=again, data=dict(fields), headers=change_key(), timeout_s=600.0).json()
        )
