"""Scores of a changed layer are those of a whole pass, and only what the change reaches is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, randomized, tiny_inputs
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from cnnviz import explain
from cnnviz.engine import device_policy
from cnnviz.engine.batching import even
from cnnviz.engine.device_policy import CPU
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.incremental.replay import Replay
from cnnviz.incremental.single_channel import with_one_channel_changed as added
from cnnviz.objectives import channel
from cnnviz.run.options import RunOptions
from cnnviz.run.run import Run

TARGET = torch.tensor([2, 0])


def one_by_one(
    model: nn.Module, inputs: Tensor, layer: str, variants: Tensor, read: Callable[[Any, int], Tensor]
) -> Tensor:
    """Every variant of every input in a whole pass of its own, put in the place of the layer's last output."""
    module, times = model.get_submodule(layer), 0

    def count(*_: Any) -> None:
        nonlocal times
        times += 1

    handle = module.register_forward_hook(count)
    with torch.no_grad():
        model(inputs[:1].clone())
    handle.remove()
    found = torch.empty(len(variants), len(inputs), dtype=inputs.dtype)
    for item in range(len(inputs)):
        for number, variant in enumerate(variants):
            met = 0

            def replace(*_: Any, put: Tensor = variant[item : item + 1]) -> Tensor | None:
                nonlocal met
                met += 1
                return put.clone() if met == times else None

            handle = module.register_forward_hook(replace)
            with torch.no_grad():
                found[number, item] = read(model(inputs[item : item + 1].clone()), item)
            handle.remove()
    return found


def of_target(output: Tensor, item: int) -> Tensor:
    return output[0, TARGET[item]]


def changed(kept: Tensor) -> Tensor:
    """Variants that differ from the layer's output, and from each other, in many ways."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(kept.shape, generator=generator, dtype=kept.dtype)
    without = kept.clone()
    without[:, 0] = 0
    return torch.stack([without, kept, -kept, 0 * kept, kept + noise, kept * 3 + 1])


def asked(model: nn.Module, layer: str, inputs: Tensor | None = None, **told: Any) -> tuple[Tensor, Tensor, Run]:
    """The scores, those of the plain way, and the run that was asked."""
    inputs = tiny_inputs() if inputs is None else inputs
    EVALUATORS.clear()
    with torch.no_grad():
        run = Run(model, inputs, TARGET, options=RunOptions(**told))
        variants = changed(run.activation(layer, call=-1))
        found = run.scores_from(layer, len(variants), lambda start, stop, item: variants[start:stop, item], call=-1)
    return found, one_by_one(model, inputs, layer, variants, of_target), run


EVALUATORS: list[Evaluator] = []


@pytest.fixture(autouse=True)
def _evaluators(evaluators: list[Evaluator]) -> Iterator[None]:
    """What the last question of the test was answered by."""
    yield from _held(evaluators)


def _held(evaluators: list[Evaluator]) -> Iterator[None]:
    global EVALUATORS
    EVALUATORS = evaluators
    yield


def replays(run: Run) -> list[Evaluator]:
    return EVALUATORS


class Small(nn.Module):
    """Two convolutions and a linear layer, for a forward pass that is written below."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(2, 3, 3, padding=1)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.after = nn.Conv2d(3, 3, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(3, 3)
        randomized(self, seed=4)

    def classify(self, maps: Tensor) -> Tensor:
        return self.head(maps.mean((2, 3)))


class SkipsAround(Small):
    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x).relu()
        joined = early + self.layer(early).relu()
        both = torch.cat([joined, early * 2], 1)
        return self.classify(self.after(both[:, 1:4] * early.mean((2, 3), keepdim=True).sigmoid()).relu() + early)


class CallsTwice(Small):
    def forward(self, x: Tensor) -> Tensor:
        once = self.layer(self.early(x).relu())
        return self.classify(self.after(self.layer(once.relu()).relu()) + once)


