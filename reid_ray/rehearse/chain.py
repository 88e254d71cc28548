"""Which jobs stand before a configuration and which come after it, found by who writes what: the shipped configurations are the table.

A configuration reads runs/ingest/rstpreid/images; one that ships writes runs/ingest/rstpreid; that one comes first, and what it reads
before it. What no shipped configuration writes as it stands has a line in MADE_BY. A new configuration that reads what another writes
needs no line at all. Knows places and jobs; runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reid_ray.config.base import Section, load_config
from reid_ray.config.paths import named_places
from reid_ray.config.reference import job_model, job_of_config
from reid_ray.config.shipped import configs_folder, find_config, shipped_configs
from reid_ray.data.formats.config import SourceConfig
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.hub_access import is_hub_name
from reid_ray.rehearse.sizes import Change, changed, smaller
from reid_ray.storage import parquet_files

_MODELS = frozenset(
    {"model", "init", "base", "tokenizer", "encoder", "attribute_encoder", "processor"}
)  # last part of a key that takes a hub's name
_MADE_HERE = frozenset({("memory", "config"), ("serve", "access.tokens")})  # (job, key) of what the act makes or takes by itself
_SHARED = "/shared/"  # storage of a cluster, on which its configurations keep what those for one machine keep where they stand
_WRITTEN = frozenset({"output", "checkpoint_storage"})


@dataclass(frozen=True)
class Command:
    """A job with a configuration and overrides, as it is typed: train --config train/train.yaml output.path=runs/other."""

    job: str
    config: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its configuration: TASK/FILE.yaml of a shipped one, the file's name of another; the job's if there is none."""
        if self.config is None:
            return self.job
        return os.path.basename(self.config) if os.path.isabs(self.config) else self.config

    def __str__(self) -> str:
        return " ".join([self.name, *self.overrides])


_SETS = {"cuhk": "cuhk_pedes", "icfg": "icfg_pedes", "rstp": "rstpreid"}


def _transferred(trained: str, tested: str) -> tuple[str, ...]:
    """The evaluation of one fine-tuned model on the test split of another benchmark."""
    tables = f"runs/ingest/{_SETS[tested]}"
    return (f"encoder=runs/irra_{_SETS[trained]}/model", f"images={tables}/images", f"captions={tables}/captions")


# Folder -> the command that writes it, where no shipped configuration does as it stands. output.path is set to the folder.
MADE_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "runs/caption_msmt17": ("caption/caption_qwen25vl_7b.yaml", ("images={source: parquet, path: runs/ingest/msmt17/images}",)),
    "runs/edit/cuhk_pedes/references": (
        "edit/references.yaml",
        (
            "images.path=runs/ingest/cuhk_pedes/images",
            "segments=runs/edit/cuhk_pedes/segments/segments",
            "captions=runs/ingest/cuhk_pedes/captions",
        ),
    ),
    **{
        f"runs/{a}_to_{b}": ("retrieval/evaluate.yaml", _transferred(a, b))
        for a, b in (("cuhk", "icfg"), ("cuhk", "rstp"), ("icfg", "rstp"))
    },
}
# What is run on a training's output, so that its rehearsal ends in a number; {output} and {tables} are the training's. In the rehearsal's
# own process: actors would give the same vectors and take ten seconds for each of a dozen trainings to import what is imported there.
_HERE = "ray.execution=in_process"
_TEXT_SCORES: tuple[str, ...] = ("encoder={output}/model", "images={tables}/images", "captions={tables}/captions", _HERE)
_IMAGE_SCORES: tuple[str, ...] = ("encoder={output}/model", "images={tables}/images", _HERE)
_BENCHMARK = "runs/ingest/cuhk_pedes/images"  # that scores what was trained on images without a split
# Data sets that a configuration names without a format of the ingest job.
FOLDERS_OF_CROPS = frozenset({"crops"})
FOLDERS_OF_CLOTHES = frozenset({"data/clothes"})
FOLDERS_OF_FOOTAGE = frozenset({"data/videos", "data/frames"})


@dataclass
class Act:
    """A job of a rehearsal, ready to run in the working directory for which it was planned.

    Args:
        command: what it is called by.
        config: its configuration, made small.
        changes: everything that is not as written.
        before: the acts whose outputs it reads.
        models: hub names that it loads.
        data_sets: published layouts that it reads, each with its folder.
        crops: plain folders of images that it reads.
        clothes: folders of pictures of clothes that it reads.
        footage: folders of videos or of frames that it reads.
        own: places outside that are there, each with where its excerpt goes; of addresses tables alone, as texts.
    """

    command: Command
    config: Section
    changes: list[Change]
    before: list[Command] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    data_sets: list[tuple[SourceConfig, Path]] = field(default_factory=list)
    crops: list[Path] = field(default_factory=list)
    clothes: list[Path] = field(default_factory=list)
    footage: list[Path] = field(default_factory=list)
    own: list[tuple[Path | str, Path]] = field(default_factory=list)


