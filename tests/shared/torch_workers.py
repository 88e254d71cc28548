"""Worker processes that find torch, DeepSpeed and the package imported: forks of one server, which this process starts once.

A fresh interpreter takes some seconds to import them, several times a test. The server has imported and done nothing else, so that a
worker is as fresh as one that had imported them itself; it sees the environment of the server's start, not later changes to it.
"""

import contextlib
import gc
import io
import multiprocessing
import sys
from pathlib import Path

import torch

IMPORTED = [
    "torch.distributed",
    "torch.testing",
    "torch._dynamo",
    "deepspeed",
    "peft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.clip.modeling_clip",
    "reid_ray.train.zero",
    "reid_ray.train.dual.worker_parts",
    "reid_ray.train.mllm.worker_parts",
    "diffusers.models.unets.unet_2d_condition",
    "reid_ray.train.editor.worker_parts",
]


def start_workers(function, arguments, count, *, join=True):
    """`function(rank, *arguments)` in `count` processes, as torch.multiprocessing.spawn starts them."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    return torch.multiprocessing.start_processes(_call, (function, arguments), nprocs=count, join=join, start_method="forkserver")


def _call(rank, function, arguments):
    gc.freeze()  # or DeepSpeed, which collects garbage now and then, would walk over all that was imported
    function(rank, *arguments)


def outputs_of(script, argument_lists, folder: Path) -> list[str]:
    """What each of so many processes, at work at the same time, prints when it runs `script` with its list of arguments."""
    start_workers(_run, (script, [list(map(str, arguments)) for arguments in argument_lists], str(folder)), len(argument_lists))
    return [(folder / f"printed-{rank}").read_text() for rank in range(len(argument_lists))]


def _run(rank, script, argument_lists, folder):
    sys.argv[1:] = argument_lists[rank]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(script, {"__name__": "__main__"})
    Path(folder, f"printed-{rank}").write_text(printed.getvalue())