class WritesAfter(Small):
    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        before = early.sigmoid()
        out = self.layer(early).relu_()
        out[:, 0] *= 2
        early += out  # what was recorded before is written by what descends from the change
        before.mul_(early).clamp_(max=9.0)
        return self.classify(self.after(early) + before)


class WritesThroughAView(Small):
    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        part = early[:, :2]
        part.add_(self.layer(early)[:, :2])
        return self.classify(self.after(early))


class FillsACanvas(Small):
    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        canvas = torch.zeros(len(x), 3, *x.shape[2:], dtype=x.dtype)
        canvas[:, 1:] = self.layer(early)[:, 1:]
        canvas[:, 0] = early[:, 0]
        return self.classify(self.after(canvas) + x.new_ones(x.size(0), 1, 1, 1))


class WritesOverWhatWasRead(Small):
    """What was read before the layer is written over later, by what does not descend from the change."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        maps = self.layer(early) * early
        early.mul_(2)
        return self.classify(maps + self.after(early))


class DropsNothing(Small):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.dropout(self.layer(self.dropout(self.early(x)).relu()))
        return self.classify(F.dropout(self.after(maps), training=self.training))


class GoesOnWithWhatIsGivenBack(Small):
    """A dropout that drops nothing gives back its operand, of which the model has both names."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        maps = self.layer(self.dropout(early))
        return self.classify(self.after(maps) * early)


class WritesWhatIsGivenBack(Small):
    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        self.dropout(early).mul_(0.5)
        return self.classify(self.after(self.layer(early)) * early)


class Reshapes(Small):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = self.early(x).shape
        maps = self.layer(self.early(x)).view(n, c, h * w).transpose(1, 2)
        scale = torch.einsum("npc,npc->np", maps, self.early(x).flatten(2).transpose(1, 2)).softmax(1)
        shuffled = (maps * scale[..., None]).transpose(1, 2).reshape(n, c, h, w).flip(1).chunk(3, 1)
        return self.classify(self.after(torch.cat(shuffled[::-1], 1)))


class SmallestBatch(Small):
    """Asks for its batch size in many ways."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        ones = torch.ones(len(maps), 1, 1, 1, dtype=x.dtype) * torch.arange(x.shape[0]).view(-1, 1, 1, 1).clamp(max=0)
        maps = maps + ones.expand(maps.size(0), 3, 1, 1)
        return self.classify(torch.stack([each for each in maps.unbind(1)], 1)).view(maps.shape[0], -1)


STRAIGHT = (
    *(SkipsAround, CallsTwice, WritesAfter, FillsACanvas, WritesOverWhatWasRead, DropsNothing),
    *(GoesOnWithWhatIsGivenBack, WritesWhatIsGivenBack, Reshapes, SmallestBatch),
)


@pytest.mark.parametrize("kind", STRAIGHT)
def test_scores_are_those_of_a_whole_pass(kind: type[Small]) -> None:
    found, expected, run = asked(kind(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for replay in replays(run):
        assert replay.trusted
        assert 0 < replay.operations < replay.ops


class WritesANarrowPart(Small):
    """What few variants show: only those that are not close to the border have other values there."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        maps.narrow(-1, 0, 1).add_(0.3)
        return self.classify(self.after(maps).exp2())


class ReturnsTheWritten(Small):
    def forward(self, x: Tensor) -> Tensor:
        pooled = self.layer(self.early(x)).mean((2, 3), keepdim=True)
        pooled.flatten(1).mul_(0.5)
        return pooled.flatten(1)


