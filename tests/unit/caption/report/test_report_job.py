"""The report, refilter and plan jobs on a small run made here: numbers agree with the table, nothing executes, nothing is lost."""

import json
import re
from collections import Counter

import pytest
from bucket import s3_server
from refusals import refused

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.plan.config import PlanJob
from reid_ray.caption.plan.hours import StageRate, balanced_replicas, plan, rates_of, render_table
from reid_ray.caption.plan.job import run_plan
from reid_ray.caption.plan.spent import resources
from reid_ray.caption.prompts import TEMPLATES
from reid_ray.caption.refilter.config import RefilterJob
from reid_ray.caption.refilter.job import run_refilter
from reid_ray.caption.report.charts import bar_chart
from reid_ray.caption.report.config import ReportJob
from reid_ray.caption.report.job import run_report
from reid_ray.caption.report.statistics import collect_statistics
from reid_ray.caption.rows import staged_table
from reid_ray.caption.sampling import sample_images
from reid_ray.caption.streaming.pass_account import PassFacts
from reid_ray.caption.tally import Tally, run_facts
from reid_ray.config.common import ImagesConfig, OutputConfig, PoolConfig, StorableOutputConfig, SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import JobOutput, TableWriter, read_table
from reid_ray.storage.file_systems import locate_in

PEOPLE = SyntheticConfig(identities=8, images_per_identity=2, height=64, width=32)
ATTACK = "A man <script>alert('x')</script> in a coat & hat"


@pytest.fixture
def run(tmp_path):
    """A folder as the caption job leaves it: dynamic captions, rewrites of each with scores, one failed image."""
    people = SyntheticPeople(PEOPLE)
    truth = people.attributes()
    rows = []
    for i, caption in enumerate(people.caption_table().to_pylist()[::2]):
        t = truth[i]
        wear = f"{t['upper_color']} {t['upper']} and {t['lower_color']} {t['lower']}"
        caption |= {"kind": "dynamic", "model": "m", "instruction_id": f"dynamic/{sorted(TEMPLATES)[i % 5]}"}
        caption["text"] = f"A {t['gender']} in a {wear}."
        rows.append(caption)
        changed = wear.replace(t["upper_color"], "orange", 1)
        for number, (text, score) in enumerate(
            ((f"The {t['gender']} wears a {wear}.", 0.9), (f"A {t['gender']} in a {changed}.", 0.95), ("Far off.", 0.3))
        ):
            rows.append(
                caption
                | {"caption_id": f"{caption['caption_id']}-r{number}", "parent_id": caption["caption_id"], "kind": "rewrite", "text": text}
                | {"faithfulness": score, "tries": number + 1, "status": "ok" if score >= 0.6 else "unfaithful"}
                | {"reason": None if score >= 0.6 else "unfaithful: cosine 0.300 is below 0.6", "instruction_id": "llm-da"}
            )
    rows[-1] |= {"text": None, "faithfulness": None, "status": "failed", "reason": "refused: I cannot"}
    rows[0] |= {"text": ATTACK}
    config = CaptionJob(images=ImagesConfig(synthetic=PEOPLE), output=OutputConfig(path=str(tmp_path / "run")))
    with JobOutput("caption", tmp_path / "run", config) as output:
        output.counts.read = output.counts.written = 16
        output.facts["templates"] = sorted(TEMPLATES)
        tally = Tally()
        tally.add(staged_table([row | {"prompt_tokens": 100, "cached_tokens": 40, "tokens": 20, "seconds": 0.5} for row in rows]))
        output.facts |= run_facts({"main": tally}, {"main": {"images": 15, "seconds": 2.0, "images_per_second": 7.5}})
        facts = PassFacts(7200.0, {"engine": 5400.0, "decode": 900.0}, 5400.0 * 31)
        output.facts["resources"] = resources({"main": {"captioner": (facts, PoolConfig(num_gpus=2))}}, {"gpu_hours": 3.5, "cpu_hours": 2})
        with TableWriter(output.folder / "captions", CAPTIONS) as writer:
            writer.append(table_of(CAPTIONS, rows))
    return tmp_path / "run"


