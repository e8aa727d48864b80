"""Every method beside every peer that has it: time, memory, agreement.

``python -m benchmarks.speed`` asks cnnviz and the peer in turns, on the same network and pictures, with as many
threads, in one process for each peer and network. A line tells of each row when it is finished; the file
benchmarks/results/speed-cpu.json keeps them all, also after Ctrl-C. ``python -m benchmarks.speed.results`` makes
docs/speed.md of it. On a GPU (``--device cuda``) rates, launches and synchronizations follow: benchmarks.speed.rates.

Options measure a part, which ``--add`` puts into the file beside what is there:
``python -m benchmarks.speed --methods score_cam --networks vgg16 --time-limit 2000 --add``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

import cnnviz
from benchmarks.command import begun_by, one_line_errors, parsed, parser_of
from benchmarks.networks import ASSETS, LAYERS
from benchmarks.speed import rates
from benchmarks.speed.comparing import OURS, TOGETHER, Options
from benchmarks.speed.peers import LIBRARIES, METHODS
from benchmarks.speed.processes import installed, measured
from benchmarks.speed.rows import SPEED, LeftOut, Row, median_ratio, spread

BATCHES = (1, 8)


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    records = begun_by(options, SPEED)
    for line in absent(options):
        print(line)
    results = records.collect(measured(options), options.out, line_of)
    if options.device.startswith("cuda"):
        networks, size = options.networks, str(options.size)
        rates.main(["--device", options.device, "--networks", *networks, "--size", size, *(["--add"] * options.add)])
    failures = [entry for entry in results if isinstance(entry, LeftOut) and entry.reason.startswith(f"{OURS} failed")]
    return 1 if failures else 0


def options_of(arguments: list[str] | None) -> Options:
    """What a command line asks for."""
    known = [*METHODS, TOGETHER, *(name for name in cnnviz.attributions if name not in METHODS)]
    parser = parser_of("speed", __doc__)
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="METHOD", help=", ".join(known))
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--peers", nargs="+", choices=[*LIBRARIES, OURS], default=[*LIBRARIES, OURS])
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; one where a run takes longer than 10 s")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds; longer runs are left out, and said")
    parser.add_argument("--process-time", action="store_true", help="CPU time, which other load does not lengthen")
    options = parsed(parser, arguments, Options(), "speed-{}.json")
    if options.process_time and (options.threads > 1 or options.device != "cpu"):
        parser.error("--process-time counts the time of every thread; add --threads 1")
    if min(options.batches) < 1 or options.repeats < 1 or options.threads < 1 or options.size < 32:
        parser.error("batches, repeats and threads are 1 or more, the size 32 or more")
    return options


def absent(options: Options) -> Iterator[str]:
    """Lines about what there is nothing to measure of."""
    for library in options.peers:
        if not installed(library):
            yield f"{library} is not installed, and left out; pip install {library}"
    missing = [name for name in options.methods if name in METHODS and name not in cnnviz.attributions]
    if missing:
        yield f"not registered, and left out: {', '.join(missing)}"
    if not ASSETS.is_dir():
        yield f"no trained weights at {ASSETS}; networks are untrained, pictures noise"


def line_of(result: Row | LeftOut) -> str:
    """A line for the terminal."""
    subject = f"{result.method}, {result.network} x {result.batch}"
    if isinstance(result, LeftOut):
        return f"{subject}: left out beside {result.peer or 'nobody'}: {result.reason}"
    median = statistics.median(result.ours)
    figures = [f"{1000 * median:.4g} ms", f"{median_ratio(result.ours, result.forward):.2f} forward"]
    if result.theirs:
        low, high = spread(result.ours, result.theirs)
        figures.append(f"{median_ratio(result.ours, result.theirs):.3g} ({low:.3g} to {high:.3g}) of {result.peer}")
    if result.ours_peak is not None:
        beside = "" if result.theirs_peak is None else f" beside {result.theirs_peak / 2**20:.0f}"
        figures.append(f"{result.ours_peak / 2**20:.0f}{beside} MiB")
    if result.cosine is not None and result.difference is not None:
        figures.append(f"cosine {result.cosine:.6f}, off by {result.difference:.0e}")
    return f"{subject}: {', '.join(figures)}" + (f" ({result.remark})" if result.remark else "")


if __name__ == "__main__":
    sys.exit(main())
