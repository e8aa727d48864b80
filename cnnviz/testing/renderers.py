"""The promises of a renderer: the picture shows the values, and nothing where there are none."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderers
from cnnviz.registry.registry import Method
from cnnviz.testing.state_snapshot import global_random_numbers, unchanged
from cnnviz.testing.subject import Subject, has_a_page, refuses_settings_it_does_not_have

Pictures = NDArray[np.uint8]
SIZES = {1: (22,), 2: (14, 22), 3: (6, 14, 22)}


def check_renderer(method: str | Renderer | Method[Any], **settings: Any) -> None:
    """Check a renderer on signals, images and volumes, none of them square, with one to four channels.

    Checked is that it draws uint8 (N, H, W, 3) or refuses in one line (ValueError); that the picture shows the values,
    each input's in its own place; that a blank map stays blank and nothing is divided by zero; that it draws other
    precisions and memory formats, and explanations without a class; that NaN is refused; that one explanation gives
    one picture; that it changes neither the explanation nor matplotlib's state or any global random numbers, and leaves
    no figure open; and that it refuses settings it does not have. :func:`checks` runs each of these by itself.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of an explanation.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = RendererSubject.of(method, **settings)
    for check in RENDERER_CHECKS:
        check(subject)


def explanation(
    rank: int, channels: int = 3, values: tuple[int, ...] | None = None, signed: bool = True, dtype: Any = torch.float32
) -> Explanation:
    """Two inputs (2, channels, *SIZES[rank]) and random values (2, *values), by default of the inputs' shape."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(2, *(values or (channels, *SIZES[rank])), generator=generator).to(dtype)
    inputs = torch.rand(2, channels, *SIZES[rank], generator=generator).to(dtype)
    return Explanation(drawn if signed else drawn.abs(), inputs, torch.tensor([1, 2]), torch.ones(2), "checked()")


def explanations() -> Iterator[Explanation]:
    """Of every rank: fine and coarse maps, one to four channels, four maps without negative values."""
    for rank, size in SIZES.items():
        half = tuple(length // 2 for length in size)
        for channels in (3, 1, 2, 4):
            yield explanation(rank, channels)
        yield explanation(rank, 3, (1, *half))
        yield explanation(rank, 3, (4, *half), signed=False)


@dataclass(frozen=True, eq=False)
class RendererSubject(Subject):
    """A renderer, and how it is asked."""

    @classmethod
    def of(cls, method: str | Renderer | Method[Any], **settings: Any) -> RendererSubject:
        import_module("matplotlib")  # else a renderer that is the first to load it seems to change its rcParams
        return cls(**Subject.built(renderers, method, settings))

    @cached_property
    def drawn(self) -> list[tuple[Explanation, Pictures]]:
        """The explanations that it does not refuse, and their pictures."""
        asked = [(each, self.pictures(each)) for each in explanations()]
        return [(each, pictures) for each, pictures in asked if pictures is not None]

    @property
    def of_each_rank(self) -> list[tuple[Explanation, Pictures]]:
        """The first of signals, of images and of volumes."""
        return list({each.inputs.ndim: (each, pictures) for each, pictures in reversed(self.drawn)}.values())

    def pictures(self, asked: Explanation, situation: str = "") -> Pictures | None:
        """Pictures (N, H, W, 3), uint8; None where the renderer refuses as it should."""
        what = f"values {tuple(asked.values.shape)} over inputs {tuple(asked.inputs.shape)} ({asked.values.dtype})"
        what += situation

        def draw() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return self.method(asked)

        drawn = self.answer_or_refusal(draw, what)
        if drawn is None:
            return None
        kind = drawn.dtype if isinstance(drawn, np.ndarray) else type(drawn).__name__
        self.demand(isinstance(drawn, np.ndarray) and kind == np.uint8, f"gives {kind} for {what}, not a uint8 array")
        fits = drawn.ndim == 4 and drawn.shape[-1] == 3 and len(drawn) == len(asked) and drawn.size > 0
        self.demand(fits, f"gives {drawn.shape} for {what}, not ({len(asked)}, H, W, 3)")
        pictures: Pictures = drawn
        return pictures


def draws_some_inputs(subject: RendererSubject) -> None:
    """Of signals, images and volumes it draws at least one, uint8 (N, H, W, 3)."""
    subject.demand(bool(subject.drawn), "refuses everything: signals, images and volumes")


def leaves_everything_as_it_was(subject: RendererSubject) -> None:
    """The explanation, matplotlib's state and global random numbers are what they were."""
    for asked in explanations():  # anew: what is written once may stay the same when written twice

        def read(asked: Explanation = asked) -> dict[str, Any]:
            pyplot, matplotlib = sys.modules.get("matplotlib.pyplot"), sys.modules.get("matplotlib")
            return {
                "writes into the values": asked.values.clone(),
                "writes into the inputs": asked.inputs.clone(),
                "leaves a pyplot figure open; draw on a Figure of its own": pyplot.get_fignums() if pyplot else [],
                "changes matplotlib's rcParams": repr(matplotlib.rcParams) if matplotlib else None,
                "changes NumPy's error handling": np.geterr(),
                **global_random_numbers(),
            }

        with unchanged(subject.name, read):
            subject.pictures(asked)