def test_the_page_shows_the_run_and_runs_nothing(run, tmp_path):
    run_report(ReportJob(run=str(run), sample_images=5, output=OutputConfig(path=str(tmp_path / "report"))))
    page = (tmp_path / "report" / "report.html").read_text()
    numbers = json.loads((tmp_path / "report" / "statistics.json").read_text())
    assert numbers["outcomes"] == {"dynamic": {"ok": 16}, "rewrite": {"failed": 1, "ok": 32, "unfaithful": 15}}
    assert numbers["reasons"] == {"rewrite": {"refused": 1, "unfaithful": 15}}
    assert sum(numbers["faithfulness"]["ok"]) == 32
    assert sum(numbers["faithfulness"]["unfaithful"]) == 15
    assert numbers["diversity"]["dynamic"]["template_coverage"] == pytest.approx(5 / 50)
    assert page.count("data:image/jpeg;base64,") == 5
    words = re.sub(r"<[^>]+>", " ", page)
    assert "640 of 1,600" in words  # prefix hits of the captioner: 16 rows of 100 prompt tokens
    assert "1,920 of 4,800" in words
    assert words.count("40.0%") == 2
    for title in (
        "Engines", "Failures by reason", "distinct-1", "self-BLEU", "repeated", "words per caption", "evenness", "Cosine of rewrite",
        "wall clock", "tokens/s", "hit rate", "10% of the templates are used", "Dotted: alpha 0.6", "Generations per rewrite: 16 after 1",
        "main: 7.5 images/s", "GPU-hours: 4, planned 3.5.", "75.0%", "12.5%", "requests a step", "31.0",
    ):  # fmt: skip
        assert title in words, title
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_each_captioner_has_its_own_diversity(run):
    rows = [row for row in read_table(run / "captions", CAPTIONS).to_pylist() if row["kind"] == "dynamic"]
    with TableWriter(run / "both", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, [row | {"captioner": "a"} for row in rows]))
        writer.append(table_of(CAPTIONS, [row | {"captioner": "b", "text": "A man in a coat."} for row in rows]))
    diversity = collect_statistics(run / "both", sample=50, seed=0, templates=sorted(TEMPLATES)).diversity
    assert list(diversity) == ["a: dynamic", "b: dynamic"]
    assert diversity["a: dynamic"].repeated < diversity["b: dynamic"].repeated == 15
    assert diversity["b: dynamic"].template_counts == diversity["a: dynamic"].template_counts


def test_a_hostile_caption_is_shown_as_text(run, tmp_path):
    run_report(ReportJob(run=str(run), sample_images=16, output=OutputConfig(path=str(tmp_path / "report"))))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "&lt;script&gt;alert" in page
    assert "<script" not in page


def test_images_that_are_gone_leave_a_note(run, tmp_path):
    gone = ImagesConfig(source="folder", path=str(tmp_path / "gone"))
    run_report(ReportJob(run=str(run), images=gone, output=OutputConfig(path=str(tmp_path / "report"))))
    assert "images of this run cannot be shown" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("alpha", "min_agreement", "kept", "changes"),
    [
        (0.6, None, 32, {"ok, unchanged": 32, "unfaithful, unchanged": 15, "without score, unchanged": 1}),
        (0.2, None, 47, {"ok, unchanged": 32, "unfaithful -> ok": 15, "without score, unchanged": 1}),
        (0.92, None, 16, {"ok, unchanged": 16, "ok -> unfaithful": 16, "unfaithful, unchanged": 15, "without score, unchanged": 1}),
        (0.6, 0.7, 15, {"ok, unchanged": 15, "ok -> unfaithful": 17, "unfaithful, unchanged": 15, "without score, unchanged": 1}),
    ],
)
def test_refiltering_changes_statuses_only(run, tmp_path, alpha, min_agreement, kept, changes):
    manifest = run_refilter(
        RefilterJob(run=str(run), alpha=alpha, min_agreement=min_agreement, output=OutputConfig(path=str(tmp_path / "new")))
    )
    before, after = read_table(run / "captions", CAPTIONS), read_table(tmp_path / "new" / "captions", CAPTIONS)
    same = [name for name in CAPTIONS.names if name not in ("status", "reason", "agreement")]
    assert after.select(same) == before.select(same)
    statuses = Counter((row["kind"], row["status"]) for row in after.to_pylist())
    assert statuses["rewrite", "ok"] == kept
    assert statuses["dynamic", "ok"] == 16
    assert manifest["facts"]["changes"] == changes
    assert set(manifest["facts"]["plausibility"]["captioners"]) == {"dynamic"}
    assert all((row["reason"] is None) == (row["status"] == "ok") for row in after.to_pylist() if row["kind"] == "rewrite")


@pytest.mark.slow
def test_a_run_at_an_address_is_reported_and_refiltered_as_one_in_a_folder(run, tmp_path):
    with s3_server() as bucket:
        there = bucket.put_output(run, "runs/out")
        refiltered = bucket.address("runs/refiltered")
        for place, out, other in ((str(run), tmp_path / "here", str(tmp_path / "refiltered")), (there, tmp_path / "there", refiltered)):
            run_report(ReportJob(run=place, sample_images=5, output=OutputConfig(path=str(out))))
            run_refilter(RefilterJob(run=place, alpha=0.92, output=StorableOutputConfig(path=other)))
        strict = [read_table(locate_in(other, "captions"), CAPTIONS) for other in (str(tmp_path / "refiltered"), refiltered)]
        assert strict[0].equals(strict[1])
        assert run_report(ReportJob(run=refiltered, sample_images=5, output=OutputConfig(path=str(tmp_path / "again"))))["counts"]
    assert (tmp_path / "there/statistics.json").read_text() == (tmp_path / "here/statistics.json").read_text()


