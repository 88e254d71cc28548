"""Job outputs as transactions: `with JobOutput(...) as out:` writes files, a clean exit commits them atomically, with a manifest.

Knows counts, configurations and manifests; lock, staging and commit are place.py's, what a result was made from provenance.py's. A reader
never sees half an output, and a killed job leaves the old one untouched.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from reid_ray.config.base import fingerprint
from reid_ray.reasons import told_apart
from reid_ray.redaction import redacted
from reid_ray.storage.environment import environment
from reid_ray.storage.files import write_json
from reid_ray.storage.object_store.object_client import is_store_address
from reid_ray.storage.object_store.store_place import StorePlace
from reid_ray.storage.place import IfExists, OutputPlace
from reid_ray.storage.provenance import MANIFEST, content_at, content_of, local_inputs, named_inputs, remote_inputs, run_of
from reid_ray.terminal.own_lines import say
from reid_ray.versions import numbered

_SHOWN = 4  # names in a sentence


def in_words(read: int, written: int, failed: Mapping[str, int], left_out: Mapping[str, int]) -> str:
    """As in: read 1000, written 165, left out 832 (other_split 832), failed 3 (truncated 1, undecodable 2)."""
    parts = [f"read {read}", f"written {written}"]
    for name, reasons in (("left out", left_out), ("failed", failed)):
        if reasons:
            parts.append(f"{name} {sum(reasons.values())} ({', '.join(f'{reason} {n}' for reason, n in sorted(reasons.items()))})")
    return ", ".join(parts)


class Counts:
    """Rows read, written and not used. Every row read ends in exactly one of written, left out and failed.

    `unused` counts the last two by reason; the reason says which of them it is (reid_ray.reasons).
    """

    def __init__(self) -> None:
        self.read = 0
        self.written = 0
        self.unused: Counter[str] = Counter()

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> Self:
        """What `as_dict` gave, today or in a version that called everything failed."""
        made = cls()
        made.take(counts)
        return made

    def take(self, counts: Mapping[str, Any]) -> None:
        """Become what `of` makes of them."""
        self.read, self.written = counts["read"], counts["written"]
        self.unused = Counter(counts["failed"])
        if "left_out" in counts:
            self.unused.update(counts["left_out"])

    @property
    def failed(self) -> dict[str, int]:
        """Rows of which something was to be made and could not be, by reason."""
        return told_apart(self.unused)[0]

    @property
    def left_out(self) -> dict[str, int]:
        """Rows that what was asked for does not take, by reason."""
        return told_apart(self.unused)[1]

    def as_dict(self) -> dict[str, Any]:
        """{"read": int, "written": int, "failed": {reason: int}, "left_out": {reason: int}}."""
        return {"read": self.read, "written": self.written, "failed": self.failed, "left_out": self.left_out}

    def __str__(self) -> str:
        """As in: read 1000, written 165, left out 832 (other_split 832), failed 3 (truncated 1, undecodable 2)."""
        return in_words(**self.as_dict())

    def unused_in_words(self) -> str:
        """The end of `__str__`: nothing, or a comma and what was left out and failed."""
        return str(self).removeprefix(in_words(self.read, self.written, {}, {}))


class JobOutput:
    """A job's output folder: `with JobOutput(...) as out:` writes files into out.folder and commits on a clean exit.

    On an exception nothing is left behind and an older result stays as it was. The output's lock is held from `hold` or from entering
    until the end, so two runs never write one output.

    Args:
        job: name of the job, for the manifest.
        path: the folder to appear, or the address of a store (object_store).
        config: the job's configuration; its values and fingerprint go into the manifest, and every place that it names is an input.
        if_exists: refuse, replace or reuse (see OutputConfig.if_exists).
        inputs: name -> path, paths or description of what the job reads, for the manifest.
        contents: dotted key of a place in `config` -> digest of what lies there, where the job knows better than its listing.

    Raises:
        DataError: what lies at the path, or above it, is in the way.
    """

    def __init__(
        self,
        job: str,
        path: str | Path,
        config: BaseModel,
        *,
        if_exists: IfExists = "refuse",
        inputs: Mapping[str, Any] | None = None,
        contents: Mapping[str, str] | None = None,
    ) -> None:
        self.counts = Counts()
        self.facts: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self._job, self._config, self._if_exists, self._inputs = job, config, if_exists, dict(inputs or {})
        self._contents = dict(contents or {})
        self._run_id = uuid.uuid4().hex
        self._read = named_inputs(self._inputs) | local_inputs(config)
        self._place: OutputPlace | StorePlace = (
            StorePlace(str(path), job, if_exists=if_exists, inputs=remote_inputs(config))
            if is_store_address(str(path))
            else OutputPlace(path, job, if_exists=if_exists, inputs=self._read)
        )
        self._place.check(files=False)
        self._holding = ExitStack()

    @property
    def job(self) -> str:
        """The job's name, which its lines begin with."""
        return self._job

    @property
    def path(self) -> Path:
        """The folder where the output appears, absolute, links resolved; of a job whose output.path takes no address."""
        assert isinstance(self._place, OutputPlace)
        return self._place.path

    @property
    def location(self) -> str:
        """Where the output appears: its folder, or its address."""
        return self._place.location

    @property
    def folder(self) -> Path:
        """Where its files are written until then, by this process alone if the output appears at an address."""
        return self._place.folder

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Dotted key -> digest of what lies there when this is first asked for: at `finished`, or when the work begins."""
        # What the job knows of a place holds under every name of it; a place with two names is listed once.
        known = {self._read[key]: digest for key, digest in self._contents.items() if key in self._read}
        known |= {path: content_of(path) for path in {*self._read.values()} - known.keys()}
        found = {key: known[path] for key, path in self._read.items()}
        remote = {key: content_at(address) for key, address in remote_inputs(self._config).items() if key not in self._contents}
        return dict(sorted({**found, **remote, **self._contents}.items()))

    def finished(self) -> dict[str, Any] | None:
        """The manifest of an earlier run that may be reused, else None.

        It may if if_exists is reuse; job, configuration (but for its sections output and ray), the contents of all inputs and what the
        job says of those that are no places (the revision of a hub model) are the same; and every file of it is there.
        """
        manifest, why = self._earlier()
        return manifest if why is None else None

    def kept(self, *, stale: Callable[[dict[str, Any]], str | None] = lambda _: None) -> dict[str, Any] | None:
        """As `finished`, and says that the result is kept, or why it is made anew; every job asks this before it works.

        Args:
            stale: a job's own reason to make an earlier result anew, from its manifest.
        """
        manifest, why = self._earlier()
        if manifest is None:
            return None
        if (why := why or stale(manifest)) is not None:
            say(f"{self._job}: {self.location} is made anew: {why}")
            return None
        say(f"{self._job}: {self.location} is finished already, kept: {Counts.of(manifest['counts'])}")
        return manifest

    def _earlier(self) -> tuple[dict[str, Any] | None, str | None]:
        """(the manifest of an earlier result, if there is one and it may be reused, why it is not what this job would make now)."""
        manifest = self._place.manifest() if self._if_exists == "reuse" else None
        return manifest, None if manifest is None else self._changed(manifest)

    def _changed(self, manifest: Mapping[str, Any]) -> str | None:
        if manifest.get("job") != self._job:
            return f"it is the output of {manifest.get('job')}"
        was, asked = _of_the_result(manifest.get("config", {})), _of_the_result(redacted(self._config.model_dump(mode="json")))
        if was != asked:
            return f"its configuration had another {', '.join(_names_that_differ(was, asked)[:_SHOWN]) or 'value'}"
        if "provenance" not in manifest:
            return "the older version that made it kept no record of what its inputs held"
        then, now = manifest["provenance"], self.provenance
        if changed := [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]:
            return f"what lies at {', '.join(changed[:_SHOWN])} has changed"
        if self._described(manifest.get("inputs", {})) != self._described(self._inputs):
            return "another revision of an input is there now"
        return next((f"its {name} is {kind}" for kind, name in self._place.differences() if kind != "foreign"), None)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the output's lock for longer than the `with` block of the output itself: around what is prepared for it.

        Raises:
            DataError: another run writes this output.
        """
        with self._place.hold():
            self._place.check(files=True)
            yield

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.hold())
            self._started = time.time()
            self._clock = time.perf_counter()
            cleared = stack.enter_context(ExitStack())
            cleared.callback(self._place.drop)
            self._place.begin({"run_id": self._run_id})
            self.provenance  # noqa: B018  (what lies there now, before any of it is read)
            cleared.pop_all()
            self._holding = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._holding:
            if kind is None:
                try:
                    write_json(self.folder / MANIFEST, self.manifest())
                    self._place.commit({"run_id": self._run_id})
                finally:
                    self._place.drop()
            else:
                self._place.drop()

    def _described(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that are no local places, as JSON has them."""
        return {name: value for name, value in json.loads(json.dumps(dict(inputs))).items() if not _is_place(name, self._read)}

    def manifest(self) -> dict[str, Any]:
        """What ran, on what, with which result: the content of manifest.json."""
        seconds = time.perf_counter() - self._clock
        return {
            **numbered("output"),
            "job": self._job,
            "run_id": self._run_id,
            "inputs": self._inputs,
            "input_runs": {name: run_of(value) for name, value in self._inputs.items()},
            "provenance": self.provenance,
            "config": redacted(self._config.model_dump(mode="json")),
            "fingerprint": fingerprint(self._config),
            "counts": self.counts.as_dict(),
            "facts": self.facts,
            "timings": {"total_seconds": round(seconds, 3), **{name: round(value, 3) for name, value in self.timings.items()}},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "environment": environment(),
        }


def _is_place(name: str, read: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for key in read)


def _names_that_differ(then: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that two configurations do not share; not the values, which may be secret."""
    if not isinstance(then, dict) or not isinstance(now, dict):
        return [] if then == now else [prefix.removesuffix(".")]
    missing = object()
    names = [*now, *(name for name in then if name not in now)]
    return [each for name in names for each in _names_that_differ(then.get(name, missing), now.get(name, missing), f"{prefix}{name}.")]


def _of_the_result(config: Any) -> Any:
    """A configuration without what says where its result goes and where it is worked out."""
    return {name: value for name, value in config.items() if name not in ("output", "ray")} if isinstance(config, dict) else config