class Given(Small):
    """Reads the layer's operand, which the layer gave back, after its output was written."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        maps = self.dropout(early)
        maps += 0.5 * maps
        return self.classify(self.after(early - 0.5 * maps).abs().pow(early.tanh()))


@pytest.mark.parametrize("kind", [WritesThroughAView, WritesANarrowPart, ReturnsTheWritten, Given])
def test_values_known_by_two_names_are_not_replayed(kind: type[Small]) -> None:
    """Where one of them is written, a replay would keep the other as it was. No comparison of samples need find it."""
    layer = "dropout" if kind is Given else "layer"
    found, expected, run = asked(kind(), layer)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not any(replay.trusted for replay in replays(run))


class WritesBeforeItForgets(Small):
    """A view is written whose base nobody reads any more, as a dropout in place does behind a flattened map."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.layer(self.early(x)).relu().mean((2, 3), keepdim=True)
        return self.head(pooled.flatten(1).mul_(0.5))


def test_a_base_that_nobody_reads_any_more_is_no_matter() -> None:
    found, expected, run = asked(WritesBeforeItForgets(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signals_images_and_volumes(rank: int) -> None:
    found, expected, run = asked(AveragingNet(rank), "second", tiny_inputs(rank))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))


# Control flow


class Branches(Small):
    """Goes another way where the layer's mean is negative."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        maps = self.after(maps).relu() if maps.mean() > 0 else maps.tanh()
        return self.classify(maps)


class Repeats(Small):
    """Halves until nothing is larger than one."""

    def forward(self, x: Tensor) -> Tensor:
        maps, times = self.layer(self.early(x)), 0
        while float(maps.detach().abs().max()) > 1:
            maps, times = maps / 2, times + 1
        return self.classify(self.after(maps)) * times


class ReadsANumber(Small):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        return self.classify(maps * maps.max().item()) + sum(maps[:, 0].flatten().tolist())


class ReadsNumPy(Small):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        return self.classify(maps) * float(maps.detach().numpy().std())


class PicksByIndex(Small):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        best = int(maps.mean((2, 3)).sum(0).argmax())
        return self.classify(self.after(maps) * maps[:, best : best + 1])


class BranchesBefore(Small):
    """Its way depends on the input alone."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        early = early.relu() if early.sum() > 0 else early.sigmoid()
        return self.classify(self.after(self.layer(early)))