def draws_the_same_again(subject: RendererSubject) -> None:
    """One explanation gives one picture, whatever else is drawn from global generators."""
    for asked, pictures in subject.of_each_rank:
        np.random.rand()
        torch.rand(1)
        again = subject.pictures(asked)
        subject.demand(again is not None and np.array_equal(pictures, again), "draws one explanation in two ways")


def draws_each_input_in_its_place(subject: RendererSubject) -> None:
    """The same inputs in another order give the same pictures in that order."""
    for asked, pictures in subject.of_each_rank:
        values, inputs = asked.values.flip(0), asked.inputs.flip(0)
        target = None if asked.target is None else asked.target.flip(0)
        turned = subject.pictures(replace(asked, values=values, inputs=inputs, target=target), " in another order")
        kept = turned is not None and np.array_equal(turned[::-1], pictures)
        subject.demand(kept, "draws another picture for an input whose place in the batch is another")


def draws_any_memory_format(subject: RendererSubject) -> None:
    """Values and inputs whose channels lie side by side in memory give the same pictures."""
    for asked, pictures in subject.of_each_rank:
        values, inputs = (each.movedim(1, -1).contiguous().movedim(-1, 1) for each in (asked.values, asked.inputs))
        last = subject.pictures(replace(asked, values=values, inputs=inputs), " with channels last in memory")
        subject.demand(
            last is not None and np.array_equal(last, pictures), "draws another picture with channels last in memory"
        )


def draws_every_precision(subject: RendererSubject) -> None:
    """Values and inputs in bfloat16 and float64 are drawn as those in float32."""
    for asked, _ in subject.of_each_rank:
        for dtype in (torch.bfloat16, torch.float64):
            other = replace(asked, values=asked.values.to(dtype), inputs=asked.inputs.to(dtype))
            pictures = subject.pictures(other)
            subject.demand(pictures is not None, f"refuses {dtype}, and draws float32")


def draws_without_a_class(subject: RendererSubject) -> None:
    """An explanation of a function has no class, and is drawn, or refused in one line."""
    for asked, _ in subject.of_each_rank:
        subject.pictures(replace(asked, target=None), " without a class")


def refuses_nan(subject: RendererSubject) -> None:
    """NaN in the values is refused in one line."""
    for asked, _ in subject.of_each_rank:
        values = asked.values.clone()
        values.flatten()[0] = torch.nan
        drawn = subject.pictures(replace(asked, values=values), " with NaN in it")
        subject.demand(drawn is None, "draws NaN; refuse it with a ValueError")


def shows_the_values(subject: RendererSubject) -> None:
    """A map of one point is drawn differently where the point is, and a blank map as if the point were elsewhere."""
    for like, _ in subject.drawn[:1]:
        _check_blank(subject, like)


def _check_blank(subject: RendererSubject, like: Explanation) -> None:
    flat, nothing = torch.full_like(like.inputs, 0.5), torch.zeros_like(like.values)

    def drawn(place: int, evidence: float) -> NDArray[np.int64]:
        values = nothing.clone()
        values.flatten(2)[:, :, place] = evidence
        pictures = subject.pictures(Explanation(values, flat, like.target, like.score, like.recipe))
        if pictures is None:
            raise AssertionError(f"{subject.name} refuses {'a map of one point' if evidence else 'a blank map'}")
        return pictures.astype(np.int64)

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


RendererCheck = Callable[[RendererSubject], None]
RENDERER_CHECKS: tuple[RendererCheck, ...] = (
    has_a_page,
    refuses_settings_it_does_not_have,
    draws_some_inputs,
    leaves_everything_as_it_was,
    draws_the_same_again,
    draws_each_input_in_its_place,
    draws_any_memory_format,
    draws_every_precision,
    draws_without_a_class,
    refuses_nan,
    shows_the_values,
)
