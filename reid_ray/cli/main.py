"""`reid-ray`: a job, or one of the few commands that are none. Imports nothing but the table of jobs until it knows which."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reid_ray import __version__
from reid_ray.jobs import JOBS, named
from reid_ray.setup.platforms import UnsupportedPlatformError, support_here
from reid_ray.terminal.own_lines import say

_RULE = """\
A job is called by `reid-ray JOB --config FILE section.key=value ...`; `reid-ray JOB --help` has examples. FILE is a file, or the name of
a configuration that ships with reid_ray, such as caption.yaml or caption/caption.yaml; a file that exists wins."""


# What is no job: its purpose, and the function, of cli/commands.py if no module is named, that reads the rest of the command line.
_COMMANDS = {
    "gallery": (
        "Keep a gallery: add, search, delete, erase, verify, snapshot; gallery --help lists the verbs",
        "reid_ray.retrieval.gallery_command:gallery_command",
    ),
    "tokens": (
        "Make, list, rotate and revoke the tokens of a search service; tokens --help lists the verbs",
        "reid_ray.serve.access.tokens.tokens_command:tokens_command",
    ),
    "audit": (
        "Verify and read the audit log of a search service; audit --help lists the verbs",
        "reid_ray.serve.access.audit.audit_command:audit_command",
    ),
    "service": (
        "Ask a retrieval service: search, add, delete, erase, snapshots, audit; service --help lists the verbs",
        "reid_ray.serve.service_command:service_command",
    ),
    "label": (
        "Label pictures that look alike into identities, in a page, and write tables with them; label --help lists the verbs",
        "reid_ray.serve.same_person.label_command:label_command",
    ),
    "noise": (
        "Write the page of a training's noise levels, each caption beside its picture; noise RUN PAGE",
        "reid_ray.train.masking.noise_command:noise_command",
    ),
    "setup": ("Prepare this environment once, after pip: torch's CPU build, torchvision's hook, model files", "setup_command"),
    "configs": ("List the configurations that ship with reid_ray; configs copy NAME [PLACE] copies one", "configs_command"),
    "rehearse": ("Run shipped configurations small, from the published layouts to a score: those named, or all", "rehearse_command"),
    "constraints": ("Print where the pinned versions lie, for pip install -c", "constraints_command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line names. Returns the exit code."""
    try:
        support_here()
    except UnsupportedPlatformError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        say(overview())
        return 0
    if name == "--version":
        say(f"reid-ray {__version__}")
        return 0
    if name in JOBS:
        return int(named("reid_ray.cli.run_job:run_named")(name, rest, called=f"reid-ray {name}"))
    if name in _COMMANDS:
        function = _COMMANDS[name][1]
        return int(named(function if ":" in function else f"reid_ray.cli.commands:{function}")(rest))
    return int(named("reid_ray.cli.commands:unknown_command")(name, [*JOBS, *_COMMANDS]))


def overview() -> str:
    """Every job in pipeline order, and the commands that are none, with a line each."""
    jobs = [f"  {name:<12} {job.purpose}" for name, job in JOBS.items()]
    commands = [f"  {name:<12} {purpose}" for name, (purpose, _) in _COMMANDS.items()]
    return "\n".join(["usage: reid-ray JOB | COMMAND ...", "", "jobs:", *jobs, "", "commands:", *commands, "", _RULE])
