"""One process for each peer and network, so that none of them changes what the next one measures."""

from __future__ import annotations

import importlib.util
import multiprocessing
import signal
import warnings
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection

import torch

from benchmarks.speed.comparing import OURS, Options, Request, pairs, rows
from benchmarks.speed.peers import LIBRARIES
from benchmarks.speed.rows import LeftOut, Row


def installed(library: str) -> bool:
    """Whether a library can be measured."""
    return library == OURS or importlib.util.find_spec(LIBRARIES[library]) is not None


def measured(options: Options) -> Iterator[Row | LeftOut]:
    """All rows, as they are finished. Where a process dies, another goes on behind what killed it."""
    for library in filter(installed, options.peers):
        for name in options.networks:
            compared = [*pairs(library, options.methods)]
            requests = [(pair.method, pair.peer, batch) for batch in options.batches for pair in compared]
            while requests:
                status = yield from from_process(library, name, options, requests)
                if requests:
                    method, peer, batch = requests.pop(0)
                    yield LeftOut(method, peer, name, batch, f"the process ended with status {status}")


def from_process(
    library: str, name: str, options: Options, requests: list[Request]
) -> Generator[Row | LeftOut, None, int | None]:
    """What one process measures, removed from ``requests`` as it comes; returns the exit status of the process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, library, name, options, requests), daemon=True)
    process.start()
    sender.close()
    try:
        while requests:
            result: Row | LeftOut = receiver.recv()
            requests.remove((result.method, result.peer, result.batch))
            yield result
    except EOFError:
        process.join()
    finally:
        process.terminate()
        process.join()
    return process.exitcode


def child(connection: Connection, library: str, name: str, options: Options, requests: list[Request]) -> None:
    """The process: sends every row to the one that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    warnings.filterwarnings("ignore")
    torch.set_flush_denormal(True)  # before there are threads, which inherit it
    torch.set_num_threads(options.threads)
    for result in rows(library, name, options, requests):
        connection.send(result)
