"""Pages as HTML of a bounded size. Pictures are data in the page; it has no script, and asks for nothing elsewhere.

GitHub takes styles away: what belongs together stands in one cell of a table, and sizes are attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cnnviz.pages.notebook.page import Figures, Page, Rows, short
from cnnviz.pages.shared.templates import template

T = TypeVar("T")
ACROSS = 5  # pictures beside each other: as many as a notebook shows without scrolling
SIDES = (320, 224, 176, 128, 96)  # pixels of the longer side of a picture
ENOUGH = {320: 2, 224: 4, 176: 24, 128: 48}  # pictures that are shown so large
ROWS = 60  # of a table
LETTERS = 640  # of a paragraph


def written(page: Page, limit: int) -> str:
    """The HTML of a page, of at most so many characters. Raises ValueError where even the least is longer."""
    for side, share in _sizes(page):
        html = _html(page, side, share)
        if len(html) <= limit:
            return html
    raise ValueError(f"it takes more than {limit:,} characters of HTML")


def _sizes(page: Page) -> list[tuple[int, float]]:
    """The sides of pictures, and the shares of what there is, that are tried one after the other."""
    pictures = [len(group) for part in page.parts if isinstance(part, Figures) for group in part.groups]
    sides = [side for side in SIDES if sum(pictures) <= ENOUGH.get(side, sum(pictures))]
    return [*((side, 1.0) for side in sides), *((SIDES[-1], share) for share in (0.75, 0.5, 0.25, 0.1, 0.02, 0.0))]


def _html(page: Page, side: int, share: float) -> str:
    parts = [_pictures(part, side, share) if isinstance(part, Figures) else _table(part, share) for part in page.parts]
    told = [short(line, LETTERS) for line in page.told]
    return (
        template("notebook", "answer.html.j2")
        .render(title=short(page.title, LETTERS // 2), code=page.code, told=told, parts=parts)
        .strip()
    )


def _pictures(part: Figures, side: int, share: float) -> dict[str, object]:
    """Rows of cells; of groups that are longer than a row each has rows of its own."""
    from cnnviz.pages.notebook.cells import cell  # draws, and tables need nothing that does

    groups = part.groups[: max(1, round(len(part.groups) * share))]
    length = max(map(len, groups), default=0)
    if share < 1 and len(part.groups) == 1:
        groups = [groups[0][: max(1, round(length * share))]]
    cells = [[cell(figure, side) for figure in group] for group in groups]
    longest = max(map(len, cells), default=1)
    abreast = max(1, ACROSS // longest)
    across = longest * abreast if longest <= ACROSS else -(-longest // -(-longest // ACROSS))
    rows = [
        line for row in _in_rows(cells, abreast) for line in _in_rows([each for group in row for each in group], across)
    ]
    left, cut = part.of - len(groups), length - max(map(len, groups), default=0)
    more = [f"and {left:,} more {part.what}{'s' if left > 1 else ''}"] if left > 0 else []
    more += [f"and {cut} more pictures of each {part.what}"] if cut > 0 else []
    return {"rows": rows, "table": None, "more": "; ".join([*more, *([part.rest] if more and part.rest else [])])}


def _table(part: Rows, share: float) -> dict[str, object]:
    shown = part.rows[: max(1, round(min(len(part.rows), ROWS) * share))]
    left = part.of - len(shown)
    more = f"and {left:,} more row{'s' if left > 1 else ''}" if left > 0 else ""
    table = {
        "names": [short(name) for name in part.names],
        "rows": [[short(cell) for cell in row] for row in shown],
        "left": part.left,
        "code": part.code,
    }
    return {"rows": [], "table": table, "more": "; ".join(filter(None, (more, part.rest if more else "")))}


def _in_rows(cells: Sequence[T], columns: int) -> list[Sequence[T]]:
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]
