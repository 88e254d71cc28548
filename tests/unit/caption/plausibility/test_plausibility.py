"""True captions pass, and what cannot be true of a crowd or of its pictures is doubted, each for its own reason."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from refusals import refused

from reid_ray.caption.plausibility import job
from reid_ray.caption.plausibility.config import PlausibilityConfig, PlausibilityJob
from reid_ray.caption.plausibility.crop_looks import COLORS, color_shares, look_at
from reid_ray.caption.plausibility.drawn_captions import CaptionSamples
from reid_ray.caption.plausibility.evidence import contradictions, pair_score, same_text
from reid_ray.caption.plausibility.facets import facets_of
from reid_ray.caption.plausibility.guesses import GuessCount
from reid_ray.caption.plausibility.job import run_plausibility
from reid_ray.caption.plausibility.judgement import PLAUSIBLE
from reid_ray.data.labels.doubted_captions import DOUBTED
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import TableWriter, read_table


@pytest.fixture(scope="module", params=[3, 4])
def people(tmp_path_factory, request):
    out = tmp_path_factory.mktemp("people")
    people = {"identities": 60, "images_per_identity": 2, "seed": request.param}
    run_synthesize(SynthesizeJob.model_validate({"people": people, "output": {"path": str(out / "set")}}))
    return out / "set"


def judged(people, captions, out):
    with TableWriter(out / "captions", CAPTIONS) as writer:
        writer.append(captions)
    config = {
        "captions": str(out / "captions"),
        "images": {"source": "parquet", "path": str(people / "images")},
        "output": {"path": str(out / "plausibility")},
    }
    facts = run_plausibility(PlausibilityJob.model_validate(config))["facts"]
    (found,) = facts["captioners"].values()
    assert facts["verdict"] == found["verdict"]
    return found["verdict"], {each["what"] for each in found["statements"] if each["verdict"] == DOUBTED}


def with_texts(table, texts):
    return table.set_column(table.schema.get_field_index("text"), CAPTIONS.field("text"), pa.array(texts, pa.string()))


@pytest.mark.slow
def test_true_captions_pass_and_those_of_other_pictures_do_not(people, tmp_path):
    captions = read_table(people / "captions", CAPTIONS)
    assert judged(people, captions, tmp_path / "true") == (PLAUSIBLE, set())
    others = np.random.default_rng(0).permutation(captions.num_rows)
    verdict, doubts = judged(people, with_texts(captions, captions["text"].take(pa.array(others)).to_pylist()), tmp_path / "others")
    assert (verdict, doubts) == (DOUBTED, {"picture information", "color agreement"})


@pytest.mark.slow
def test_one_text_for_all_and_one_coat_for_all_are_doubted(people, tmp_path):
    captions = read_table(people / "captions", CAPTIONS)
    one = "A man in a red coat and blue jeans."
    _, doubts = judged(people, with_texts(captions, [one] * captions.num_rows), tmp_path / "one")
    assert {"same text", "color above", "picture information"} <= doubts
    shoes = ["white", "brown", "grey", "green", "pink"]
    coats = [f"A {('man', 'woman')[n % 2]} in a black coat and {shoes[n % 5]} shoes, {n}." for n in range(captions.num_rows)]
    verdict, doubts = judged(people, with_texts(captions, coats), tmp_path / "black")
    assert verdict == DOUBTED
    assert "color above" in doubts
    assert "gender" not in doubts


def test_the_samples_are_the_same_in_whatever_order_captions_come():
    rows = [
        {"caption_id": f"c{n}", "image_id": f"i{n}", "kind": "static", "text": f"text {n}", "status": "ok", "captioner": "main"}
        for n in range(500)
    ]
    drawn = []
    for order in (rows, rows[::-1]):
        samples = CaptionSamples(100, ["i3", "i499"])
        for start in range(0, 500, 7):
            samples.add(pa.Table.from_pylist(order[start : start + 7]))
        assert samples.seen == {"main static": 500}
        assert sorted(samples.pictured("main static")["image_id"].to_pylist()) == ["i3", "i499"]
        drawn.append(samples.drawn("main static")["caption_id"].to_pylist())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 100


class ColorEncoder:
    """Of a caption the colour that it says of what is worn above, of a picture the shares of colours there; `blind` sees nothing."""

    def __init__(self, folder):
        self.is_blind = folder.endswith("blind")

    def scores(self, images):
        looks = look_at(images.items(), max_pixels=1_000_000)
        shares = dict(zip(looks.image_ids, looks.colors["upper color"], strict=True))

        def vectors(texts, image_ids):
            said = [[float(facets_of(text).get("upper color") == color) for color in COLORS] for text in texts]
            return np.array(said), np.stack([shares[each] * (not self.is_blind) for each in image_ids])

        return vectors


def scored(people, captions, out, encoder="clear", **trusted):
    (out / encoder).mkdir(parents=True)
    with TableWriter(out / "captions", CAPTIONS) as writer:
        writer.append(captions)
    images = {"source": "parquet", "path": str(people / "images")}
    trusted = {"captions": str(people / "captions"), "images": images, **trusted} if trusted else None
    limits = {"encoder": str(out / encoder), "trusted": trusted}
    config = {"captions": str(out / "captions"), "images": images, "limits": limits, "output": {"path": str(out / "plausibility")}}
    (found,) = run_plausibility(PlausibilityJob.model_validate(config))["facts"]["captioners"].values()
    (statement,) = [each for each in found["statements"] if each["what"] == "pair score"]
    return statement


@pytest.mark.slow
def test_true_captions_set_the_level_that_an_encoder_asks_of_others(people, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PairEncoder", ColorEncoder)
    captions = read_table(people / "captions", CAPTIONS)
    true = scored(people, captions, tmp_path / "true", share=1)
    assert (true["verdict"], true["value"]) == (PLAUSIBLE, true["limit"])
    assert true["value"] > 0.7
    texts, some = captions["text"].to_pylist(), np.random.default_rng(0).permutation(captions.num_rows)[: captions.num_rows * 2 // 3]
    for to, of in zip(some, np.roll(some, 1), strict=True):
        texts[to] = captions["text"][int(of)].as_py()
    bad = scored(people, with_texts(captions, texts), tmp_path / "bad", share=0.8)
    assert (bad["verdict"], bad["limit"]) == (DOUBTED, pytest.approx(0.5 + 0.8 * (true["value"] - 0.5), abs=1e-3))
    assert scored(people, with_texts(captions, texts), tmp_path / "plain")["verdict"] == PLAUSIBLE  # 0.6 is too low for this encoder


@pytest.mark.slow
def test_a_level_that_means_nothing_is_refused(people, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PairEncoder", ColorEncoder)
    captions = read_table(people / "captions", CAPTIONS)
    with refused(DataError, "trusted.captions", "50% is chance"):
        scored(people, captions, tmp_path / "out", encoder="blind", share=1)
    with refused(DataError, "trusted.captions", "limits.least"):
        elsewhere = tmp_path / "crops"
        elsewhere.mkdir()
        Image.new("RGB", (4, 8)).save(elsewhere / "a.png")
        scored(people, captions, tmp_path / "few", share=1, images={"source": "folder", "path": str(elsewhere)})
    trusted = {"captions": "c", "images": {"source": "folder", "path": "i"}}
    with pytest.raises(ValueError, match="encoder is null"):
        PlausibilityConfig.model_validate({"trusted": trusted})


def test_pictures_are_told_by_number_and_those_without_any_caption_refused(tmp_path, capsys):
    for folder, names in (("right", "abc"), ("weird", "xy")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGB", (32, 64)).save(tmp_path / folder / f"{name}.png")
    row = {"kind": "static", "text": "A man in a red coat.", "status": "ok", "captioner": "main"}
    with TableWriter(tmp_path / "captions", CAPTIONS) as writer:
        writer.append(table_of(CAPTIONS, [{**row, "caption_id": f"{name}{n}", "image_id": f"{name}.png"} for name in "ab" for n in "01"]))

    def run(folder):
        images = {"source": "folder", "path": str(tmp_path / folder)}
        values = {"captions": str(tmp_path / "captions"), "images": images, "output": {"path": str(tmp_path / f"{folder}_out")}}
        run_plausibility(PlausibilityJob.model_validate(values))

    run("right")
    assert "of 3 pictures looked at 2 have a caption" in capsys.readouterr().out
    with refused(DataError, str(tmp_path / "weird"), "x.png", str(tmp_path / "captions")):
        run("weird")
    assert not (tmp_path / "weird_out").exists()


def test_rewrites_failures_and_other_peoples_blanks_are_passed_over():
    row = {"caption_id": "a", "image_id": "i", "kind": "static", "text": "x", "status": "ok", "captioner": "main"}
    others = [{"kind": "rewrite"}, {"status": "failed", "text": None}, {"text": ""}, {"status": "unfaithful"}]
    samples = CaptionSamples(100, [])
    samples.add(pa.Table.from_pylist([row, *({**row, **other} for other in others)]))
    assert samples.seen == {"main static": 1}


def test_near_duplicates_that_are_told_differently_contradict_each_other():
    bits = np.zeros((4, 128), np.uint8)
    bits[1, :3] = 1  # near 0
    bits[2:, 40:] = 1
    bits[3, 0] = 1  # near 2
    said = [{"gender": "man"}, {"gender": "woman"}, {"gender": "man"}, {"gender": "man"}]
    found = contradictions(said, bits, 5)
    assert (found.found, found.pairs) == (1, 2)
    assert found.by_chance == pytest.approx(2 * (1 - (0.75**2 + 0.25**2)))


def test_pictures_that_are_all_alike_count_in_one_pair_each():
    said = [{"gender": gender} for gender in ["man", "woman"] * 8]
    assert contradictions(said, np.zeros((16, 128), np.uint8), 5).pairs == 8


def test_two_captions_are_the_same_as_often_as_two_drawn_ones_are():
    texts = ["a"] * 3 + ["b"] * 2 + ["c"]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    assert same_text(texts) == pytest.approx(np.mean([texts[i] == texts[j] for i, j in pairs]))


def test_a_caption_is_nearer_to_its_own_picture_as_often_as_counted():
    rng = np.random.default_rng(0)
    texts, images = rng.normal(size=(2, 20, 8))
    wins = [texts[n] @ images[n] > texts[n] @ images[m] for n in range(20) for m in range(20) if m != n]
    assert pair_score(texts, images) == pytest.approx(np.mean(wins))
    assert pair_score(images, images * 0 + 1) == 0.5  # all alike


@pytest.mark.parametrize(
    ("rgb", "name"), [((20, 20, 20), "black"), ((250, 250, 245), "white"), ((200, 20, 30), "red"), ((20, 30, 190), "blue")]
)
def test_plain_colors_go_by_their_names(rgb, name):
    pixels = np.asarray(Image.new("RGB", (4, 4), rgb), dtype=np.float32).reshape(-1, 3) / 255
    shares = dict(zip(COLORS, color_shares(pixels), strict=True))
    assert shares[name] == 1
    assert sum(share > 0 for share in shares.values()) <= 2


def test_a_facet_of_which_two_things_are_said_counts_for_neither():
    assert facets_of("A man in a white shirt under a black jacket.") == {"gender": "man"}
    assert facets_of("A woman wearing a red coat and blue jeans")["upper color"] == "red"


def test_limits_have_reasons():
    for name, field in PlausibilityConfig.model_fields.items():
        assert field.description, name


def test_a_guess_is_by_a_model_of_drawn_people_of_a_picture_that_is_not_drawn(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "manifest.json").write_text('{"job": "captioner"}')
    models = {
        "tiny": ("builtin:tiny-mllm", "a1"),
        "own": (str(tmp_path / "own"), "b2"),
        "adapted": ("builtin:tiny-mllm", "a1+c3"),
        "other": ("Qwen/Qwen2.5-VL-7B-Instruct", "d4"),
        None: (None, None),
    }
    rows = [
        {"captioner": captioner, "model": model, "revision": revision, "dataset": dataset, "status": status, "kind": kind}
        for captioner, (model, revision) in models.items()
        for dataset in ("synthetic", "street", None)
        for status in ("ok", "failed")
        for kind in ("static", "rewrite")
    ]
    for row in rows:
        if row["kind"] == "rewrite":
            row["model"], row["revision"] = "builtin:smollm2-135m-instruct", "e5"
    guesses = GuessCount()
    guesses.add(pa.Table.from_pylist(rows))
    assert guesses.facts() == {"own": 4, "tiny": 4}
