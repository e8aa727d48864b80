"""The demonstration: two bundled networks, pictures whose evidence is known, a report. Needs no network connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnviz.cli.demo_page import MADE_BY, Onward, page
from cnnviz.cli.errors import print_line

STARTED = ".cnnviz-demo"
INTRODUCTION = (
    "Two small networks, which come with cnnviz, name the shape in a picture. The right explanation is known: "
    "the shapes are drawn, with every pixel of them recorded. Warm colours speak for the class. Behind each class "
    "stands its score before the softmax, and in brackets its probability. Above each figure stands the command that "
    "draws it for all pictures."
)
NEXT = "cnnviz report your.jpg --model resnet50 -o mine.html"


def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="A new one, or one of this command.", file_okay=False),
    ] = Path("cnnviz-demo"),
) -> None:
    """Explain bundled pictures with bundled networks, offline, and write pictures, a page, and a report."""
    from cnnviz.cli.demo_figures import methods, overlays, report, shortcut, wrong_tag
    from cnnviz.cli.places import check_writable
    from cnnviz.images.writing import write

    check_own(output)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / STARTED).touch()  # so that a demonstration that was interrupted can be made again
    figures = [methods(output), shortcut(output), wrong_tag(output)]
    onward = Onward(report(output), NEXT)
    text = page("What a network looked at", INTRODUCTION, figures, overlays(output), onward)
    write(output / "index.html", text.encode())
    (output / STARTED).unlink()
    print_line(f"open {output / 'index.html'}")
    print_line(f"then your own picture: {NEXT}")


def check_own(folder: Path) -> None:
    """Raises FileExistsError for a folder with anything in it that this command did not make."""
    if not folder.is_dir() or not any(folder.iterdir()) or (folder / STARTED).exists():
        return
    page_there = folder / "index.html"
    if not page_there.is_file() or MADE_BY not in page_there.read_text(errors="replace"):
        raise FileExistsError(f"the folder {folder} is there, and cnnviz demo did not make it; name another with -o")
