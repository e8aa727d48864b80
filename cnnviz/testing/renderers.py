"""The promises of a renderer: the picture shows the values, and nothing where there are none."""

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
from cnnviz.testing.state_snapshot import unchanged
from cnnviz.testing.subject import Subject


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
    subject = Subject.of(renderers, method, settings)
    drawn = 0
    for explanation in _explanations():
        picture = _picture(subject, explanation)
        if picture is None:
            continue
        drawn += 1
        again = _picture(subject, explanation)
        subject.demand(again is not None and np.array_equal(picture, again), "draws one explanation in two ways")
        if drawn == 1:
            _check_blank(subject, explanation)
    subject.demand(drawn > 0, "refuses everything: signals, images and volumes")


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


def _picture(subject: Subject, explanation: Explanation) -> NDArray[np.uint8] | None:
    """The picture (N, H, W, 3), uint8; None where the renderer refuses as it should."""
    values, inputs = explanation.values, explanation.inputs
    what = f"values {tuple(values.shape)} over inputs {tuple(inputs.shape)} ({values.dtype})"

    def draw() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return subject.method(explanation)

    with unchanged(subject.name, lambda: _drawing_state(explanation)):
        picture = subject.answer_or_refusal(draw, what)
    if picture is None:
        return None
    kind = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
    subject.demand(isinstance(picture, np.ndarray) and kind == np.uint8, f"gives {kind} for {what}, not a uint8 array")
    fits = picture.ndim == 4 and picture.shape[-1] == 3 and len(picture) == len(explanation) and picture.size > 0
    subject.demand(fits, f"gives {picture.shape} for {what}, not ({len(explanation)}, H, W, 3)")
    drawn: NDArray[np.uint8] = picture
    return drawn


def _drawing_state(explanation: Explanation) -> dict[str, Any]:
    pyplot, matplotlib = sys.modules.get("matplotlib.pyplot"), sys.modules.get("matplotlib")
    return {
        "writes into the values": explanation.values.clone(),
        "writes into the inputs": explanation.inputs.clone(),
        "leaves a pyplot figure open; draw on a Figure of its own": pyplot.get_fignums() if pyplot else [],
        "changes matplotlib's rcParams": repr(matplotlib.rcParams) if matplotlib else None,
        "uses NumPy's global random numbers": repr(np.random.get_state()),
    }


def _check_blank(subject: Subject, like: Explanation) -> None:
    """Where a map holds nothing, its picture looks as that of a map with its evidence elsewhere."""
    flat, nothing = torch.full_like(like.inputs, 0.5), torch.zeros_like(like.values)

    def drawn(place: int, evidence: float) -> NDArray[np.int64]:
        values = nothing.clone()
        values.flatten(2)[:, :, place] = evidence
        picture = _picture(subject, Explanation(values, flat, like.target, like.score, like.recipe))
        if picture is None:
            raise AssertionError(f"{subject.name} refuses {'a map of one point' if evidence else 'a blank map'}")
        return picture.astype(np.int64)

    blank, middle = drawn(0, 0), nothing[0, 0].numel() // 2
    for evidence in (1.0,) if like.values.min() >= 0 else (1.0, -1.0):
        here, there, elsewhere = (drawn(place, evidence) for place in (0, -1, middle))
        point = (here != elsewhere) & (there == elsewhere)
        if point.any():
            subject.demand(
                np.abs(blank - elsewhere)[point].mean() < np.abs(blank - here)[point].mean(),
                "shows evidence on a blank map; where all values are zero, nothing may be drawn",
            )
            return
    raise AssertionError(f"{subject.name} draws the same picture whatever the values")
