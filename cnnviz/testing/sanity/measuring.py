"""One method in one part, on as many pictures as fit the time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

from cnnviz.registry.protocols import Attribution
from cnnviz.testing.sanity.cases import Case
from cnnviz.testing.sanity.reasons import ANY, reason
from cnnviz.testing.sanity.rows import LeftOut, Row

AT_ONCE = 4


def measured(
    case: Case,
    method: str,
    attribution: Callable[[], tuple[Attribution, str]],
    most: float,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Row | LeftOut:
    """A method's row of a part: as many pictures as fit ``most`` seconds, and the first ones in any case.

    ``attribution`` gives the method with its settings, and how that is written. ``step`` is told how many pictures are
    done, and of how many.
    """
    together = 1 if case.large else AT_ONCE
    figures: dict[str, list[float]] = {}
    began, start = time.perf_counter(), 0
    try:
        asked, written = attribution()
        while start < len(case.inputs) and (start == 0 or time.perf_counter() - began < most):
            stop = min(start + together, len(case.inputs))
            with warnings.catch_warnings(action="ignore"):
                numbers = case.figures(asked, start, stop)
            for name, values in numbers.items():
                figures.setdefault(name, []).extend(round(value, 5) for value in values)
            start = stop
            step(start, len(case.inputs))
    except ANY as error:
        return LeftOut(case.part, case.network, method, reason(error))
    seconds = round(time.perf_counter() - began, 2)
    return Row(case.part, case.network, method, written, case.inputs.shape[-1], seconds, figures, case.remark)
