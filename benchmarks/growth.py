"""How time and memory grow: with the batch, the picture, steps, samples, depth, and methods asked together.

``python -m benchmarks.growth`` writes benchmarks/results/growth-cpu.json, and ``python -m benchmarks.results`` makes
docs/speed.md of it. The sizes of one kind are measured in turns. Ctrl-C keeps what is finished.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import cnnviz
from benchmarks.comparing import SEVEN
from benchmarks.networks import lasting, network, pictures
from benchmarks.records import HOME, Point, begun
from benchmarks.timing import Work, in_turns

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
"""What grows, how far, and what is asked."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--most", type=int, help="leave larger values out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", action="store_true", help="keep the points that are there")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    if min(options.repeats, options.threads) < 1:
        parser.error("repeats and threads are 1 or more")
    out = options.out or HOME / f"growth-{options.device.partition(':')[0]}.json"
    command = " ".join(["python -m benchmarks.growth", *(sys.argv[1:] if arguments is None else arguments)])
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    try:
        records = begun(out, options.device, options.threads, command, options.add)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        for kind in options.kinds:
            for point in points(kind, torch.device(options.device), options.repeats, options.most):
                records.add(point)
                records.write(out)
                peak = "" if point.peak is None else f", {point.peak / 2**20:.0f} MiB"
                middle = statistics.median(point.seconds)
                print(f"{kind} {point.value}, {point.method}: {1000 * middle:.4g} ms{peak}", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; {len(records.points)} points are in {out}", file=sys.stderr)
        return 130
    return 0


def points(kind: str, device: torch.device, repeats: int, most: int | None = None) -> Iterator[Point]:
    """Everything of one kind, method by method."""
    values, methods = KINDS[kind]
    values = tuple(each for each in values if most is None or each <= most)
    for method in methods:
        if method != "CAMs together" and method not in cnnviz.attributions:
            print(f"{method} is not registered, and left out")
            continue
        works = {str(value): work(kind, value, method, device) for value in values}
        for value, found in zip(values, in_turns(works, repeats, device).values(), strict=True):
            name = CHAIN if kind == "depth" else NETWORK
            yield Point(kind, value, method, name, found.seconds, found.peak)


def work(kind: str, value: int, method: str, device: torch.device) -> Work:
    """One thing to do, everything it needs made beforehand."""
    batch = value if kind == "batch" else 1
    size = {"picture": value, "depth": 112}.get(kind, 224)
    model = chain(value).to(device) if kind == "depth" else network(NETWORK, device).module
    inputs = pictures(batch, size).to(device)
    settings = (
        {kind: value} if kind in ("steps", "samples", "masks") else {"samples": 10} if method == "smoothgrad" else {}
    )
    if kind == "methods":
        return partial(together, model, inputs, SEVEN[:value])
    ask: Callable[..., cnnviz.Explanation] = cnnviz.explain
    return lambda: ask(model, inputs, method, **settings).values


def together(model: nn.Module, inputs: Tensor, methods: tuple[str, ...]) -> Tensor:
    return torch.cat([each.values for each in cnnviz.explain(model, inputs, methods).values()], 1)


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
