"""The report of an audit: one page of HTML with all pictures in it, or one picture."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from cnnviz.datasets.findings.audit_pictures import CLUSTERS, Group, Illustrated, Tile, drawn_classes
from cnnviz.datasets.findings.auditing import EVERYTHING, Audit, audit
from cnnviz.datasets.findings.verdicts import percent
from cnnviz.drawing import Cell, Pixels, draw_text, laid_out, lines
from cnnviz.images.writing import PICTURES, encoded, write

PAGES = (".html", ".htm")
STYLE = """
:root { color-scheme: light dark; --quiet: light-dark(#5a6068, #a0a8b0); --line: light-dark(#d9dde1, #383e45); }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1.25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
p { margin: 0 0 .75rem; }
li { margin-bottom: .4rem; }
.quiet { color: var(--quiet); }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-start; }
figure { margin: 0; width: min-content; min-width: 6.5rem; }
figure img { display: block; border-radius: 3px; max-width: 88vw; height: auto; }
figcaption { font-size: .78rem; line-height: 1.3; color: var(--quiet); margin-top: .25rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; max-width: 12rem; overflow: hidden;
  text-overflow: ellipsis; }
td.high { font-weight: 700; }
"""
HIGH = 1.5
"""How many times its part of the picture a region has of the heat, to be set in bold."""
_MEANT = {"label": "Classes are the true ones, of the labels.", "predicted": "Classes are the predicted ones."}
COLUMNS = ("centre", "corners", "edges")


def report(batch: Any, path: str | Path, method: str | None = None, **settings: Any) -> Path:
    """Audit a batch, as :func:`cnnviz.datasets.audit` does with these settings, and write the report."""
    check_report(Path(path))
    return audit(batch, method, **settings).report(path)


def write_report(found: Audit, path: Path) -> Path:
    """As :meth:`Audit.report`."""
    check_report(path)
    if path.suffix.lower() in PAGES:
        write(path, page(found).encode())
    else:
        write(path, encoded(picture(found), path.suffix.lower()))
    return path


def check_report(path: Path) -> None:
    """Raises ValueError for a file that can be no report."""
    if path.suffix.lower() not in (*PAGES, *PICTURES):
        raise ValueError(f"{path} has no suffix of a report; use .html for a page, or {', '.join(PICTURES)}")


def page(found: Audit) -> str:
    """The report as HTML. It holds its pictures, has no scripts, and asks for nothing elsewhere."""
    drawn = Illustrated(found)
    clusters, classes, whole = drawn.clusters(), drawn.classes(), drawn.whole()
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    parts = [
        f"<h1>What {_text(len(found), 'picture')} say</h1>",
        f'<p class="quiet">Maps of {html.escape(found.method)}. {_MEANT[found.by]} Heat is where a map says '
        "that something speaks for the class.</p>",
        f"<ul>{''.join(f'<li>{_sentence(each)}</li>' for each in found.verdict)}</ul>",
        *_unread(drawn),
    ]
    if clusters:
        more = sum(each.is_finding for each in found.clusters) - CLUSTERS
        parts.append("<h2>Pictures whose maps form a cluster of their own</h2>")
        parts.append(
            "<p>What do these pictures have in common there? Beside each picture is the same one, lit where the heat "
            "lies.</p>"
        )
        parts += map(_section, clusters)
        parts += [f'<p class="quiet">{_text(more, "more cluster")}.</p>'] if more > 0 else []
    parts.append("<h2>Where the heat lies</h2>")
    parts.append(f'<div class="tiles">{_figure(whole)}</div>')
    parts.append(_shares(found))
    parts.append("<h2>Classes</h2>")
    parts.append(
        "<p>The mean map of each class, its most typical pictures, whose maps are nearest to most others, and its "
        "strangest, whose maps are far from all others. Beside each picture is the same one, lit where the heat lies."
        "</p>"
    )
    parts += map(_section, classes)
    parts.append(f'<p class="quiet">Made by cnnviz {html.escape(version("cnnviz"))}.</p>')
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the data set says</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def picture(found: Audit) -> Pixels:
    """The report as one picture (H, W, 3): the verdict, clusters, and classes."""
    drawn = Illustrated(found)
    groups = [*drawn.clusters(), *drawn.classes()]
    rows = [[([_short(group.title)], group.tiles[0].pixels), *map(_cell_of, group.tiles[1:])] for group in groups]
    below = laid_out([[_cell_of(drawn.whole())], *rows])
    width = max(below.shape[1], 900)
    told = [line for sentence in found.verdict for line in lines([f"- {sentence}"], width - 20)]
    head = Image.new("RGB", (width, 20 + 20 * len(told)), "white")
    pen = ImageDraw.Draw(head)
    for number, line in enumerate(told):
        draw_text(pen, (10, 10 + 20 * number), line)
    padded = np.full((below.shape[0], width, 3), 255, np.uint8)
    padded[:, : below.shape[1]] = below
    return np.concatenate([np.asarray(head), padded])


def _cell_of(tile: Tile) -> Cell:
    return [_short(tile.caption, 60)], tile.pixels


def _sentence(text: str) -> str:
    """A text whose numbers stay in one line with their percent signs."""
    return html.escape(text).replace(" %", "&nbsp;%")


def _section(group: Group) -> str:
    tiles = "".join(map(_figure, group.tiles))
    title, text = html.escape(group.title), _sentence(group.text)
    return f'<section><h3>{title}</h3><p class="quiet">{text}</p><div class="tiles">{tiles}</div></section>'


def _figure(tile: Tile) -> str:
    stream = io.BytesIO()
    Image.fromarray(tile.pixels).save(stream, "JPEG", quality=80)
    content = base64.b64encode(stream.getvalue()).decode()
    height, width = tile.pixels.shape[:2]
    caption = html.escape(_short(tile.caption))
    return (
        f'<figure><img src="data:image/jpeg;base64,{content}" width="{width}" height="{height}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _shares(found: Audit) -> str:
    """The shares of heat as a table, a row for each class that is drawn."""
    shown = [EVERYTHING, *drawn_classes(found)]
    inside = {row["class"]: row for row in found.inside}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found.regions:
        rows.setdefault(row["class"], {})[row["region"]] = row
    heads = ["class", "pictures", *COLUMNS, *(["inside the masks"] if inside else [])]
    told = [f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
    for name in shown:
        cells = [f"<td>{html.escape(name)}</td>", f"<td>{rows[name]['centre']['pictures']:,}</td>"]
        cells += [_cell(rows[name][region], region != "centre") for region in COLUMNS]
        cells += [_cell(inside[name], False)] if name in inside else []
        told.append(f"<tr>{''.join(cells)}</tr>")
    uniform = rows[EVERYTHING]
    parts = ", ".join(f"{name} {percent(uniform[name]['uniform'] or 0)}" for name in COLUMNS)
    left = len(found.names) - len(shown) + 1
    more = f" {left:,} more classes are not drawn." if left > 0 else ""
    return (
        f'<div class="wide"><table>{"".join(told)}</table></div>'
        f'<p class="quiet">The mean share of the heat. A uniform map has: {parts}.{more}</p>'
    )


def _cell(row: dict[str, Any], marked: bool) -> str:
    if row["share"] is None:
        return "<td></td>"
    high = ' class="high"' if marked and (row["times"] or 0) >= HIGH else ""
    return f"<td{high}>{percent(row['share'])}</td>"


def _unread(drawn: Illustrated) -> Iterator[str]:
    if drawn.unread:
        why = html.escape(drawn.error)
        yield f"<p>{_text(drawn.unread, 'picture')} could not be read again, and only their maps are drawn: {why}</p>"


def _text(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _short(text: str, most: int = 120) -> str:
    """A text that is not longer; of a long one the end stays, where names of files differ."""
    return text if len(text) <= most else f"...{text[3 - most :]}"
