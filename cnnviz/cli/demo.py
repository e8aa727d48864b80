"""The demonstration: two bundled networks, pictures whose evidence is known, a report. Needs no network connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnviz.cli.errors import print_line
from cnnviz.cli.report import page

INTRODUCTION = (
    "Two small networks, which come with cnnviz, name the shape in a picture. The right explanation is known: "
    "the shapes are drawn, with every pixel of them recorded. Each figure has a command for all pictures."
)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Made if it is not there.", file_okay=False)
    ] = Path("cnnviz-demo"),
) -> None:
    """Explain bundled pictures with bundled networks, offline, and write pictures and a report."""
    from cnnviz.cli.demo_figures import methods, overlays, shortcut, wrong_tag
    from cnnviz.images.writing import write

    figures = [methods(output), shortcut(output), wrong_tag(output)]
    write(output / "index.html", page("What a network looked at", INTRODUCTION, figures, overlays(output)).encode())
    print_line(f"open {output / 'index.html'}")
