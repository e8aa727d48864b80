"""A question that an exception strikes at one of its lines, as Ctrl-C or a time limit may."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable
from typing import Any

NEVER_STRUCK = re.compile(r"\s*(try:|with (self\.lock|self\._lock|_numbering|_one_at_a_time|_kernels|_filters)\b)")
"""Lines where a trace may strike, and a signal never does: where a lock is taken or given back, and at a try."""


def interrupted(
    ask: Callable[[], object], line: int, kind: type[BaseException], where: Callable[[Any], bool] = lambda frame: True
) -> bool:
    """Ask, and raise at the so manieth line of Python that lies there; False where there are fewer."""
    left = line

    def count(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        if event == "line" and where(frame):
            left -= 1
            if left <= 0 and not NEVER_STRUCK.match(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
                sys.settrace(None)
                raise kind("injected")
        return count

    others = sys.gettrace()
    sys.settrace(lambda frame, event, arg: count)
    try:
        ask()
    except BaseException:
        pass
    finally:
        sys.settrace(others)
    return left <= 0