def planned(wanted: Sequence[Command], root: Path, *, home: Path | None = None) -> list[Act]:
    """The acts that `wanted` need, each once, those that others read from before them; the working directory is `root`.

    Args:
        wanted: the commands to rehearse.
        root: an empty folder, in which relative paths resolve; absolute paths and addresses are taken into it.
        home: where relative paths that nobody writes lead; null: nowhere.

    Raises:
        ConfigError: a configuration reads what nobody writes; names key and place.
    """
    acts, refused = planned_where_possible(wanted, root, home=home)
    if refused:
        raise ConfigError(next(iter(refused.values())))
    return acts


def planned_where_possible(wanted: Sequence[Command], root: Path, *, home: Path | None = None) -> tuple[list[Act], dict[Command, str]]:
    """As planned, but a command that cannot be rehearsed is returned with the reason, and the others are planned all the same."""
    plan = _Plan(root, home, {**_shipped_outputs(str(root)), **dict(_output_of(command, root) for command in wanted)})
    refused: dict[Command, str] = {}
    for command in wanted:
        try:
            plan.add(command)
            if (following := _following(plan.acts[command], root)) is not None:
                plan.add(following)
        except ConfigError as error:
            refused[command] = str(error)
    return list(plan.acts.values()), refused


def command_of(name: str) -> Command:
    """The command of a shipped configuration."""
    return Command(job_of_config(Path(name)), name)


def typed_command(job: str, config: str | None, overrides: Sequence[str]) -> Command:
    """The command of a command line, whatever the working directory will be."""
    if config is None:
        return Command(job, None, tuple(overrides))
    file, shipped = find_config(config).resolve(), configs_folder().resolve()
    return Command(job, str(file.relative_to(shipped) if file.is_relative_to(shipped) else file), tuple(overrides))


class _Plan:
    """Acts in the order in which they can run.

    Args:
        root: the working directory.
        home: the one that the user stands in.
        writers: folder below it -> the command that writes it; None stands for commands without an output.
    """

    def __init__(self, root: Path, home: Path | None, writers: Mapping[str | None, Command]) -> None:
        self.root, self._home, self.acts = root, home, dict[Command, Act]()
        self._writers = writers

    def add(self, command: Command, waiting: tuple[Command, ...] = ()) -> None:
        """Add a command behind those whose outputs it reads."""
        if command in self.acts:
            return
        if command in waiting:
            raise ConfigError(f"{command}: reads what is made of its own output; its configurations stand in a circle")
        act = self._act(command)
        for before in act.before:
            self.add(before, (*waiting, command))
        self.acts[command] = act

    def _act(self, command: Command) -> Act:
        config = _loaded(command)
        changes = [*_moved(config, self.root), *smaller(config)]
        act = Act(command, _small(command, config, changes), changes)
        source = getattr(act.config, "source", None)
        if isinstance(source, SourceConfig) and source.format != "parquet":
            act.data_sets += list(_layouts(source))
            return act
        for key, place in named_places(act.config, without=_WRITTEN).items():
            self._resolve(act, key, place.partition("#")[0])
        return act

    def _resolve(self, act: Act, key: str, place: str) -> None:
        """Who makes what lies at `place`: an act before, a data set, a stand-in; a file of the package is there already."""
        if place.startswith("builtin:") or (act.command.job, key) in _MADE_HERE:
            return
        relative = os.path.relpath(os.path.join(self.root, place), self.root)
        if any(Path(self.root, relative).is_relative_to(Path(self.root, each)) for each in _own_outputs(act.config)):
            return
        writer = self._writer_of(relative)
        if writer is not None:
            act.before += [] if writer in act.before else [writer]
        elif relative in FOLDERS_OF_CROPS:
            act.crops.append(self.root / relative)
        elif relative in FOLDERS_OF_CLOTHES:
            act.clothes.append(self.root / relative)
        elif relative in FOLDERS_OF_FOOTAGE:
            act.footage.append(self.root / relative)
        else:
            self._take(act, key, place, relative)

    def _take(self, act: Act, key: str, place: str, relative: str) -> None:
        """What the user has, or a hub's model; a folder of hers goes before a hub's name, as in the jobs themselves."""
        written = str(next((change.was for change in act.changes if ".".join(map(str, change.place)) == key), place))
        there: Path | str = written if "://" in written else Path(os.path.join(self._home or self.root, written.partition("#")[0]))
        missing = _missing(there)
        if missing is None:
            act.own.append((there, self.root / relative))
        elif key.rpartition(".")[2] in _MODELS and is_hub_name(place):
            act.models += [] if place in act.models else [place]
        else:
            raise ConfigError(
                f"{act.command}: {key} is {written}, {missing}, and no shipped configuration writes it, so it cannot be rehearsed; "
                "name what is there, or the output of a shipped one"
            )

    def _writer_of(self, relative: str) -> Command | None:
        """The command that writes a place, by the folder itself or the nearest above it."""
        for folder in (relative, *map(str, Path(relative).parents)):
            if folder in MADE_BY:
                config, overrides = MADE_BY[folder]
                return Command(job_of_config(Path(config)), config, (*overrides, f"output.path={folder}"))
            if folder in self._writers:
                return self._writers[folder]
        return None


