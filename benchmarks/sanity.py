"""Which maps can be trusted for what: every attribution beside maps that know nothing of the network.

``python -m benchmarks.sanity`` asks, in parts, whether maps lie on what a drawn picture shows, and on the tag where a
network reads that; whether they depend on weights and labels; and whether the score of photographs follows them. A
line tells of each row when it is finished; benchmarks/results/sanity.json keeps them all, also after Ctrl-C.
``python -m benchmarks.sanity_page`` makes docs/sanity.md of it.

A row takes as many pictures as fit ``--most`` seconds, at least one. Options measure a part, which ``--add`` puts into
the file beside what is there: ``python -m benchmarks.sanity --parts photographs --pictures 160 --most 1e9 --add``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.checks import NETWORKS, PARTS, TRAINED, Case, case
from benchmarks.sanity_records import FILE, LeftOut, Row, begun, mean
from benchmarks.subjects import FINE, known, subject
from cnnviz.cli.errors import reason

DRAWN_AT_ONCE = 4


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    command = " ".join(["python -m benchmarks.sanity", *(sys.argv[1:] if arguments is None else arguments)])
    began = time.perf_counter()
    try:
        records = begun(options.out, options.device, options.threads, command, options.add)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        for found in measured(options):
            records.add(found)
            records.write(options.out)
            print(told(found), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; {len(records.rows)} rows are in {options.out}", file=sys.stderr)
        return 130
    finally:
        torch.set_num_threads(before)
    took = time.perf_counter() - began
    print(f"{len(records.rows)} rows, {len(records.left_out)} left out, in {options.out}; {took:.0f} s")
    return 0 if records.rows else 1


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanity", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", choices=known(), default=known(), metavar="METHOD", help="or all")
    parser.add_argument("--pictures", type=int, default=6, help="photographs, of the 160")
    parser.add_argument("--drawn", type=int, default=40, help="drawn pictures")
    parser.add_argument("--size", type=int, default=224, help="of photographs, in pixels")
    parser.add_argument("--most", type=float, default=30, help="seconds of a row; slower methods see fewer pictures")
    parser.add_argument("--thorough", action="store_true", help="every method with its own defaults")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=FILE, help="where rows are kept")
    parser.add_argument("--add", action="store_true", help="keep the rows that are there")
    options = parser.parse_args(arguments)
    if min(options.pictures, options.drawn, options.threads) < 1 or options.size < 64 or not options.most > 0:
        parser.error("pictures, drawn and threads are 1 or more, the size 64 or more, --most above 0")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    return options


def measured(options: argparse.Namespace) -> Iterator[Row | LeftOut]:
    """All rows, as they are finished."""
    for part in options.parts:
        for name in PARTS[part]:
            if name not in options.networks:
                continue
            try:
                asked = case(part, name, options.drawn, options.pictures, options.size, torch.device(options.device))
            except FileNotFoundError as error:
                yield from (LeftOut(part, name, method, str(error)) for method in options.methods)
                continue
            for method in options.methods:
                if method == FINE and part != "tag":
                    continue
                yield row(asked, method, options.most, options.thorough)


def row(asked: Case, method: str, most: float, thorough: bool) -> Row | LeftOut:
    """One method on as many pictures as fit the time."""
    size = asked.inputs.shape[-1]
    step = 1 if asked.network in TRAINED else DRAWN_AT_ONCE
    figures: dict[str, list[float]] = {}
    began, start = time.perf_counter(), 0
    try:
        attribution, written = subject(method, size, thorough)
        while start < len(asked.inputs) and (start == 0 or time.perf_counter() - began < most):
            with warnings.catch_warnings(action="ignore"):
                found = asked.figures(attribution, start, min(start + step, len(asked.inputs)))
            for name, values in found.items():
                figures.setdefault(name, []).extend(values)
            start += step
    except (ValueError, LookupError, TypeError) as error:
        return LeftOut(asked.part, asked.network, method, reason(error))
    seconds = round(time.perf_counter() - began, 2)
    rounded = {name: [round(value, 5) for value in values] for name, values in figures.items()}
    return Row(asked.part, asked.network, method, written, size, seconds, rounded, asked.remark)


def told(found: Row | LeftOut) -> str:
    """A line for the terminal."""
    if isinstance(found, LeftOut):
        return f"{found.part}, {found.network}, {found.method}: left out: {found.reason}"
    count = len(next(iter(found.figures.values())))
    said = ", ".join(f"{name} {mean(values):.3f}" for name, values in found.figures.items())
    return f"{found.part}, {found.network}, {found.written}: {said} ({count} pictures, {found.seconds:.1f} s)"


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # of random weights gradients fade to numbers that slow a CPU tenfold
    sys.exit(main())
