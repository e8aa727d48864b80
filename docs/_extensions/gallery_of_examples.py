"""The gallery of examples: how sphinx-gallery runs ``docs/examples``, and shows what the last line of a cell gives.

Scripts run in a copy of their folder, beside the pictures that ``cnnviz demo`` makes, because they write files.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sphinx.application import Sphinx

from cnnviz import Explanation, Segmentation, demo
from cnnviz.drawing import fitted
from cnnviz.images.in_notebooks import InNotebooks

DOCS = Path(__file__).parents[1]
COPY = DOCS / "_build" / "examples"
PAGES = "auto_examples"
ORDER = (
    *("six_methods", "top_five", "depth", "original_size", "subplot", "heat_map", "many_targets", "save_and_read"),
    *("compose", "segmentation_region", "cut_out", "detection", "vision_transformer", "volumes", "training"),
    "ten_thousand",
)
"""Of the gallery: what most people ask first."""
THUMBNAIL = 480  # pixels of the longer side of what a thumbnail is made of


class InOrder:
    """Sorts the examples of the gallery."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, name: str) -> int:
        return ORDER.index(Path(name).stem)


class Pictures:
    """What a cell's last line gives, if it is a picture; of an answer, which is shown as HTML, the thumbnail alone."""

    def __repr__(self) -> str:
        return "gallery_of_examples.Pictures"

    def __call__(self, block: Any, variables: dict[str, Any], configuration: dict[str, Any]) -> str:
        from sphinx_gallery.scrapers import figure_rst

        last = ast.parse(block[1]).body[-1:]
        answer = variables["example_globals"].get("___") if last and isinstance(last[0], ast.Expr) else None
        picture = answer if isinstance(answer, Image.Image) else _of_answer(answer)
        if picture is None:
            return ""
        path = next(variables["image_path_iterator"])
        picture.save(path)
        shown: str = figure_rst([path], configuration["src_dir"]) if isinstance(answer, Image.Image) else ""
        return shown


def _get_sg_image_scraper() -> Pictures:
    """The name by which sphinx-gallery asks a module of ``image_scrapers``."""
    return Pictures()


def _of_answer(answer: Any) -> Image.Image | None:
    """One picture of an answer that has pictures."""
    if not isinstance(answer, InNotebooks):
        return None
    png = answer._repr_mimebundle_(include=["image/png"]).get("image/png")
    if png is not None:
        import io

        return Image.open(io.BytesIO(b64decode(png)))
    if isinstance(answer, Explanation | Segmentation):  # of several
        return _of_answer(answer[0])
    if not hasattr(answer, "grid"):
        return None
    return Image.fromarray(fitted(np.asarray(answer.grid()), THUMBNAIL))


def _html(answer: InNotebooks) -> str:
    return answer._repr_mimebundle_(include=["text/html"])["text/html"]


def copied() -> str:
    """The folder in which the examples run."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(DOCS / "examples", COPY, ignore=shutil.ignore_patterns("kept", "__pycache__"))
    pictures = COPY / "demo" / "pictures"
    pictures.mkdir(parents=True)
    for name, picture in zip(demo.CATEGORIES, demo.pictures().pictures, strict=True):
        Image.fromarray(picture).save(pictures / f"{name}.png")
    return os.path.relpath(COPY, DOCS)


def setup(app: Sphinx) -> dict[str, Any]:
    """Answers have the method that sphinx-gallery looks for."""
    InNotebooks._repr_html_ = _html  # type: ignore[attr-defined]  # here alone: notebooks ask for the whole bundle
    sys.path.insert(0, str(DOCS / "_extensions"))
    return {"parallel_read_safe": True}
