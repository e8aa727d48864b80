"""How fast a batch run is beside processes that only read, explain and drop; and how much memory it takes.

``python -m benchmarks.data_sets`` draws pictures, then runs both in turns. Start-up is told apart. ``--memory`` runs
over many small pictures, and tells how large the workers are while they work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from PIL import Image

import cnnviz
from cnnviz.datasets.asking import asked, backend_of
from cnnviz.datasets.plan import BatchPlan
from cnnviz.datasets.prepared_run import PreparedRun, prepare_run
from cnnviz.datasets.shards.kept_maps import MapStorage
from cnnviz.datasets.sources.source_kinds import source_of
from cnnviz.datasets.workers.work import Done, Event
from cnnviz.demo.drawing import draw
from cnnviz.explanations.options import ExplainOptions
from cnnviz.images.batches import in_batches

BATCH = 8


def drawn(folder: Path, count: int, side: int | None = None) -> list[Path]:
    """Draw so many pictures as JPEG, 128 x 128 or as large as ``side`` says; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.jpg" for number in range(count)]
    for start in range(0, count, 250):
        wanted = files[start : start + 250]
        if all(file.exists() for file in wanted):
            continue
        for file, picture in zip(wanted, draw(len(wanted), seed=start).pictures, strict=True):
            image = Image.fromarray(picture)
            (image if side is None else image.resize((side, side))).save(file, quality=90)
    return files


def bare(model: str, methods: Sequence[str], files: Sequence[Path], workers: int) -> tuple[float, float]:
    """Seconds in which so many processes of one thread read and explain the files, once all of them are ready.

    The second number is the processor time that all of them take for it.
    """
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    processes = []
    for number in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_bare, args=(theirs, model, methods, files[number::workers]), daemon=True)
        process.start()
        ends.append(ours)
        processes.append(process)
    for end in ends:
        end.recv()
    started = time.perf_counter()
    for end in ends:
        end.send("go")
    processor: float = sum(end.recv() for end in ends)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return seconds, processor


def _bare(connection: Connection, name: str, methods: Sequence[str], files: Sequence[Path]) -> None:
    torch.set_num_threads(1)
    model = cnnviz.load_model(name, weights=None if name.startswith("demo") else "random")
    side = (model.preprocessing.input_size or (96, 96))[0]
    ask = cnnviz.prepare(model, list(methods), like=torch.rand(BATCH, 3, side, side))
    ask(torch.rand(BATCH, 3, side, side))
    connection.send("ready")
    connection.recv()
    before = time.process_time()
    for _, inputs, _ in in_batches(((file, file) for file in files), model.preprocessing, BATCH, readers=1):
        if len(inputs) == BATCH:
            ask(inputs)
        else:
            cnnviz.explain(model, inputs, list(methods))
    connection.send(time.process_time() - before)


def planned(model: str, methods: Sequence[str], pictures: Path, out: Path) -> PreparedRun:
    """The batch run of these pictures."""
    loaded = cnnviz.load_model(model, weights=None if model.startswith("demo") else "random")

    def question(there: BatchPlan | None) -> Any:
        return asked(loaded, list(methods), (), ExplainOptions(), MapStorage(), None, {}, batch_size=BATCH, there=there)

    return prepare_run(out, source_of(pictures), question)


@dataclass
class Timed:
    """A batch run, its start-up told apart: until as many shards are done as there are workers."""

    startup: float
    """Seconds until then."""
    seconds: float
    """From then to the last shard."""
    items: int
    """Done since then."""
    processor: float
    """Seconds of processor time of all workers for these."""


def batch_run(run: PreparedRun, workers: int, watch: list[tuple[int, float]] | None = None) -> Timed:
    """Compute all shards. ``watch`` gets, behind each, how many items are done and the megabytes of the workers."""
    started = time.perf_counter()
    told: list[tuple[float, int, float]] = []
    done = 0

    def listen(event: Event) -> None:
        nonlocal done
        if isinstance(event, Done):
            done += event.summary["items"]
            alive = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
            told.append((time.perf_counter(), done, sum(map(_processor_time, alive))))
            if watch is not None:
                watch.append((done, _megabytes()))

    given_up = run.compute(backend_of("local", workers), listener=listen)
    if given_up:
        raise RuntimeError(str(given_up))
    (first, before, spent), (last, all_items, in_all) = told[workers - 1], told[-1]
    return Timed(first - started, last - first, all_items - before, in_all - spent)


def _processor_time(process: int) -> float:
    """Seconds of processor time that a process took so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _megabytes() -> float:
    """Resident memory of the worker processes together, without what they share."""
    total = 0
    for process in multiprocessing.active_children():
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                total += int(line.split()[1])
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--method", default="grad_cam,guided_backprop,integrated_gradients")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--folder", type=Path, help="where pictures are kept for the next time")
    options = parser.parse_args()
    methods = options.method.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        pictures = folder / f"pictures-{options.pictures}"
        files = drawn(pictures, options.pictures, 48 if options.memory else None)
        if options.memory:
            watch: list[tuple[int, float]] = []
            batch_run(planned(options.model, methods, pictures, folder / "out"), options.workers, watch)
            for done, megabytes in watch[:: max(1, len(watch) // 10)]:
                print(f"{done:7,} items  {megabytes:8.1f} MB in {options.workers} workers", flush=True)
            rmtree(folder / "out")
            return
        ratios, shares = [], []
        for _ in range(options.rounds):
            alone, cost = bare(options.model, methods, files, options.workers)
            run = planned(options.model, methods, pictures, folder / "out")
            timed = batch_run(run, options.workers)
            rmtree(folder / "out")
            ours, theirs = timed.items / timed.seconds, len(files) / alone
            ratios.append(ours / theirs)
            shares.append(cost / len(files) / (timed.processor / timed.items))
            print(
                f"read, explain and drop {theirs:7.1f} per second; batch run {ours:7.1f} per second "
                f"({ratios[-1]:.2f}; of processor time {shares[-1]:.2f}), {timed.startup:.1f} s until each worker had "
                "done a shard",
                flush=True,
            )
        print(f"median ratio {statistics.median(ratios):.3f}, of processor time {statistics.median(shares):.3f}")


if __name__ == "__main__":
    main()
