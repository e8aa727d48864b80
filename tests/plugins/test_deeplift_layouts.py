"""DeepLIFT compares the input's values with its own baseline's, wherever a model puts the inputs of a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import randomized
from torch import Tensor, nn

from cnnviz import explain, gradient
from cnnviz_plugins.attributions._deeplift_rule import RESCALE


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


class Siamese(nn.Module):
    """The distance of two pictures' features; ``how`` says in which batch the two pass."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.SiLU()
        )
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


@pytest.mark.parametrize("how", ["concatenated", "stacked"])
@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_two_pictures_in_one_batch_are_those_of_two_calls(how: str, method: str) -> None:
    a, b = drawn(2, 2, 3, 8, 8)
    given = (
        {"baseline": drawn(1, 3, 8, 8, seed=2)} if method == "deeplift" else {"baselines": drawn(5, 3, 8, 8, seed=2)}
    )
    found, apart = (explain(Siamese(each), (a, b), method, **given) for each in (how, "two calls"))
    torch.testing.assert_close(found.values, apart.values, rtol=0, atol=1e-12)
    (baselines,) = given.values()
    rise = [found.score - Siamese("two calls")(each.expand_as(a), b).detach() for each in baselines]
    torch.testing.assert_close(found.values.sum((1, 2, 3)), torch.stack(rise).mean(0), rtol=0, atol=1e-12)
    assert found.values.abs().sum() > 0.1


class Sequence(nn.Module):
    """Attention, a norm and an activation over steps; ``turn`` lays a batch (N, T, C) out, ``back`` undoes it."""

    def __init__(self, turn: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], time: int) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        randomized(self, 2)
        self.turn, self.back, self.time = turn, back, time
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        steps = self.turn(x.mT)
        steps = F.gelu(self.mix(steps)) * steps.sigmoid()
        steps = F.layer_norm(steps + steps.softmax(self.time), (4,))
        return self.head(self.back(steps.cumsum(self.time)).amax(1))


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]] = {
    "time first": (lambda x: x.transpose(0, 1), lambda x: x.transpose(0, 1), 0),
    "batch last but one": (lambda x: x.permute(1, 0, 2)[None], lambda x: x[0].permute(1, 0, 2), 1),
    "both": (lambda x: torch.cat([x, x.flip(1)]), lambda x: sum(x.chunk(2)), 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("items", [1, 2, 6])
def test_a_batch_that_is_turned_is_that_of_each_input_alone(layout: str, items: int) -> None:
    x, target = drawn(items, 4, 6), [item % 3 for item in range(items)]
    net = Sequence(*LAYOUTS[layout])
    found = explain(net, x, "deeplift", target=target, baseline=0.3)
    assert found.notes["completeness_gap"].abs().max() < 1e-11
    if layout == "both":
        return
    plain = Sequence(lambda x: x, lambda x: x, 1)
    for item, values in enumerate(found.values):
        alone = explain(plain, x[item : item + 1], "deeplift", target=target[item], baseline=0.3).values
        torch.testing.assert_close(alone[0], values, rtol=0, atol=1e-11)


def test_frames_folded_into_the_batch() -> None:
    class Clip(nn.Module):
        def __init__(self, folds: bool) -> None:
            super().__init__()
            self.cnn = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten())
            self.head = nn.Linear(12, 3)
            randomized(self, 5)
            self.folds = folds
            self.eval()

        def forward(self, clip: Tensor) -> Tensor:  # (N, C, T, H, W)
            frames = clip.transpose(1, 2)
            if not self.folds:
                return self.head(torch.stack([self.cnn(frame) for frame in frames.unbind(1)], 1).amax(1))
            return self.head(self.cnn(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (-1, len(clip))).amax(0))

    x = drawn(3, 2, 4, 6, 6)
    folded, apart = (explain(Clip(folds), x, "deeplift", target=[0, 2, 1]) for folds in (True, False))
    torch.testing.assert_close(folded.values, apart.values, rtol=0, atol=1e-12)


def test_inputs_that_change_each_other_keep_their_own_sums() -> None:
    class BatchNormed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = (x - x.mean(0)) / (x.var(0) + 1).sqrt()
            return x.sigmoid().flatten(2).sum(2)

    x, b = drawn(3, 2, 4, 4), drawn(1, 2, 4, 4, seed=4)
    found = explain(BatchNormed().eval(), x, "deeplift", target=1, baseline=b)
    rise = BatchNormed()(x)[:, 1].sum() - BatchNormed()(b.expand_as(x))[:, 1].sum()
    torch.testing.assert_close(found.values.sum(), rise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_a_function_that_knows_an_input_s_place(method: str) -> None:
    net = randomized(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3).eval()
    x, references = drawn(2, 3, 8, 8), drawn(2, 8, seed=4)
    given = {} if method == "deeplift" else {"baselines": drawn(7, 3, 8, 8, seed=2)}
    found = explain(net, x, method, target=lambda output: torch.cosine_similarity(output, references), **given)
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    for item in range(2):
        alone = explain(
            net,
            x[item : item + 1],
            method,
            target=lambda output, item=item: torch.cosine_similarity(output, references[item : item + 1]),
            **given,
        )
        torch.testing.assert_close(alone.values[0], found.values[item], rtol=0, atol=1e-12)


class Chooses(nn.Module):
    """Goes by what it sees: once more through its activation, or through other weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
        self.how = how
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        high = bool(x.mean() > 0)
        if self.how == "slice":
            x = x if high else x[..., 1:]
        if self.how == "size":
            x = x[..., x.mean((0, 1, 2)) * torch.tensor([1, 0, 0, 0, 0]) > -0.5]
        x = (self.one if high or self.how != "weights" else self.other)(x).relu()
        return (x.relu() if high and self.how == "calls" else x).mean((2, 3))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("calls", "relu is called 2 times for the input and 1 times for the baseline"),
        ("weights", "its operations read other weights"),
        ("slice", "conv2d is called for the input where getitem is for the baseline"),
        ("size", "relu is given .*1, 3, 3, 3.* for the input and .*1, 3, 3, 2.* for the baseline"),
    ],
)
def test_another_way_through_the_model_is_refused(how: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"takes another way for the baseline than for the input: {reason}.*choose a"):
        explain(Chooses(how), torch.ones(1, 2, 5, 5), "deeplift", target=1, baseline=-1.0)


def test_a_rule_that_compares_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"compares each operation with that of reference inputs.*formulas\.compared"):
        explain(Siamese("two calls"), (drawn(1, 3, 8, 8), drawn(1, 3, 8, 8)), gradient(rule=RESCALE))
