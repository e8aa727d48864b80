"""Replay on every torchvision CNN: scores of changed layers beside those of whole passes, and how much is computed.

``python -m benchmarks.replay`` takes an early, a middle and a late convolution of each model, in float64, where nothing
but a fault makes a difference; where one is above 1e-5, it is held against what rounding alone does to a whole pass. A
line tells of each layer; benchmarks/results/replay.json keeps them all, also after Ctrl-C. It exits with status 1 where
a score differs by more, or a model is not replayed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.coverage import model_names
from benchmarks.records import HOME, about
from cnnviz.images.files import write as write_whole
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
    def holds(self) -> bool:
        # every operation behind the layer rounds as well
        return self.replayed and self.difference <= max(TOLERANCE, 10 * self.rounding)


def main(arguments: list[str] | None = None) -> int:
    known = [each for each in model_names() if not each.startswith(ATTENTIVE)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("models", nargs="*", help="some models only; the file is not written then")
    parser.add_argument("--out", type=Path, default=HOME / "replay.json")
    options = parser.parse_args(arguments)
    unknown = [each for each in options.models if each not in known]
    if unknown:
        parser.error(f"there is no CNN {unknown[0]!r} in torchvision; there are {', '.join(known)}")
    rows: list[Compared] = []
    interrupted = False
    try:
        for name in options.models or known:
            for found in compared(name):
                rows.append(found)
                print(told(found), flush=True)
    except KeyboardInterrupt:
        interrupted = True
    if not options.models:
        kept = {"about": about("cpu", torch.get_num_threads()), "rows": [asdict(each) for each in rows]}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.out, (json.dumps(kept, indent=1) + "\n").encode())
    failures = [each for each in rows if not each.holds]
    print(f"{len({each.model for each in rows})} models, {len(rows)} layers, {len(failures)} failures")
    return 130 if interrupted else 1 if failures else 0


def told(found: Compared) -> str:
    share = f"{found.operations} of {found.of} operations"
    said = f"off by {found.difference:.0e}, {share}" if found.replayed else "computed the plain way"
    rounded = f", where rounding alone makes {found.rounding:.0e}" if found.rounding else ""
    return f"{found.model}, {found.layer}: {said}{rounded}" + ("" if found.holds else " FAILS")


def compared(name: str) -> Iterator[Compared]:
    """Three layers of one model."""
    size = FIXED_SIZE.get(name, 64)
    model = settled(name, size)
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        layers = convolutions(model, inputs)
        target = int(model(inputs).argmax())  # others may be zero, whatever happens
        run = Run(model, inputs, torch.tensor([target]))
        for layer in dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1])):
            kept = run.activation(layer)
            largest = kept.abs().flatten(2).amax(2)[0].argmax()
            variants = torch.stack([kept.index_fill(1, largest, 0), kept * 0.9, kept.roll(1, 1)])
            evaluator = Evaluator()
            query = Query(model, [inputs], lambda output, layers, count, drawn: output[:, target])
            change = Change(layer, len(variants), partial(_taken, variants))
            found = evaluator.scores(query, change, run.score)
            expected = torch.cat([whole(model, inputs, layer, each)[:, target] for each in variants])
            reach = expected.abs().max()
            difference, rounding = float((found - expected).abs().max() / reach), 0.0
            if difference > TOLERANCE:  # deep networks with random weights may magnify any difference
                again = [whole(model, inputs, layer, rounded_anew(each))[:, target] for each in variants]
                rounding = float((torch.cat(again) - expected).abs().max() / reach)
            operations = evaluator.operations, evaluator.ops
            yield Compared(name, layer, difference, *operations, bool(evaluator.trusted), rounding)


def _taken(variants: Tensor, numbers: Sequence[int]) -> Tensor:
    return variants[list(numbers), 0]


def rounded_anew(values: Tensor) -> Tensor:
    """Each value by at most one step further up or down."""
    steps = torch.randint(-1, 2, values.shape, generator=torch.Generator().manual_seed(2))
    return values * (1 + torch.finfo(values.dtype).eps * steps.to(values.dtype))


def whole(model: nn.Module, inputs: Tensor, layer: str, output: Tensor) -> Tensor:
    """The model's output with another output of the layer."""
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: output.clone())
    try:
        found: Tensor = model(inputs)
    finally:
        handle.remove()
    return found


def convolutions(model: nn.Module, inputs: Tensor) -> list[str]:
    """Those whose output has spatial extent, as they are called."""
    met: list[str] = []

    def note(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if output[0, 0].numel() > 1:
            met.append(name)

    named = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Conv2d)]
    handles = [module.register_forward_hook(partial(note, name)) for name, module in named]
    model(inputs)
    for handle in handles:
        handle.remove()
    return met


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
        for each, values in model.named_parameters():
            if values.ndim > 1 and not each.endswith("layer_scale"):
                values.normal_(std=(2 / values[0].numel()) ** 0.5, generator=generator)
            else:
                values.uniform_(0.5 if each.endswith(("weight", "layer_scale")) else -0.5, 1, generator=generator)
        norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
        handles = [each.register_forward_pre_hook(_settle) for each in norms]
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