@pytest.mark.slow
def test_refiltering_back_gives_the_first_table(run, tmp_path):
    run_refilter(RefilterJob(run=str(run), alpha=0.92, output=OutputConfig(path=str(tmp_path / "strict"))))
    run_refilter(RefilterJob(run=str(tmp_path / "strict"), alpha=0.6, output=OutputConfig(path=str(tmp_path / "back"))))
    columns = [name for name in CAPTIONS.names if name != "agreement"]
    back, first = read_table(tmp_path / "back" / "captions", CAPTIONS), read_table(run / "captions", CAPTIONS)
    assert back.select(columns) == first.select(columns)
    run_report(ReportJob(run=str(tmp_path / "back"), sample_images=3, output=OutputConfig(path=str(tmp_path / "report"))))
    assert (tmp_path / "report" / "report.html").read_text().count("data:image/jpeg") == 3


def test_an_orphaned_rewrite_is_named(run, tmp_path):
    rows = [row for row in read_table(run / "captions", CAPTIONS).to_pylist() if row["kind"] == "rewrite"]
    with TableWriter(run / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, rows))
    with refused(DataError, "original"):
        run_refilter(RefilterJob(run=str(run), alpha=0.2, min_agreement=0.5, output=OutputConfig(path=str(tmp_path / "new"))))
    assert not (tmp_path / "new").exists()


def _jobs(run, folder):
    """The jobs that read a run, each as a function of the rest of its output section."""
    return {
        "report": lambda **output: run_report(ReportJob(run=str(run), sample_images=2, output=OutputConfig(path=f"{folder}/r", **output))),
        "refilter": lambda **output: run_refilter(RefilterJob(run=str(run), output=OutputConfig(path=f"{folder}/f", **output))),
        "plan": lambda **output: run_plan(PlanJob(run=str(run), replicas=(1,), output=OutputConfig(path=f"{folder}/p", **output))),
    }


def _with_rates(run):
    manifest = json.loads((run / "manifest.json").read_text())
    speed = {"startup_seconds": 36.0, "busy_seconds": 5.0, "tokens_per_second": 9.0}
    facts = {"images": 16, "rewrites_asked": 0, "captioner": speed | {"images_per_second": 10.0}, "rewriter": None}
    manifest["facts"]["passes"] = {"main": facts}
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("job", ["report", "refilter", "plan"])
def test_a_finished_result_is_kept_where_reuse_is_asked_and_made_again_where_not(run, tmp_path, job):
    if job == "plan":
        _with_rates(run)
    work = _jobs(run, tmp_path)[job]
    first = work(if_exists="reuse")
    assert work(if_exists="reuse")["run_id"] == first["run_id"]
    assert work(if_exists="replace")["run_id"] != first["run_id"]
    with refused(DataError, "output.if_exists"):
        work()


def test_a_run_without_rows_or_without_scored_rewrites_is_no_success(run, tmp_path):
    table = read_table(run / "captions", CAPTIONS)
    jobs = _jobs(run, tmp_path)
    for job, rows, words in (
        ("refilter", [row for row in table.to_pylist() if row["kind"] != "rewrite"], "nothing to filter again"),
        ("report", [], "nothing to report"),
    ):
        with TableWriter(run / "captions", CAPTIONS) as writer:
            writer.append(table_of(CAPTIONS, rows))
        with pytest.raises(DataError, match=words):
            jobs[job]()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["run"]


@pytest.mark.parametrize("job", ["report", "refilter"])
def test_a_run_of_another_job_is_named(run, tmp_path, job):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"job": "ingest"}))
    with refused(DataError, str(run), "ingest"):
        _jobs(run, tmp_path)[job]()


CAPTIONER = StageRate("captioner", 10.0, 1.0, startup_seconds=60, gpus_per_actor=1, cpus_per_actor=2)
REWRITER = StageRate("rewriter", 5.0, 0.1, startup_seconds=30, gpus_per_actor=2, cpus_per_actor=1)


