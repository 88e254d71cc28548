"""Opt-out of the libraries' usage telemetry, in every process that imports this package.

Knows environment variables; imports nothing. A variable that is set already stays as it is, so whoever wants a library to report sets
it to something else. Boards that a configuration asks for (log.to) are no reports: they are written to as asked.
"""

from __future__ import annotations

import os

OPT_OUT = {
    "DO_NOT_TRACK": "1",  # vLLM, huggingface_hub, MLflow and others that honour it
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


def opt_out_of_telemetry() -> None:
    """Set the variables of OPT_OUT that are not set."""
    for name, value in OPT_OUT.items():
        os.environ.setdefault(name, value)