@pytest.mark.parametrize("kind", [Branches, Repeats, ReadsANumber, ReadsNumPy, PicksByIndex])
def test_a_change_that_goes_another_way_is_computed_the_plain_way(kind: type[Small]) -> None:
    found, expected, run = asked(kind(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(replay.forks for replay in replays(run))
    assert len(found[:, 0].unique()) >= 4, "the variants differ"


def test_a_way_that_the_change_does_not_decide_is_kept() -> None:
    found, expected, run = asked(BranchesBefore(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for replay in replays(run):
        assert not replay.forks
        assert replay.trusted
        assert replay.operations == 3  # a convolution, a mean, a linear layer


class PicksWhatWasThere(nn.Module):
    """What it picks does not descend from the change; which it is, does."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.layer = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)
        randomized(self, seed=4)

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        means = self.layer(early).mean((2, 3))
        best = int(means[0].argmax())
        return means + early[:, best].mean((1, 2))[:, None]


def test_a_python_value_that_differs_in_one_variant_alone_is_noticed() -> None:
    """Neither in that of the middle, nor in the one that moves the score most."""
    net, inputs = PicksWhatWasThere(), tiny_inputs(items=1)
    with torch.no_grad():
        run = Run(net, inputs, TARGET[:1])
        layer = run.activation("layer")
        second, first = layer.mean((2, 3))[0].argsort()[-2:].tolist()
        other = layer.clone()
        other[:, second] += float((layer[:, first] - layer[:, second]).mean()) + 0.01
        variants = torch.stack([other, layer + 0.5, layer + 50])
        found = run.scores_from("layer", 3, lambda start, stop, item: variants[start:stop, item], call=-1)
    torch.testing.assert_close(found, one_by_one(net, inputs, "layer", variants, of_target), rtol=1e-10, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))


# What must not be believed


class MixesTheBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        return self.classify(self.after(maps / (1 + maps.abs().amax((0, 2, 3), keepdim=True))))


class Counts(Small):
    """Adds what it was asked before: no two passes are alike."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counts.calls += 1
        maps = self.layer(self.early(x))
        return self.classify(self.after(maps)) * (1 + Counts.calls % 2)


class LeavesTorch(Small):
    """What NumPy does in between is not seen."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.early(x))
        return self.classify(self.after(torch.from_numpy(maps.numpy() ** 3 / 10)))


def test_variants_of_a_model_that_mixes_the_batch_do_not_meet() -> None:
    found, expected, run = asked(MixesTheBatch(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert [replay.at_once for replay in replays(run)] == [1]


def test_what_numpy_does_to_the_change_is_not_taken_from_the_record() -> None:
    found, expected, _ = asked(LeavesTorch(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_pass_that_is_never_the_same_is_not_trusted() -> None:
    run = asked(Counts(), "layer")[-1]
    assert not all(replay.trusted for replay in replays(run))


class OnlyUnwatched(SkipsAround):
    def forward(self, x: Tensor) -> Tensor:
        if torch._C._len_torch_function_stack() > 0:
            raise RuntimeError("not under a mode")
        return super().forward(x)


def test_a_model_that_cannot_be_watched_is_asked_the_plain_way() -> None:
    found, expected, run = asked(OnlyUnwatched(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not any(replay.trusted for replay in replays(run))


class SmallBesideTheBias(LeavesTorch):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e-3 + 1e3


def test_a_small_effect_that_is_not_seen_is_found_out() -> None:
    found, expected, _ = asked(SmallBesideTheBias(), "layer")
    torch.testing.assert_close(found - 1e3, expected - 1e3, rtol=1e-8, atol=1e-10)


class FailsForMany(SkipsAround):
    """At more inputs than were judged."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise RuntimeError("the buffer has two places")
        return super().forward(x)


def test_what_fails_after_it_was_trusted_is_computed_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, replayed_bytes=2**40))
    found, expected, run = asked(FailsForMany(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))


# What is asked about it


def test_softmax_targets_are_read_before_the_softmax() -> None:
    net = SkipsAround()
    ending = nn.Sequential(net, nn.Softmax(1))
    found, expected, run = asked(ending, "0.layer", before="softmax")
    plain, logits, _ = asked(net, "layer")
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(expected, logits, rtol=1e-2), "the softmax makes a difference"
    assert all(replay.trusted for replay in replays(run))


def test_probabilities_are_read_as_such() -> None:
    net, inputs = SkipsAround(), tiny_inputs()
    with torch.no_grad():
        run = Run(net, inputs, TARGET).as_probability()
        variants = changed(run.activation("layer"))
        found = run.scores_from("layer", len(variants), lambda start, stop, item: variants[start:stop, item], call=-1)
    expected = one_by_one(net, inputs, "layer", variants, lambda output, item: output.softmax(1)[0, TARGET[item]])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("watched", ["early", "layer", "after", "dropout"])
def test_objectives_read_the_changed_layer_and_others(watched: str) -> None:
    net, inputs = DropsNothing(), tiny_inputs()
    with torch.no_grad():
        run = Run(net, inputs, channel(watched, 1) + 2 * channel("head", 0))
        variants = changed(run.activation("layer"))
        found = run.scores_from("layer", len(variants), lambda start, stop, item: variants[start:stop, item], call=-1)
        early = run.activation("early")
        after = torch.stack([net.after(net.dropout(each)) for each in variants])
        shown = {"early": early.expand_as(variants), "layer": variants, "after": after, "dropout": variants}
        expected = shown[watched][:, :, 1].mean((2, 3)) + 2 * net.classify(after.flatten(0, 1))[:, 0].view(-1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))


def test_functions_of_the_output_and_further_inputs() -> None:
    class Two(Small):
        def forward(self, x: Tensor, other: Tensor) -> dict[str, Tensor]:
            maps = self.layer(self.early(x) * other)
            return {"maps": self.after(maps)}

    net, inputs, other = Two(), tiny_inputs(), tiny_inputs(channels=3, seed=5)

    def read(output: dict[str, Tensor]) -> Tensor:
        return output["maps"].amax((1, 2, 3))

    with torch.no_grad():
        run = Run(net, inputs, read, others=(other,))
        variants = changed(run.activation("layer"))
        found = run.scores_from("layer", len(variants), lambda start, stop, item: variants[start:stop, item], call=-1)
        for item in range(2):
            for number, variant in enumerate(variants):
                expected = net.after(variant[item : item + 1]).max()
                torch.testing.assert_close(found[number, item], expected, rtol=1e-10, atol=1e-12)


# How much is computed


class Convolutions(TorchDispatchMode):
    """Counts convolutions that are really computed, and their largest batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.batches.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def dimmed(activation: Tensor, start: int, stop: int) -> Tensor:
    """Variants of one input's activation, each with another factor."""
    return activation * torch.arange(2.0, 2 + stop)[start:].view(-1, *(1,) * activation.ndim).to(activation)


def depth(layers: int) -> nn.Sequential:
    """Convolutions in a row."""
    parts = [part for each in range(layers) for part in (nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())]
    chain = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    randomized(chain, seed=6)
    return chain


@pytest.mark.parametrize("place", [0, 5, 9])
def test_what_precedes_the_layer_is_computed_once(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, replayed_bytes=2**30))
    net, inputs = depth(10), tiny_inputs(items=1)
    run = Run(net, inputs, TARGET[:1])
    with torch.no_grad():
        kept = run.activation(str(2 * place))
        with Convolutions() as counted:
            run.scores_from(str(2 * place), 40, lambda start, stop, item: dimmed(kept[item], start, stop))
    (replay,) = replays(run)
    follow = 9 - place  # convolutions after the layer
    assert replay.operations == 2 * follow + 1 + 3  # rectifiers as well, then pool, flatten, linear
    items = sum(counted.batches)
    # each variant asks for what follows; the record, and the comparison with the plain way, are three more whole passes
    assert items <= (40 + 2) * follow + 4 * 10
    assert items < 44 * 10 or place == 0


