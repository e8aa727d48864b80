"""What a report's page holds, read as its script reads it; and a report of names that would do harm."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnviz import demo, explain, load_model
from cnnviz.targets import top

HOSTILE = (
    "<img src=x onerror=\"globalThis.struck='name'\">",
    "</script><script>globalThis.struck='script'</script>",
    "<!--<script>",
    "\"quoted' & <b>bold</b>",
    "right \u202eto left\u2028 and\n lines",
    "\N{GRINNING FACE}" * 40,
    "x" * 500,
)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def maps_of(tile: dict[str, Any]) -> list[list[tuple[list[float], NDArray[np.uint8]]]]:
    """For each class and layer what is told of the map, and its bytes, as the page's script finds them."""
    content, start, found = zlib.decompress(base64.b64decode(tile["bytes"])), 0, []
    for layers in tile["maps"]:
        found.append([])
        for about in layers:
            width, height = about[:2]
            place = np.frombuffer(content[start : start + width * height], np.uint8).reshape(height, width)
            found[-1].append((about, place))
            start += width * height
    assert start == len(content)
    return found


def hostile_report(folder: Path) -> Path:
    """Names of classes and files that would do harm if they were not text."""
    files = []
    for number, name in enumerate(HOSTILE):
        safe = name.replace("/", "\N{DIVISION SLASH}").encode()[:200].decode(errors="ignore")
        files.append(folder / f"{safe}.png")
        Image.fromarray(np.full((24, 24, 3), 20 * number, np.uint8)).save(files[-1])
    model = replace(load_model("demo"), categories=(*HOSTILE, *demo.CATEGORIES)[: len(demo.CATEGORIES)])
    answers = explain(model, files, ["grad_cam"], target=top(min(5, len(demo.CATEGORIES))))
    return answers.report(folder / "report.html", title=HOSTILE[0])
