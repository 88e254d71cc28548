"""Recipe: the interface (protocol) between the train job and one kind of training, so that the job does not know what it trains.

The job (reid_ray.train.run) takes care of the run's folder, resuming, Ray Train, logs and publishing; a recipe of inputs, preparation
and the parts that a worker trains with. There are three: DualEncoderRecipe (dual/job.py), MllmRecipe (mllm/job.py)
and EditorRecipe (train/editor/job.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reid_ray.runtime import Need
from reid_ray.storage import Counts
from reid_ray.train.config import TrainingJob

if TYPE_CHECKING:
    from reid_ray.train.parts import Parts

# Inside a run's folder: the best weights so far.
BEST = "best"
# What `prepare` writes: samples, first weights, other data sets; and what workers write beside it: noise levels.
DATA, START, TRANSFER, NOISE = "data", "start", "transfer", "noise"


@dataclass(frozen=True)
class Selection:
    """Model selection: by which validation score the best weights are chosen.

    split: whose images and texts are validated on.
    number: which of validate's numbers decides; the greatest wins.
    title: what that number is, in words.
    """

    split: str
    number: str
    title: str


class Recipe(Protocol):
    """What run_recipe asks of one kind of training. Travels to the workers by pickle, so it holds a configuration and little else."""

    @property
    def job(self) -> str:
        """Name of the job, in manifests and messages."""
        ...

    @property
    def config(self) -> TrainingJob:
        """The job's configuration."""
        ...

    @property
    def selection(self) -> Selection | None:
        """How the weights are chosen; None keeps the last ones."""
        ...

    def inputs(self) -> dict[str, Any]:
        """Name -> path of what the job reads, for the manifest."""
        ...

    def captions(self) -> list[str]:
        """The tables of captions that the job reads."""
        ...

    def check(self) -> None:
        """Refuse what cannot run, before anything starts.

        Raises:
            ReidRayError: names the field, what is wrong and the remedy.
        """
        ...

    def needs(self) -> list[Need]:
        """What runs beside the workers, such as actors that decode."""
        ...

    def prepare(self, folder: Path, counts: Counts) -> dict[str, Any]:
        """Write into `folder`, on the driver, what the workers start from, and count it; returns facts for the manifest.

        Parts that an earlier attempt has finished are used as they are.
        """
        ...

    def exposures(self, folder: Path) -> dict[str, dict[str, Any] | None]:
        """What the weights will have seen of what each score during training is of (feed/seen.py), by the name of the score's line in the
        log (log/run_log.py); None: an older version prepared the data.
        """
        ...

    def parts(self, folder: Path, prepared: Path) -> Parts:
        """Build, on a worker, what the loop needs. torch.distributed is set up."""
        ...

    def publish(self, folder: Path, out: Path, model: dict[str, Any]) -> dict[str, Any]:
        """Add to the output folder `out` (model/ and the logs are there) what else the run left in `folder`.

        Args:
            folder: the run's folder.
            out: the output folder.
            model: manifest of the chosen weights.

        Returns:
            Facts for the manifest.
        """
        ...

    def account(self, counts: Counts, facts: dict[str, Any]) -> str:
        """What became of all rows that were read, in words; the parts add up."""
        ...

    def sentence(self, facts: dict[str, Any]) -> str:
        """What else the run's last line says, from the facts of its manifest: nothing, or words after a semicolon."""
        ...
