"""Every method beside every peer that has it: time, memory, agreement.

``python -m benchmarks.speed`` asks cnnviz and the peer in turns, on the same network and pictures, with as many
threads, in one process for each peer and network. A line tells of each row when it is finished; the file
benchmarks/results/speed-cpu.json keeps them all, also after Ctrl-C. ``python -m benchmarks.results`` makes
docs/speed.md of it.

Options measure a part, which ``--add`` puts into the file beside what is there:
``python -m benchmarks.speed --methods score_cam --networks vgg16 --time-limit 2000 --add``.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import cnnviz
from benchmarks.comparing import OURS, TOGETHER, Asked, Options, pairs, rows
from benchmarks.networks import ASSETS, LAYERS
from benchmarks.peers import LIBRARIES, METHODS
from benchmarks.records import HOME, LeftOut, Row, begun, median_ratio, spread

BATCHES = (1, 8)


def main(arguments: list[str] | None = None) -> int:
    options, out, add = parsed(arguments)
    command = " ".join(["python -m benchmarks.speed", *(sys.argv[1:] if arguments is None else arguments)])
    began, failures = time.perf_counter(), 0
    try:
        records = begun(out, options.device, options.threads, command, add)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for line in absent(options):
        print(line)
    try:
        for found in measured(options):
            records.add(found)
            records.write(out)
            failures += isinstance(found, LeftOut) and found.reason.startswith(f"{OURS} failed")
            print(told(found), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; {len(records.rows)} rows are in {out}", file=sys.stderr)
        return 130
    print(f"{len(records.rows)} rows, {len(records.left_out)} left out, in {out}; {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


def parsed(arguments: list[str] | None) -> tuple[Options, Path, bool]:
    """What is asked for on the command line: what to measure, where to keep it, and whether beside what is there."""
    known = [*METHODS, TOGETHER, *(each for each in cnnviz.attributions if each not in METHODS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="METHOD", help=", ".join(known))
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--peers", nargs="+", choices=[*LIBRARIES, OURS], default=[*LIBRARIES, OURS])
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; one where a run takes longer than 10 s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds; longer runs are left out, and said")
    parser.add_argument(
        "--process-time", action="store_true", help="CPU time, for a busy machine; only with --threads 1"
    )
    parser.add_argument("--out", type=Path, help="where rows are kept")
    parser.add_argument("--add", action="store_true", help="keep the rows that are there")
    asked = parser.parse_args(arguments)
    if asked.process_time and (asked.threads > 1 or asked.device != "cpu"):
        parser.error("--process-time counts the time of every thread; add --threads 1")
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    if min(asked.batches) < 1 or asked.repeats < 1 or asked.threads < 1 or asked.size < 32:
        parser.error("batches, repeats and threads are 1 or more, the size 32 or more")
    options = Options(
        asked.device,
        tuple(asked.methods),
        tuple(asked.networks),
        tuple(asked.batches),
        tuple(asked.peers),
        asked.size,
        asked.repeats,
        asked.threads,
        asked.time_limit,
        asked.process_time,
    )
    return options, asked.out or HOME / f"speed-{asked.device.partition(':')[0]}.json", asked.add


def absent(options: Options) -> Iterator[str]:
    """What there is nothing to measure of."""
    for library in options.libraries:
        if library != OURS and importlib.util.find_spec(LIBRARIES[library]) is None:
            yield f"{library} is not installed, and left out; pip install {library}"
    missing = [each for each in options.methods if each in METHODS and each not in cnnviz.attributions]
    if missing:
        yield f"not registered, and left out: {', '.join(missing)}"
    if not ASSETS.is_dir():
        yield f"no trained weights at {ASSETS}; networks are untrained, pictures noise"


def measured(options: Options) -> Iterator[Row | LeftOut]:
    """All rows, as they are finished. Where a process dies, another goes on behind what killed it."""
    for library in options.libraries:
        if library != OURS and importlib.util.find_spec(LIBRARIES[library]) is None:
            continue
        for name in options.networks:
            known = [*pairs(library, options.methods)]
            asked = [(pair.method, pair.peer, batch) for batch in options.batches for pair in known]
            while asked:
                status = yield from elsewhere(library, name, options, asked)
                if asked:
                    method, peer, batch = asked.pop(0)
                    yield LeftOut(method, peer, name, batch, f"the process ended with status {status}")


def elsewhere(
    library: str, name: str, options: Options, asked: list[Asked]
) -> Generator[Row | LeftOut, None, int | None]:
    """What one process measures, taken from ``asked`` as it comes; gives the status that the process ends with."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, library, name, options, asked), daemon=True)
    process.start()
    sender.close()
    try:
        while asked:
            found: Row | LeftOut = receiver.recv()
            asked.remove((found.method, found.peer, found.batch))
            yield found
    except EOFError:
        process.join()
    finally:
        process.terminate()
        process.join()
    return process.exitcode


def child(connection: Connection, library: str, name: str, options: Options, asked: list[Asked]) -> None:
    """One process: sends every row to the one that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    warnings.filterwarnings("ignore")
    torch.set_flush_denormal(True)  # before there are threads, which inherit it
    torch.set_num_threads(options.threads)
    for found in rows(library, name, options, asked):
        connection.send(found)


def told(found: Row | LeftOut) -> str:
    """A line for the terminal."""
    what = f"{found.method}, {found.network} x {found.batch}"
    if isinstance(found, LeftOut):
        return f"{what}: left out beside {found.peer or 'nobody'}: {found.reason}"
    middle = statistics.median(found.ours)
    said = [f"{1000 * middle:.4g} ms", f"{median_ratio(found.ours, found.forward):.2f} forward"]
    if found.theirs:
        low, high = spread(found.ours, found.theirs)
        said.append(f"{median_ratio(found.ours, found.theirs):.3g} ({low:.3g} to {high:.3g}) of {found.peer}")
    if found.ours_peak is not None:
        beside = "" if found.theirs_peak is None else f" beside {found.theirs_peak / 2**20:.0f}"
        said.append(f"{found.ours_peak / 2**20:.0f}{beside} MiB")
    if found.cosine is not None and found.difference is not None:
        said.append(f"cosine {found.cosine:.6f}, off by {found.difference:.0e}")
    return f"{what}: {', '.join(said)}" + (f" ({found.remark})" if found.remark else "")


if __name__ == "__main__":
    sys.exit(main())
