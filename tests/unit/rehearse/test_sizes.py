"""Making a configuration smaller changes the values that the table names, and keeps what a file leaves out as the file leaves it."""

from reid_ray.config.base import load_config
from reid_ray.rehearse.sizes import Change, changed, smaller
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.mllm.config import TuneJob

PAIRS = ["images.path=images", "captions.paths=[captions]", "output.path=out"]


def _small(model, *overrides):
    config = load_config(model, None, overrides)
    return changed(config, smaller(config))


def test_a_part_that_is_left_out_keeps_its_own_defaults_where_one_of_its_values_changes():
    config = load_config(EmbedJob, None, ["encoder=x", "captions=y", "output.path=out"])
    assert changed(config, [Change(("embed", "replicas"), 1, 2)]).embed.batch_size == config.embed.batch_size == 64


def test_a_value_in_a_list_is_replaced_and_its_neighbours_stay():
    config = load_config(TrainJob, None, [*PAIRS, "transfer=[{name: A, images: /a, captions: /b}, {name: B, images: /c, captions: /d}]"])
    moved = changed(config, [Change(("transfer", 1, "images"), "/c", "/here/c"), Change(("captions", "paths", 0), "captions", "/here")])
    assert [each.images for each in moved.transfer] == ["/a", "/here/c"]
    assert moved.captions.paths == ["/here"]


def test_batches_hold_whole_identities_for_two_workers_and_a_small_configuration_stays_as_it_is():
    tune = _small(TuneJob, *PAIRS, "model.lora.visual=[qkv, proj]", "batches.size=96", "batches.samples_per_identity=6")
    assert (tune.batches.size, tune.workers.count, tune.schedule.epochs) == (12, 2, 2)
    assert smaller(tune) == []


def test_a_batch_of_an_odd_size_for_one_worker_is_one_that_two_can_share():
    assert _small(TrainJob, *PAIRS, "batches.size=31", "workers.count=1").batches.size == 30


def test_a_schedule_in_epochs_stays_one_in_epochs():
    train = _small(TrainJob, *PAIRS, "schedule.validate_every=epoch", "schedule.max_steps=null", "workers.num_gpus=1", "workers.count=32")
    assert (train.schedule.validate_every, train.schedule.max_steps, train.schedule.epochs) == ("epoch", None, 2)
    assert (train.workers.count, train.workers.num_gpus) == (2, 0)


def test_a_rehearsal_is_shown_on_no_board_that_others_see():
    log = ["log.to=[wandb,mlflow]", "log.wandb_mode=online", "log.mlflow_uri=http://boards:5000"]
    small = _small(TrainJob, *PAIRS, *log).log
    assert (small.to, small.wandb_mode, small.mlflow_uri) == (["wandb", "mlflow"], "offline", None)
