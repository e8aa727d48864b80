"""Models that write into themselves, or keep what they saw: they get true answers, and nothing of a replay."""

from __future__ import annotations

import copy
import inspect
import tempfile
import warnings
from collections.abc import Callable

import pytest
import torch
from nets import randomized, tiny_inputs
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz import Explanation, explain, tasks
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.run import Run

TARGET = torch.tensor([2, 0])


class Plain(nn.Module):
    """Two convolutions and a linear layer; ``seen`` meets what the first gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        randomized(self, seed=5)

    def seen(self, maps: Tensor) -> Tensor:
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.seen(self.first(x).relu())).relu().mean((2, 3)))


class Constrained(Plain):
    """As EEGNet does: the weight is brought into its bounds in every pass."""

    def seen(self, maps: Tensor) -> Tensor:
        self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, maxnorm=1.0)
        return maps


class Counts(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(3, dtype=torch.float64))

    def seen(self, maps: Tensor) -> Tensor:
        self.passes.add_(1)
        return maps


class CountsThroughAView(Counts):
    def seen(self, maps: Tensor) -> Tensor:
        self.passes.data.view(3, 1)[1:].add_(1)
        return maps


class Averages(Plain):
    """Keeps a mean of what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1, dtype=torch.float64))

    def seen(self, maps: Tensor) -> Tensor:
        self.mean.copy_(0.9 * self.mean + 0.1 * maps.mean((0, 2, 3), keepdim=True))
        return maps