def test_a_plan_is_the_arithmetic_of_its_slowest_stage():
    given = {"captioner": 2, "rewriter": 1}
    result = plan({"main": [CAPTIONER, REWRITER]}, images=36_000, replicas={"main": given}, efficiency=0.5)
    # captioner: 2 * 10 * 0.5 = 10 images a second; rewriter: 1 * 5 / 0.1 * 0.5 = 25.
    assert result.bottleneck == "captioner"
    assert result.images_per_second == pytest.approx(10)
    assert result.hours == pytest.approx((60 + 3600) / 3600)
    assert result.gpu_hours == pytest.approx(4 * result.hours)
    assert result.cpu_hours == pytest.approx(5 * result.hours)
    assert "1 rewriter" in render_table([result], sampled=100)
    # A second captioner at half the rate takes its own turn, which is twice as long.
    slow = StageRate("captioner", 5.0, 1.0, startup_seconds=120, gpus_per_actor=4, cpus_per_actor=2)
    both = plan({"a": [CAPTIONER, REWRITER], "b": [slow]}, images=36_000, replicas={"a": given, "b": given}, efficiency=0.5)
    assert both.hours == pytest.approx((60 + 3600 + 120 + 7200) / 3600)
    assert both.gpu_hours == pytest.approx(4 * (60 + 3600) / 3600 + 8 * (120 + 7200) / 3600)
    assert both.bottleneck == "captioner of b"
    assert both.images_per_second == pytest.approx(36_000 / (3600 + 7200))
    assert "a: 2 captioner + 1 rewriter; b: 2 captioner" in render_table([both], sampled=100)


@pytest.mark.parametrize("total", range(2, 14))
def test_actors_are_divided_as_well_as_by_trying_every_division(total):
    def pace(captioners, rewriters):
        return min(captioners * 10, rewriters * 5 / 0.4)

    stages = [CAPTIONER, StageRate("rewriter", 5.0, 0.4, 30, 1, 1)]
    given = balanced_replicas(stages, total)
    assert sum(given.values()) == total
    assert pace(given["captioner"], given["rewriter"]) == max(pace(n, total - n) for n in range(1, total))


def test_the_plan_job_takes_the_rates_of_a_finished_run(run, tmp_path, capsys):
    _with_rates(run)
    job = PlanJob(run=str(run), planned_images=(36_000,), replicas=(1, 2), efficiency=1, output=OutputConfig(path=str(tmp_path / "plan")))
    run_plan(job)
    numbers = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert [round(p["hours"], 6) for p in numbers["plans"]] == [1.01, 0.51]
    assert (tmp_path / "plan" / "plan.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_images_are_sampled_over_the_whole_source():
    source = ImagesConfig(synthetic=SyntheticConfig(identities=400, images_per_identity=2, height=32, width=16))
    first, again, other = (sample_images(source, 20, seed=seed)["image_id"].to_pylist() for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 20
    people = sorted(int(image_id.split("/")[1].split("_")[0]) for image_id in first)
    assert people[0] < 150
    assert people[-1] > 250
    assert sample_images(source.model_copy(update={"limit": 5}), 20, seed=0).num_rows == 5


def test_rates_come_from_a_caption_manifest_only():
    speed = {"startup_seconds": 3.0, "busy_seconds": 5.0, "tokens_per_second": 9.0}
    manifest = {
        "job": "caption",
        "counts": {"read": 100},
        "config": CaptionJob(output=OutputConfig(path="x")).model_dump(mode="json"),
        "facts": {
            "passes": {
                "main": {
                    "images": 100,
                    "rewrites_asked": 20,
                    "captioner": speed | {"images_per_second": 20.0},
                    "rewriter": speed | {"rewrites_per_second": 2.0},
                }
            }
        },
    }
    captioner, rewriter = rates_of(manifest)["main"]
    assert (captioner.items_per_second, captioner.items_per_image, rewriter.items_per_second, rewriter.items_per_image) == (20, 1, 2, 0.2)
    manifest["facts"]["passes"]["main"]["rewriter"] = None
    assert [stage.name for stage in rates_of(manifest)["main"]] == ["captioner"]
    with refused(DataError, "train"):
        rates_of(manifest | {"job": "train"})
    with pytest.raises(DataError, match="need an actor each"):
        balanced_replicas([captioner, rewriter], 1)


def test_a_chart_draws_its_bars_to_scale_under_its_labels():
    chart = bar_chart([("a", 1.0), ("b", 4.0), ("c", 0.0)], height=100, every=2, mark=1)
    assert [bar.height for bar in chart.bars] == [25, 100, 0]
    assert {bar.y + bar.height for bar in chart.bars} == {114}
    assert [bar.label for bar in chart.bars] == ["a", None, "c"]
    assert chart.mark == chart.bars[1].x
    assert bar_chart([]).bars == ()


@pytest.mark.parametrize("images", [{}, {"source": "folder", "path": "crops"}, {"source": "parquet", "path": "images"}])
def test_the_images_that_a_manifest_states_are_read_again(images):
    config = ImagesConfig.model_validate(images)
    assert ImagesConfig.model_validate(config.model_dump(mode="json")) == config
