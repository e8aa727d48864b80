"""The page of what maps can be trusted for, made of the kept rows: docs/sanity.md, and a sheet of every method's maps.

``python -m benchmarks.sanity.page`` reads benchmarks/results/sanity-cpu.json and writes the page; nothing is measured.
``--sheet`` also asks every method for its maps of a few pictures, and draws docs/pictures/sanity.jpg: minutes on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.command import one_line_errors
from benchmarks.markdown import grouped, table
from benchmarks.records import DOCS, read
from benchmarks.sanity.rows import FILE, SANITY, Records
from cnnviz.testing.sanity.blind import BLIND
from cnnviz.testing.sanity.rows import Row, error_of_mean, mean, mean_of_networks, values
from cnnviz.testing.sanity.tables import PHOTOGRAPHS, TITLES, WEIGHTS, label
from cnnviz.testing.sanity.verdicts import RULES, verdict

PAGE = Path(__file__).with_suffix(".md")
MAPS = """## Maps

![For every method its maps, with random weights too, of the tag, and of a photograph](pictures/sanity.jpg)

Each row is a method, with cheap settings where it is expensive. Its maps are of a drawn picture; of that picture with
the quarter of layers next to the output random, and with all of them random; of the tag; and of a photograph. The
networks stand above; for methods that read attention `demo-transformer` is in the place of `demo`. Gray: refused.

"""


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanity.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=FILE, help="what benchmarks.sanity wrote")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder that sanity.md and pictures/ go to")
    parser.add_argument("--sheet", action="store_true", help="also draw the sheet of maps")
    options = parser.parse_args(arguments)
    records, picture = read(options.results, SANITY), options.docs / "pictures" / "sanity.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    if options.sheet:
        from benchmarks.sanity.sheet import sheet
        from cnnviz.images.writing import encoded, write

        write(picture, encoded(sheet(methods(records)), ".jpg"))
    (options.docs / "sanity.md").write_text(page(records, picture.is_file()))
    print(f"{options.docs / 'sanity.md'} is made of {len(records.rows)} rows")
    return 0


def methods(records: Records) -> list[str]:
    """Those with at least one row, blind ones first."""
    measured = {row.method for row in records.rows}
    return [*(name for name in BLIND if name in measured), *sorted(measured.difference(BLIND))]


def page(records: Records, drawn: bool = False) -> str:
    """The whole page, in Markdown; drawn: with the sheet of maps."""
    parts = {part.__name__: "\n".join(part(records)) for part in (verdicts, means, by_network, settings, left_out)}
    rules, maps = "\n".join(f"- {rule}" for rule in RULES), MAPS if drawn else ""
    return PAGE.read_text().format(rules=rules, maps=maps, where=records.where(), **parts)


def verdicts(records: Records) -> Iterator[str]:
    cells = ((label(method), ", ".join(verdict(records, method)) or "nothing") for method in methods(records))
    return table("ll", ("map", "verdict"), cells)


def means(records: Records) -> Iterator[str]:
    """One row for each method, one column for each figure."""
    figures = [figure for figure in TITLES if any(figure in row.figures for row in records.rows)]
    rows = ([label(method), *(cell(records, method, figure) for figure in figures)] for method in methods(records))
    return table("l" + "r" * len(figures), ["map", *(TITLES[figure] for figure in figures)], rows)


def by_network(records: Records) -> Iterator[str]:
    """Of the parts with several networks, each alone, with standard errors."""
    for title, figures in (("Random weights", WEIGHTS), ("Photographs", PHOTOGRAPHS)):
        names = dict.fromkeys(row.network for row in records.rows if row.figures.keys() & figures)
        measured = {(row.network, figure) for row in records.rows for figure in row.figures}
        columns = [(name, figure) for name in names for figure in figures if (name, figure) in measured]
        rows = (
            [label(method), *(cell_with_error(values(records, method, figure, name)) for name, figure in columns)]
            for method in methods(records)
        )
        titles = ["map", *(f"{name}: {TITLES[figure]}" for name, figure in columns)]
        yield from (f"### {title}", "")
        yield from table("l" + "r" * len(columns), titles, (row for row in rows if any(row[1:])))
        yield ""


def settings(records: Records) -> Iterator[str]:
    """How each method was asked, and on how many pictures and in which time."""
    parts = list(dict.fromkeys((row.part, row.network) for row in records.rows))

    def cells(rows: Sequence[Row]) -> Iterator[str]:
        yield " or ".join(dict.fromkeys(f"`{row.written}`" for row in rows))
        by_part = {(row.part, row.network): f"{row.pictures} of {row.size} px, {row.seconds:.0f} s" for row in rows}
        yield from (by_part.get(part, "") for part in parts)

    rows = ([*cells([row for row in records.rows if row.method == method])] for method in methods(records))
    return table("l" * (len(parts) + 1), ["map", *map(", ".join, parts)], rows)


def left_out(records: Records) -> Iterator[str]:
    """What is not there, by reason."""
    reasons = grouped(
        ((entry.method, entry.reason.partition(";")[0]), f"{entry.part} of {entry.network}")
        for entry in records.left_out
    )
    remarks = dict.fromkeys(row.remark for row in records.rows if row.remark)
    yield from (f"- {method}, {places}: {reason}" for (method, reason), places in reasons.items())
    yield from (f"- {remark[0].upper()}{remark[1:]}." for remark in remarks)
    if not reasons and not remarks:
        yield "Nothing."


def cell(records: Records, method: str, figure: str) -> str:
    average = mean_of_networks(records, method, figure)
    return "" if average is None else f"{average:.2f}"


def cell_with_error(numbers: Sequence[float]) -> str:
    average = mean(numbers)
    if average is None:
        return ""
    return f"{average:.2f} ± {error_of_mean(numbers):.2f}" if len(numbers) > 1 else f"{average:.2f}"


if __name__ == "__main__":
    sys.exit(main())