def test_operations_grow_with_nothing_but_what_follows() -> None:
    shares = []
    for layer in ("0", "8", "16"):
        run = asked(depth(10), layer)[-1]
        shares.append(max(replay.operations / replay.ops for replay in replays(run)))
    assert shares[0] > 0.9
    assert shares[1] < 0.65
    assert shares[2] < 0.3


@pytest.mark.parametrize("variants", [50, 400])
def test_chunks_do_not_grow_with_the_number_of_variants(variants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, replayed_bytes=20_000))
    net, inputs = depth(3), tiny_inputs()
    run = Run(net, inputs, TARGET)
    drawn: list[int] = []

    def change(start: int, stop: int, item: int) -> Tensor:
        drawn.append(stop - start)
        return kept[item] * torch.arange(start, stop).view(-1, 1, 1, 1)

    with torch.no_grad():
        kept = run.activation("0")
        with Convolutions() as counted:
            found = run.scores_from("0", variants, change)
    # for each input all of them once; two at first, and three of them for whole passes
    assert sum(drawn) <= 2 * (variants + 2 + 3)
    largest = 2 * 5 * 6 * 8  # bytes of one variant's output
    assert max(drawn) == max(counted.batches) == even(variants, 20_000 // largest)
    changed = torch.stack([change(7, 9, item) for item in range(2)], 1)
    expected = one_by_one(net, inputs, "0", changed, of_target)
    torch.testing.assert_close(found[7:9], expected, rtol=1e-10, atol=1e-12)


def test_a_replayed_operation_gives_8_mib_at_most_by_default() -> None:
    net, inputs = depth(3), torch.ones(1, 2, 64, 64, dtype=torch.float64)
    run = Run(net, inputs, TARGET[:1])
    with torch.no_grad():
        kept = run.activation("0")
        with Convolutions() as counted:
            run.scores_from("0", 300, lambda start, stop, item: dimmed(kept[item], start, stop))
    assert all(replay.trusted for replay in replays(run))
    assert kept.nbytes == 64 * 2**10  # of one variant, at every convolution
    assert max(counted.batches) == even(300, 128) == 100


def test_a_budget_has_room_for_what_outputs_are_made_of() -> None:
    net, inputs = depth(3), torch.ones(1, 2, 64, 64, dtype=torch.float64)
    run = Run(net, inputs, TARGET[:1], options=RunOptions(memory=2**20))
    with torch.no_grad():
        kept = run.activation("0")
        with Convolutions() as counted:
            run.scores_from("0", 30, lambda start, stop, item: dimmed(kept[item], start, stop))
    assert max(counted.batches) == 2**20 // (4 * kept.nbytes) == 4


def test_any_budget_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, replayed_bytes=2**40))
    found = []
    for budget in (1, 3000, None):
        with Convolutions() as counted:
            found.append(asked(SkipsAround(), "layer", memory=budget)[0])
        torch.testing.assert_close(found[-1], found[0], rtol=1e-10, atol=1e-12)
        assert counted.batches