def _missing(there: Path | str) -> str | None:
    """Why a place outside cannot be read in part; None if it can. At an address that is a table."""
    if isinstance(there, Path):
        return None if there.exists() else "which is not there"
    try:
        parquet_files(there)
    except DataError as error:
        return f"which is no table that a rehearsal can read ({str(error).rstrip('.').replace(';', ',')})"
    return None


def _layouts(source: SourceConfig) -> Iterator[tuple[SourceConfig, Path]]:
    """The data sets that a source reads: its own, and the LMDB of another whose images it takes."""
    yield source, Path(source.path)
    if source.images is not None and Path(source.images).name == "lmdb":
        whole = SourceConfig(format="luperson", path=str(Path(source.images).parent))
        yield whole, Path(whole.path)


@lru_cache(maxsize=4)
def _shipped_outputs(root: str) -> Mapping[str | None, Command]:
    """Folder below `root` -> the shipped configuration that writes it."""
    return dict(_output_of(command_of(name), Path(root)) for name in shipped_configs() if job_of_config(Path(name)) != "demo")


def _output_of(command: Command, root: Path) -> tuple[str | None, Command]:
    output = _output(_loaded(command))
    return None if output is None else os.path.relpath(_inside(output, root) or output, root), command


def _following(act: Act, root: Path) -> Command | None:
    """The evaluation of what an act trained: dual encoders by text, multimodal LLMs by images."""
    if act.command.job not in ("train", "tune"):
        return None
    output = os.path.relpath(str(_output(act.config)), root)
    values = {"output": output, "tables": _scored_tables(act, root)}
    if act.command.job == "train":
        name, overrides = "retrieval/evaluate.yaml", _TEXT_SCORES
    else:
        name, overrides = "retrieval/evaluate_image.yaml", _IMAGE_SCORES
        if all(before.job != "ingest" for before in act.before):  # synthetic people have one test split
            overrides = (*overrides, "split=test", "query_split=test")
    return Command(job_of_config(Path(name)), name, (*(each.format(**values) for each in overrides), f"output.path={output}_scores"))


def _scored_tables(act: Act, root: Path) -> str:
    """The tables with a test split by which a model is scored.

    Its own if a job of the rehearsal wrote them; of what is not known to have such a split, those of the first data set that it is
    transferred to, or of a benchmark.
    """
    config: Any = act.config
    others = config.transfer[0].images if getattr(config, "transfer", ()) else _BENCHMARK
    place = others if config.images.train_split is None or act.own else config.images.path
    return os.path.relpath(os.path.join(root, place, os.pardir), root)


def _moved(config: Section, root: Path) -> list[Change]:
    """Absolute places and addresses, taken into the working directory: s3://bucket/x -> ROOT/bucket/x, /data/x -> ROOT/data/x."""
    found = []
    for key, place in named_places(config).items():
        now = _inside(place, root)
        if now is not None and now != place:
            found.append(Change(tuple(int(step) if step.isdigit() else step for step in key.split(".")), place, now))
    return found


def _inside(place: str, root: Path) -> str | None:
    """Where a place lies that is not below `root` by itself; None for a relative one and for names."""
    if "://" in place:
        return str(root / place.partition("://")[2].partition("?")[0].lstrip("/"))
    if os.path.isabs(place) and not Path(place).is_relative_to(root):
        return str(root / place.removeprefix(_SHARED).lstrip("/"))
    return None


def _own_outputs(config: Section) -> list[str]:
    """Where a job of several stages writes what its later stages read."""
    inner = [place for key, place in named_places(config).items() if key.endswith(".output.path")]
    return [*inner, *(place for key, place in named_places(config).items() if key == "folder")]


def _output(config: Section) -> str | None:
    output = getattr(config, "output", None)
    return None if output is None else str(output.path)


def _small(command: Command, config: Section, changes: list[Change]) -> Section:
    try:
        return changed(config, changes)
    except ValidationError as error:
        why = "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors())
        raise ConfigError(f"{command}: cannot be made smaller ({why}); set what is named there to a smaller value yourself") from None


def _loaded(command: Command) -> Section:
    file = None if command.config is None else find_config(command.config)
    return load_config(job_model(command.job), file, command.overrides)
