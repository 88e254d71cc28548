"""Encoding in chunks against encoding at once: same features, same gradients, fewer activations, replayed dropout."""

import pytest
import torch

from reid_ray.train.dual.grad_cache import in_chunks


class _Encoder(torch.nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.image, self.text = (torch.nn.Linear(n, 5, dtype=torch.float64) for n in (7, 3))
        self.shared = torch.nn.Linear(5, 4, dtype=torch.float64)
        self.dropout = torch.nn.Dropout(dropout)
        for weight in self.parameters():
            torch.nn.init.normal_(weight, generator=draw)
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        image, text = (self.shared(self.dropout(torch.tanh(layer(batch[n])))) for n, layer in (("x", self.image), ("y", self.text)))
        return {"image": image, "text": text}


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(1)
    return {"x": torch.randn(10, 7, generator=draw, dtype=torch.float64), "y": torch.randn(10, 3, generator=draw, dtype=torch.float64)}


def _loss(features):
    """Every sample against every other, so that no chunk's gradient can be had without the others' features."""
    logits = features["image"] @ features["text"].T
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))


def _gradients(encode, batch, size, seed=0):
    torch.manual_seed(seed)
    encode.zero_grad()
    loss = _loss(in_chunks(encode, batch, size=size))
    loss.backward()
    return loss.detach(), [weight.grad.clone() for weight in encode.parameters()]


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_chunks_give_the_loss_and_gradient_of_the_whole_batch(batch, size):
    encode = _Encoder()
    torch.testing.assert_close(_gradients(encode, batch, size), _gradients(encode, batch, None), rtol=1e-12, atol=1e-12)


def test_the_second_pass_of_a_chunk_drops_the_same_units_as_its_first(batch):
    encode = _Encoder(dropout=0.5)
    loss, cached = _gradients(encode, batch, 4)
    # The same draws without recomputation: the chunks one after the other, all activations kept.
    torch.manual_seed(0)
    encode.zero_grad()
    parts = [encode({name: value[start : start + 4] for name, value in batch.items()}) for start in (0, 4, 8)]
    kept = _loss({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    kept.backward()
    torch.testing.assert_close((loss, cached), (kept.detach(), [weight.grad for weight in encode.parameters()]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(_gradients(encode, batch, 4, seed=1)[0], loss)


def test_activations_of_one_chunk_are_alive_at_a_time(batch):
    """Nothing but features is kept by the forward pass, and a chunk is encoded again only when the one after it is done with."""
    weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    kept, log = [], []

    def encode(part):
        chunk = int(part["row"][0]) // 3
        hidden = part["x"] @ weight
        hidden.register_hook(lambda _: log.append(f"gradient {chunk}"))
        log.append(f"encode {chunk}")
        return {"image": torch.tanh(torch.exp(hidden)), "text": torch.sin(hidden)}

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape[0]) or tensor, lambda tensor: tensor):
        features = in_chunks(encode, {"x": batch["x"], "row": torch.arange(10)}, size=3)
    assert kept == []
    assert log == [f"encode {chunk}" for chunk in range(4)]
    log.clear()
    _loss(features).backward()
    assert log == [f"{event} {chunk}" for chunk in (3, 2, 1, 0) for event in ("encode", "gradient")]


def test_without_gradient_the_batch_is_encoded_at_once(batch):
    encode = _Encoder()
    with torch.no_grad():
        in_chunks(encode, batch, size=2)
    assert encode.calls == 1


def test_what_follows_the_last_differentiable_operation_runs_once_per_chunk(batch):
    weight, calls = torch.randn(7, 4, dtype=torch.float64, requires_grad=True), []

    def encode(part):
        feature = torch.tanh(part["x"] @ weight)
        with torch.no_grad():
            calls.append(len(part["x"]))
            return {"image": feature, "side": feature + 1}

    features = in_chunks(encode, {"x": batch["x"]}, size=5)
    features["image"].sum().backward()
    assert calls == [5, 5]
    torch.testing.assert_close(features["side"], features["image"].detach() + 1)


def test_tensors_of_different_length_are_refused():
    with pytest.raises(ValueError, match="rows"):
        in_chunks(dict, {"x": torch.zeros(2), "y": torch.zeros(3)}, size=1)
