"""Training: what could repeat itself unseen, be taken for whole, or be decided by each worker for itself."""

from __future__ import annotations

from mutation import Mutation

_BATCHES = ("tests/unit/train/feed/test_batches.py",)
_BEST = ("tests/unit/train/checkpoint/test_best.py",)
_CHECKPOINT = ("tests/unit/train/checkpoint/test_checkpoint_place.py",)
_FINITE = ("tests/unit/train/test_finite.py",)
_FOLDERS = ("tests/unit/train/checkpoint/test_run_folders.py",)
_TRAIN = "tests/unit/train/"

MUTATIONS = (
    # --- which samples a step sees
    Mutation(
        "every epoch shows the same batches",
        "reid_ray/train/feed/batches.py",
        "default_rng([self._seed, _ORDER, epoch]).permutation(self._units)",
        "default_rng([self._seed, _ORDER]).permutation(self._units)",
        _BATCHES,
    ),
    Mutation(
        "every step draws the same pictures of a person",
        "reid_ray/train/feed/batches.py",
        "[self._seed, _MEMBERS, step]",
        "[self._seed, _MEMBERS]",
        _BATCHES,
    ),
    Mutation(
        "every sample of a step is augmented alike",
        "reid_ray/train/feed/batches.py",
        "[seed, _AUGMENT, step, place]",
        "[seed, _AUGMENT, step]",
        _BATCHES,
    ),
    Mutation(
        "the seed of a run does not count",
        "reid_ray/train/feed/batches.py",
        "default_rng([self._seed, _ORDER, epoch]).permutation(self._units)",
        "default_rng([_ORDER, epoch]).permutation(self._units)",
        _BATCHES,
    ),
    Mutation(
        "workers overlap by a sample",
        "reid_ray/train/feed/batches.py",
        "slice(rank * each, (rank + 1) * each)",
        "slice(max(0, rank * each - 1), (rank + 1) * each - (rank > 0))",
        _BATCHES,
    ),
    Mutation(
        "every epoch masks the same tokens",
        "reid_ray/train/masking/noise_aware.py",
        "[seed, _STREAM, epoch, int(text)]",
        "[seed, _STREAM, int(text)]",
        (_TRAIN + "masking/test_noise_aware.py", _TRAIN + "masking/test_step_masks.py"),
    ),
    Mutation(
        "noise levels of another worker's captions",
        "reid_ray/train/masking/noise_store.py",
        "part_KT[own_K[mine_K] // len(parts)]",
        "part_KT[own_K[mine_K] % len(part_KT)]",
        (_TRAIN + "masking/test_noise_store.py",),
    ),
    Mutation(
        "heads learn at the rate of the towers",
        "reid_ray/train/optimizer.py",
        'factor = config.heads_factor if name.startswith("heads.") and not name.startswith(_AS_THE_TOWERS) else factors[name]',
        "factor = factors[name]",
        (_TRAIN + "test_optimizer.py",),
    ),
    Mutation(
        "the logit scale grows without a bound",
        "reid_ray/train/losses/logit_scale.py",
        "return log_scale.clamp(max=_MOST_LOG)",
        "return log_scale.clone()",
        (_TRAIN + "losses/test_logit_scale.py",),
    ),
    Mutation(
        "a logit scale that starts at the cap is stuck there",
        "reid_ray/train/losses/logit_scale.py",
        "ctx.at_cap & (gradient < 0)",
        "ctx.at_cap",
        (_TRAIN + "losses/test_logit_scale.py",),
    ),
    Mutation(
        "the learnt logit scale is not saved",
        "reid_ray/train/dual/towers.py",
        "            temperature = math.exp(-self.scale.value(state[SHIFT]))\n",
        "            pass\n",
        (_TRAIN + "losses/test_logit_scale.py",),
    ),
    Mutation(
        "weight decay pulls the logit scale",
        "reid_ray/train/optimizer.py",
        "decays = decays and not name.endswith(_SCALES)",
        "decays = decays",
        (_TRAIN + "losses/test_logit_scale.py",),
    ),
    # --- checkpoints and the best weights
    Mutation(
        "a cut file of a checkpoint is taken for whole",
        "reid_ray/train/checkpoint/contents.py",
        "        if there != size:",
        "        if there is None:",
        _CHECKPOINT,
    ),
    Mutation(
        "a checkpoint without its manifest counts",
        "reid_ray/train/checkpoint/checkpoint_place.py",
        "zip(named, manifests, strict=True) if info.is_file)",
        "zip(named, manifests, strict=True))",
        _CHECKPOINT,
    ),
    Mutation(
        "the newest checkpoint is deleted",
        "reid_ray/train/checkpoint/checkpoint_place.py",
        "self.steps()[: -self._keep]",
        "self.steps()[self._keep :]",
        _CHECKPOINT,
    ),
    Mutation(
        "the best weights are not recovered",
        "reid_ray/train/checkpoint/best.py",
        '    best, before = folder / BEST, _beside(folder, "old")\n    wanted',
        '    return progress\n    best, before = folder / BEST, _beside(folder, "old")\n    wanted',
        _BEST,
    ),
    Mutation(
        "the weights that a checkpoint speaks of do not come back",
        "reid_ray/train/checkpoint/best.py",
        "            before.rename(best)\n    for end",
        "            pass\n    for end",
        _BEST,
    ),
    Mutation(
        "weights of an attempt before stay", "reid_ray/train/checkpoint/best.py", "        _drop(best)\n        if", "        if", _BEST
    ),
    Mutation(
        "better weights push out those of the checkpoint",
        "reid_ray/train/checkpoint/best.py",
        "    if best.is_dir() and before.is_dir():",
        "    if best.is_dir() and before.is_dir() and not shutil.rmtree(before):",
        _BEST,
    ),
    Mutation("the worker is left out of a seed", "reid_ray/train/checkpoint/contents.py", "10_007 + rank)", "10_007)", _BEST),
    # --- numbers that are none, and one decision for all workers
    Mutation(
        "each worker chooses weights by its own score",
        "reid_ray/train/loop.py",
        "scores = broadcast(validate())",
        "scores = validate()",
        _FINITE,
    ),
    Mutation("NaN is a better score", "reid_ray/train/loop.py", "    if not math.isfinite(score) or (", "    if (", _FINITE),
    Mutation(
        "a loss that is no number is trained on",
        "reid_ray/train/loop.py",
        "    if found is None:\n",
        "    if found is None or found:\n",
        _FINITE,
    ),
    Mutation("one worker's flag is not heard", "reid_ray/train/collectives.py", "op=dist.ReduceOp.MAX", "op=dist.ReduceOp.MIN", _FINITE),
    Mutation(
        "a picture that could not be encoded is everybody's best hit",
        "reid_ray/train/dual/validation.py",
        " and torch.isfinite(gallery_GD).all()",
        "",
        _FINITE,
    ),
    Mutation(
        "NaN is written as a metric", "reid_ray/train/finite.py", " if value is not None and math.isfinite(value) else None", "", _FINITE
    ),
    Mutation(
        "a picture of unknown camera leaves out the others of its person",
        "reid_ray/train/mllm/validation.py",
        "np.where(camera_G >= 0, camera_G, -1 - np.arange(len(camera_G)))",
        "camera_G",
        ("tests/unit/train/mllm/test_validation.py",),
    ),
    Mutation(
        "a term is added without its weight",
        "reid_ray/train/losses/objective.py",
        "self._terms[name].weight * value",
        "value",
        ("tests/unit/train/losses/test_objective.py",),
    ),
    # --- runs beside a run
    Mutation(
        "another input is the same run",
        "reid_ray/train/checkpoint/run_folders.py",
        "fingerprint({'config': self.config, 'input': self.inputs})",
        "fingerprint({'config': self.config})",
        _FOLDERS,
    ),
    Mutation(
        "a neighbour's run is taken for one's own",
        "reid_ray/train/checkpoint/run_folders.py",
        " and pattern.fullmatch(folder.name)",
        "",
        _FOLDERS,
    ),
)
