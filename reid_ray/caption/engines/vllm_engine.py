"""vLLM engine wrapper: requests join and leave while others run (continuous batching), each ends in one reply or one error.

The only file that imports vLLM. Knows engine arguments, sampling and what vLLM rejects; not images' origin, captions or Ray. The
same class runs a 2 M parameter model on a laptop's CPU and Qwen2.5-VL on GPUs: only the configuration differs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_ray.caption.config import CaptionerConfig, FaithfulnessConfig, RewriterConfig, SamplingConfig, VllmConfig
from reid_ray.caption.engines.adapters import adapter_arguments
from reid_ray.caption.engines.kv_cache import cache_arguments
from reid_ray.caption.engines.preflight import check_servable
from reid_ray.caption.engines.process_guard import guard_what_is_started
from reid_ray.caption.engines.protocol import Conversation, EngineLoad, Reply, converse, texts_of
from reid_ray.caption.engines.render_processes import RenderProcessError, RenderProcesses
from reid_ray.caption.engines.rendering import NotRenderedError, Rendering, rejections
from reid_ray.caption.engines.scheduler_load import SchedulerLoad
from reid_ray.caption.engines.vllm_arguments import engine_arguments, seeded_arguments, structure_arguments, structure_fields
from reid_ray.caption.ledger.content_keys import derived_seed
from reid_ray.config.common import PoolConfig
from reid_ray.errors import ConfigError, reason_of
from reid_ray.model.hub_models import fetch_model
from reid_ray.model.model_files import model_revision, refuse_other_weights, resolve_model
from reid_ray.redaction import without_texts

_LOGGING = Path(__file__).resolve().parents[2] / "assets" / "vllm_logging.json"


def engine_environment(model: str, engine: VllmConfig, pool: PoolConfig) -> dict[str, str]:
    """Environment variables that vLLM reads at import, for the process that will hold an engine.

    Args:
        model: a resolved name: a local folder or a hub name.
        engine: runs inside that process, which starts ten times faster, takes a third of the memory and dies as one, unless it is to
            have a process of its own; a tensor-parallel one has vLLM's worker processes, either way.
        pool: on CPUs, threads beyond the actor's CPUs slow each other down ten times and more when the machine is busy.
    """
    variables = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Bars and notices of every worker would bury the job's own.
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if not engine.own_process:
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if engine.has_processes:
        variables["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a forked one does not show the environment that its guard looks for
    if not pool.num_gpus:
        variables["OMP_NUM_THREADS"] = str(max(1, int(pool.num_cpus)))
    if Path(model).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


@dataclass(frozen=True)
class _Prepared:
    prompt: Any  # vLLM's EngineInput
    params: Any  # SamplingParams
    texts: tuple[str, ...]  # what the conversation says, which an error must not quote
    nbytes: int  # of the pixels, as the model takes them


class Engine:
    """vLLM's engine, with one model, in this process and driven by its caller: a StreamingEngine, and a ChatEngine.

    Args:
        model: a local folder or a hub name (resolved).
        revision: commit or tag of a hub model.
        config: how the engine runs.
        sampling: how every answer is drawn.
        images: pictures per request; 0 for a language model.
        pool: the actor's resources, see engine_environment.
        adapter: folder of a LoRA adapter, as PEFT saves it.
        field: dotted key of the section that asks for the engine, for messages.

    Raises:
        ReidRayError: `adapter` is none, weights are missing, vLLM cannot start so, or would leave a part of the adapter out.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        config: VllmConfig,
        sampling: SamplingConfig,
        images: int,
        pool: PoolConfig,
        adapter: str | None = None,
        field: str = "engine",
    ) -> None:
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(_LOGGING))
        for name, value in engine_environment(model, config, pool).items():
            os.environ.setdefault(name, value)
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        from reid_ray.model.strict_loading import check_names

        if config.has_processes or config.prepare_processes:
            guard_what_is_started()
        self._processes = RenderProcesses(config.prepare_processes) if config.prepare_processes else None
        clock = time.perf_counter()
        arguments = {
            **engine_arguments(config, images),
            **structure_arguments(sampling),
            **seeded_arguments(sampling, pool),
            **adapter_arguments(adapter),
        }
        folder = fetch_model(model, revision=revision, field=f"{field}.model")
        check_names(folder)
        arguments |= cache_arguments(str(folder), config, pool)
        asks_scheduler = config.own_process and "disable_log_stats" not in config.extra
        if asks_scheduler:
            arguments["disable_log_stats"] = False
        try:
            self._llm = LLM(model=str(folder), **arguments | config.extra)
        except Exception as error:  # noqa: BLE001
            # vLLM raises whatever the part that does not fit raises; all of it is about model, machine and configuration.
            raise ConfigError(f"{field}: vLLM cannot start an engine with {model} so ({reason_of(error)}); change {field}.engine") from None
        _refuse_other_vllm(self._llm)
        self._scheduler = SchedulerLoad(self._llm.llm_engine) if asks_scheduler else None
        self._sampling_params, self._sampling, self._whole = SamplingParams, sampling, RequestOutputKind.FINAL_ONLY
        self._structure = None if sampling.structure is None else StructuredOutputsParams(**structure_fields(sampling.structure))
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(Path(adapter).expanduser().resolve()))
        if self._adapter is not None:
            self._refuse_part_of(self._adapter, config, field)
        self._rejections, self._capacity, self._preparing = rejections(), config.max_num_seqs, threading.Lock()
        self._rendering = Rendering(self._llm, config.chat_template, self._rejections)
        if self._processes is not None:
            try:
                self._processes.begin(self._llm.llm_engine.vllm_config, config.chat_template)
            except RenderProcessError as error:
                raise ConfigError(
                    f"{field}.engine.prepare_processes: one of the processes cannot begin ({error.reason}); ask for fewer"
                ) from None
        self._of_json = sampling.structure is not None and sampling.structure.json_schema is not None
        self.start_seconds = time.perf_counter() - clock

    @property
    def capacity(self) -> int:
        """Requests that vLLM decodes together (max_num_seqs)."""
        return self._capacity

    def prepare(self, conversation: Conversation, key: str) -> Any:
        """Chat template, tokenizer and image processor; a Reply with the error where vLLM refuses the conversation."""
        try:
            prompt = self._rendered(conversation)
        except NotRenderedError as error:
            return Reply(None, error=error.reason)
        return _Prepared(prompt, self._params(key), tuple(texts_of(conversation)), _pixel_bytes(prompt))

    def _rendered(self, conversation: Conversation) -> Any:
        if self._processes is not None:
            return self._processes.render(conversation)
        with self._preparing:
            return self._rendering.render(conversation)

    def add(self, request: str, prepared: _Prepared) -> Reply | None:
        """Queue a prepared request; a Reply with the error where vLLM refuses it (longer than max_model_len, a picture too large)."""
        adapter = self._llm._resolve_mm_lora(prepared.prompt, self._adapter)
        try:
            self._llm.llm_engine.add_request(request, prepared.prompt, prepared.params, lora_request=adapter)
        except self._rejections as error:
            return Reply(None, error=without_texts(reason_of(error), prepared.texts))
        return None

    def step(self) -> list[tuple[str, Reply]]:
        """One step of vLLM's scheduler and model."""
        return [(output.request_id, _reply(output, of_json=self._of_json)) for output in self._llm.llm_engine.step() if output.finished]

    def abort(self, requests: Sequence[str]) -> None:
        """Have vLLM forget requests."""
        self._llm.llm_engine.abort_request(list(requests))

    def load(self) -> EngineLoad | None:
        """What vLLM's scheduler has; None where `extra` says otherwise of vLLM's statistics and it runs in a process of its own."""
        if self._scheduler is not None:
            return self._scheduler.last
        core = getattr(self._llm.llm_engine.engine_core, "engine_core", None)
        if core is None:
            return None
        running, waiting = core.scheduler.get_request_counts()
        return EngineLoad(running, waiting, core.scheduler.get_kv_cache_usage())

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """One reply per conversation, in order; for a process that asks nothing else meanwhile."""
        return converse(self, conversations, keys)

    def _refuse_part_of(self, adapter: Any, config: VllmConfig, field: str) -> None:
        """Load the adapter and see that each layer of it has a place, in every worker that runs in this process."""
        if config.has_processes:
            return
        try:
            self._llm.llm_engine.add_lora(adapter)
        except Exception as error:  # noqa: BLE001
            raise ConfigError(f"{field}.adapter: vLLM does not load {adapter.lora_path} ({reason_of(error)}); merge it") from None
        left = sorted({layer for layers in self._llm.collective_rpc(_layers_left_out) for layer in layers})
        if left:
            raise ConfigError(
                f"{field}.adapter: vLLM would leave out {len(left)} layers of {adapter.lora_path} ({', '.join(left[:3])}); merge it into "
                f"its base and give the result as {field}.model"
            )

    def _params(self, key: str) -> Any:
        s = self._sampling
        return self._sampling_params(
            temperature=s.temperature,
            top_p=s.top_p,
            repetition_penalty=s.repetition_penalty,
            max_tokens=s.max_tokens,
            # Greedy decoding draws nothing; a seed would only cost a generator.
            seed=derived_seed(s.seed, key) if s.temperature else None,
            structured_outputs=self._structure,
            output_kind=self._whole,
            **s.extra,
        )


