"""Pages as HTML of a bounded size. Pictures are data in the page; it has no script, and asks for nothing elsewhere.

GitHub takes styles away: what belongs together stands in one cell of a table, and sizes are attributes.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from cnnviz.drawing.colors import colors_of
from cnnviz.drawing.figure import Legend
from cnnviz.drawing.montage import Pixels, fitted
from cnnviz.pages.notebook.page import Figure, Figures, Page, Rows

ACROSS = 5  # pictures beside each other: as many as a notebook shows without scrolling
SIDES = (320, 224, 176, 128, 96)  # pixels of the longer side of a picture
ENOUGH = {320: 2, 224: 10, 176: 24, 128: 48}  # pictures that are shown so large
WIDE = 2.8  # times as long are pictures with text of their own
ROWS, LETTERS = 60, 160  # of a table, and of a text
BAR = (96, 9)  # pixels of a colour bar


@dataclass(frozen=True)
class Drawn:
    """A picture as the template takes it."""

    content: str
    width: int
    height: int


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
    told = [_short(line, 4 * LETTERS) for line in page.told]
    return _template().render(title=_short(page.title, 2 * LETTERS), code=page.code, told=told, parts=parts).strip()


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("cnnviz.pages.notebook").joinpath("answer.html.j2").read_text("utf-8"))


def _pictures(part: Figures, side: int, share: float) -> dict[str, object]:
    """Rows of cells; of groups that are longer than a row each has rows of its own."""
    groups = part.groups[: max(1, round(len(part.groups) * share))]
    length = max(map(len, groups), default=0)
    if share < 1 and len(part.groups) == 1:
        groups = [groups[0][: max(1, round(length * share))]]
    cells = [[_cell(figure, side) for figure in group] for group in groups]
    abreast = max(1, ACROSS // max(1, length))
    rows = [
        row
        for start in range(0, len(cells), abreast)
        for row in _rows([cell for group in cells[start : start + abreast] for cell in group])
    ]
    left, cut = part.of - len(groups), length - max(map(len, groups), default=0)
    more = [f"and {left:,} more {part.what}{'s' if left > 1 else ''}"] if left > 0 else []
    more += [f"and {cut} more pictures of each {part.what}"] if cut > 0 else []
    return {"rows": rows, "table": None, "more": "; ".join([*more, *([part.rest] if more and part.rest else [])])}


def _rows(cells: Sequence[object]) -> list[Sequence[object]]:
    return [cells[start : start + ACROSS] for start in range(0, len(cells), ACROSS)]


def _cell(figure: Figure, side: int) -> dict[str, object]:
    longest = round(side * WIDE) if figure.wide else side
    drawn = None if figure.pixels is None else _drawn(figure.pixels, longest)
    lines = [_short(line) for line in figure.lines]
    return {
        "head": _short(figure.head),
        "picture": drawn,
        "lines": lines,
        "told": ", ".join(filter(None, (_short(figure.head), *lines))),
        "bar": None if figure.legend is None else _bar(figure.legend),
    }


def _drawn(pixels: Pixels, side: int) -> Drawn:
    """At most ``side`` pixels long, as PNG or as JPEG, whichever is shorter."""
    pixels = fitted(pixels, side) if max(pixels.shape[:2]) != side else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    photograph = _encoded(image, "JPEG", quality=85, subsampling=0)
    plain = _encoded(image, "PNG")
    content = (
        f"data:image/png;base64,{plain}" if len(plain) <= len(photograph) else f"data:image/jpeg;base64,{photograph}"
    )
    return Drawn(content, image.width, image.height)


def _encoded(image: Image.Image, kind: str, **settings: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return b64encode(stream.getvalue()).decode()


def _bar(legend: Legend) -> dict[str, object] | None:
    """The colours of the values from the lowest to the highest that is drawn; None for a map that is blank."""
    if legend.peak <= 0:
        return None
    width, height = BAR
    strip = np.round(colors_of(legend.colors, np.linspace(0, 1, width)) * 255).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(strip, (height, width, 3)).copy())
    low, high = f"{legend.lowest:.3g}", f"{legend.peak:.3g}"
    if legend.highest > legend.peak and f"{legend.highest:.3g}" != high:
        high = f"≥ {high}"
    content = f"data:image/png;base64,{_encoded(image, 'PNG')}"
    return {"low": low, "high": high, "picture": Drawn(content, width, height)}


def _table(part: Rows, share: float) -> dict[str, object]:
    shown = part.rows[: max(1, round(min(len(part.rows), ROWS) * share))]
    left = part.of - len(shown)
    more = f"and {left:,} more row{'s' if left > 1 else ''}" if left > 0 else ""
    table = {
        "names": [_short(name) for name in part.names],
        "rows": [[_short(cell) for cell in row] for row in shown],
        "left": part.left,
        "code": part.code,
    }
    return {"rows": [], "table": table, "more": "; ".join(filter(None, (more, part.rest if more else "")))}


def _short(text: str, most: int = LETTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
