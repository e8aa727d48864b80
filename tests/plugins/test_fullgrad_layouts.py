"""FullGrad counts every bias, gives it to its own input and puts it to its place, wherever a model lays these out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized
from torch import Tensor, nn
from torchvision import models

from cnnviz import explain
from cnnviz.run.run import Run


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


class Siamese(nn.Module):
    """The distance of two pictures' features; ``how`` says in which batch the two pass."""

    def __init__(self, how: str) -> None:
        super().__init__()
        first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.net = nn.Sequential(first, nn.ReLU(), second, nn.SiLU())
        randomized(self, 1)
        self.how = how
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.how == "two calls":
            fa, fb = self.net(a), self.net(b)
        elif self.how == "concatenated":
            fa, fb = self.net(torch.cat([a, b])).chunk(2)
        else:
            fa, fb = self.net(torch.stack([a, b], 1).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return -(fa.mean((2, 3)) - fb.mean((2, 3))).square().sum(1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("how", ["concatenated", "stacked"])
def test_two_pictures_in_one_batch_are_those_of_two_calls(how: str, scaled: bool) -> None:
    a, b = drawn(2, 3, 3, 12, 12)
    found, apart = (explain(Siamese(each), (a, b), "fullgrad", scaled=scaled) for each in (how, "two calls"))
    torch.testing.assert_close(found.values, apart.values, rtol=0, atol=1e-11)
    assert found.notes["completeness_gap"].abs().max() < 1e-10
    direct = explain(Siamese("two calls"), (a, b), "input_x_gradient").values.abs().sum((1, 2, 3))
    assert (found.values.sum((1, 2, 3)) > 1.1 * direct).all()  # biases are a part of it


class Turned(nn.Module):
    """A small network on (N, 2, H, W), whose last layers work in another layout."""

    def __init__(self, inside: Callable[[Turned, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 5), nn.Linear(5, 3)
        randomized(self, 2)
        self.inside = inside
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(self, self.first(x).relu())


def plain(net: Turned, x: Tensor) -> Tensor:
    weight, bias = net.last.weight[..., None, None], net.last.bias
    return net.head(F.silu(F.conv2d(x, weight, bias)).mean((2, 3)))


def channels_last(net: Turned, x: Tensor) -> Tensor:
    return net.head(F.silu(net.last(x.permute(0, 2, 3, 1))).mean((1, 2)))


def tokens(net: Turned, x: Tensor) -> Tensor:
    return net.head(F.silu(net.last(x.flatten(2).mT)).mean(1))


def tokens_first(net: Turned, x: Tensor) -> Tensor:
    return net.head(F.silu(net.last(x.flatten(2).permute(2, 0, 1))).mean(0))


def windows(net: Turned, x: Tensor) -> Tensor:
    cut = x.permute(0, 2, 3, 1).unflatten(2, (3, 2)).unflatten(1, (2, 2)).transpose(2, 3).reshape(-1, 4, 4)
    return net.head(F.silu(net.last(cut)).unflatten(0, (len(x), -1)).mean((1, 2)))


def rolled(net: Turned, x: Tensor) -> Tensor:
    return net.head(F.silu(net.last(x.permute(0, 2, 3, 1).roll((1, -2), (1, 2)))).mean((1, 2)))


def flat(net: Turned, x: Tensor) -> Tensor:
    return net.head(F.silu(net.last(x.flatten(2).mT.flatten(0, 1))).unflatten(0, (len(x), -1)).mean(1))


@pytest.mark.parametrize("inside", [channels_last, tokens, tokens_first, windows, rolled, flat])
def test_places_are_found_in_any_layout(inside: Callable[[Turned, Tensor], Tensor]) -> None:
    x = drawn(2, 2, 4, 6)
    found, expected = (explain(Turned(each), x, "fullgrad", target=[2, 0]) for each in (inside, plain))
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-11)
    assert found.notes["completeness_gap"].abs().max() < 1e-11


def test_tokens_of_no_place_are_left_out_of_the_map_and_count_in_the_sum() -> None:
    extra = drawn(1, 1, 4, seed=5)

    def with_token(net: Turned, x: Tensor) -> Tensor:
        steps = torch.cat([extra.expand(len(x), -1, -1), x.flatten(2).mT], 1)
        return net.head(F.silu(net.last(steps)).mean(1))

    x = drawn(2, 2, 4, 6)
    terms = Run(Turned(with_token), x, torch.tensor([2, 0])).bias_gradients()
    reference = Run(Turned(tokens), x, torch.tensor([2, 0])).bias_gradients()
    maps, expected = ([term for term in each if term.ndim == 4] for each in (terms, reference))
    for term, other in zip(maps[-2:], expected[-2:], strict=True):
        torch.testing.assert_close(term * 25 / 24, other, rtol=0, atol=1e-11)  # a mean over one token more
    assert explain(Turned(with_token), x, "fullgrad", target=[2, 0]).notes["completeness_gap"].abs().max() < 1e-11


def test_a_target_with_a_nonlinearity_of_its_own() -> None:
    net = randomized(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3).eval()
    x, references = drawn(2, 3, 8, 8), drawn(2, 8, seed=4)
    found = explain(net, x, "fullgrad", target=lambda output: torch.cosine_similarity(output, references))
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    assert found.score.abs().min() > 1e-3


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_tokens_of_transformers_are_maps(name: str) -> None:
    settings = {"image_size": 64} if name == "vit_b_32" else {}
    net = randomized(models.get_model(name, weights=None, num_classes=5, **settings).eval(), 1)
    run = Run(net, drawn(2, 3, 64, 64), torch.tensor([1, 2]))
    terms = run.bias_gradients()
    maps = [term for term in terms if term.ndim == 4]
    grids = {tuple(term.shape[2:]) for term in maps}
    stages, padded = [(side, side) for side in (16, 8, 4, 2)], [(side, side) for side in (21, 14, 7)]
    assert grids == ({(2, 2)} if name == "vit_b_32" else {*stages, *padded})  # to whole windows of seven
    assert len(maps) > 0.45 * len(terms)
    assert explain(net, drawn(2, 3, 64, 64), "fullgrad", target=[1, 2]).notes["completeness_gap"].abs().max() < 1e-6


def test_a_tuple_is_unpacked() -> None:
    class Unpacks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first, second = (x * 2 + 1).flatten(2).permute(1, 0, 2)
            return (first.sigmoid() * second).cumsum(1)[:, -3:]

    found = explain(Unpacks().eval(), drawn(3, 2, 2, 4), "fullgrad", target=1)
    assert found.notes["completeness_gap"].abs().max() < 1e-12


class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def squashed(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


with warnings.catch_warnings(action="ignore"):  # torch deprecates it, and models go on to use it
    scripted = torch.jit.script(squashed)


def elsewhere(x: Tensor) -> Tensor:
    given: list[Tensor] = []

    def work() -> None:
        with torch.enable_grad():
            given.append(x.sigmoid())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return given[0]


@pytest.mark.parametrize(("hidden", "name"), [(Same.apply, "Same"), (scripted, "Sigmoid"), (elsewhere, "Sigmoid")])
def test_an_operation_that_is_not_seen_is_refused_by_name(hidden: Callable[[Tensor], Tensor], name: str) -> None:
    net = Turned(lambda net, x: plain(net, hidden(x)))
    with pytest.raises(LookupError, match=f"the implicit bias of {name}.* is not known: it is not seen in TorchScript"):
        explain(net, drawn(2, 2, 4, 6), "fullgrad", target=1)


def test_what_is_only_asked_about_an_unseen_tensor_adds_nothing() -> None:
    """As torch's checkpointing asks a tensor of its own whether there is a graph."""

    def asked(net: Turned, x: Tensor) -> Tensor:
        unseen = Same.apply(x)
        return plain(net, x * (2.0 if unseen.grad_fn is not None and unseen.is_leaf is False else 1.0))

    found = explain(Turned(asked), drawn(2, 2, 4, 6), "fullgrad", target=1)
    expected = explain(Turned(lambda net, x: plain(net, x * 2.0)), drawn(2, 2, 4, 6), "fullgrad", target=1)
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-12)
    transposed = Turned(lambda net, x: plain(net, Same.apply(x).mT.mT))
    with pytest.raises(LookupError, match="the implicit bias of Same"):
        explain(transposed, drawn(2, 2, 4, 6), "fullgrad", target=1)


class Spectrogram(nn.Module):
    """A network behind the spectrum of a signal; ``read`` makes real numbers of the complex ones."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cnn, self.head = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU()), nn.Linear(4, 3)
        randomized(self, 1)
        self.read = read
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(16, dtype=x.dtype)
        spectrum = torch.stft(x[:, 0], 16, 8, window=window, return_complex=True)
        return self.head(self.cnn(self.read(spectrum)[:, None]).mean((2, 3)))


SPECTRA: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "magnitude": (torch.abs, lambda z: torch.view_as_real(z).norm(dim=-1)),
    "power": (lambda z: z.abs().square(), lambda z: torch.view_as_real(z).norm(dim=-1).square()),
    "shifted": (
        lambda z: (z + (0.3 - 0.2j)).abs(),
        lambda z: (torch.view_as_real(z) + torch.tensor([0.3, -0.2]).double()).norm(dim=-1),
    ),
}
"""An operation of complex numbers, and the same of their two parts."""


@pytest.mark.parametrize("how", SPECTRA)
def test_biases_of_complex_numbers_are_those_of_their_two_parts(how: str) -> None:
    x = drawn(2, 1, 64)
    found, expected = (explain(Spectrogram(read), x, "fullgrad", target=[2, 0], scaled=False) for read in SPECTRA[how])
    torch.testing.assert_close(found.score, expected.score)
    for each in (found, expected):
        assert each.notes["completeness_gap"].abs().max() < 1e-12
    if how == "magnitude":  # of the others, the steps between are others
        torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-11)


@pytest.mark.parametrize("how", ["magnitude", "power"])
def test_deeplift_of_complex_numbers_is_that_of_their_two_parts(how: str) -> None:
    x = drawn(2, 1, 64)
    found, expected = (explain(Spectrogram(read), x, "deeplift", target=[2, 0]) for read in SPECTRA[how])
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-11)


@pytest.mark.parametrize("read", [torch.real, lambda z: (z * z.conj()).real, lambda z: (z * 0.1).exp().abs()])
def test_biases_of_complex_numbers_add_up(read: Callable[[Tensor], Tensor]) -> None:
    found = explain(Spectrogram(read), drawn(2, 1, 64), "fullgrad", target=[2, 0])
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    assert found.score.abs().min() > 1e-3
