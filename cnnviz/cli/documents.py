"""What ``--json`` prints: one JSON document on stdout, and nothing else there."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

_HELP = "Print one JSON document instead of lines for reading."
Json = Annotated[bool, typer.Option("--json", help=_HELP)]
AnswersJson = Annotated[bool, typer.Option("--json", help=_HELP, rich_help_panel="Question and answer")]


def print_document(document: Any) -> None:
    """Print it on stdout. What is no finite number is null; letters beyond ASCII are escaped, as any console takes."""
    json.dump(_plain(document), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return str(value)
