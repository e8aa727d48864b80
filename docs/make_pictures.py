"""Draws the pictures of a page by running the page.

``python docs/make_pictures.py layers-targets-inputs`` runs every block of the page in an empty folder and keeps, in
docs/pictures/layers-targets-inputs, each picture that the page shows. The page ``seeds`` needs
``--weights squeezenet1_0-imagenet.pth``, which stand for torchvision's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"(?<!-->\n)^```(python|sh)\n(.*?)^```$", re.M | re.S)  # a comment above says why one is not run
WIDEST = 1200  # pixels
DOWNLOADED = "squeezenet1_0-b66bff10.pth"  # what torchvision calls the file


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall(page)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def pictures(page: str, name: str) -> list[str]:
    """The names of the pictures that the page shows."""
    return re.findall(rf"\]\(pictures/{re.escape(name)}/([^)]+)\)", page)


def run(page: str) -> None:
    """Everything on the page, in the current folder."""
    from cnnviz.__main__ import main

    names: dict[str, Any] = {"__name__": "page"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, "<page>", "exec"), names)
            continue
        for command in commands(text):
            status = main(command[1:])
            if status:
                raise SystemExit(f"{shlex.join(command)} ended with {status}")


def keep(made: Path, kept: Path) -> None:
    """The picture as the page shows it: no wider than a page is."""
    with Image.open(made) as picture:
        wide = picture.convert("RGB")
    if wide.width > WIDEST:
        wide = wide.resize((WIDEST, round(wide.height * WIDEST / wide.width)), Image.Resampling.LANCZOS)
    wide.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(kept, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", help="its name without .md")
    parser.add_argument("--weights", type=Path, help="a state dict of squeezenet1_0")
    given = parser.parse_args()
    weights = given.weights and given.weights.resolve()
    page, kept = (DOCS / f"{given.page}.md").read_text(), DOCS / "pictures" / given.page
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        if weights:
            checkpoints = Path(home) / "hub" / "checkpoints"
            checkpoints.mkdir(parents=True)
            shutil.copy(weights, checkpoints / DOWNLOADED)
            os.environ["TORCH_HOME"] = home
        os.chdir(folder)
        run(page)
        for name in pictures(page, given.page):
            keep(Path(folder, name), kept / name)
            print(kept / name)


if __name__ == "__main__":
    main()