def test_out_of_memory_is_survived_by_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, replayed_bytes=2**40))

    class Cramped(SkipsAround):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return super().forward(x)

    found, expected, _ = asked(Cramped(), "layer")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


# What goes wrong


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Nothing is left on the model, also when what happens inside raises."""
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    yield
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for name, each in model.state_dict().items():
        assert torch.equal(each, weights[name])
        assert each.grad is None
    assert torch.overrides._get_current_function_mode_stack() == []


@pytest.mark.parametrize("error", [RuntimeError("oh"), KeyboardInterrupt(), LookupError("key"), ValueError("no")])
@pytest.mark.parametrize("at", [2, 3, 4, 5])  # the record, the plain way, the first that is played, the next
def test_nothing_is_left_behind_when_the_model_raises(error: BaseException, at: int) -> None:
    class Raises(SkipsAround):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            maps = super().forward(x)
            Raises.calls += 1
            if Raises.calls == at:
                raise error
            return maps

    net, answer = Raises(), None
    with untouched(net), suppress(type(error)):
        answer = asked(net, "layer")
    assert Raises.calls >= at
    if answer is not None:  # where playing fails, the plain way answers
        assert isinstance(error, Exception)
        torch.testing.assert_close(answer[0], answer[1], rtol=1e-10, atol=1e-12)


def test_layers_that_can_not_be_changed_are_named() -> None:
    class Odd(Small):
        def __init__(self) -> None:
            super().__init__()
            self.several = nn.LSTM(3, 3, batch_first=True).double().eval()

        def forward(self, x: Tensor) -> Tensor:
            found, _ = self.several(self.early(x).flatten(2).transpose(1, 2))
            return self.head(found[:, -1])

    net = Odd()
    run = Run(net, tiny_inputs(), TARGET)
    with torch.no_grad(), untouched(net):
        with pytest.raises(LookupError, match="layer 'layer' did not run for this input; choose one that does"):
            run.scores_from("layer", 2, lambda start, stop, item: tiny_inputs())
        with pytest.raises(TypeError, match="layer 'several' gives a tuple, not a tensor; name one of the layers"):
            run.scores_from("several", 2, lambda start, stop, item: tiny_inputs())
        with pytest.raises(LookupError, match="Odd has no layer 'layr'; did you mean 'layer'"):
            run.scores_from("layr", 2, lambda start, stop, item: tiny_inputs())


def test_a_score_that_becomes_nan_is_told() -> None:
    net = SkipsAround()
    run = Run(net, tiny_inputs(), TARGET)
    with torch.no_grad(), untouched(net):
        kept = run.activation("layer")
        with pytest.raises(ValueError, match="score of a changed layer has 2 values that are not finite") as caught:
            run.scores_from("layer", 3, lambda start, stop, item: torch.stack([kept, kept, kept / 0])[start:stop, item])
    assert "\n" not in str(caught.value)


# Networks that people use

FAMILIES = {
    "squeezenet1_0": 48,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "vgg11_bn": 32,
    "densenet121": 32,
    "googlenet": 32,
    "efficientnet_b0": 32,
    "convnext": 32,
    "shufflenet_v2_x0_5": 32,
    "regnet_y_400mf": 32,
    "mnasnet0_5": 32,
}


def network(name: str, size: int) -> nn.Module:
    """In float64, batch norm's statistics those of some noise: else signals fade on the way through."""
    settings: dict[str, Any] = {"num_classes": 10}
    settings |= {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    if name == "convnext":  # the smallest that torchvision names is large
        settings["block_setting"] = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 2)]
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # where no time goes into weights
        made = models.ConvNeXt if name == "convnext" else partial(models.get_model, name, weights=None)
        net: nn.Module = made(**settings)
        if name == "vgg11_bn":
            net.classifier = nn.Linear(512 * 7 * 7, 10)
    net = net.to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(0)
    for each, values in net.named_parameters():
        with torch.no_grad():
            if values.ndim > 1 and not each.endswith("layer_scale"):
                values.normal_(std=(2 / values[0].numel()) ** 0.5, generator=generator)
            else:
                values.uniform_(0.5 if each.endswith(("weight", "layer_scale")) else -0.5, 1, generator=generator)

    def settle(module: nn.Module, args: tuple[Tensor]) -> None:
        dims = (0, 2, 3)
        module.running_mean.copy_(args[0].mean(dims))
        module.running_var.copy_(args[0].var(dims) + 0.1 * args[0].var())

    handles = [each.register_forward_pre_hook(settle) for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    with torch.no_grad():
        net(torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64))
    for handle in handles:
        handle.remove()
    return net


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_torchvision(name: str) -> None:
    size = FAMILIES[name]
    net = network(name, size)
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spatial: list[str] = []
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: spatial.append(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and "fc" not in name.split(".")[-1]  # of a gate
    ]
    run = Run(net, inputs, TARGET[:1])
    with torch.no_grad():
        score = run.score
        for handle in handles:
            handle.remove()
        for layer in (spatial[0], spatial[len(spatial) // 2], spatial[-1]):
            kept = run.activation(layer, spatial=False)
            largest = kept.abs().flatten(2).amax(2)[0].argmax()
            variants = torch.stack([kept.index_fill(1, largest, 0), kept * 0.9])
            found = run.scores_from(layer, 2, lambda start, stop, item, variants=variants: variants[start:stop, item])
            expected = one_by_one(net, inputs, layer, variants, of_target)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(score.abs()))
            replay = EVALUATORS[-1]
            assert replay.trusted
            share = replay.operations / replay.ops
            assert share < {spatial[0]: 1, spatial[-1]: 0.35}.get(layer, 0.75)
        assert (found - score).abs().max() > 1e-6 * score.abs(), "the last layer counts"


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_trained_networks_in_float32(name: str, request: pytest.FixtureRequest, photographs: Tensor) -> None:
    net, inputs = request.getfixturevalue(name), photographs[..., 24:88, 24:88].contiguous()
    layer = {"squeezenet": "features.7", "mobilenet": "features.11"}[name]
    target = torch.tensor([56, 243])
    with torch.no_grad():
        run = Run(net, inputs, target)
        kept = run.activation(layer)
        variants = torch.stack([kept.index_fill(1, torch.tensor(each), 0) for each in range(4)])
        found = run.scores_from(layer, 4, lambda start, stop, item: variants[start:stop, item], call=-1)
    expected = one_by_one(net, inputs, layer, variants, lambda output, item: output[0, target[item]])
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_ablation_of_two_thousand_channels_is_a_few_passes() -> None:
    """The last layer of a network whose classifier alone follows."""
    net = AveragingNet(2)
    with Convolutions() as counted:
        explain(net, tiny_inputs(), "ablation_cam", target=TARGET, layer="late")
    # the question's pass; for each input the record and two variants the plain way, first alone then both
    assert sum(counted.batches) <= 2 * 2 + 2 * 2 * (1 + 2)


# One channel


class Counted(TorchDispatchMode):
    """Multiplications of all convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.multiplications = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.multiplications += output.numel() * args[1][0].numel()
        return output


def multiplications(net: nn.Module, inputs: Tensor, variants: Tensor) -> int:
    """Those of all replays of the first layer's variants, without whole passes."""
    counted, replayed = Counted(), Replay.scores

    def counting(self: Replay, *args: Any) -> Any:
        with counted:
            return replayed(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "scores", counting)
        Run(net, inputs, TARGET[:1]).scores_from("0", len(variants), lambda a, b, item: variants[a:b, item])
    return counted.multiplications


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 1, "padding": 1},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "circular"},
        {"groups": 2, "out_channels": 4},
    ],
    ids=str,
)
def test_a_channel_taken_away_is_convolved_alone(rank: int, settings: dict[str, Any]) -> None:
    settings = {"out_channels": 5} | settings
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    torch.manual_seed(rank)
    pooled = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1](1)
    behind = kind(6, **{"kernel_size": 3} | settings)
    net = nn.Sequential(kind(3, 6, 3), nn.Dropout(), behind, nn.Tanh(), pooled, nn.Flatten())
    net = net.double().eval()
    inputs = torch.randn(2, 3, *(7,) * rank, dtype=torch.float64)
    with torch.no_grad():
        maps = net[0](inputs)
    variants = maps * (1 - torch.eye(6, dtype=torch.float64).view(6, 1, 6, *(1,) * rank))
    run = Run(net, inputs, TARGET)
    found = run.scores_from("0", 6, lambda start, stop, item: variants[start:stop, item], call=-1)
    torch.testing.assert_close(found, one_by_one(net, inputs, "0", variants, of_target), rtol=1e-9, atol=1e-12)
    assert all(replay.trusted for replay in replays(run))
    alone, together = (multiplications(net, inputs[:1], drawn) for drawn in (variants, torch.rand_like(variants)))
    quick = "groups" not in settings and "padding_mode" not in settings
    assert alone <= together / 6 if quick else alone > 0


