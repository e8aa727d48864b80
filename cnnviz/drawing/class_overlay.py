"""Which class each pixel is of, drawn: colours over the picture, a legend, and the activations that led there.

A class called background stays gray; every other keeps its colour from picture to picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.drawing.montage import Cell
from cnnviz.drawing.text import LINE, font, lines

GOLDEN = 0.618034  # of a turn: hues of few classes lie far apart, and one class more moves none of them
COVER, PALE = 0.7, 0.5  # how much a colour covers of the picture, and the contrast that is left to the picture under it
SWATCH, WIDTH, ROWS = 14, 190, 10  # pixels, pixels, classes: of the legend
LEAST = 0.0005  # share of the pixels, 0.1 % once rounded, below which a class is not told of


def is_background(name: str) -> bool:
    """Whether a class is what is left when all things are named; torchvision writes __background__."""
    return name.strip("_").lower() == "background"


def colours(names: Sequence[str]) -> NDArray[np.uint8]:
    """A colour for each class, (classes, 3); gray for the background."""
    table = []
    for number, name in enumerate(names):
        hue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.85, 1.0 if number % 2 == 0 else 0.85)
        table.append((0.75,) * 3 if is_background(name) else hue)
    found: NDArray[np.uint8] = np.rint(np.array(table).reshape(-1, 3) * 255).astype(np.uint8)
    return found


def shares(classes: NDArray[np.int64]) -> dict[int, float]:
    """The share of the pixels of every class there is, by its number, the largest first."""
    found = np.bincount(classes.ravel()) / classes.size
    return {int(each): float(found[each]) for each in np.argsort(-found, kind="stable") if found[each] > 0}


def over_picture(picture: NDArray[np.uint8], classes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Classes (H, W), as numbers into the names, in colours over their picture (H, W, 3), which is gray and pale."""
    gray = 255 - PALE * (255 - picture @ (0.299, 0.587, 0.114))
    named = np.array([not is_background(name) for name in names])
    cover = COVER * named[classes][..., None]
    return np.rint(cover * colours(names)[classes] + (1 - cover) * gray[..., None]).astype(np.uint8)


def legend(classes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """What the colours are and the share of the pixels each has, the largest first, (H, WIDTH, 3)."""
    from PIL import Image, ImageDraw

    found = [(number, share) for number, share in shares(classes).items() if share >= LEAST]
    told = [(number, lines([f"{names[number]} {share:.1%}"], WIDTH - 2 * SWATCH)) for number, share in found[:ROWS]]
    more = [f"and {len(found) - ROWS} more"] if len(found) > ROWS else []
    whole = Image.new("RGB", (WIDTH, LINE * (sum(len(text) for _, text in told) + len(more))), "white")
    pen, table, top = ImageDraw.Draw(whole), colours(names), 0
    for number, text in (*told, (None, more)):
        if number is not None:
            pen.rectangle((0, top + 2, SWATCH, top + 2 + SWATCH), tuple(table[number].tolist()), "dimgray")
        for line in text:
            pen.text((SWATCH + 8, top + LINE / 2), line, fill="black", font=font(), anchor="lm")
            top += LINE
    return np.asarray(whole).copy()


def stages(activations: Mapping[str, Tensor], item: int, things: NDArray[np.bool_]) -> list[Cell]:
    """Of each layer the channel most active on things, black where it is silent, under its name and size; of one input.

    Activations are (N, C, h, w); each is drawn at the size of ``things`` (H, W), the pixels that are not background.
    Most active is the highest mean on things less that elsewhere, for else fine layers would show the background.
    """
    cells: list[Cell] = []
    for name, maps in activations.items():
        channel = _most_active(maps[item].detach().float().cpu(), things)
        found = maps[item, channel].detach().float().cpu().numpy()
        cells.append(([name, f"{found.shape[0]} x {found.shape[1]}, channel {channel}"], _lit(found, *things.shape)))
    return cells


def _most_active(maps: Tensor, things: NDArray[np.bool_]) -> int:
    import torch

    height, width = maps.shape[1:]
    inside = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(things)[None].float(), (height, width))
    if not 0 < inside.sum() < inside.numel():
        return int(maps.mean((1, 2)).argmax())
    on, off = ((maps * share).sum((1, 2)) / share.sum() for share in (inside, 1 - inside))
    return int((on - off).argmax())


def _lit(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    import matplotlib
    from PIL import Image

    peak = values.max()
    strengths = values.clip(0) / peak if peak > 0 else np.zeros_like(values)
    picture = matplotlib.colormaps["inferno"](strengths)[..., :3]
    image = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
