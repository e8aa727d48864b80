"""How time and memory grow: with the batch, the picture, steps, samples, depth, and methods asked together.

``python -m benchmarks.speed.growth`` writes benchmarks/results/growth-cpu.json, of which
``python -m benchmarks.speed.results`` makes docs/speed.md. The sizes of one kind are measured in turns. Ctrl-C keeps
what is finished.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import cnnviz
from benchmarks.command import Options, begun_by, one_line_errors, parsed, parser_of
from benchmarks.networks import lasting, network, pictures
from benchmarks.speed.comparing import SEVEN
from benchmarks.speed.rows import GROWTH, LeftOut, Point
from benchmarks.speed.timing import Work, in_turns

NETWORK = "squeezenet1_0"
CHAIN = "a chain of 3 x 3 convolutions"
SIMPLE = ("grad_cam", "gradient", "guided_backprop")
KINDS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "batch": ((1, 2, 4, 8, 16), (*SIMPLE, "smoothgrad")),
    "picture": ((64, 112, 224, 336, 448), SIMPLE),
    "depth": ((4, 8, 16, 32), SIMPLE),
    "methods": (tuple(range(1, len(SEVEN) + 1)), ("CAMs together",)),
    "steps": ((10, 50, 200), ("integrated_gradients",)),
    "samples": ((10, 50, 200), ("smoothgrad",)),
    "masks": ((500, 1000, 4000), ("rise",)),
}
"""What grows, its values, and the methods that are measured."""


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("speed.growth", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--most", type=int, help="leave larger values out")
    parser.add_argument("--repeats", type=int, default=3)
    options = parsed(parser, arguments, Options(), "growth-{}.json")
    if min(options.repeats, options.threads) < 1:
        parser.error("repeats and threads are 1 or more")
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    records, device = begun_by(options, GROWTH), torch.device(options.device)
    measured = (point for kind in options.kinds for point in points(kind, device, options.repeats, options.most))
    records.collect(measured, options.out, line_of)
    return 0


def line_of(point: Point | LeftOut) -> str:
    """A line for the terminal."""
    if isinstance(point, LeftOut):
        return f"{point.method}: left out: {point.reason}"
    peak = "" if point.peak is None else f", {point.peak / 2**20:.0f} MiB"
    return f"{point.grows} {point.value}, {point.method}: {1000 * statistics.median(point.seconds):.4g} ms{peak}"


def points(kind: str, device: torch.device, repeats: int, most: int | None = None) -> Iterator[Point | LeftOut]:
    """Everything of one kind, method by method."""
    values, methods = KINDS[kind]
    values = tuple(value for value in values if most is None or value <= most)
    for method in methods:
        if method != "CAMs together" and method not in cnnviz.attributions:
            yield LeftOut(method, "", NETWORK, 1, "it is not registered")
            continue
        works = {str(value): work(kind, value, method, device) for value in values}
        for value, measured in zip(values, in_turns(works, repeats, device).values(), strict=True):
            name = CHAIN if kind == "depth" else NETWORK
            yield Point(kind, value, method, name, measured.seconds, measured.peak)


def work(kind: str, value: int, method: str, device: torch.device) -> Work:
    """One thing to do, everything it needs made beforehand."""
    batch = value if kind == "batch" else 1
    size = {"picture": value, "depth": 112}.get(kind, 224)
    model = chain(value).to(device) if kind == "depth" else network(NETWORK, device).module
    inputs = pictures(batch, size).to(device)
    settings: dict[str, Any] = {"samples": 10} if method == "smoothgrad" else {}
    if kind in ("steps", "samples", "masks"):
        settings = {kind: value}
    if kind == "methods":
        return partial(together, model, inputs, SEVEN[:value])
    return lambda: cnnviz.explain(model, inputs, method, **settings).values


def together(model: nn.Module, inputs: Tensor, methods: tuple[str, ...]) -> Tensor:
    return torch.cat([answer.values for answer in cnnviz.explain(model, inputs, methods).values()], 1)


def chain(depth: int) -> nn.Module:
    """Convolutions in a row, each with batch norm and a rectifier, then the mean and a classifier."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for place in range(depth):
        layers += [nn.Conv2d(32 if place else 3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(True)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    lasting(model)
    return model.eval()


if __name__ == "__main__":
    sys.exit(main())
