"""The parts of the page about GPUs: rates, and what was measured of an earlier version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.markdown import table
from benchmarks.records import Records
from benchmarks.speed.rows import Earlier, LeftOut, Rate, rate_of


def rates(records: Records[Rate, LeftOut]) -> Iterator[str]:
    """Pictures in a second, and what a call hands out, by network and batch."""
    yield from (f"## Rates on {records.about['device']}", "", f"{records.where()}.", "")
    yield "A call's launches are what it hands to the device, its synchronizations how often Python waits for that."
    yield ""
    titles = ["method", "", "network", "pictures in a second", "of the forward pass's rate", "launches"]
    yield from table("lllrrrr", [*titles, "synchronizations"], map(_rate, records.rows))
    yield ""
    yield from (f"- {out.method}, {out.network} x {out.batch}: left out: {out.reason}" for out in records.left_out)
    yield ""


def _rate(row: Rate) -> Sequence[str]:
    waits = "" if row.synchronizations is None else str(row.synchronizations)
    rate = rate_of(row.seconds, row.batch)
    shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return row.method, row.how, f"{row.network} x {row.batch}", shown, f"{row.share:.2f}", str(row.launches), waits


def earlier(records: Records[Earlier, LeftOut]) -> Iterator[str]:
    """Tables of figures as they were written down, with the version that they are of."""
    about = records.about
    version = about["versions"]["cnnviz"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    yield from (f"## On one {about['device']}, as of version {version}", "")
    yield (
        f"Measured on {about['date']} with CUDA {about['cuda']}, Python {about['python']}; {versions}. These figures "
        f"were written down by hand. They say nothing of what changed after version {version}; "
        "`python -m benchmarks.speed --device cuda` measures anew."
    )
    yield ""
    for title in dict.fromkeys(row.table for row in records.rows):
        rows = [row for row in records.rows if row.table == title]
        figures = {(row.what, row.beside): row.figure for row in rows}
        columns = list(dict.fromkeys(row.beside for row in rows))
        lines = ([what, *(figures.get((what, column), "") for column in columns)] for what in _named(rows))
        yield from (f"{title}:", "", *table("l" + "r" * len(columns), ["", *columns], lines), "")


def _named(rows: Sequence[Earlier]) -> list[str]:
    return list(dict.fromkeys(row.what for row in rows))
