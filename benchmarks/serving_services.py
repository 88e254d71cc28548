"""The services that benchmarks/serving.py asks, each in a process of its own: python benchmarks/serving_services.py KIND FOLDER PORT

process, ray and proxy are the serve job: ray with replicas that listen by themselves, proxy with Ray Serve's proxy before them; replicas-N
and encoders-N are ray with N replicas, and with one beside N encoders. The rival
is what a good user would write without this project: FastAPI under uvicorn, the same encoder, the same batcher, FAISS' exact index; "alone"
is the rival without a batcher.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import BaseModel

THREADS = 1  # of the encoder and of a search, in every service


class Asked(BaseModel):
    """What the rival takes."""

    text: str
    k: int = 20


def serve_job(folder: Path, port: int, kind: str) -> None:
    """The service of the serve job, until the process is stopped."""
    from reid_ray.serve.config import ServeJob
    from reid_ray.serve.job import run_serve

    what, _, number = kind.partition("-")
    ingress = {"process": None, "proxy": "proxy"}.get(what, "direct")
    config: dict[str, Any] = {"index": str(folder / "index"), "encoder": str(folder / "model")}
    config |= {"runs_on": "process" if kind == "process" else "ray", "serve": {"port": port, "timeout_s": 120, "ingress": ingress}}
    config |= {"access": {"searches_per_s": None}, "state": str(folder / f"{kind}.service"), "ray": {"address": "local"}}
    config["searcher"] = {"num_cpus": THREADS, "replicas": int(number) if what == "replicas" else 1}
    config["encoders"] = {"num_cpus": THREADS, "replicas": int(number) if what == "encoders" else 0}
    if number:  # a core each, whether the machine has as many or not
        config["ray"]["local_cpus"] = 1 + int(number)
    run_serve(ServeJob.model_validate(config))


def rival(folder: Path, port: int, *, batch: int) -> None:
    """FastAPI, uvicorn, the same encoder and batcher, FAISS; the collector leaves alone what was there before, as in ours."""
    import gc

    import faiss
    import numpy as np
    import torch
    import uvicorn
    from fastapi import FastAPI

    from reid_ray.gallery.gallery_view import GalleryView
    from reid_ray.model.pretrained import load_encoder
    from reid_ray.serve.operations.micro_batches import MicroBatcher

    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    encoder, view = load_encoder(folder / "model", device="cpu", batch_size=32), GalleryView(folder / "index")
    ids = view.ids()
    rows = view.get(ids)
    index = faiss.IndexFlatIP(encoder.dim)
    index.add(np.ascontiguousarray(view.vectors(ids)))

    def answers(questions: list[Asked]) -> list[dict[str, Any]]:
        score_QK, row_QK = index.search(encoder.encode_texts([each.text for each in questions]), max(each.k for each in questions))
        return [
            {
                "hits": [
                    {"rank": rank, "score": float(score), "item_id": ids[row], "item": rows[row], "thumbnail": f"thumbnails/{ids[row]}"}
                    for rank, (score, row) in enumerate(zip(score_K[: each.k], row_K, strict=False), 1)
                ],
                "batch": len(questions),
            }
            for each, score_K, row_K in zip(questions, score_QK, row_QK, strict=True)
        ]

    api = FastAPI()
    batcher = MicroBatcher(answers, max_batch_size=batch)

    @api.post("/v1/search")
    async def search(asked: Asked) -> Any:
        return await batcher.submit(asked)

    @api.get("/v1/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ok"}

    gc.freeze()
    uvicorn.run(api, host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    kind, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind not in ("rival", "alone"):
        serve_job(folder, port, kind)
    else:
        rival(folder, port, batch=32 if kind == "rival" else 1)
