"""Methods of any kind held against maps that know nothing, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cnnviz.registry.protocols import Attribution
from cnnviz.testing.sanity.blind import BLIND, blind
from cnnviz.testing.sanity.cases import Case
from cnnviz.testing.sanity.measuring import measured
from cnnviz.testing.sanity.rows import LeftOut, Measured, Row

COMPARED = ("object", "photographs")
"""The parts whose verdict is a comparison with blind maps."""


def ask(
    methods: Mapping[str, Attribution],
    cases: Sequence[Case],
    most: float,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Measured:
    """All rows of these methods, and of the blind maps where they are compared with these.

    A row takes as many pictures as fit ``most`` seconds, and the first ones in any case. ``step`` is told how many
    pictures are done, and of how many.
    """
    asked = [(case, name, method) for case in cases for name, method in _subjects(methods, case)]
    total, found = sum(len(case.inputs) for case, _, _ in asked), Measured()
    before = 0
    for case, name, method in asked:

        def tell(done: int, of: int, before: int = before) -> None:
            step(before + done, total)

        found.add(_row(case, name, method, most, tell))
        before += len(case.inputs)
        step(before, total)
    return found


def _row(case: Case, name: str, method: Attribution, most: float, step: Callable[[int, int], None]) -> Row | LeftOut:
    return measured(case, name, lambda: (method, name if name in BLIND else repr(method)), most, step)


def _subjects(methods: Mapping[str, Attribution], case: Case) -> Iterator[tuple[str, Attribution]]:
    if case.part in COMPARED:
        yield from ((name, blind(name)) for name in BLIND)
    yield from methods.items()
