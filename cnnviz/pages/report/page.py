"""The report as HTML: one file, which asks for nothing elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnviz.explanations.explanation import percent
from cnnviz.pages.report.content import Content, Explained, Row, Tile
from cnnviz.pages.report.made import Made, facts
from cnnviz.pages.report.maps import DEEPER_SIDE, FULL, SIDE, StoredMap
from cnnviz.pages.report.stills import EVIDENCE, SIGNED, colors, jpeg, said, scale_text, still
from cnnviz.pages.shared.templates import page_file, template
from cnnviz.pages.shared.texts import counted, plain, short_number, shown
from cnnviz.registry.registry import PluginError, attributions


@dataclass(frozen=True)
class _Shown:
    """A tile as the template draws it."""

    method: str
    alt: str
    picture: str
    scale: str
    is_map: bool


def page(
    content: Content,
    made: Made,
    title: str = "",
    verdicts: Mapping[str, Sequence[str]] | None = None,
    unasked: str = "",
) -> str:
    """The report. ``verdicts`` are the sentences of the checks by method; None: ``unasked`` says why there are none."""
    signed = content.signed()
    depth = list(dict.fromkeys(layer for layers in content.layers.values() for layer in layers))
    rows, tiles = [], []
    for row in content.rows:
        kept = {method: tile.stored(signed[method]) for method, tile in row.tiles.items()}
        rows.append(_row_data(row, kept))
        tiles.append([_shown(row, method, kept[method], signed[method][0]) for method in content.methods])
    data = {
        "evidence": _base64(colors(EVIDENCE).tobytes()),
        "signed": _base64(colors(SIGNED).tobytes()),
        "depth": depth,
        "methods": [
            {
                "name": shown(method),
                "signed": signed[method],
                "layers": content.layers[method],
                "own": _own_layer(recipe),
            }
            for method, recipe in content.recipes.items()
        ],
        "rows": rows,
    }
    style, script = page_file("report", "report.css"), page_file("report", "report.js")
    heading = shown(title or f"What {made.model or 'the network'} looks at")
    most = max((len(row.classes) for row in content.rows), default=1)
    text: str = template("report", "report.html.j2").render(
        title=heading,
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        data=json_in_html(data),
        summary=f"{counted(len(content.rows), 'picture')}, {counted(len(content.methods), 'method')}, "
        f"{counted(most, 'class', 'classes')} of each picture",
        rows=list(zip(content.rows, tiles, strict=True)),
        ranks=range(1, most + 1),
        depth=depth,
        has_maps=any(tile.maps for row in content.rows for tile in row.tiles.values()),
        has_signed=any(map(any, signed.values())),
        methods=[_told_method(method, content, signed[method][0], verdicts) for method in content.methods],
        unasked=unasked,
        failures={shown(name): shown(why, 400) for name, why in content.failures.items()},
        facts=facts(made, content),
        made=made,
        side=SIDE,
        deeper_side=DEEPER_SIDE,
        full=FULL,
        scored=_scored,
        photograph=lambda row: _uri(row.picture.jpeg(), "jpeg"),
        rounded=lambda number: f"{number:.1f}",
    )
    return text


def json_in_html(data: Any) -> str:
    """JSON that can stand inside of a script element, whatever its texts say: no ``<``, no letter beyond ASCII."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _row_data(row: Row, kept: Mapping[str, list[list[StoredMap]]]) -> dict[str, Any]:
    height, width = row.picture.pixels.shape[:2]
    return {
        "name": row.picture.name,
        "size": [width, height],
        "box": [round(side, 2) for side in row.picture.box],
        "classes": [
            {
                "name": each.name,
                "told": _scored(each),
                "boxes": [[round(side, 1) for side in box] for box in each.boxes],
            }
            for each in row.classes
        ],
        "tiles": [_tile_data(tile, kept[method]) for method, tile in row.tiles.items()],
    }


def _tile_data(tile: Tile, maps: list[list[StoredMap]]) -> dict[str, Any]:
    if not maps:
        return {"drawn": [_uri(jpeg(each, 85), "jpeg") for each in tile.drawn]}
    every = [each for of_class in maps for each in of_class]
    content = np.concatenate([each.bytes.ravel() for each in every]).tobytes()
    return {
        "maps": [[_map_data(each) for each in of_class] for of_class in maps],
        "bytes": _base64(zlib.compress(content, 6)),
    }


def _map_data(found: StoredMap) -> list[float]:
    """Width, height, low, high, cut, peak, and the width and height of the method's own map."""
    height, width = found.bytes.shape
    scale = [float(f"{value:.7g}") for value in (found.low, found.high, found.cut, found.peak)]
    return [width, height, *scale, found.size[1], found.size[0]]


def _shown(row: Row, method: str, maps: list[list[StoredMap]], signed: bool) -> _Shown:
    tile, first = row.tiles[method], row.classes[0]
    name = shown(method)
    if not maps:
        return _Shown(name, said(name, first, row.picture, None), _uri(jpeg(tile.drawn[0]), "jpeg"), "", False)
    found = maps[0][0]
    picture = _uri(still(row.picture, found, signed), "jpeg")
    return _Shown(name, said(name, first, row.picture, found), picture, scale_text(found, signed), True)


def _told_method(
    method: str, content: Content, signed: bool, verdicts: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    """What the page says of a method: what it is, how its maps are stored, and what its checks say."""
    first = content.rows[0].tiles[method].maps if content.rows else ()
    own = first[0][0] if first else None
    stored = "Its own renderer draws it; values are not stored."
    if own is not None:
        height, width = own.values.shape
        kind = "Magnitudes, added up over the channels" if method in content.fine else "Values as the method gives them"
        stored = f"{kind}: {own.size[1]} \N{MULTIPLICATION SIGN} {own.size[0]}"
        if own.size != (height, width):
            stored += (
                f", reduced to {width} \N{MULTIPLICATION SIGN} {height}: each place is the mean of the area that it "
                "stands for, so that single peaks become lower"
            )
        stored += ". Both signs: red speaks for the class, blue against it." if signed else ". From 0 upwards."
    return {
        "name": shown(method),
        "recipe": shown(content.recipes[method], 400),
        "summary": _summary(method),
        "stored": stored,
        "verdict": None if verdicts is None else [shown(each, 400) for each in verdicts.get(method, ())],
    }


def _summary(method: str) -> str:
    """The first sentences of the method's page; nothing for a formula."""
    try:
        return plain(attributions[method].summary) if method in attributions else ""
    except PluginError:
        return ""


def _own_layer(recipe: str) -> str:
    _, found, rest = recipe.partition("layer='")
    return shown(rest.partition("'")[0]) if found else ""


def _scored(each: Explained) -> str:
    """The score, and the probability where it is known."""
    told = f"score {short_number(each.score)}"
    return told if each.probability is None else f"{told}, {percent(each.probability)}"


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{_base64(content)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _digest(text: str) -> str:
    return _base64(hashlib.sha256(text.encode()).digest())
