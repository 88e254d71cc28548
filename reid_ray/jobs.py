"""The table of jobs, in pipeline order: what each is for, its configuration, the function that runs it, and how it is called.

The one place that lists them: `reid-ray JOB`, jobs/*.py and the configuration reference read it. Knows names, and imports what they
stand for when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Engines = Literal["none", "search", "all"]
"""What must be installed: nothing beyond the core; torch, transformers, Ray and FAISS; vLLM and DeepSpeed as well."""


@dataclass(frozen=True)
class Job:
    """One job.

    `config` and `run` are module:name; `command` is one that reads a command line with more than --config and overrides.
    `examples` is what follows the command; `more` is the rest of what --help says.
    """

    purpose: str
    config: str
    run: str
    engines: Engines
    examples: tuple[str, ...]
    more: str = ""
    command: str | None = None

    def usage(self, called: str) -> str:
        """What --help says, with examples as they are typed for a job that is called by `called`, such as "reid-ray caption"."""
        examples = [f"    {called} {example}".rstrip() for example in self.examples]
        return "\n\n".join(part for part in (f"{self.purpose}.", "\n".join(examples), self.more) if part)


_JOBS = {
    "ingest": Job(
        purpose="Turn a data set in its published layout into tables: images/, captions/ and failures/",
        config="reid_ray.data.ingest.config:IngestJob",
        run="reid_ray.data.ingest.job:run_ingest",
        engines="none",
        examples=(
            "--config data/ingest_cuhk_pedes.yaml source.path=/data/CUHK-PEDES output.path=runs/cuhk",
            "--config data/ingest_folder.yaml source.path=s3://bucket/crops output.path=runs/crops",
        ),
        more="Every image read ends in images/ or, with its reason, in failures/. The other jobs read images/ (images.source=parquet).",
    ),
    "crop": Job(
        purpose="Cut people out of videos or frames: crops as a table, with camera, time, box and track",
        config="reid_ray.crop.config:CropJob",
        run="reid_ray.crop.job:run_crop",
        engines="search",
        examples=(
            "--config data/crop.yaml footage.path=/data/videos output.path=runs/crops",
            "--config data/crop_frames.yaml footage.path=/data/frames",
        ),
        more="The output folder holds images/ (the best crops of each track) and failures/. A run that was cut off goes on.",
    ),
    "lint": Job(
        purpose="Say what is wrong with a data set: bad or repeated images, captions that are none, identities",
        config="reid_ray.data.lint.config:LintJob",
        run="reid_ray.data.lint.job:run_lint",
        engines="none",
        examples=(
            "--config data/lint.yaml source.format=rstpreid source.path=/data/RSTPReid output.path=runs/lint/rstpreid",
            "--config data/lint.yaml source.format=parquet source.path=runs/ingest/cuhk_pedes output.path=runs/lint/cuhk",
        ),
        more="Prints a table and writes lint.json and lint.html (with sample pictures) into the output folder.",
    ),
    "export": Job(
        purpose="Write the tables as a data set in a published layout, for other people's code or to share captions",
        config="reid_ray.data.export.config:ExportJob",
        run="reid_ray.data.export.job:run_export",
        engines="none",
        examples=(
            "tables=runs/ingest/cuhk_pedes format=cuhk_pedes output.path=out/CUHK-PEDES",
            "--config data/export.yaml tables=runs/images captions=runs/caption format=luperson_mllm output.path=out/mllm",
            "tables=runs/ingest/msmt17 format=msmt17 msmt17_version=V2 output.path=out/MSMT17",
        ),
        more="Not written: folders and Parquet (the tables are Parquet already), and CUHK03's MATLAB release, which holds more than the\n"
        "tables do.",
    ),
    "synthesize": Job(
        purpose="Write synthetic people as tables: pictures with their attributes, two human-like captions of each",
        config="reid_ray.data.synthetic.config:SynthesizeJob",
        run="reid_ray.data.synthetic.job:run_synthesize",
        engines="none",
        examples=("--config data/synthesize.yaml", "--config data/synthesize.yaml people.identities=100000 output.path=runs/crowd"),
        more="The output folder holds images/, captions/ and manifest.json; every later job reads them.",
    ),
    "caption": Job(
        purpose="Caption images with multimodal models, rewrite a share with a language model, keep the faithful",
        config="reid_ray.caption.config:CaptionJob",
        run="reid_ray.caption.job:run_caption",
        engines="all",
        examples=(
            "--config caption/caption.yaml",
            "--config caption/caption_folder.yaml images.path=/data/crops output.path=runs/captions",
            "--config caption/caption_qwen25vl_7b.yaml images.path=/data/crops",
        ),
        more="The output folder holds captions/*.parquet (one row per caption, failures with their reason) and manifest.json.",
    ),
    "rewrite": Job(
        purpose="Rewrite captions that exist, people's or a captioner's, with a language model, keep the faithful",
        config="reid_ray.caption.existing.config:RewriteJob",
        run="reid_ray.caption.existing.job:run_rewrite",
        engines="all",
        examples=(
            "--config caption/rewrite.yaml",
            "--config caption/rewrite_cuhk_pedes.yaml captions.path=runs/ingest/cuhk_pedes/captions",
        ),
        more="The output folder holds captions/*.parquet (every caption of the table, each rewritten one followed by its rewrites) and\n"
        "manifest.json. Captions of split train alone are rewritten, unless captions.splits says otherwise.",
    ),
    "report": Job(
        purpose="Write one HTML page about a captioning run: outcomes, failures, diversity, faithfulness, samples",
        config="reid_ray.caption.report.config:ReportJob",
        run="reid_ray.caption.report.job:run_report",
        engines="none",
        examples=(
            "--config caption/report.yaml run=runs/caption",
            "--config caption/report.yaml run=runs/caption sample_images=60 output.path=runs/caption_report",
        ),
        more="The output folder holds report.html (opens anywhere, loads nothing), statistics.json and manifest.json.",
    ),
    "plausibility": Job(
        purpose="Say whether captions can be true of a crowd and of their pictures, whoever made them",
        config="reid_ray.caption.plausibility.config:PlausibilityJob",
        run="reid_ray.caption.plausibility.job:run_plausibility",
        engines="none",
        examples=("--config caption/plausibility.yaml captions=runs/captions/captions images.source=folder images.path=/data/crops",),
        more="The output folder holds manifest.json, whose facts are every number with its limit. The caption job ends with the same.",
    ),
    "calibrate": Job(
        purpose="Choose the thresholds of the faithfulness filter for a sentence encoder, on labelled pairs",
        config="reid_ray.caption.calibrate.config:CalibrateJob",
        run="reid_ray.caption.calibrate.job:run_calibrate",
        engines="all",
        examples=(
            "--config caption/calibrate.yaml",
            "--config caption/calibrate.yaml encoder.model=BAAI/bge-small-en-v1.5 pairs=my_pairs.jsonl",
        ),
        more="The output folder holds calibration.md (the report), calibration.json, roc.png, pairs.jsonl (every pair with its scores)\n"
        "and manifest.json.",
    ),
    "refilter": Job(
        purpose="Filter the rewrites of a finished captioning run by other thresholds, without generating anything",
        config="reid_ray.caption.refilter.config:RefilterJob",
        run="reid_ray.caption.refilter.job:run_refilter",
        engines="none",
        examples=(
            "--config caption/refilter.yaml run=runs/caption alpha=0.7",
            "--config caption/refilter.yaml run=runs/caption alpha=0.5 min_agreement=0.7",
        ),
        more="The output folder holds captions/*.parquet with new statuses and reasons, and manifest.json with what changed.",
    ),
    "mine": Job(
        purpose="Mine sentence templates for the dynamic instruction from captions, reworded by a language model",
        config="reid_ray.caption.mine.config:MineJob",
        run="reid_ray.caption.mine.job:run_mine",
        engines="all",
        examples=(
            "--config caption/mine.yaml captions=runs/synthetic/captions",
            "--config caption/mine.yaml captions=runs/caption/captions kinds=[static] writer.model=Qwen/Qwen2.5-7B-Instruct",
        ),
        more="The output folder holds templates.yaml (id, text, origin, support), report.json (what was refused), manifest.json.",
    ),
    "plan": Job(
        purpose="Plan a captioning run: caption a sample, print hours and GPU-hours for many images on many clusters",
        config="reid_ray.caption.plan.config:PlanJob",
        run="reid_ray.caption.plan.job:run_plan",
        engines="all",
        examples=("--config caption/plan.yaml", "--config caption/plan.yaml run=runs/caption planned_images=[4000000] replicas=[8,16,64]"),
        more="The output folder holds plan.md, plan.json and manifest.json; with run=FOLDER that run's rates are taken, without a model.",
    ),
    "captioner": Job(
        purpose="Make the tiny captioner that is built in: train it on synthetic people, measure it on others",
        config="reid_ray.caption.tiny.config:CaptionerJob",
        run="reid_ray.caption.tiny.job:run_captioner",
        engines="all",
        examples=("--config caption/captioner.yaml",),
        more="About 20 minutes on one CPU core. The output folder holds a Qwen2.5-VL of two million parameters, as transformers and vLLM\n"
        "load it, and manifest.json with its scores.",
    ),
    "train_verifier": Job(
        purpose="Teach a network to read what people wear, so that it can judge edited pictures",
        config="reid_ray.edit.verify.config:TrainVerifierJob",
        run="reid_ray.edit.verify.job:run_train_verifier",
        engines="search",
        examples=(
            "--config edit/train_verifier.yaml",
            "--config edit/train_verifier.yaml 'images={source: parquet, path: runs/synthetic/images, split: val}'",
        ),
        more="The output folder holds model/, which states its own error on people that it has not learnt from. Give it other people than\n"
        "the editor that it will judge.",
    ),
    "segment": Job(
        purpose="Find hair, garments, shoes, bags and hats on images, and the nouns of captions that name them",
        config="reid_ray.edit.human_parsing.config:SegmentJob",
        run="reid_ray.edit.human_parsing.job:run_segment",
        engines="search",
        examples=(
            "--config edit/segment.yaml",
            "--config edit/segment_atr.yaml images.path=runs/ingest/cuhk_pedes/images captions.path=runs/ingest/cuhk_pedes/captions",
        ),
        more="The output folder holds segments/ (a row for each image, caption and slot, with a mask or a reason) and manifest.json.",
    ),
    "references": Job(
        purpose="Cut things out of training images or of pictures of clothes, a bank of references to dress people in",
        config="reid_ray.edit.bank.config:ReferencesJob",
        run="reid_ray.edit.bank.job:run_references",
        engines="none",
        examples=("--config edit/references.yaml", "--config edit/references_folder.yaml folders.clothes.path=/data/clothes"),
        more="A crop of a val, test, query or gallery image is refused. The output folder holds references/ and manifest.json.",
    ),
    "train_parser": Job(
        purpose="Make the tiny human parser that is built in: train it on drawn people, measure it on others",
        config="reid_ray.edit.parser_training.config:TrainParserJob",
        run="reid_ray.edit.parser_training.job:run_train_parser",
        engines="search",
        examples=("--config edit/train_parser.yaml",),
        more="Minutes on one CPU core. The output folder holds a SegFormer, as transformers loads it, and manifest.json with its scores.",
    ),
    "edit": Job(
        purpose="Dress people anew by reference crops, check each picture, describe it: new identities as tables",
        config="reid_ray.edit.config:EditJob",
        run="reid_ray.edit.job:run_edit",
        engines="all",
        examples=("--config edit/edit.yaml", "--config edit/edit.yaml rewriter.share=1 output.path=runs/edit_described"),
        more="The output folder holds images/, captions/ and edits/ (what was changed, and what the verifier reads), edits.html and\n"
        "manifest.json. Pictures and captions carry synthetic = true, and identities that no photograph has.",
    ),
    "plan_edits": Job(
        purpose="Plan an edit run from a finished one: hours and GPU-hours for many pictures on many GPUs",
        config="reid_ray.edit.capacity.config:PlanEditsJob",
        run="reid_ray.edit.capacity.job:run_plan_edits",
        engines="none",
        examples=(
            "--config edit/plan_edits.yaml run=runs/edit",
            "--config edit/plan_edits.yaml run=runs/edit wanted=[1000000] replicas=[8,32]",
        ),
        more="The output folder holds plan.md, plan.json and manifest.json. The rates are those of the run's own hardware.",
    ),
    "train": Job(
        purpose="Train a text-to-image dual encoder on images and captions",
        config="reid_ray.train.dual.config:TrainJob",
        run="reid_ray.train.dual.job:run_train",
        engines="all",
        examples=("--config train/train.yaml images.path=runs/synthetic/images captions.paths=[runs/synthetic/captions]",),
        more="Writes output.path with model/ (transformers' CLIP format), metrics.jsonl, tensorboard/ and manifest.json. A run that was\n"
        "cut off goes on where it stopped when the same command is given again.",
    ),
    "tune": Job(
        purpose="Fine-tune a multimodal LLM for re-identification: common instruction and SyncReID, with LoRA",
        config="reid_ray.train.mllm.config:TuneJob",
        run="reid_ray.train.mllm.job:run_tune",
        engines="all",
        examples=("--config train/tune.yaml images.path=runs/synthetic/images captions.paths=[runs/synthetic/captions]",),
        more="Writes output.path with model/ (only what trained), metrics.jsonl, tensorboard/ and manifest.json. A run that was cut off\n"
        "goes on where it stopped when the same command is given again. The merge job makes a checkpoint for the caption job of it.",
    ),
    "train_editor": Job(
        purpose="Train an editor that dresses people anew from reference crops (Diverse Person)",
        config="reid_ray.train.editor.config:TrainEditorJob",
        run="reid_ray.train.editor.job:run_train_editor",
        engines="all",
        examples=("--config edit/train_editor.yaml",),
        more="Writes output.path with model/ (in diffusers' layout, with fusion.safetensors), metrics.jsonl, tensorboard/ and\n"
        "manifest.json. A run that was cut off goes on where it stopped when the same command is given again.",
    ),
    "merge": Job(
        purpose="Make a plain checkpoint of a tuned multimodal LLM, so that the caption job takes it as a model",
        config="reid_ray.model.merge.config:MergeJob",
        run="reid_ray.model.merge.job:run_merge",
        engines="search",
        examples=("--config train/merge.yaml model=runs/tune/model output.path=runs/merged",),
    ),
    "memory": Job(
        purpose="Predict a training job's memory on each device and which setting fits; no device is needed",
        config="reid_ray.train.memory.config:MemoryJob",
        run="reid_ray.train.memory.job:run_memory",
        engines="all",
        examples=(
            "--config train/memory.yaml",
            "--config train/memory.yaml config=train/train_clip_b16_8gpu.yaml device_gib=24 batches=[16,32]",
        ),
        more="The output folder holds memory.md (the table, printed too), memory.json and manifest.json.",
    ),
    "embed": Job(
        purpose="Embed images or captions once: unit vectors in Parquet, by actors on as many nodes as there are",
        config="reid_ray.retrieval.embed.config:EmbedJob",
        run="reid_ray.retrieval.embed.job:run_embed",
        engines="search",
        examples=(
            "--config retrieval/embed.yaml images.path=runs/ingest/cuhk/images output.path=runs/embeddings/images",
            "--config retrieval/embed_captions.yaml",
        ),
        more="The evaluate job scores such tables (query_embeddings, gallery_embeddings).",
    ),
    "evaluate": Job(
        purpose="Score an encoder, or embeddings, on held-out identities: CMC@1/5/10, mAP, mINP",
        config="reid_ray.retrieval.evaluate.config:EvaluateJob",
        run="reid_ray.retrieval.evaluate.job:run_evaluate",
        engines="search",
        examples=(
            "--config retrieval/evaluate.yaml",
            "--config retrieval/evaluate_image.yaml encoder=runs/train/model images=/data/market output.path=runs/market",
            "--config retrieval/evaluate_embeddings.yaml query_embeddings=q gallery_embeddings=g output.path=runs/scored",
        ),
        more="The output folder holds result.json, queries.parquet, hits/, report.md, cmc.png, sheet.png and manifest.json; the compare\n"
        "job compares two.",
    ),
    "compare": Job(
        purpose="Compare two evaluations of the same queries: difference of R@1 and mAP, with a paired bootstrap",
        config="reid_ray.retrieval.compare.config:CompareJob",
        run="reid_ray.retrieval.compare.job:run_compare",
        engines="search",
        examples=("--config retrieval/compare.yaml baseline=runs/evaluate_a candidate=runs/evaluate_b output.path=runs/compare",),
    ),
    "transfer": Job(
        purpose="Cross-dataset table from finished evaluations: trained on A, tested on B, overlaps named",
        config="reid_ray.retrieval.transfer.config:TransferJob",
        run="reid_ray.retrieval.transfer.job:run_transfer",
        engines="search",
        examples=("--config retrieval/transfer.yaml output.path=runs/transfer",),
    ),
    "index": Job(
        purpose="Make a gallery of person crops searchable: of images, which are embedded, or of what the embed job wrote",
        config="reid_ray.retrieval.index.config:IndexJob",
        run="reid_ray.retrieval.index.job:run_index",
        engines="search",
        examples=(
            "--config retrieval/index.yaml",
            "--config retrieval/index_folder.yaml images.path=/data/crops encoder=runs/train/model output.path=runs/index",
            "--config retrieval/index_clip.yaml images.path=/data/crops output.path=runs/index",
            "embeddings=[runs/embeddings/images/embeddings] output.path=runs/gallery",
        ),
        more="The output folder is a gallery (docs/gallery.md), and holds failed/ and manifest.json, too; the serve job serves it.",
    ),
    "serve": Job(
        purpose="Serve text-to-image and image-to-image search over a gallery, with a web page, until Ctrl-C",
        config="reid_ray.serve.config:ServeJob",
        run="reid_ray.serve.job:run_serve",
        engines="search",
        examples=("--config serve/serve.yaml index=runs/index", "--config serve/serve.yaml serve.host=0.0.0.0 access.tokens=tokens.json"),
        more="Open the printed address in a browser, or ask it directly:\n\n"
        "    curl -s http://127.0.0.1:8000/v1/search -H 'Content-Type: application/json' \\\n"
        """        -d '{"text": "a woman in a red coat", "k": 5}'\n"""
        "    curl -s http://127.0.0.1:8000/v1/search/upload -F image=@crop.jpg\n\n"
        "Tokens: reid-ray tokens create NAME --role search tokens.json",
    ),
    "migrate": Job(
        purpose="Bring an output of an older version to today's formats, where it lies",
        config="reid_ray.migrate.config:MigrateJob",
        run="reid_ray.migrate.job:run_migrate",
        engines="none",
        examples=("path=runs/train", "path=runs/caption        (and the ledger beside it)"),
        more="What is of today's formats stays as it is; what a newer version wrote is refused. See reid_ray/versions.py for the formats.",
    ),
    "search": Job(
        purpose="Search your own crops: a folder becomes a page at an address, by one command in one process",
        config="reid_ray.demo.first_search.config:SearchJob",
        run="reid_ray.demo.first_search.job:run_search",
        engines="search",
        command="reid_ray.demo.first_search.command_line:main",
        examples=(
            "crops                            by picture, with the encoder that ships",
            "crops --encoder openai/clip-vit-base-patch16",
            "crops --out runs/mine serve.serve.port=8001",
        ),
        more="What index and serve do, without Ray while the pictures are few. The same command again keeps what it embedded, unless\n"
        "pictures came, went or changed.",
    ),
    "demo": Job(
        purpose="All of it in one command: people go in as pictures and come out as ranked search results",
        config="reid_ray.demo.config:DemoJob",
        run="reid_ray.demo.job:run_demo",
        engines="all",
        command="reid_ray.demo.own_crops:main",
        examples=(
            "                                 synthetic people, about ten minutes on two cores",
            "--images /path/to/crops          search your own crops instead: what `reid-ray search` does",
        ),
        more="Writes report.json (every number it prints) and sheet.png (queries with their ranked results) into demo/. A stage that has\n"
        "finished before with the same configuration is kept. Nothing it started stays behind, unless --keep-serving asks for it.",
    ),
}
JOBS: Mapping[str, Job] = MappingProxyType(_JOBS)


def named(place: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
