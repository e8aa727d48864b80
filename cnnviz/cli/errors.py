"""What a command prints, line by line, and what a failure looks like: one line on stderr, and an exit status."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

import typer

from cnnviz.datasets.workers.work import RunError
from cnnviz.drawing.fonts import FontWarning
from cnnviz.images.told import InputWarning
from cnnviz.registry.registry import PluginError

PARTLY, FAILED, INTERRUPTED = 1, 2, 130
EXPECTED = (ValueError, LookupError, TypeError, OSError, ImportError, PluginError, RunError)


_lost: list[str] = []  # why lines of the results could not be printed


class Interrupted(Exception):
    """Ctrl-C, with what of the work is done."""


def guarded(app: typer.Typer, args: Sequence[str] | None) -> int:
    """Run the command. Whatever goes wrong becomes one line and an exit status; CNNVIZ_TRACEBACK=1 shows where."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the console can't show ends no work
            stream.reconfigure(errors="backslashreplace")
    told = ""
    _lost.clear()
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of libraries, for programmers; python -W default shows them
                warnings.simplefilter("always", InputWarning)
                warnings.simplefilter("always", FontWarning)
                warnings.showwarning = _told_once()
            words = list(sys.argv[1:] if args is None else args)
            _check_values(words)
            # obj: a report says by which words it is made again
            status = typer.main.get_command(app).main(words, prog_name="cnnviz", standalone_mode=False, obj=words)
    except (KeyboardInterrupt, typer.Abort, Interrupted) as error:
        status, told = INTERRUPTED, str(error)
    except SystemExit as done:
        if not _by_typer(done):
            print_failure(
                f"a plugin or a model left Python by SystemExit({done.code!r}); it has to raise another error"
            )
            return FAILED
        status = FAILED if done.code else 0
    except Exception as error:
        if os.environ.get("CNNVIZ_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exception(error)
        print_failure(reason(error))
        return FAILED
    if status == INTERRUPTED:
        print_failure(f"interrupted; {told or 'what was written is whole'}")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _drop(sys.stdout)
    except OSError as error:
        _drop(sys.stdout)
        _lost.append(error.strerror or type(error).__name__)
    status = status if isinstance(status, int) else 0
    if _lost:
        print_failure(f"standard output can't be written: {_lost[0]}; what went into files is whole")
        return status or PARTLY
    return status


def _by_typer(done: SystemExit) -> bool:
    """True for what typer does once it has completed a word, and rich where nobody reads on; plugins do it too."""
    *_, (frame, _) = traceback.walk_tb(done.__traceback__)
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in ("typer", "click", "rich", __name__.partition(".")[0])


def _check_values(words: Sequence[str]) -> None:
    """Raises ValueError for an option with an empty value, which as a path would be the current folder."""
    for before, word in zip(["", *words], words, strict=False):
        option = before if not word else word[:-1] if word.endswith("=") and word.startswith("--") else ""
        if option in ("-o", "--output"):
            raise ValueError(f"{option} is empty; name a file or a folder")
        if option.startswith("-") and option not in ("-", "--", "--prefix"):  # no prefix is one, too
            raise ValueError(f"the value behind {option} is empty (of a shell's variable that is not set?); give one")


def _told_once() -> Callable[..., None]:
    """Prints what warnings say, each text once."""
    told: set[str] = set()

    def tell(message: Warning | str, *place: object, **more: object) -> None:
        if (text := str(message)) not in told:
            told.add(text)
            print_failure(text)

    return tell


def exit_status(total: int, failed: int) -> int:
    """The exit status of work of which a part failed."""
    return 0 if failed == 0 else PARTLY if failed < total else FAILED


def print_line(text: str) -> None:
    """Print a line of the results, on stdout."""
    _write(text, sys.stdout)


def print_failure(text: str) -> None:
    """Print a line about what went wrong, on stderr."""
    _write(f"cnnviz: {text}", sys.stderr)


def print_note(text: str) -> None:
    """Print a line about what was decided, on stderr, so that results stay alone on stdout."""
    _write(f"cnnviz: {text}", sys.stderr)


def reason(error: BaseException) -> str:
    """What went wrong, in one line without Python's decorations."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if hasattr(error, "format_message"):  # of the command line itself; typer brings click along under a private name
        context = getattr(error, "ctx", None)
        advice = f" ({context.command_path} --help tells more)" if context is not None else ""
        return " ".join(error.format_message().split()) + advice
    plain = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(plain).split()) or type(error).__name__
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in line:
        return f"memory ran out; try a smaller --batch, or --memory 256MB ({line[:80]})"
    if isinstance(error, EXPECTED):
        return line
    first = next(iter(str(error).splitlines()), "").strip()
    return f"{type(error).__name__}: {first}; CNNVIZ_TRACEBACK=1 shows where"


def printable(text: str) -> str:
    """The text with a question mark for each letter that would steer the terminal: names come from anywhere."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in text)


def _write(text: str, stream: TextIO | None) -> None:
    """Print a line; a stream that nobody reads any more, as behind ``head``, or that is full does not end the work."""
    try:
        print(printable(text), file=stream)
    except (BrokenPipeError, ValueError):
        _drop(stream)
    except OSError as error:
        _drop(stream)
        if stream is sys.stdout:
            _lost.append(error.strerror or type(error).__name__)


def _drop(stream: TextIO | None) -> None:
    """What is printed from now on goes nowhere; Python would try again at its end, and complain."""
    try:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return  # it has no number, or is closed
