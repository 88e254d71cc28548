"""vLLM in a process of its own, which the tests of tests/ray share: an import of vLLM and a first engine take ten seconds of CPU."""

from __future__ import annotations

import os
import sys

import answered_works
import ray
import ray.cloudpickle
from answered_works import captioned
from PIL import Image

from reid_ray.caption.config import FaithfulnessConfig, RewriterConfig, SamplingConfig, VllmConfig
from reid_ray.caption.engines import vllm_engine
from reid_ray.caption.engines.vllm_engine import Engine, engine_environment
from reid_ray.caption.filters.faithfulness import SentenceEncoder
from reid_ray.caption.ledger.row_keys import RewriteRecipe
from reid_ray.caption.prompts import STATIC
from reid_ray.caption.rewrites import Rewriter
from reid_ray.caption.streaming.in_rounds import run_in_rounds
from reid_ray.config.common import PoolConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.model_files import resolve_model

for module in (sys.modules[__name__], answered_works):  # neither is on a worker's path
    ray.cloudpickle.register_pickle_by_value(module)

FOLDER = resolve_model("builtin:tiny-mllm")
PEOPLE = SyntheticPeople(SyntheticConfig(identities=8, images_per_identity=1, seed=31))
CONFIG = VllmConfig(kv_cache_mb=16)


class Engines:
    """Builds engines in a process of its own and asks them. What vLLM would build with the same arguments again is built once."""

    def __init__(self):
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(vllm_engine._LOGGING))  # read when vLLM is imported
        import vllm

        build, self.kept = vllm.LLM, {}  # an engine that goes takes vLLM's process groups along, the next engine's too

        def build_once(**arguments):
            key = repr((sorted(arguments.items()), self.adapter))
            if key not in self.kept:
                self.kept[key] = build(**arguments)
            return self.kept[key]

        vllm.LLM = build_once

    def ask(self, sampling, questions, *, adapter=None, engine=CONFIG, folder=FOLDER):
        """(replies to every picture with every question; vLLM's own count of prefix-cache queries and hits, where it keeps one)."""
        self.open(sampling, adapter=adapter, engine=engine, folder=folder)
        return self.again(questions), self.counted() if engine.extra else None

    def open(self, sampling, *, adapter=None, engine=CONFIG, folder=FOLDER):
        """From now on this engine is asked."""
        self.adapter = adapter
        self.engine = Engine(folder, revision=None, config=engine, sampling=sampling, images=1, pool=PoolConfig(), adapter=adapter)

    def again(self, questions):
        conversations = []
        for pixels in PEOPLE.pictures(0, 8):
            for question in questions:
                content = [{"type": "image_pil", "image_pil": Image.fromarray(pixels)}, {"type": "text", "text": question}]
                conversations.append([{"role": "user", "content": content}])
        return self.engine.chat(conversations, [str(n) for n in range(len(conversations))])

    def beside(self, sampling, questions, line):
        """(replies prepared in this process, by one beside it; each refusal of a line of pixels; what is left of the processes)."""
        import multiprocessing

        content = [{"type": "image_pil", "image_pil": line}, {"type": "text", "text": questions[0]}]
        replies, refusals = [], []
        for count in (0, 1):
            self.open(sampling, engine=CONFIG.model_copy(update={"prepare_processes": count}))
            replies.append(self.again(questions))
            refusals.append(self.engine.prepare([{"role": "user", "content": content}], "line"))
        children = multiprocessing.active_children()
        self.engine._processes.close()
        for child in children:
            child.join(20)
        return *replies, refusals, [child.exitcode for child in children]

    def refusal_without_processes(self):
        """What the engine says whose process beside it is killed before it has begun."""
        import multiprocessing

        from reid_ray.caption.engines.render_processes import RenderProcesses

        begin = RenderProcesses.begin

        def begin_killed(processes, *arguments):
            for child in multiprocessing.active_children():
                child.kill()
            begin(processes, *arguments)

        RenderProcesses.begin = begin_killed
        try:
            return self.refusal(engine=CONFIG.model_copy(update={"prepare_processes": 1}))
        finally:
            RenderProcesses.begin = begin

    def loads_beside(self, question):
        """(the load after each step of an engine in a process of its own that answers the question of every picture; the answers)."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        try:
            self.open(SamplingConfig(max_tokens=6), engine=CONFIG.model_copy(update={"own_process": True, "kv_cache_mb": 17}))
        finally:
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        for n, pixels in enumerate(PEOPLE.pictures(0, 8)):
            content = [{"type": "image_pil", "image_pil": Image.fromarray(pixels)}, {"type": "text", "text": question}]
            self.engine.add(str(n), self.engine.prepare([{"role": "user", "content": content}], str(n)))
        loads, replies = [], {}
        while len(replies) < 8:
            replies |= dict(self.engine.step())
            loads.append(tuple(self.engine.load()))
        self.engine._llm.llm_engine.engine_core.shutdown()
        return loads, [replies[str(n)] for n in range(8)]

    def chat(self, conversations, keys):
        return self.engine.chat(conversations, keys)

    def refusal(self, **options):
        """What the engine says that cannot start so."""
        from reid_ray.errors import ReidRayError

        try:
            self.ask(SamplingConfig(max_tokens=4), [STATIC], **options)
        except ReidRayError as error:
            return str(error)
        return None

    def said_at_a_failure(self):
        """Everything that this process writes to its error stream while a batch fails in the midst of the model."""
        import tempfile

        def fail(*_, **__):
            raise RuntimeError("a kernel failed")

        runner = self.engine._llm.llm_engine.model_executor.driver_worker.worker.model_runner
        runner.execute_model = fail  # of an engine that nobody asks again
        with tempfile.TemporaryFile() as file:
            kept = os.dup(2)
            os.dup2(file.fileno(), 2)
            try:
                self.again([STATIC])
            except Exception as error:  # noqa: BLE001
                said = f"{error}\n"
            finally:
                os.dup2(kept, 2)
            file.seek(0)
            return said + file.read().decode()

    def counted(self):
        metrics = {metric.name: getattr(metric, "value", None) for metric in self.engine._llm.get_metrics()}
        return metrics["vllm:prefix_cache_queries"], metrics["vllm:prefix_cache_hits"]

    def caption(self, config, images=None):
        """The rows of a captioner of `config` on the engine at hand."""
        images = PEOPLE.image_table() if images is None else images
        return captioned(images, self.engine, config, max_pixels=10_000_000)

    def rewrite(self, captions):
        """The rewrites of captions by the engine at hand."""
        config, once = RewriterConfig(share=1.0), FaithfulnessConfig(max_tries=1)
        rewriter = Rewriter(config, once, recipe=RewriteRecipe(config, once, revision="r", scorer_revision="s"), revision="r")
        works = [rewriter.work(row | {"key": b"k"}) for row in captions.to_pylist()]
        return [row for rows in run_in_rounds(works, self.engine, SentenceEncoder(resolve_model("builtin:minilm-l6-v2"))) for row in rows]

    def blocks(self):
        """Blocks of the key-value cache, as vLLM has divided it."""
        return self.engine._llm.llm_engine.vllm_config.cache_config.num_gpu_blocks


def start_engines():
    """Engines in a process of Ray's, which ends with Ray: its methods are called here and give their results here."""
    environment = engine_environment(FOLDER, CONFIG, PoolConfig())
    actor = ray.remote(num_cpus=0, runtime_env={"env_vars": environment})(Engines).remote()

    class InAnotherProcess:
        def __getattr__(self, name):
            return lambda *args, **kwargs: ray.get(getattr(actor, name).remote(*args, **kwargs))

    return InAnotherProcess()
