"""What the commands have in common: options, the recorded command line, and how they end."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from benchmarks.records import HOME, Format, L, R, Records, RecordsError, about, begun

P = ParamSpec("P")


class Options(argparse.Namespace):
    """The options of every command that measures."""

    device: str
    threads: int
    out: Path
    add: bool
    command: str
    """The command line, as it is recorded."""


T = TypeVar("T", bound=Options)


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of ``Options``, to which a command adds its own."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="where rows are kept")
    parser.add_argument("--add", action="store_true", help="keep the rows that are there")
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None, options: T, out: str) -> T:
    """The options of a command line. In the name ``out`` of the file that is written by default, {} is the device."""
    parser.parse_args(arguments, namespace=options)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out")
    options.out = options.out or HOME / out.format(options.device.partition(":")[0])
    options.command = " ".join([parser.prog, *(sys.argv[1:] if arguments is None else arguments)])
    return options


def begun_by(options: Options, format: Format[R, L]) -> Records[R, L]:
    """The records that a command adds to. Raises RecordsError as ``begun``."""
    return begun(options.out, format, about(options.device, options.threads), options.command, options.add)


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """A command that ends with status 2 and one line about files it can't use, and with 130 after Ctrl-C."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            return 130
        except (RecordsError, OSError) as error:
            print(error, file=sys.stderr)
            return 2

    return wrapped
