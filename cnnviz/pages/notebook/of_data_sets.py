"""Batch runs and audits in notebooks."""

from __future__ import annotations

import numpy as np

from cnnviz.datasets.findings.auditing import EVERYTHING, Audit
from cnnviz.datasets.stored.batch_view import Batch
from cnnviz.drawing.colors import colormap_named, colors_of
from cnnviz.drawing.figure import Legend
from cnnviz.drawing.input_images import as_uint8
from cnnviz.drawing.montage import Pixels
from cnnviz.pages.notebook.explained import of_methods
from cnnviz.pages.notebook.page import Figure, Figures, Page, Part
from cnnviz.pages.notebook.tables import rows_of

FIRST = 8
"""Items that are listed."""
DRAWN = 3
"""Items that are drawn; their pictures are read again."""


def of_batch(answer: Batch) -> Page:
    """How many items there are, the first of them as a table, and a few with their maps."""
    missing = len(answer.missing)
    told = [f"{len(answer):,} item{'' if len(answer) == 1 else 's'} by {', '.join(answer.methods) or 'no methods'}."]
    told += [f"{missing:,} of them {'is' if missing == 1 else 'are'} not computed yet."] if missing else []
    first = answer[:FIRST]
    parts: list[Part] = []
    shown = first.answered.ids[:DRAWN]
    groups = [group for number, name in enumerate(first.ids) if name in shown for group in _groups(first, number, name)]
    if groups:
        parts.append(Figures(groups, len(answer) - missing, "item", "grid() draws up to 64, as of batch[:64]"))
    table = first.table()
    if table:
        rows = rows_of(table)
        parts.append(type(rows)(rows.names, rows.rows, rows.left, len(answer), "table() has all of them"))
    return Page(str(answer.out), told, parts)


def _groups(batch: Batch, number: int, name: str) -> list[list[Figure]]:
    found = batch[number]
    page = of_methods(found if isinstance(found, dict) else {batch.methods[0]: found})
    return [
        [
            Figure(name, each.pixels, each.lines, each.legend, each.wide) if not place else each
            for place, each in enumerate(group)
        ]
        for part in page.parts
        if isinstance(part, Figures)
        for group in part.groups
    ]


def of_audit(answer: Audit) -> Page:
    """The verdict, the mean map of all items, and where the heat of each class lies."""
    title = f"Audit of {len(answer):,} maps by {answer.method}"
    told = [*answer.verdict, 'report("audit.html") writes a page with pictures.']
    parts: list[Part] = []
    if len(answer):
        whole = answer.mean_maps[EVERYTHING]
        parts.append(Figures([[_heat("mean map of all pictures", whole)]], 1))
        parts.append(rows_of(answer.regions))
    return Page(title, told, parts, code=False)


def _heat(head: str, heat: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Figure:
    colors, peak = colormap_named("viridis"), float(heat.max())
    pixels: Pixels = as_uint8(colors_of(colors, heat.astype(np.float64) / (peak or 1.0)))
    told = ["share of the heat in each of 16 x 16 cells"]
    return Figure(head, pixels, told, Legend(colors, peak, peak))
