"""Which maps can be trusted for what: every attribution beside maps that know nothing of the network.

``python -m benchmarks.sanity`` asks, in parts, whether maps lie on what a drawn picture shows, and on the tag where a
network reads that; whether they depend on weights and labels; and whether the score of photographs follows them. A
line tells of each row when it is finished; benchmarks/results/sanity-cpu.json keeps them all, also after Ctrl-C.
``python -m benchmarks.sanity.page`` makes docs/sanity.md of it.

A row takes as many pictures as fit ``--most`` seconds, at least one. Options measure a part, which ``--add`` puts into
the file beside what is there: ``python -m benchmarks.sanity --parts photographs --pictures 160 --most 1e9 --add``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch

from benchmarks.command import Options, begun_by, one_line_errors, parsed, parser_of
from benchmarks.sanity.checks import NETWORKS, PARTS, case
from benchmarks.sanity.rows import SANITY
from benchmarks.sanity.subjects import asked, known, subject
from cnnviz.testing.sanity.cases import Case
from cnnviz.testing.sanity.measuring import measured as measured_row
from cnnviz.testing.sanity.rows import LeftOut, Row, mean


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    records = begun_by(options, SANITY)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        records.collect(measured(options), options.out, line_of)
    finally:
        torch.set_num_threads(before)
    return 0 if records.rows else 1


def options_of(arguments: list[str] | None) -> Options:
    """What a command line asks for."""
    parser = parser_of("sanity", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", choices=known(), default=known(), metavar="METHOD", help="or all")
    parser.add_argument("--pictures", type=int, default=6, help="photographs, of the 160")
    parser.add_argument("--drawn", type=int, default=40, help="drawn pictures")
    parser.add_argument("--size", type=int, default=224, help="of photographs, in pixels")
    parser.add_argument("--most", type=float, default=30, help="seconds of a row; slower methods see fewer pictures")
    parser.add_argument("--thorough", action="store_true", help="every method with its own defaults")
    options = parsed(parser, arguments, Options(), "sanity-{}.json")
    if min(options.pictures, options.drawn, options.threads) < 1 or options.size < 64 or not options.most > 0:
        parser.error("pictures, drawn and threads are 1 or more, the size 64 or more, --most above 0")
    return options


def measured(options: Options) -> Iterator[Row | LeftOut]:
    """All rows, as they are finished."""
    device = torch.device(options.device)
    for part in options.parts:
        for name in [name for name in PARTS[part] if name in options.networks]:
            try:
                question = case(part, name, options.drawn, options.pictures, options.size, device)
            except FileNotFoundError as error:
                yield from (LeftOut(part, name, method, str(error)) for method in options.methods)
                continue
            for method in options.methods:
                if asked(method, part, name):
                    yield row(question, method, options.most, options.thorough)


def row(case: Case, method: str, most: float, thorough: bool) -> Row | LeftOut:
    """One method on as many pictures as fit the time."""
    size = case.inputs.shape[-1]
    return measured_row(case, method, lambda: subject(method, size, thorough), most)


def line_of(result: Row | LeftOut) -> str:
    """A line for the terminal."""
    if isinstance(result, LeftOut):
        return f"{result.part}, {result.network}, {result.method}: left out: {result.reason}"
    means = ", ".join(f"{name} {mean(values):.3f}" for name, values in result.figures.items())
    place = f"{result.part}, {result.network}, {result.written}"
    return f"{place}: {means} ({result.pictures} pictures, {result.seconds:.1f} s)"


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # of random weights gradients fade to numbers that slow a CPU tenfold
    sys.exit(main())
