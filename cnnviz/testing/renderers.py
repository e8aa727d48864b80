"""What a renderer owes: a picture that shows the values, and nothing where there are none."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderers
from cnnviz.registry.registry import Method
from cnnviz.testing.subject import built, equal


def check_renderer(method: str | Renderer | Method[Any], **settings: Any) -> None:
    """Check a renderer on signals, images and volumes, none of them square, with one to four channels.

    Checked is that it draws uint8 (N, H, W, 3) or refuses in one line (ValueError); that the picture shows the values;
    that a blank map stays blank and nothing is divided by zero; that it draws half precision; that one explanation
    gives one picture; that it changes neither the explanation nor matplotlib's or NumPy's global state, and leaves no
    figure open; and that it refuses settings it does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of an explanation.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    import_module("matplotlib")  # else a renderer that is the first to load it seems to change its rcParams
    name, draw = built(renderers, method, settings)
    drawn = 0
    for shown in _explanations():
        picture = _picture(name, draw, shown)
        if picture is None:
            continue
        drawn += 1
        again = _picture(name, draw, shown)
        if again is None or not np.array_equal(picture, again):
            raise AssertionError(f"{name} draws one explanation in two ways")
        if drawn == 1:
            _check_blank(name, draw, shown)
    if not drawn:
        raise AssertionError(f"{name} refuses everything: signals, images and volumes")


def _explanations() -> Iterator[Explanation]:
    """Of every rank: fine and coarse maps, one to four channels, four maps without negative values, half precision."""
    for rank, size in ((1, (22,)), (2, (14, 22)), (3, (6, 14, 22))):
        half = tuple(length // 2 for length in size)
        for channels in (1, 2, 3, 4):
            yield _explanation(channels, size, (channels, *size))
        yield _explanation(3, size, (1, *half))
        yield _explanation(3, size, (4, *half), signed=False)
        if rank == 2:
            yield _explanation(3, size, (1, *half), dtype=torch.bfloat16)


def _explanation(
    channels: int, size: tuple[int, ...], shape: tuple[int, ...], signed: bool = True, dtype: Any = torch.float32
) -> Explanation:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, *shape, generator=generator).to(dtype)
    inputs = torch.rand(2, channels, *size, generator=generator).to(dtype)
    target = torch.tensor([1, 2])
    return Explanation(values if signed else values.abs(), inputs, target, torch.ones(2), "checked()")


def _picture(name: str, draw: Renderer, shown: Explanation) -> NDArray[np.uint8] | None:
    """What the renderer draws; None where it refuses as it should."""
    what = f"values {tuple(shown.values.shape)} over inputs {tuple(shown.inputs.shape)} ({shown.values.dtype})"
    before = _drawing_state(shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = draw(shown)
    except ValueError as error:
        if not str(error) or "\n" in str(error):
            raise AssertionError(f"{name} refuses {what} without saying why in one line: {error!r}") from error
        picture = None
    except Exception as error:
        raise AssertionError(f"{name} fails on {what}: {type(error).__name__}: {error}") from error
    for broken, kept in _drawing_state(shown).items():
        if not equal(before[broken], kept):
            raise AssertionError(f"{name} {broken}")
    if picture is None:
        return None
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise AssertionError(f"{name} gives {kind} for {what}, not a uint8 array")
    if picture.ndim != 4 or picture.shape[-1] != 3 or len(picture) != len(shown) or not picture.size:
        raise AssertionError(f"{name} gives {picture.shape} for {what}, not ({len(shown)}, H, W, 3)")
    return picture


def _drawing_state(shown: Explanation) -> dict[str, Any]:
    pyplot, matplotlib = sys.modules.get("matplotlib.pyplot"), sys.modules.get("matplotlib")
    return {
        "writes into the values": shown.values.clone(),
        "writes into the inputs": shown.inputs.clone(),
        "leaves a pyplot figure open; draw on a Figure of its own": pyplot.get_fignums() if pyplot else [],
        "changes matplotlib's rcParams": repr(matplotlib.rcParams) if matplotlib else None,
        "uses NumPy's global random numbers": repr(np.random.get_state()),
    }


def _check_blank(name: str, draw: Renderer, like: Explanation) -> None:
    """Where a map holds nothing, its picture looks as that of a map with its evidence elsewhere."""
    flat, nothing = torch.full_like(like.inputs, 0.5), torch.zeros_like(like.values)

    def drawn(place: int, evidence: float) -> NDArray[np.int64]:
        values = nothing.clone()
        values.flatten(2)[:, :, place] = evidence
        picture = _picture(name, draw, Explanation(values, flat, like.target, like.score, like.recipe))
        if picture is None:
            raise AssertionError(f"{name} refuses {'a map of one point' if evidence else 'a blank map'}")
        return picture.astype(np.int64)

    blank, middle = drawn(0, 0), nothing[0, 0].numel() // 2
    for evidence in (1.0,) if like.values.min() >= 0 else (1.0, -1.0):
        here, there, elsewhere = (drawn(place, evidence) for place in (0, -1, middle))
        shown = (here != elsewhere) & (there == elsewhere)
        if shown.any():
            if np.abs(blank - elsewhere)[shown].mean() >= np.abs(blank - here)[shown].mean():
                raise AssertionError(
                    f"{name} shows evidence on a blank map; where all values are zero, nothing may be drawn"
                )
            return
    raise AssertionError(f"{name} draws the same picture whatever the values")
