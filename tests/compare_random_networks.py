"""Random networks asked incrementally and by slow loops, one whole pass for each variant of each input.

    python tests/compare_random_networks.py 20000 --first 0 --processes 2

prints the seed of every difference, with the network.
"""

from __future__ import annotations

import argparse
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from random_networks import RandomNet
from torch import Tensor, nn

from cnnviz import LayerAt
from cnnviz.engine import device_policy
from cnnviz.incremental.replay import Replay
from cnnviz.run.options import RunOptions
from cnnviz.run.run import Run

TOLERANCE = 1e-6


@dataclass
class Outcome:
    """What came of one network."""

    seed: int
    error: float = 0.0
    """The largest difference, relative to the largest change of the score, or to 1e-4 of the score."""
    asked: str = ""
    """What the largest difference was asked as."""
    verified: int = 0
    """How often an incremental answer was verified."""
    refused: list[str] = field(default_factory=list)
    """Questions whose incremental answer was found to be wrong, or failed, so that whole passes answered."""

    @property
    def right(self) -> bool:
        return self.error <= TOLERANCE and not self.refused


def compared(seed: int) -> Outcome:
    """The network of this seed, asked in every way, against whole passes of one variant of one input each."""
    net, chance = RandomNet(seed), random.Random(-1 - seed)
    items = chance.choice((1, 1, 1, 2, 3))
    inputs = net.inputs[:items]
    generator = torch.Generator().manual_seed(seed)
    target: Any = torch.tensor([chance.randrange(3) for _ in range(items)])
    if net.several:
        target = chance.choice((lambda out: out[0][:, 1] - out[0][:, 2], _reads_maps))
    run = Run(net, inputs, target, options=RunOptions(memory=chance.choice((None, None, None, 1, 50_000))))
    outcome = Outcome(seed)

    def note(asked: str, found: Tensor, expected: Tensor) -> None:
        span = (expected - run.score).abs().max().clamp(min=1e-4 * float(run.score.abs().max()) + 1e-9)
        error = float((found - expected).abs().max() / span)
        if not error <= outcome.error:
            outcome.error, outcome.asked = error, asked

    def ask(asked: str, quickly: Callable[[], Tensor], expected: Tensor) -> None:
        with watched() as seen:
            try:
                note(asked, quickly(), expected)
            except ValueError as error:
                unused = "does not depend on layer" in str(error) and torch.equal(
                    expected, run.score.expand_as(expected)
                )
                if not unused and ("not finite" not in str(error) or bool(expected.isfinite().all())):
                    raise
        outcome.verified += seen.count(None)
        refused = [reason for reason in seen if reason and not (reason == "Departed" and net.writes_in_place)]
        outcome.refused += [f"{asked}: {reason}" for reason in refused]

    count = 4
    boxes = boxes_of(chance, count, tuple(inputs.shape[2:]))
    drawn = torch.randn(count, *inputs.shape, generator=generator, dtype=torch.float64)
    variants = with_boxes(inputs, boxes, drawn)
    expected = by_whole_passes(net, target, variants)
    ask("boxes", lambda: run.scores_of_boxes(boxes, lambda n, item: inside(drawn[n, item], boxes[n])), expected)
    if chance.random() < 0.3:
        ask("inputs", lambda: run.scores_of(count, lambda a, b: variants[a:b]), expected)
    layer = chance.choice([place for place, step in enumerate(net.steps)])
    name = next(name for name, module in net.named_modules() if module is net.steps[layer])
    kept, place = run.activation(name, spatial=False, call=-1), LayerAt(name, call=-1, layout="raw")
    changed = changes_of(chance, kept, generator)
    expected = by_whole_passes(net, target, inputs.expand(len(changed), *inputs.shape), name, changed)
    ask(f"from {name}", lambda: run.scores_from(place, len(changed), lambda a, b, item: changed[a:b, item]), expected)
    if chance.random() < 0.4:
        boxes = boxes_of(chance, count, tuple(kept.shape[2:]))
        drawn = torch.randn(count, *kept.shape, generator=generator, dtype=torch.float64)
        changed = with_boxes(kept, boxes, drawn)
        expected = by_whole_passes(net, target, inputs.expand(count, *inputs.shape), name, changed)
        there = lambda n, item: inside(drawn[n, item], boxes[n])  # noqa: E731
        ask(f"boxes at {name}", lambda: run.scores_of_boxes(boxes, there, place), expected)
    return outcome


def _reads_maps(output: Any) -> Tensor:
    return output[0][:, 0] + output[1].flatten(1).mean(1)  # type: ignore[no-any-return]


def boxes_of(chance: random.Random, count: int, size: Sequence[int]) -> Tensor:
    """(count, rank, 2): small ones, in corners and inside."""
    boxes = []
    for _ in range(count):
        box = []
        for length in size:
            side = chance.randint(1, max(1, min(3, length)))
            begin = chance.choice((0, length - side, chance.randint(0, length - side)))
            box.append([begin, begin + side])
        boxes.append(box)
    return torch.tensor(boxes)