def _refuse_other_vllm(llm: Any) -> None:
    """VLLM has no public function that renders a conversation without adding it to the engine: two of LLM's own are called for that."""
    lacking = [name for name in ("_preprocess_chat_one", "_resolve_mm_lora") if not hasattr(llm, name)]
    if lacking:
        raise ConfigError(
            f"vLLM {_version()} lacks LLM.{' and LLM.'.join(lacking)}, which captioning calls; install the version that this package pins "
            "(pip install 'reid-ray[engines]')"
        )


def _version() -> str:
    from importlib.metadata import packages_distributions, version

    return version(packages_distributions()["vllm"][0])


def _layers_left_out(worker: Any) -> list[str]:
    """Layers of the adapters at hand that no module of a worker's model takes."""
    manager = worker.model_runner.lora_manager._adapter_manager
    return [name for adapter in manager._registered_adapters.values() for name in adapter.loras if name not in manager.modules]


def _pixel_bytes(prompt: Any) -> int:
    if prompt["type"] != "multimodal":
        return 0
    tensors = [field.data for items in prompt["mm_kwargs"].values() for item in items if item is not None for field in item.values()]
    return sum(tensor.nbytes for tensor in tensors if hasattr(tensor, "nbytes"))


def _reply(output: Any, *, of_json: bool) -> Reply:
    answer = output.outputs[0]
    finished = answer.finish_reason != "length"
    return Reply(
        _caption_in(answer.text) if of_json and finished else answer.text,
        finished=finished,
        tokens=len(answer.token_ids),
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
    )


def _caption_in(answer: str) -> str:
    """The property `caption` of a JSON answer, which vLLM holds to its schema; the answer itself where it is optional and absent."""
    return str(json.loads(answer).get("caption", answer))


def model_facts(section: CaptionerConfig | RewriterConfig | FaithfulnessConfig, field: str) -> dict[str, str]:
    """Name and revision of the model that a section names; the content of its adapter counts as part of the revision.

    Raises:
        ReidRayError: there is no such model or adapter, or vLLM could not serve them so; names the key.
    """
    resolved = resolve_model(section.model, field=field)
    if Path(resolved).is_dir():
        refuse_other_weights(Path(resolved), field=field)
    revision = model_revision(resolved, revision=section.revision, field=field)
    if not isinstance(section, FaithfulnessConfig):
        check_servable(section, resolved, field=field.removesuffix(".model"))
    if isinstance(section, FaithfulnessConfig) or section.adapter is None:
        return {"model": section.model, "revision": revision}
    adapter = Path(section.adapter).expanduser().resolve()
    return {"model": section.model, "revision": f"{revision}+{model_revision(str(adapter))}"}
