"""Segmentations drawn: the class of each pixel as a colour over the picture, a legend, and activations of the decoder.

A class called background stays gray; every other class has the same colour in all pictures.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from cnnviz.drawing.fonts import drawable_names
from cnnviz.drawing.input_images import LUMA
from cnnviz.drawing.montage import Cell, Pixels
from cnnviz.drawing.text import LINE, draw_text, lines

GOLDEN = 0.618034  # of a turn: hues of few classes lie far apart, and another class changes none of them
COVER, CONTRAST = 0.7, 0.5  # the opacity of colours, and the contrast of the picture under them
SWATCH, WIDTH, ROWS = 14, 190, 10  # of the legend, in pixels, pixels, classes
LEAST = 0.0005  # share of the pixels, 0.1 % once rounded, below which the legend leaves a class out


def is_background(name: str) -> bool:
    """True for the name of the class of all pixels that show no object; torchvision writes __background__."""
    return name.strip("_").lower() == "background"


def class_colors(names: Sequence[str]) -> NDArray[np.uint8]:
    """A colour for each class, uint8 (classes, 3); gray for the background."""
    table = []
    for number, name in enumerate(names):
        hue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.85, 1.0 if number % 2 == 0 else 0.85)
        table.append((0.75,) * 3 if is_background(name) else hue)
    colors: NDArray[np.uint8] = np.rint(np.array(table).reshape(-1, 3) * 255).astype(np.uint8)
    return colors


def class_shares(classes: NDArray[np.int64]) -> dict[int, float]:
    """The share of the pixels, 0 to 1, of every class that occurs in (H, W), by its number; the largest share first."""
    shares = np.bincount(classes.ravel()) / classes.size
    return {int(number): float(shares[number]) for number in np.argsort(-shares, kind="stable") if shares[number] > 0}


def overlay_classes(picture: Pixels, classes: NDArray[np.int64], names: Sequence[str]) -> Pixels:
    """The colours of classes (H, W), indices of ``names``, over their picture (H, W, 3) in gray of low contrast."""
    gray = 255 - CONTRAST * (255 - picture @ LUMA)
    objects = np.array([not is_background(name) for name in names])
    cover = COVER * objects[classes][..., None]
    return np.rint(cover * class_colors(names)[classes] + (1 - cover) * gray[..., None]).astype(np.uint8)


def class_legend(classes: NDArray[np.int64], names: Sequence[str]) -> Pixels:
    """The colour, the name and the share of the pixels of each class, the largest share first; (H, ``WIDTH``, 3)."""
    shares = [(number, share) for number, share in class_shares(classes).items() if share >= LEAST]
    seen = drawable_names({number: names[number] for number, _ in shares[:ROWS]})
    entries = [(number, lines([f"{seen[number]} {share:.1%}"], WIDTH - 2 * SWATCH)) for number, share in shares[:ROWS]]
    more = [f"and {len(shares) - ROWS} more"] if len(shares) > ROWS else []
    canvas = Image.new("RGB", (WIDTH, LINE * (sum(len(text) for _, text in entries) + len(more))), "white")
    pen, table, top = ImageDraw.Draw(canvas), class_colors(names), 0
    for number, text in (*entries, (None, more)):
        if number is not None:
            pen.rectangle((0, top + 2, SWATCH, top + 2 + SWATCH), tuple(table[number].tolist()), "dimgray")
        for line in text:
            draw_text(pen, (SWATCH + 8, top + LINE / 2), line, anchor="lm")
            top += LINE
    return np.asarray(canvas).copy()


def decoder_stages(activations: Mapping[str, Tensor], item: int, foreground: NDArray[np.bool_]) -> list[Cell]:
    """For one input, of each layer the channel most active on the foreground, black at zero, under its name and size.

    ``activations`` are (N, C, h, w) by layer; each is drawn at the size of ``foreground`` (H, W), True where a pixel is
    not background. A channel's activity is its mean on the foreground minus that elsewhere: without the difference fine
    layers would show the background.
    """
    cells: list[Cell] = []
    for name, maps in activations.items():
        channels = maps[item].detach().float().cpu()
        channel = _most_active(channels, foreground)
        size = f"{maps.shape[2]} x {maps.shape[3]}"
        cells.append(([name, f"{size}, channel {channel}"], _colored(channels[channel].numpy(), *foreground.shape)))
    return cells


def _most_active(maps: Tensor, foreground: NDArray[np.bool_]) -> int:
    import torch

    height, width = maps.shape[1:]
    inside = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(foreground)[None].float(), (height, width))
    if not 0 < inside.sum() < inside.numel():
        return int(maps.mean((1, 2)).argmax())
    on, off = ((maps * share).sum((1, 2)) / share.sum() for share in (inside, 1 - inside))
    return int((on - off).argmax())


def _colored(values: NDArray[np.float32], height: int, width: int) -> Pixels:
    import matplotlib

    peak = values.max()
    strengths = values.clip(0) / peak if peak > 0 else np.zeros_like(values)
    picture = matplotlib.colormaps["inferno"](strengths)[..., :3]
    image = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
