"""Replay on every torchvision CNN: scores of changed layers beside those of whole passes, and how much is computed.

``python -m benchmarks.speed.replay`` takes an early, a middle and a late convolution of each model, in float64, where
nothing but a fault makes a difference; where one is above 1e-5, it is held against what rounding alone does to a whole
pass. A line tells of each layer; benchmarks/results/replay.json keeps them all, also after Ctrl-C. It exits with status
1 where a score differs by more, or a model is not replayed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.command import one_line_errors
from benchmarks.records import HOME, Format, Records, about
from cnnviz.engine.layers import Site
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.run import Run

FIXED_SIZE = {"inception_v3": 96, "maxvit_t": 224}
ATTENTIVE = ("vit", "swin")
"""Families with no more than the one convolution that cuts the input."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Compared:
    """One layer of one model."""

    model: str
    layer: str
    difference: float
    """The largest between a replayed score and a whole pass's, relative to the largest score."""
    operations: int
    """Computed for a change of this layer."""
    of: int
    """Operations that a whole pass calls."""
    replayed: bool
    """Whether it was, rather than computed the plain way."""
    rounding: float
    """What the layer's own rounding, drawn anew, does to a whole pass, as ``difference``; 0 where nobody had to ask."""

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.layer

    @property
    def holds(self) -> bool:
        # every operation behind the layer rounds as well
        return self.replayed and self.difference <= max(TOLERANCE, 10 * self.rounding)

    def check(self) -> None:
        if not math.isfinite(self.difference):
            raise ValueError(f"the difference of {self.layer} is {self.difference}")


REPLAY = Format(Compared, Compared, "python -m benchmarks.speed.replay")  # nothing is left out


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    known = [name for name in model_names() if not name.startswith(ATTENTIVE)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.replay", description=__doc__)
    parser.add_argument("models", nargs="*", help="some models only; the file is not written then")
    parser.add_argument("--out", type=Path, default=HOME / "replay.json")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in known]
    if unknown:
        parser.error(f"there is no CNN {unknown[0]!r} in torchvision; there are {', '.join(known)}")
    records = Records(REPLAY, about("cpu", torch.get_num_threads()), [REPLAY.command])
    out = None if options.models else options.out
    records.collect((row for name in options.models or known for row in compared(name)), out, line_of)
    failures = [row for row in records.rows if not row.holds]
    print(f"{len({row.model for row in records.rows})} models, {len(records.rows)} layers, {len(failures)} failures")
    return 1 if failures else 0


def model_names() -> list[str]:
    """The classification models of torchvision, without the quantized copies."""
    return torchvision.models.list_models(module=torchvision.models)  # type: ignore[no-any-return]


def line_of(row: Compared) -> str:
    """A line for the terminal."""
    cost = f"{row.operations} of {row.of} operations"
    outcome = f"off by {row.difference:.0e}, {cost}" if row.replayed else "computed the plain way"
    rounding = f", where rounding alone makes {row.rounding:.0e}" if row.rounding else ""
    return f"{row.model}, {row.layer}: {outcome}{rounding}" + ("" if row.holds else " FAILS")


def compared(name: str) -> Iterator[Compared]:
    """Three layers of one model."""
    size = FIXED_SIZE.get(name, 64)
    model = settled(name, size)
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        layers = convolutions(model, inputs)
        target = int(model(inputs).argmax())  # others may be zero, whatever happens
        for layer in dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1])):
            run = Run(model, inputs, torch.tensor([target]))
            activation = run.activation(layer)
            largest = activation.abs().flatten(2).amax(2)[0].argmax()
            variants = torch.stack([activation.index_fill(1, largest, 0), activation * 0.9, activation.roll(1, 1)])
            scores, counts = replayed(run, layer, variants)
            expected = torch.cat([whole(model, inputs, layer, output)[:, target] for output in variants])
            reach = expected.abs().max()
            difference, rounding = float((scores - expected).abs().max() / reach), 0.0
            if difference > TOLERANCE:  # deep networks with random weights may magnify any difference
                again = [whole(model, inputs, layer, rounded_anew(output))[:, target] for output in variants]
                rounding = float((torch.cat(again) - expected).abs().max() / reach)
            yield Compared(name, layer, difference, *counts, rounding)


def replayed(run: Run, layer: str, variants: Tensor) -> tuple[Tensor, tuple[int, int, bool]]:
    """Scores (K,) of K changed outputs of a layer, and the cost.

    The cost: operations computed for one change, operations of a whole pass, and whether the replay was trusted.
    """
    evaluator, (target,) = Evaluator(), run.question.target.tolist()  # type: ignore[union-attr]  # given above
    query = Query(run.model, [run.inputs], lambda output, layers, count, drawn: output[:, target])
    change = Change(Site(layer, 0), len(variants), lambda numbers: variants[list(numbers), 0])
    scores = evaluator.scores(query, change, run.score)
    return scores, (evaluator.operations, evaluator.ops, bool(evaluator.trusted))


def rounded_anew(values: Tensor) -> Tensor:
    """Each value by at most one step further up or down."""
    steps = torch.randint(-1, 2, values.shape, generator=torch.Generator().manual_seed(2))
    return values * (1 + torch.finfo(values.dtype).eps * steps.to(values.dtype))


def whole(model: nn.Module, inputs: Tensor, layer: str, output: Tensor) -> Tensor:
    """The model's output with another output of the layer."""
    with model.get_submodule(layer).register_forward_hook(lambda *_: output.clone()):
        scores: Tensor = model(inputs)
    return scores


def convolutions(model: nn.Module, inputs: Tensor) -> list[str]:
    """Those whose output has spatial extent, as they are called."""
    called: list[str] = []

    def note(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if output[0, 0].numel() > 1:
            called.append(name)

    named = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(partial(note, name)) for name, module in named]
    model(inputs)
    for handle in handles:
        handle.remove()
    return called


def settled(name: str, size: int) -> nn.Module:
    """In float64, batch norm's statistics those of some noise: else signals fade on the way through."""
    settings: dict[str, Any] = {"num_classes": 10}
    if name in ("googlenet", "inception_v3"):
        settings |= {"init_weights": False, "aux_logits": False}
    drawn = name.startswith(("regnet", "maxvit"))  # which look at numbers while they are built
    with torch.device("cpu" if drawn else "meta"):  # where no time goes into weights
        model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    model = (model if drawn else model.to_empty(device="cpu")).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            if values.ndim > 1 and not parameter.endswith("layer_scale"):
                values.normal_(std=(2 / values[0].numel()) ** 0.5, generator=generator)
            else:
                values.uniform_(0.5 if parameter.endswith(("weight", "layer_scale")) else -0.5, 1, generator=generator)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        handles = [norm.register_forward_pre_hook(_settle) for norm in norms]
        model(torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64))
    for handle in handles:
        handle.remove()
    return model


def _settle(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(args[0].mean((0, 2, 3)))
    module.running_var.copy_(args[0].var((0, 2, 3)) + 0.1 * args[0].var())


if __name__ == "__main__":
    sys.exit(main())