def test_a_channel_taken_away_behind_a_write_in_place_is_convolved_with_the_others() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), Doubling(), nn.Conv2d(6, 5, 1), nn.Tanh(), nn.Flatten()).double().eval()
    inputs = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        maps = net[0](inputs)
    variants = maps * (1 - torch.eye(6, dtype=torch.float64).view(6, 1, 6, 1, 1))
    run = Run(net, inputs, TARGET)
    found = run.scores_from("0", 6, lambda start, stop, item: variants[start:stop, item], call=-1)
    torch.testing.assert_close(found, one_by_one(net, inputs, "0", variants, of_target), rtol=1e-9, atol=1e-12)
    assert all(each.trusted for each in replays(run))


def test_a_channel_taken_away_is_known_where_the_question_was_computed_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.ReLU()]
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    inputs = torch.rand(2, 3, 64, 64)
    taken: list[bool] = []

    def noted(*asked: Any) -> Tensor | None:
        found = added(*asked)
        taken.append(found is not None)
        return found

    monkeypatch.setattr("cnnviz.incremental.player.with_one_channel_changed", noted)
    found = explain(net, inputs, "ablation_cam", layer="3", target=[1, 2]).values
    assert sum(taken) >= 1 + 2  # where the first input is verified, and in all that follows for each
    monkeypatch.setattr("cnnviz.incremental.player.with_one_channel_changed", lambda *asked: None)
    torch.testing.assert_close(found, explain(net, inputs, "ablation_cam", layer="3", target=[1, 2]).values)
