"""Caption, train, evaluate, index and serve on a few synthetic people, in one Ray: python tests/shared/traced_jobs.py FOLDER [--vllm]

Started with at_start/ on PYTHONPATH it leaves a trace of the files that were called into. Without --vllm a scripted engine answers,
for one of vLLM takes longer to start than all the rest.
"""

import sys
from pathlib import Path

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.job import run_caption
from reid_ray.config import load_config
from reid_ray.config.common import RayConfig
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.runtime import ray_session
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train

SHAPE = '{"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 400, "context": 32}'

CAPTION, REWRITE = "A man wears a red coat and black shoes.", "The man is dressed in a red coat and in black shoes."


class ScriptedEngine:
    """Says the same of everybody, and rewrites it in one way."""

    def chat(self, conversations, keys):
        return [Reply(REWRITE if isinstance(messages[0]["content"], str) else CAPTION, tokens=9) for messages in conversations]


OPEN_RAY = "access.open_ray=everyone on this network may run code here"  # the tests' Ray has no token authentication


def main(folder: Path, *, vllm: bool) -> None:
    from call_trace import begin

    people = {"images": f"{folder}/people/images", "captions": f"{folder}/people/captions"}
    splits = ["people.identities=12", "people.images_per_identity=2", "people.val_share=0.25", "people.test_share=0.25"]
    run_synthesize(load_config(SynthesizeJob, None, [*splits, f"output.path={folder}/people"]))
    with ray_session(RayConfig(address="local")):
        begin("caption")
        source = ["images.source=parquet", f"images.path={people['images']}"]
        captions = [*source, "rewriter.share=0.5", f"output.path={folder}/captions"]
        run_caption(load_config(CaptionJob, None, captions), engine=None if vllm else ScriptedEngine())
        begin("train")
        data = [f"images.path={people['images']}", f"captions.paths=[{folder}/captions/captions]", "captions.rewrite_share=0.5"]
        size = ["model.image_height=64", "model.image_width=32", f"model.scratch={SHAPE}", "batches.size=4", "workers.count=1"]
        run_train(load_config(TrainJob, None, [*data, *size, "schedule.max_steps=2", f"output.path={folder}/train"]))
        begin("evaluate")
        encoder = f"encoder={folder}/train/model"
        scored = [encoder, *(f"{name}={path}" for name, path in people.items()), "split=test", f"output.path={folder}/evaluate"]
        run_evaluate(load_config(EvaluateJob, None, scored))
        begin("index")
        run_index(load_config(IndexJob, None, [encoder, *source, f"output.path={folder}/index"]))
        begin("serve")
        service = start_service(load_config(ServeJob, None, [f"index={folder}/index", "runs_on=ray", "serve.port=0", OPEN_RAY]))
        with service, SearchClient(service.url) as search:
            search.thumbnail(search.text("a woman in a red coat", k=3)["hits"][0])
        begin("end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), vllm="--vllm" in sys.argv)