def inside(values: Tensor, box: Tensor) -> Tensor:
    return values[(..., *(slice(begin, end) for begin, end in box.tolist()))]


def with_boxes(before: Tensor, boxes: Tensor, drawn: Tensor) -> Tensor:
    """(count, N, C, *spatial): ``before`` with what was drawn inside of each box."""
    variants = before.expand(len(boxes), *before.shape).clone()
    for variant, box, values in zip(variants, boxes, drawn, strict=True):
        inside(variant, box).copy_(inside(values, box))
    return variants


def changes_of(chance: random.Random, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Variants of a layer's output: without one channel each, or noise, or the same."""
    if chance.random() < 0.5:
        channels = [chance.randrange(kept.shape[1]) for _ in range(4)]
        return torch.stack([kept.index_fill(1, torch.tensor(each), 0) for each in channels])
    noise = torch.randn(3, *kept.shape, generator=generator, dtype=torch.float64)
    return torch.cat([kept + noise, kept[None], -kept[None]])


def by_whole_passes(
    net: nn.Module, target: Any, variants: Tensor, layer: str | None = None, changed: Tensor | None = None
) -> Tensor:
    """Scores (count, N): one pass for each variant of each input, the layer's last output replaced."""
    scores = torch.empty(variants.shape[:2], dtype=torch.float64)
    times = 0
    if layer is not None:
        with hook(net, layer, lambda call, output: None) as calls, torch.no_grad():
            net(variants[0, :1].clone())
        times = len(calls)
    for number in range(len(variants)):
        for item in range(variants.shape[1]):

            def replaced(call: int, output: Tensor, number: int = number, item: int = item) -> Tensor | None:
                assert changed is not None
                return changed[number, item : item + 1].clone() if call == times else None

            with hook(net, layer, replaced), torch.no_grad():
                output = net(variants[number, item : item + 1].clone())
            score = target(output) if callable(target) else output[:, target[item]]
            scores[number, item] = score[0]
    return scores


@contextmanager
def hook(net: nn.Module, layer: str | None, replaces: Callable[[int, Tensor], Tensor | None]) -> Iterator[list[int]]:
    """``replaces`` is called with the number of the layer's call, from 1, and its output."""
    calls: list[int] = []

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        calls.append(1)
        return replaces(len(calls), output)

    handle = None if layer is None else net.get_submodule(layer).register_forward_hook(replace)
    try:
        yield calls
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def watched() -> Iterator[list[str | None]]:
    """Why the incremental answer is refused, for each time that it is; None where it is taken.

    Where it differs by rounding alone, as where large values cancel, it may be refused.
    """
    seen: list[str | None] = []
    scored, agrees = Replay.scores, Replay.agrees

    def watched_scores(self: Replay, *asked: Any) -> Any:
        try:
            return scored(self, *asked)
        except Exception as error:
            if not self.record.forks:
                seen.append(f"{type(error).__name__} {error}".strip())
            raise

    def watched_agrees(self: Replay, number: int, score: Tensor) -> bool | None:
        agreed = agrees(self, number, score)
        change = self.whole.verified(number) - self.whole.unchanged
        apart = float((score - self.record.score - change).abs())
        wrong = agreed is False and apart > 1e-9 * max(1.0, float(self.whole.unchanged.abs()))
        seen.append(f"{apart:.2g} apart" if wrong else None)
        return agreed

    Replay.scores, Replay.agrees = watched_scores, watched_agrees  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Replay.scores, Replay.agrees = scored, agrees  # type: ignore[method-assign]


def outcome_of(seed: int) -> Outcome:
    """The outcome; what raises is a difference too."""
    torch.set_num_threads(1)
    device_policy.CPU = replace(device_policy.CPU, costs=None)  # whole passes would answer for such small networks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compared(seed)
        except Exception as error:
            return Outcome(seed, math.inf, f"{type(error).__name__}: {error}")


def main() -> int:
    """Compare many networks, print every difference and the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    begin, worst, verified, wrong = time.monotonic(), 0.0, 0, 0
    seeds = range(chosen.first, chosen.first + chosen.count)
    with ProcessPoolExecutor(chosen.processes) as pool:
        for number, outcome in enumerate(pool.map(outcome_of, seeds, chunksize=20), 1):
            verified, worst = verified + outcome.verified, max(worst, outcome.error)
            if not outcome.right:
                wrong += 1
                print(f"\nseed {outcome.seed}: {outcome.error:.2g} {outcome.asked}; refused {outcome.refused}")
                print(RandomNet(outcome.seed).text(), flush=True)
            if number % 50 == 0 or number == chosen.count:
                rate = number / (time.monotonic() - begin)
                print(f"\r{number} networks, {verified} verified, {wrong} wrong, {rate:.1f}/s", end="", flush=True)
    print(f"\n{chosen.count} networks, seeds {seeds[0]} to {seeds[-1]}: {wrong} differ, the largest {worst:.2g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
