"""What whole passes and regions take on a kind of device: the constants by which cnnviz chooses between them.

``python -m benchmarks.costs`` passes a few networks whole, records passes, and replays windows on regions. Small
pictures tell what handing out an operation takes, large ones what bytes take. benchmarks/results/costs-cpu.json keeps
the times; ``--device cuda`` writes costs-cuda.json. The last line says what to put into cnnviz/engine/device_policy.py.
On a CPU the time of this process is taken, on one thread.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import combinations, product

import torch
from torch import Tensor, nn

from benchmarks.command import Options, begun_by, one_line_errors, parsed, parser_of
from benchmarks.networks import LAYERS, network, pictures
from benchmarks.records import Format
from benchmarks.speed.rows import LeftOut, check_times
from benchmarks.speed.timing import Work as Timed
from benchmarks.speed.timing import in_turns
from cnnviz import Run
from cnnviz.engine.costs import Costs, Work
from cnnviz.engine.device_policy import DevicePolicy, kind_of
from cnnviz.engine.layers import INPUT
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.pass_size import PassSize
from cnnviz.incremental.boxes import Boxes, grouped
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.player import Player
from cnnviz.incremental.recorded_pass import RecordedPass, recorded
from cnnviz.incremental.replay import Group, Replay
from cnnviz.incremental.whole_passes import WholePasses
from cnnviz.run.plan import Plan

NETWORKS = ("squeezenet1_0", "mobilenet_v2", "resnet50")
SIZES = (32, 64, 112, 224)
WINDOWS = 7
"""Windows on a side, without those that lie between two others."""
MOST = 64
"""Inputs that are passed at once."""
ROUNDS = 30
PARTS = ("a whole pass", "a recorded pass", "a replay")


@dataclass(frozen=True)
class Cost:
    """The time of one piece of work, and what is counted of it."""

    part: str
    network: str
    size: int
    variants: int
    seconds: list[float]
    operations: int
    bytes: int
    region_operations: int
    region_bytes: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.part, self.network, self.size, self.variants

    @property
    def work(self) -> Work:
        return Work(*(getattr(self, field.name) for field in fields(Work)))

    def check(self) -> None:
        check_times("seconds", self.seconds)


COSTS = Format(Cost, LeftOut, "python -m benchmarks.costs")


class CostOptions(Options):
    networks: list[str]
    sizes: list[int]
    repeats: int


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("costs", __doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="sides of the pictures, 32 or more")
    parser.add_argument("--repeats", type=int, default=5)
    options = parsed(parser, arguments, CostOptions(), "costs-{}.json")
    if min(options.repeats, options.threads) < 1 or min(options.sizes) < 32:
        parser.error("repeats and threads are 1 or more, sizes 32 or more")
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    records, device = begun_by(options, COSTS), torch.device(options.device)
    places = product(options.networks, options.sizes)
    costs = (cost for name, size in places for cost in measured(name, size, device, options.repeats))
    records.collect(costs, options.out, line_of)
    print(f"{device.type.upper()}: costs={fitted(records.rows)}")
    return 0


def line_of(cost: Cost | LeftOut) -> str:
    """A line for the terminal."""
    if isinstance(cost, LeftOut):
        return f"{cost.method}, {cost.network}: left out: {cost.reason}"
    subject = f"{cost.network} at {cost.size}, {cost.part} of {cost.variants}"
    return f"{subject}: {1000 * statistics.median(cost.seconds):.4g} ms for {cost.work}"


@dataclass(frozen=True)
class Piece:
    """Something to time."""

    part: str
    variants: int
    work: Work
    timed: Timed


def measured(name: str, size: int, device: torch.device, repeats: int) -> Iterator[Cost | LeftOut]:
    """Everything of one network and size."""
    model, inputs = network(name, device).module, pictures(1, size).to(device)
    run = Run(model, inputs, torch.zeros(1, dtype=torch.long, device=device), plan=Plan(variants=True))
    passed = run.trace.size
    pieces = [*whole_passes(run, passed, kind_of(device))]
    query, change = windows(model, inputs)
    record = recorded(query, change)
    if record is None or not record.repeatable:
        yield LeftOut(PARTS[1], "", name, 1, "the network can't be recorded")
    else:
        recording = Work(bytes=passed.total, region_operations=passed.operations)
        pieces.append(Piece(PARTS[1], 1, recording, partial(score_of_record, query, change)))
        pieces += replays(query, change, record, kind_of(device))
    named = {f"{piece.part} of {piece.variants}": piece for piece in pieces}
    works = {name: piece.timed for name, piece in named.items()}
    times = in_turns(works, repeats, device, process_time=True)
    for key, piece in named.items():
        yield Cost(piece.part, name, size, piece.variants, times[key].seconds, **asdict(piece.work))


def whole_passes(run: Run, size: PassSize, policy: DevicePolicy) -> Iterator[Piece]:
    """One input, and as many as are passed at once."""
    for count in dict.fromkeys((1, min(MOST, policy.items_without_graph(size.largest)))):
        work = Work(size.operations, count * size.total)
        yield Piece(PARTS[0], count, work, partial(run.scores, run.inputs.repeat(count, 1, 1, 1)))


def score_of_record(query: Query, change: Change) -> Tensor:
    record = recorded(query, change)
    assert record is not None
    return record.score


def replays(query: Query, change: Change, record: RecordedPass, policy: DevicePolicy) -> Iterator[Piece]:
    """Two variants, and as many as are replayed at once; where boxes lie in the maps is worked out anew each time."""
    replay, boxes = Replay(record, WholePasses(query, change, record)), change.boxes
    assert boxes is not None
    numbers = max(grouped(boxes.begins, boxes.ends, boxes.size, record.stride), key=len)

    def played(count: int) -> tuple[Tensor, Player]:
        chosen = numbers[:count]
        return replay.scores(Group(chosen, boxes.at_numbers(chosen)), slice(0, count))

    def scores(count: int) -> Tensor:
        return played(count)[0]

    played(2)  # which finds the batch norms that can be folded
    at_once = policy.items_replayed(played(2)[1].largest // 2)
    for count in dict.fromkeys((2, max(2, min(len(numbers), at_once)))):
        work = Work(region_operations=len(record.ops), region_bytes=played(count)[1].bytes)
        yield Piece(PARTS[2], count, work, partial(scores, count))


def windows(model: nn.Module, inputs: Tensor) -> tuple[Query, Change]:
    """Occlusion of a picture, (1, 3, size, size), by windows that overlap by half."""
    size = inputs.shape[-1]
    side = size // WINDOWS
    begins = torch.cartesian_prod(*[torch.arange(0, size - side + 1, max(1, side // 2), device="cpu")] * 2)
    blank = torch.zeros(3, side, side, device=inputs.device)
    change = Change(
        INPUT,
        len(begins),
        lambda numbers: [blank] * len(numbers),
        Boxes(begins, begins + side, (size, size)),
    )
    return Query(model, ModelInputs((inputs,)), lambda output, layers, count, drawn: output[:, 0]), change


def fitted(rows: Sequence[Cost]) -> Costs:
    """The constants that explain these times best, by the ratio of both; none is negative. Two digits each.

    Half of a time and twice a time are equally wrong. Of each work the shortest time counts: what else the machine does
    makes times longer, never shorter.
    """
    names = [field.name for field in fields(Work)]
    took = torch.tensor([min(row.seconds) for row in rows], dtype=torch.float64)
    counted = torch.tensor([[getattr(row, name) for name in names] for row in rows], dtype=torch.float64)
    expected, found = took, torch.zeros(len(names), dtype=torch.float64)
    for _ in range(ROUNDS):  # near the solution the weighted difference is that of the logarithms
        weights = (took * expected).rsqrt()
        found = nonnegative(counted * weights[:, None], took * weights)
        expected = (counted @ found).clamp(min=1e-3 * took)
    return Costs(*(float(f"{constant:.2g}") for constant in found.tolist()))


def nonnegative(factors: Tensor, wanted: Tensor) -> Tensor:
    """The least squares solution, (columns,), of which nothing is negative: the best of all sets of columns."""
    scale = factors.abs().amax(0).clamp(min=1e-300)
    best, found = float("inf"), torch.zeros_like(scale)
    for number in range(1, len(scale) + 1):
        for columns in map(list, combinations(range(len(scale)), number)):
            kept = factors[:, columns] / scale[columns]
            solution = torch.linalg.lstsq(kept, wanted[:, None]).solution[:, 0]
            error = float((kept @ solution - wanted).square().sum())
            if bool((solution >= 0).all()) and error < best:
                best, found = error, torch.zeros_like(scale)
                found[columns] = solution / scale[columns]
    return found


if __name__ == "__main__":
    sys.exit(main())
