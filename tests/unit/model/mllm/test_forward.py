"""The multimodal LLM's interface gives what transformers' own forward gives, from chat turns whose every token is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.forward import IGNORED, pool
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.mllm_encoder import MllmEncoder, load_mllm_encoder
from reid_ray.model.mllm.model_folder import check_mllm, merge_mllm, open_mllm, save_mllm
from reid_ray.model.tiny.tiny_llava import build_tiny_llava
from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl

LORA = {"rank": 2, "llm": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "qwen": "builtin:tiny-mllm",
        "llava": str(build_tiny_llava(folder / "llava")),
        "qwen3": str(build_tiny_qwen3_vl(folder / "qwen3")),
    }


@pytest.fixture(scope="module", params=["qwen", "llava", "qwen3"])
def opened(request, bases):
    return open_mllm(MllmConfig(base=bases[request.param], lora={"llm": [], "visual": []}, train_projector=False))


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for h, w in ((128, 64), (200, 50), (64, 64))]


def chat_of(opened):
    return Chat(opened.processor, context=opened.mllm.context)


def inputs_of(opened, turns):
    marks = {"mm_token_type_ids": (turns.input_ids == opened.mllm.image_token).int()} if "image_grid_thw" in turns.pictures else {}
    return {"input_ids": turns.input_ids, "attention_mask": turns.attention_mask, **turns.pictures, **marks}


@pytest.mark.slow
def test_one_pass_gives_transformers_loss_hidden_states_and_image_tokens(opened, crops):
    turns = chat_of(opened).picture_turns(crops, ["Continue."] * 3, ["A man in red.", "A woman.", "No."])
    with torch.no_grad():
        features = opened.mllm.encode_pictures(turns.pictures)
        hidden = opened.mllm.hidden_states(turns.input_ids, turns.attention_mask, features)
        cost_A, count_A = opened.mllm.answer_cost(hidden, turns.labels)
        theirs = opened.mllm.model(**inputs_of(opened, turns), labels=turns.labels, output_hidden_states=True)
        tokens = opened.mllm.model.get_image_features(**turns.pictures, return_dict=True).pooler_output
    assert count_A.tolist() == (turns.labels != IGNORED).sum(dim=1).tolist()
    torch.testing.assert_close(cost_A.sum() / count_A.sum(), theirs.loss)
    torch.testing.assert_close(hidden, theirs.hidden_states[-1])
    for own, other, ids in zip(features.token_list, tokens, turns.input_ids, strict=True):
        torch.testing.assert_close(own, other)
        assert len(own) == (ids == opened.mllm.image_token).sum()


@pytest.mark.slow
def test_the_visual_feature_is_the_encoders_own(opened, crops):
    pictures = chat_of(opened).picture_turns(crops[:1], [""]).pictures
    visual = opened.mllm.family.part(opened.mllm.model, opened.mllm.family.visual)
    with torch.no_grad():
        ours = opened.mllm.encode_pictures(pictures).visual_AV
        if "image_grid_thw" in pictures:  # no class token: the mean of all patches, normalised as the merger normalises them
            patches = visual(pictures["pixel_values"], grid_thw=pictures["image_grid_thw"]).last_hidden_state
            if hasattr(visual.merger, "ln_q"):
                scale = patches.pow(2).mean(dim=-1, keepdim=True).add(visual.merger.ln_q.variance_epsilon).rsqrt()
                expected = (patches * scale * visual.merger.ln_q.weight).mean(dim=0, keepdim=True)
            else:
                norm = visual.merger.norm
                expected = torch.nn.functional.layer_norm(patches, (64,), norm.weight, norm.bias, 1e-6).mean(dim=0, keepdim=True)
        else:
            expected = visual(pictures["pixel_values"]).pooler_output
    torch.testing.assert_close(ours, expected)


@pytest.mark.slow
def test_features_depend_on_the_picture_alone(opened, crops):
    """Neither neighbours of other sizes, nor the instruction, nor the answer may change them; an instruction before the picture would."""
    chat, mllm = chat_of(opened), opened.mllm

    def latent(turns):
        with torch.no_grad():
            features = mllm.encode_pictures(turns.pictures)
            return pool(mllm.hidden_states(turns.input_ids, turns.attention_mask, features), turns.shown, how="mean"), features.visual_AV

    together, visual = latent(chat.picture_turns(crops, ["Continue."] * 3, ["A man in red.", "A woman.", "No."]))
    for row, crop in enumerate(crops):
        alone, seen = latent(chat.picture_turns([crop], ["Which shoes does the person wear?"]))
        torch.testing.assert_close(alone[0], together[row])
        torch.testing.assert_close(seen[0], visual[row])
    assert (together[0] - together[1]).abs().max() > 1e-3
    messages = [{"role": "user", "content": [{"type": "text", "text": "Which shoes?"}, {"type": "image"}]}]
    text = opened.processor.apply_chat_template(messages, tokenize=False)
    given = opened.processor(text=[text], images=crops[:1], return_tensors="pt")
    with torch.no_grad():
        hidden = mllm.hidden_states(given["input_ids"], given["attention_mask"], mllm.encode_pictures(given))
    after = pool(hidden, given["input_ids"] == mllm.image_token, how="mean")
    assert (after[0] - together[0]).abs().max() > 1e-3


def test_pooling_matches_a_loop():
    generator = torch.Generator().manual_seed(0)
    hidden, query = torch.randn(3, 5, 4, generator=generator), torch.randn(4, generator=generator)
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    for how in ("mean", "last", "attention"):
        ours = pool(hidden, mask, how=how, query_D=query)
        for row in range(3):
            kept = [hidden[row, t] for t in range(5) if mask[row, t]]
            weights = [float(torch.exp(h @ query / 2)) if how == "attention" else 1.0 for h in kept]
            expected = kept[-1] if how == "last" else sum(w * h for w, h in zip(weights, kept, strict=True)) / sum(weights)
            torch.testing.assert_close(ours[row], expected)


def test_turns_are_right_token_by_token(opened, crops):
    chat, tokenizer = chat_of(opened), opened.processor.tokenizer
    words = "Continue the description."
    pictures = chat.picture_turns(crops[:2], [words] * 2, ["A man.", "A woman in a coat."])
    captions = chat.caption_turns(["A man, red coat.", "The woman"], [words] * 2, ["A man.", "A woman in a coat."])
    qwen = "image_grid_thw" in pictures.pictures
    before, after = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n") if qwen else ("USER: ", " ASSISTANT:")
    image = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>") if qwen else ("", "<image>", "\n")
    for row, answer in enumerate(["A man.", "A woman in a coat."]):
        tail = tokenizer(f"{answer if qwen else ' ' + answer}<|im_end|>")["input_ids"]
        number = int(pictures.pictures["image_grid_thw"][row].prod()) // 4 if qwen else 16
        shown = [before + image[0], image[1] * number, image[2] + words + after]
        ids = [tokenizer(part)["input_ids"] for part in shown]
        # Both crops are at most half as wide as high, so LLaVA's first and last column of four hold padding alone.
        _expect(pictures, row, ids, tail, shown=[True] * number if qwen else [False, True, True, False] * 4)
        caption = ["A man, red coat.", "The woman"][row]
        # LLaVA's template puts a blank before a caption; the tokenizer joins it to a word that it knows with one.
        parts = [before, caption, f"\n{words}{after}"] if qwen or row == 0 else ["USER:", f" {caption}", f"\n{words}{after}"]
        _expect(captions, row, [tokenizer(part)["input_ids"] for part in parts], tail)
    asked = tokenizer(words + after)["input_ids"]
    for turns in (pictures, captions):  # one instruction, in the same tokens, behind either
        row = turns.input_ids[0].tolist()
        assert any(row[start : start + len(asked)] == asked for start in range(len(row)))


def _expect(turns, row, ids, tail, shown=None):
    before, tokens, after = ids
    whole = [*before, *tokens, *after, *tail]
    shown = [True] * len(tokens) if shown is None else shown
    real = turns.attention_mask[row].bool()
    assert turns.input_ids[row][real].tolist() == whole
    assert turns.labels[row][real].tolist() == [IGNORED] * (len(whole) - len(tail)) + tail
    assert turns.shown[row][real].tolist() == [False] * len(before) + shown + [False] * (len(after) + len(tail))
    assert (turns.labels[row][~real] == IGNORED).all()
    assert not turns.shown[row][~real].any()


@pytest.mark.slow
def test_crops_keep_their_shape_within_the_budget(bases):
    tall = Image.new("RGB", (100, 300), (255, 255, 255))
    qwen = open_mllm(
        MllmConfig(base=bases["qwen"], lora={"llm": [], "visual": []}, train_projector=False, min_pixels=784, max_pixels=28 * 28 * 27)
    )
    _, height, width = chat_of(qwen).picture_turns([tall], [""]).pictures["image_grid_thw"][0].tolist()
    assert height / width == 3
    assert height * width <= 4 * 27
    llava = open_mllm(MllmConfig(base=bases["llava"], lora={"llm": [], "visual": []}, train_projector=False))
    white = chat_of(llava).picture_turns([tall], [""]).pictures["pixel_values"][0].mean(dim=0) > 1
    columns = white.float().mean(dim=0)
    # A third of the square, all of its height: nothing is cut off, nothing stretched.
    assert (columns > 0.9).sum() in (18, 19, 20)
    assert (columns < 0.1).sum() >= 34
    assert white[:, 28].all()


@pytest.mark.parametrize("base", ["qwen", "llava"])
@pytest.mark.slow
def test_exactly_what_is_asked_for_trains_and_comes_back_from_disk(bases, base, crops, tmp_path):
    visual = ["qkv"] if base == "qwen" else ["q_proj"]
    opened = open_mllm(MllmConfig(base=bases[base], lora={**LORA, "visual": visual}))
    family = opened.mllm.family
    training = {name: weight for name, weight in opened.mllm.model.named_parameters() if weight.requires_grad}
    parts = {name.replace(".base_layer", "").split(".lora_")[0] for name in training if ".lora_" in name}
    everything = [
        name.replace(".base_layer", "").rsplit(".", 1)[0] for name, _ in opened.mllm.model.named_parameters() if ".lora_" not in name
    ]
    expected = {
        name
        for name in everything
        if (name.startswith(family.language) and name.endswith((".q_proj", ".down_proj")))
        or (name.startswith(f"{family.visual}.") and not name.startswith(family.projector) and name.endswith(f".{visual[0]}"))
    }
    assert parts == expected
    projector = {name for name, _ in opened.mllm.model.named_parameters() if name.startswith(family.projector)}
    assert projector
    assert {name for name in training if ".lora_" not in name} == projector
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in training.values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    encoder, texts = MllmEncoder(opened), ["A man in red", "A woman"]
    images_ND, texts_ND = encoder.encode_images(crops), encoder.encode_texts(texts)
    untouched = MllmEncoder(open_mllm(MllmConfig(base=bases[base], lora={"llm": [], "visual": []}, train_projector=False))).encode_images(
        crops
    )
    assert np.abs(untouched - images_ND).max() > 1e-3
    trained = {name: weight.detach() for name, weight in training.items()}
    save_mllm(opened, tmp_path / "tuned", trained=trained, heads={}, facts={"pooling": "mean", "text_latents": True})
    files = sorted(path.stat().st_size for path in (tmp_path / "tuned").rglob("*.safetensors"))
    assert sum(files) < 4 * sum(weight.numel() for weight in training.values()) + 30_000  # what trained, and no more
    loaded = load_mllm_encoder(tmp_path / "tuned")
    np.testing.assert_array_equal(loaded.encode_images(crops), images_ND)
    np.testing.assert_array_equal(loaded.encode_texts(texts), texts_ND)
    (tmp_path / "plain").mkdir()
    merge_mllm(tmp_path / "tuned", tmp_path / "plain", dtype="float32")
    plain = MllmEncoder(open_mllm(MllmConfig(base=str(tmp_path / "plain"), lora={"llm": [], "visual": []}, train_projector=False)))
    np.testing.assert_allclose(plain.encode_images(crops), images_ND, atol=1e-5)
    manifest = json.loads((tmp_path / "tuned" / "manifest.json").read_text())
    assert manifest["trained"]["adapter"] + manifest["trained"]["whole"] == sum(weight.numel() for weight in training.values())
    assert not manifest["adapter_serves_alone"]


@pytest.mark.slow
def test_what_cannot_work_is_refused_by_name_before_weights_are_loaded(bases, tmp_path):
    opened = open_mllm(MllmConfig(base=bases["llava"], lora=LORA, train_projector=False))
    trained = {name: weight.detach() for name, weight in opened.mllm.model.named_parameters() if weight.requires_grad}
    save_mllm(opened, tmp_path / "tuned", trained=trained, heads={}, facts={"pooling": "mean", "text_latents": True})
    cases = [
        ({"lora": {"llm": ["q_proj", "qq_proj"]}}, "model.lora.llm: 'qq_proj' matches no linear layer"),
        ({"lora": {"visual": ["q_proj"]}}, "model.lora.visual: 'q_proj' matches no linear layer of the visual encoder; there are"),
        ({"processor": bases["llava"]}, "is a LlavaProcessor, but Qwen2_5_VLForConditionalGeneration needs"),
        ({"base": bases["llava"], "max_pixels": 50_000}, "model.max_pixels: LLaVA's pictures have one fixed size"),
        ({"base": "builtin:smollm2-135m-instruct"}, "model_type is 'llama'"),
        ({"adapter": str(tmp_path / "tuned"), "lora": LORA}, "but the base is builtin:tiny-mllm"),
        ({"adapter": str(tmp_path)}, "holds no readable manifest.json"),
        ({"quantization": "nf4"}, "nf4 needs a CUDA device"),
    ]
    for values, sentence in cases:
        if "nf4" in sentence and torch.cuda.is_available():
            continue
        with refused((ConfigError, DataError), sentence):
            check_mllm(MllmConfig.model_validate(values))
    with refused(DataError, "captions", "40"):
        Chat(opened.processor, context=40).caption_turns(["word " * 60], ["Continue."], ["Yes."])


@pytest.mark.slow
def test_a_text_longer_than_the_context_is_cut_and_measured(opened):
    encoder = MllmEncoder(opened)
    encoder.reads_texts = True
    long = "A man in a red coat with a black backpack and white shoes. " * 400
    vector_ND, tokens_N = encoder.encode_and_measure(["A man in red.", long, long + "\u7ea2" * 9, long[:-100]])
    assert np.isfinite(vector_ND).all()
    np.testing.assert_allclose(vector_ND[1], vector_ND[2], atol=1e-6)
    assert (tokens_N > encoder.context).tolist() == [False, True, True, True]
    assert tokens_N[2] > tokens_N[1] > tokens_N[3]
    short, none_cut = chat_of(opened).fit(" A man in red. ")
    assert (short, none_cut) == ("A man in red.", 0)
    np.testing.assert_allclose(vector_ND[0], encoder.encode_texts(["A man in red."])[0], atol=1e-5)


def test_a_caption_whose_words_stand_in_the_template_is_found_where_it_is(opened):
    turns = chat_of(opened).caption_turns(["  u "], ["Continue."])
    tokenizer = opened.processor.tokenizer
    assert tokenizer.decode(turns.input_ids[0][turns.shown[0]]).strip() == "u"
    before = tokenizer.decode(turns.input_ids[0][: int(turns.shown[0].int().argmax())])
    assert before.strip().lower().endswith(("user", "user:"))
