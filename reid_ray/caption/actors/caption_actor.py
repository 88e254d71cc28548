"""Caption actor: images in, their captions out. Knows images, asks and a captioner; the rest is the engine actor's."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from reid_ray.caption.actors.configured_engine import calls_that_prepare, has_one_core, start_engine
from reid_ray.caption.actors.engine_actor import EngineActor, PassPlace, RowTask
from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.protocol import ChatEngine, StreamingEngine, streaming
from reid_ray.caption.image_captions import Captioner
from reid_ray.caption.ledger.missing import ASK
from reid_ray.caption.ledger.row_keys import ImageAsk
from reid_ray.caption.ledger.write_ahead_log import LEDGER
from reid_ray.caption.live_metrics import StageMetrics


class CaptionActor(EngineActor):
    """SOURCED rows with the column ASK -> LEDGER rows of the captions that were asked for.

    Args:
        captioner: arguments of Captioner.
        config: the captioner's section.
        place: of this pass.
        engine: used instead of a vLLM engine of `config`.
    """

    stage = "captioner"

    def __init__(
        self, captioner: dict[str, Any], config: CaptionerConfig, *, place: PassPlace, engine: ChatEngine | StreamingEngine | None = None
    ) -> None:
        self._captioner = Captioner(config=config, **captioner)

        def start() -> tuple[StreamingEngine, None]:
            if engine is not None:
                return streaming(engine, capacity=config.engine.max_num_seqs), None
            return start_engine(config, images=1, field=f"captioners.{captioner['name']}"), None

        requests, vllm = len(config.instructions), config.engine
        together, most_bytes = vllm.admit_together, vllm.prepared_mb << 20
        super().__init__(
            place,
            StageMetrics(self.stage),
            start=start,
            requests=requests,
            together=together,
            most_bytes=most_bytes,
            preparing=calls_that_prepare(config),
            on_gpu=config.pool.num_gpus > 0,
            turns=has_one_core(config),
        )

    def __call__(self, images: pa.Table) -> pa.Table:
        """The captions of a batch of images."""
        if self._broken is not None:
            self._hand_back()
            return LEDGER.empty_table()
        rows = images.drop_columns(["image"]).to_pylist()
        encoded = images["image"]  # stays in Ray's object store until its row is let in
        return self._run([self._task(row, data, ImageAsk.from_column(row.pop(ASK.name))) for row, data in zip(rows, encoded, strict=True)])

    def _task(self, image: dict[str, Any], data: pa.Scalar, ask: ImageAsk) -> RowTask:
        asked = [*ask.requests, *([] if ask.stand_in is None else [ask.stand_in])]
        return RowTask(
            ids=[request.caption_id for request in asked],
            converse=lambda: self._captioner.work(image | {"image": data.as_py()}, ask),
            give_up=lambda why: self._captioner.given_up(image, ask, why),
        )
