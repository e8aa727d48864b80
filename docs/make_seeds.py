"""Draws the pictures of docs/seeds.md by running the page.

``python docs/make_seeds.py --weights squeezenet1_0-imagenet.pth`` runs every block of the page in an empty folder and
keeps, in docs/pictures/seeds, each picture that the page shows. The weights stand for torchvision's own.
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

PAGE = Path(__file__).parent / "seeds.md"
PICTURES = Path(__file__).parent / "pictures" / "seeds"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
WIDEST = 1200  # pixels
DOWNLOADED = "squeezenet1_0-b66bff10.pth"  # what torchvision calls the file


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall(page)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def pictures(page: str) -> list[str]:
    """The names of the pictures that the page shows."""
    return re.findall(r"\]\(pictures/seeds/([^)]+)\)", page)


def run(page: str) -> None:
    """Everything on the page, in the current folder."""
    from cnnviz.__main__ import main

    names: dict[str, Any] = {"__name__": "page"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for command in commands(text):
            status = main(command[1:])
            if status:
                raise SystemExit(f"{shlex.join(command)} ended with {status}")


def keep(folder: Path, name: str) -> None:
    """The picture as the page shows it: no wider than a page is."""
    with Image.open(folder / name) as picture:
        wide = picture.convert("RGB")
    if wide.width > WIDEST:
        wide = wide.resize((WIDEST, round(wide.height * WIDEST / wide.width)), Image.Resampling.LANCZOS)
    wide.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(PICTURES / name, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="a state dict of squeezenet1_0")
    weights = parser.parse_args().weights.resolve()
    page = PAGE.read_text()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(home) / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        shutil.copy(weights, checkpoints / DOWNLOADED)
        os.environ["TORCH_HOME"] = home
        os.chdir(folder)
        run(page)
        for name in pictures(page):
            keep(Path(folder), name)
            print(PICTURES / name)


if __name__ == "__main__":
    main()
