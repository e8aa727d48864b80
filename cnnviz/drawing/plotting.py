"""Explanations in matplotlib's axes and figures. pyplot is never used, and nothing global is changed."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnnviz.drawing.colors import colormap_named
from cnnviz.drawing.fonts import drawable_titles, families
from cnnviz.drawing.input_images import as_uint8, pictures_of
from cnnviz.explanations.evidence_maps import Sign, evidence
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.on_original import evidence_on_originals
from cnnviz.explanations.score_curves import Curve
from cnnviz.images.originals import At, check_at
from cnnviz.registry.peer_names import asked_back, near_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from cnnviz.registry.protocols import Renderer

SIDE = 3.2  # inches of an axes in a figure


@dataclass(frozen=True)
class Style:
    """How an explanation is plotted; see :meth:`Explanation.plot`."""

    renderer: str | Renderer | None = None
    sign: Sign = "auto"
    at: At = "input"
    colormap: str | Colormap | None = None
    opacity: float = 0.8
    bar: bool = False
    title: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the renderer."""

    def __post_init__(self) -> None:
        check_at(self.at)
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity={self.opacity} is out of range; use 0 to 1")
        if self.renderer is None and self.settings:
            name = next(iter(self.settings))
            near, remark = near_settings(name, [each.name for each in fields(self) if each.name != "settings"])
            meant = asked_back(near, remark) if near else "settings of renderers go with one: renderer='overlay'"
            raise TypeError(f"plot has no setting {name!r}; {meant}")

    @property
    def drawn_with(self) -> dict[str, Any]:
        """The settings that the renderer gets."""
        return dict(self.settings) | ({} if self.colormap is None else {"colormap": self.colormap})


class LabelledFigure(Figure):
    """A figure that shows itself in notebooks, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def plotted(explanation: Explanation, ax: Axes | None, **given: Any) -> Axes:
    """As :meth:`Explanation.plot`."""
    return _plotted(explanation, ax, _style(given))


def _plotted(explanation: Explanation, ax: Axes | None, style: Style) -> Axes:
    if len(explanation) != 1:
        raise ValueError(
            f"plot draws one input, and the explanation has {len(explanation)}; plot explanation[0], or use figure()"
        )
    axes = LabelledFigure(layout="constrained").add_subplot() if ax is None else ax
    if style.renderer is None and explanation.inputs.ndim == 4:
        _plot_map(explanation, axes, style)
    else:
        axes.imshow(explanation.render(style.renderer, style.at, **style.drawn_with)[0])
    axes.set_axis_off()
    if style.title:
        title = drawable_titles(explanation)[0]
        lacking = families(title)[1:]  # fonts for letters that the user's own may lack
        font: dict[str, Any] = {"family": [*rcParams["font.family"], *lacking]} if lacking else {}
        axes.set_title(title, parse_math=False, wrap=True, **font)  # a class may be named "$5"
    return axes


def figure_of(explanation: Explanation, columns: int | None, **given: Any) -> Figure:
    """As :meth:`Explanation.figure`."""
    style = _style({"bar": given.get("renderer") is None} | given)
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns} leaves no place for a picture; use 1 or more")
    across = min(columns or math.ceil(math.sqrt(len(explanation))), len(explanation))
    down = -(-len(explanation) // across)
    figure = LabelledFigure(figsize=(SIDE * across, SIDE * down + 0.5), layout="constrained")
    figure.suptitle(explanation.recipe, parse_math=False, wrap=True, fontsize="small")
    for number, each in enumerate(explanation):
        _plotted(each, figure.add_subplot(down, across, number + 1), style)
    return figure


def plotted_curve(curve: Curve, ax: Axes | None, line: Mapping[str, Any]) -> Axes:
    """As :meth:`cnnviz.explanations.Curve.plot`."""
    axes = LabelledFigure(layout="constrained").add_subplot() if ax is None else ax
    for title, scores in zip(curve.titles, curve.scores, strict=True):
        axes.plot(curve.shares.numpy(), scores.numpy(), **{"label": title.replace("$", r"\$")} | dict(line))
    axes.set_xlabel("share of the places")
    axes.set_ylabel(curve.metric, parse_math=False)
    return axes


def _style(given: Mapping[str, Any]) -> Style:
    """The style of these settings; what is none of its own is the renderer's."""
    own = {name: value for name, value in given.items() if name in Style.__dataclass_fields__}
    return Style(**own, settings={name: value for name, value in given.items() if name not in own})


def _plot_map(explanation: Explanation, axes: Axes, style: Style) -> None:
    """The heat map over its picture, in units of the values."""
    if style.at == "original":
        heat = evidence_on_originals(explanation, style.sign)[0]
    else:
        heat = evidence(explanation, style.sign)[0].cpu().numpy()
    picture = _picture(explanation, style.at)
    signed = style.sign == "signed"
    colors = colormap_named(style.colormap if style.colormap is not None else "RdBu_r" if signed else "viridis")
    peak = float(np.abs(heat).max()) or 1.0  # a blank map is blank in any units
    opacity = 1.0 if picture is None else style.opacity * np.abs(heat / peak)
    if picture is not None:
        axes.imshow(picture)
    drawn = axes.imshow(heat, cmap=colors, vmin=-peak if signed else 0.0, vmax=peak, alpha=opacity)
    if style.bar:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.8)


def _picture(explanation: Explanation, at: At) -> NDArray[Any] | None:
    """The picture (H, W, 3) under the map; None where the inputs were not kept."""
    if at == "original":
        return explanation.render(lambda part: _pixels(part), at)[0]
    return None if explanation.inputs.is_meta else _pixels(explanation)[0]


def _pixels(explanation: Explanation) -> NDArray[np.uint8]:
    return as_uint8(pictures_of(explanation))