class AveragesAnew(Averages):
    def seen(self, maps: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * maps.mean((0, 2, 3), keepdim=True)
        return maps


def average_into(mean: Tensor, maps: Tensor) -> None:
    mean.copy_(maps.mean((0, 2, 3), keepdim=True))


with warnings.catch_warnings(action="ignore"):  # torch advises others, of which a mode sees what they do
    unseen_average_into = torch.jit.script(average_into)


class AveragesUnseen(Averages):
    def seen(self, maps: Tensor) -> Tensor:
        unseen_average_into(self.mean, maps * 2)
        return maps


class Keeps(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def seen(self, maps: Tensor) -> Tensor:
        self.kept = maps.sigmoid()
        return maps


class KeepsWhereNothingWas(Plain):
    def seen(self, maps: Tensor) -> Tensor:
        self.kept = maps.sigmoid()
        return maps


class KeepsInAList(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[Tensor] = []

    def seen(self, maps: Tensor) -> Tensor:
        self.all[:] = [maps.sigmoid(), maps]
        return maps


class Caches(Plain):
    """Makes a grid for each batch size once."""

    def __init__(self) -> None:
        super().__init__()
        self.grids: dict[int, Tensor] = {}

    def seen(self, maps: Tensor) -> Tensor:
        if len(maps) not in self.grids:
            self.grids[len(maps)] = torch.arange(len(maps), dtype=maps.dtype).view(-1, 1, 1, 1) * 0 + 1
        return maps * self.grids[len(maps)]


class Transformed(Plain):
    """A part of it runs inside torch.func, where nobody can follow."""

    def seen(self, maps: Tensor) -> Tensor:
        return torch.vmap(lambda each: each.relu() * 2)(maps)


def by_layer(run: Run) -> tuple[Tensor, Tensor]:
    """Of a changed layer, and in a whole pass each."""
    module, kept = run.model.get_submodule("layer"), run.activation("layer")
    variants = torch.stack([kept * 0.5, kept + 1, kept.flip(1)])
    found = run.scores_from("layer", len(variants), lambda start, stop, item: variants[start:stop, item])
    expected = torch.empty_like(found)
    for number, item in [(number, item) for number in range(3) for item in range(2)]:
        handle = module.register_forward_hook(lambda *_, put=variants[number, item]: put[None])
        expected[number, item] = run.model(run.inputs[item : item + 1])[0, TARGET[item]]
        handle.remove()
    return found, expected


def by_boxes(run: Run) -> tuple[Tensor, Tensor]:
    """Of a changed box of the input, and in a whole pass each."""
    begins = torch.tensor([[[0, 0]], [[1, 2]], [[3, 4]]])
    found = run.scores_of_boxes(torch.stack([begins, begins + 2], -1)[:, 0], lambda number, item: torch.ones(2, 2, 2))
    expected = torch.empty_like(found)
    for number, item in [(number, item) for number in range(3) for item in range(2)]:
        (y, x) = begins[number, 0].tolist()
        one = run.inputs[item : item + 1].clone()
        one[..., y : y + 2, x : x + 2] = 1
        expected[number, item] = run.model(one)[0, TARGET[item]]
    return found, expected


ASKED = (by_layer, by_boxes)
KINDS = (
    *(Plain, Constrained, Counts, CountsThroughAView, Averages, AveragesAnew, AveragesUnseen),
    *(Keeps, KeepsWhereNothingWas, KeepsInAList, Caches, Transformed),
)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_true_and_the_model_goes_on_as_ever(
    kind: type[Plain], ask: Callable[[Run], tuple[Tensor, Tensor]]
) -> None:
    net, inputs = kind(), tiny_inputs()
    with torch.no_grad():
        before = net(inputs)
        weights = {name: each.clone() for name, each in net.named_parameters()}
        layouts = {name: (each.shape, each.stride(), each.storage_offset()) for name, each in net.state_dict().items()}
        found, expected = ask(Run(net, inputs, TARGET))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(net(inputs), before, rtol=1e-12, atol=1e-12)
    for name, each in net.named_parameters():
        assert torch.equal(each, weights[name])
    assert {n: (each.shape, each.stride(), each.storage_offset()) for n, each in net.state_dict().items()} == layouts
    copy.deepcopy(net)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("kind", [Averages, AveragesAnew, AveragesUnseen])
def test_averages_are_of_what_the_model_saw(kind: type[Averages], ask: Callable[[Run], tuple[Tensor, Tensor]]) -> None:
    net, inputs = kind(), tiny_inputs()
    with torch.no_grad():
        reach = 3 * float(net.first(inputs).abs().max())
        ask(Run(net, inputs, TARGET))
    assert net.mean.shape == (1, 3, 1, 1)
    assert 0 < float(net.mean.abs().max()) < reach


@pytest.mark.parametrize("kind", [Keeps, KeepsWhereNothingWas])
def test_what_the_model_kept_is_of_the_question_itself(kind: type[Keeps]) -> None:
    net, inputs = kind(), tiny_inputs()
    with torch.no_grad():
        run = Run(net, inputs, TARGET)
        variants = run.activation("layer")[None] * 0.5
        kept = net.kept
        run.scores_from("layer", 1, lambda start, stop, item: variants[start:stop, item])
        run.scores_of_boxes(torch.tensor([[[0, 2], [0, 2]]]), lambda number, item: torch.ones(2, 2, 2))
        assert net.kept is kept
        torch.testing.assert_close(kept, net.first(inputs).relu().sigmoid())


@pytest.mark.parametrize("ask", ASKED)
def test_hooks_of_the_user_see_what_a_pass_would_show(ask: Callable[[Run], tuple[Tensor, Tensor]]) -> None:
    net, inputs, met = Plain(), tiny_inputs(), []
    net.first.register_forward_hook(lambda module, args, output: met.append(output.detach().abs().mean((1, 2, 3))))
    net.layer.register_forward_hook(lambda module, args, output: met.append(output))
    with torch.no_grad():
        ask(Run(net, inputs, TARGET))
        true = net.first(inputs).abs().mean((1, 2, 3))
    met = met[:-2]
    assert all(type(each) is Tensor for each in met)
    assert all(bool(each.isfinite().all()) for each in met)
    if ask is by_layer:
        for each in met:
            if each.ndim == 1:
                assert all(float((true - one).abs().min()) < 1e-12 for one in each)


@pytest.mark.parametrize(
    ("kind", "sure"),
    [
        (Plain, True),
        (Keeps, True),
        (Counts, False),
        (Averages, False),
        (AveragesUnseen, False),
        (KeepsInAList, False),
        (Transformed, False),
    ],
)
def test_what_can_be_replayed_is(kind: type[Plain], sure: bool, evaluators: list[Evaluator]) -> None:
    net, inputs = kind(), tiny_inputs(items=1)
    with torch.no_grad():
        run = Run(net, inputs, TARGET[:1])
        by_layer_alone = run.activation("layer")[None] * torch.tensor([0.5, 2.0]).view(2, 1, 1, 1, 1)
        run.scores_from("layer", 2, lambda start, stop, item: by_layer_alone[start:stop, item])
        run.scores_of_boxes(
            torch.tensor([[[0, 2], [0, 2]], [[1, 3], [1, 3]]]), lambda number, item: torch.ones(2, 2, 2)
        )
    by_layer, by_boxes = evaluators
    assert bool(by_layer.trusted) is sure
    assert bool(by_boxes.trusted) is sure


class PaintsAgain(Plain):
    """Reads a canvas, and paints over it: the next replay must find it empty again."""

    def forward(self, x: Tensor) -> Tensor:
        canvas = torch.zeros(5, 6, dtype=x.dtype)
        maps = self.layer(self.first(x)) + canvas
        canvas.add_(1)
        return self.head((maps * canvas).mean((2, 3)))


def test_replays_do_not_paint_over_the_record() -> None:
    found, expected = by_layer(Run(PaintsAgain(), tiny_inputs(), TARGET))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class KeepsAll(Plain):
    """A network of pictures that keeps its maps under an attribute, in a list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.listed: list[Tensor] = []
        self.named: dict[str, Tensor] = {}
        randomized(self).float()

    def seen(self, maps: Tensor) -> Tensor:
        self.attribute = self.named["maps"] = maps
        self.listed.append(maps)
        return maps


def photos() -> Tensor:
    return tiny_inputs(channels=3).float()


def explained(net: nn.Module) -> Explanation:
    return explain(net, photos(), "gradient")


def patches(net: nn.Module) -> object:
    return tasks.patch_sheet(net, "layer", cnnviz.top_activations(net, [photos()], "layer", [0]))


def concepts(net: nn.Module) -> object:
    references = cnnviz.top_activations(net, [photos()], "layer", [0], by="relevance")
    return tasks.concept_sheet(net, "layer", references, photos()[:1])


def in_a_run(net: nn.Module) -> None:
    """Explain a data set of two pictures in this process."""
    photographs = torch.utils.data.TensorDataset(photos()[:2])
    with tempfile.TemporaryDirectory() as folder:
        cnnviz.batch(net, photographs, "gradient", folder, labels=None, workers=0)


PASSING: dict[str, Callable[[nn.Module], object]] = {
    "batch": in_a_run,
    "confusion_matrix": lambda net: cnnviz.confusion_matrix(net, [(photos()[0], 0), (photos()[1], 1)]),
    "detect": lambda net: cnnviz.detect(net, photos(), boxes=lambda scores: (scores.new_zeros(1, 4), scores, None)),
    "draw": lambda net: cnnviz.draw(Image.new("RGB", (20, 16), "teal"), model=net),
    "evaluate": lambda net: cnnviz.evaluate(explained(net), "deletion", model=net),
    "explain": lambda net: explain(net, photos(), ["grad_cam", "occlusion"]),
    "prepare": lambda net: cnnviz.prepare(net, ["grad_cam", "occlusion"], like=photos())(photos()),
    "synthesize": lambda net: cnnviz.synthesize(net, "class_image", target=1, steps=2, size=8),
    "top_activations": lambda net: cnnviz.top_activations(net, [photos()], "layer", [0]),
    "receptive_field": lambda net: tasks.receptive_field(net, photos(), "layer", (2, 2)),
    "patch_sheet": patches,
    "top_channels": lambda net: tasks.top_channels(net, photos(), "layer", 2),
    "concept_sheet": concepts,
}


@pytest.mark.parametrize("name", PASSING)
def test_no_public_function_leaves_what_the_model_kept(name: str) -> None:
    net = KeepsAll()
    PASSING[name](net)
    assert not hasattr(net, "attribute")
    assert (net.listed, net.named) == ([], {})


def test_every_public_function_that_passes_a_model_is_among_them() -> None:
    takes = {
        name
        for home in (cnnviz, tasks)
        for name in home.__all__
        if inspect.isfunction(each := getattr(home, name)) and "model" in inspect.signature(each).parameters
    }
    assert takes - set(PASSING) == {"black_box"}  # which only wraps one
