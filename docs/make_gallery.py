"""Draws the gallery: ``python docs/make_gallery.py --weights squeezenet1_0-imagenet.pth --cache maps/``.

It writes docs/gallery/*.jpg, the pages docs/gallery.md and docs/renderers.md, and the README's pictures. The
photographs come with scikit-image. ``--cache`` keeps the maps, so that a second call only draws. Signals and volumes
are explained on networks trained here, in seconds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image

import cnnviz
from cnnviz import demo

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import gallery_pages
import gallery_signals

from cnnviz.drawing import Cell, Layout, as_uint8, fitted, laid_out, pictures_of
from cnnviz.targets import several

Pixels = NDArray[np.uint8]
HERE = Path(__file__).parent
SIDE = 144
"""Pixels of a tile."""
LAYOUT = Layout(gap=6, column=SIDE, letters=10, line=14)
CLASSES = {"Egyptian cat": 285, "espresso": 967}
SHOWN = ("overlay", "grayscale", "diverging", "segmentation")
"""What each method is drawn by, beside its own renderer."""
FIRST = ("grad_cam", "layer_cam", "guided_grad_cam", "integrated_gradients")
"""The methods of the README's picture."""


def cat_and_cup() -> Image.Image:
    """A cat above a cup of coffee: one picture with two objects, so that the maps of two classes can differ."""
    both = Image.new("RGB", (448, 448))
    for top, photograph, begin in ((0, skimage.data.chelsea(), 20), (224, skimage.data.coffee(), 60)):
        wide = Image.fromarray(photograph).resize((448, 298), Image.Resampling.LANCZOS)
        both.paste(wide.crop((0, begin, 448, begin + 224)), (0, top))
    return both


def write(name: str, picture: Pixels, folder: Path = HERE / "gallery") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{name}.jpg", quality=85, optimize=True)


def tile(explanation: cnnviz.Explanation, renderer: str | None = None) -> Pixels:
    return fitted((replace(explanation, renderer=renderer) if renderer else explanation).render()[0], SIDE)


def photograph(explanation: cnnviz.Explanation) -> Pixels:
    return fitted(as_uint8(pictures_of(explanation))[0], SIDE)


def drawn(answers: Sequence[cnnviz.Explanation], titles: Iterable[str] = CLASSES) -> Pixels:
    """One method: a row for each answer, the picture first, then the method's own renderer and the usual ones."""
    own = answers[0].renderer or "overlay"
    others = [name for name in SHOWN if name != own][: len(SHOWN) - 1]
    rows: list[list[Cell]] = []
    for title, answer in zip(titles, answers, strict=True):
        row: list[Cell] = [([title], photograph(answer))]
        rows.append([*row, *(([name], tile(answer, name)) for name in (own, *others))])
    width = max(picture.shape[1] for row in rows for _, picture in row)  # small inputs are not enlarged
    return laid_out(rows, replace(LAYOUT, column=width))


def overview(results: dict[str, Sequence[cnnviz.Explanation]], columns: int = 5) -> Pixels:
    """All methods by their own renderers: of each a tile for the one class above a tile for the other."""
    named = list(results.items())
    first = named[0][1]
    tiles: list[tuple[str, list[Pixels]]] = [("the picture", [photograph(answer) for answer in first])]
    tiles += [(name, [tile(answer) for answer in answers]) for name, answers in named]
    rows: list[list[Cell]] = []
    for start in range(0, len(tiles), columns):
        part = tiles[start : start + columns]
        for place, title in enumerate(CLASSES):
            rows.append([([name, title], both[place]) for name, both in part])
    return laid_out(rows, LAYOUT)


def compared(results: dict[str, Sequence[cnnviz.Explanation]], names: Sequence[str], side: int = 208) -> Pixels:
    """A row for each class, with the map of each method: the README's picture."""
    rows: list[list[Cell]] = []
    for place, title in enumerate(CLASSES):
        row: list[Cell] = [([title], fitted(as_uint8(pictures_of(results[names[0]][place]))[0], side))]
        rows.append([*row, *(([name], fitted(results[name][place].render()[0], side)) for name in names)])
    return laid_out(rows, Layout(gap=8, column=side, letters=12, line=16))


def explained(model: cnnviz.LoadedModel, name: str, cache: Path | None) -> list[cnnviz.Explanation]:
    """The method's maps of both classes, from the cache where they are."""
    files = [cache / f"{name}-{index}.safetensors" for index in CLASSES.values()] if cache else []
    if files and all(file.exists() for file in files):
        return [cnnviz.Explanation.load(file) for file in files]
    answers = list(cnnviz.explain(model, cat_and_cup(), name, target=several(*CLASSES.values())))
    for file, answer in zip(files, answers, strict=False):
        answer.save(file)
    return answers


def draw_attention() -> None:
    """Methods that read attention: of the bundled transformer, a row for each of two pictures."""
    model, shapes, shown = cnnviz.load_model("demo-transformer"), demo.pictures(), ("circle", "star")
    inputs = demo.as_inputs(shapes.pictures[[demo.CATEGORIES.index(shape) for shape in shown]])
    for name in gallery_pages.ATTENDING:
        write(name, drawn(list(cnnviz.explain(model, inputs, name)), shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a state dict of squeezenet1_0")
    parser.add_argument("--cache", type=Path, help="a folder for the maps")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    model = cnnviz.load_model("squeezenet1_0", weights=options.weights)
    results: dict[str, Sequence[cnnviz.Explanation]] = {}
    for name in gallery_pages.methods():
        results[name] = explained(model, name, options.cache)
        write(name, drawn(results[name]))
        print(name, flush=True)
    write("methods", overview(results))
    for name in gallery_pages.FIGURES:
        (answer, *_) = explained(model, name, options.cache)
        settings = {"most": gallery_pages.CHANNELS[name], "columns": 12} if name in gallery_pages.CHANNELS else {}
        write(name, fitted(answer.render(**settings)[0], 900))
    for name in gallery_pages.renderers():
        pair = [results[method][1] for method in gallery_pages.RENDERED]
        figures = [fitted(answer.render(name)[0], 760 if name == "panels" else 320) for answer in pair]
        row: list[Cell] = [([name], figure) for name, figure in zip(gallery_pages.RENDERED, figures, strict=True)]
        rows = [[cell] for cell in row] if name == "panels" else [row]
        write(f"renderer-{name}", laid_out(rows, Layout(gap=8, letters=12, line=16)))
    draw_attention()
    gallery_signals.draw(write)
    gallery_pages.write_pages(HERE)

    pictures = HERE / "pictures"
    write("cat-and-cup", compared(results, FIRST), pictures)
    (confusion, *_) = explained(model, "saliency_confusion", options.cache)
    confusion.save(pictures / "confusion.png")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "cnnviz", "demo", "-o", folder], check=True, stdout=subprocess.DEVNULL)
        shutil.copy(Path(folder) / "methods.png", pictures / "demo.png")
        shutil.copy(Path(folder) / "shortcut.png", pictures / "shortcut.png")


if __name__ == "__main__":
    main()
