"""The answer, with what is needed to read, draw and keep it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.explanations.drawn_above import drawing_function
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.saved_explanations import check_inputs_kept
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.originals import At, Original, check_at
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.registry.configured import name_of
from cnnviz.registry.default_renderer import default_renderer
from cnnviz.registry.registry import renderers
from cnnviz.registry.resolve import renderer_of

if TYPE_CHECKING:
    from cnnviz.explanations.evidence_maps import Sign
    from cnnviz.registry.protocols import Attribution, Renderer


@dataclass(frozen=True, eq=False)
class Explanation(InNotebooks):
    """Why a model gave these inputs their scores.

    ``values`` keep the method's own resolution and sign; nothing is resized or normalized before a renderer does it.
    """

    subject_of_methods = True  # of what methods are asked

    values: Tensor
    """(N, C, *spatial), raw: positive speaks for the target, negative against it, unless the method says otherwise."""
    inputs: Tensor
    """(N, C, *spatial) as the model saw them."""
    target: Tensor | None
    """(N,) int64, the class explained; None where the target was a function of the output."""
    score: Tensor
    """(N,) the model's score for the target."""
    recipe: str
    """The formula that was computed, as a user would write it."""
    preprocessing: Preprocessing | None = None
    """Turns ``inputs`` back into pictures."""
    categories: tuple[str, ...] | None = None
    """Class names by index."""
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    """What the method measured on its way, such as ``completeness_gap`` (N,)."""
    renderer: str | None = None
    """The renderer the method asks for; None leaves the choice to the shape of the values."""

    objective: str | tuple[str, ...] | None = None
    """What the score is, where the target is an objective, such as ``channel(layer='features.3', index=5)``; of a list
    of targets one for each input."""
    probability: Tensor | None = None
    """(N,) the probability of the class explained, where it is known; see :attr:`cnnviz.Run.probability`."""
    boxes: Tensor | None = None
    """(N, B, 4) the detections explained, as x1, y1, x2, y2 in pixels of the input; None for other targets."""
    options: ExplainOptions = field(default_factory=ExplainOptions)
    """How it was computed; metrics that ask the model again ask it so."""
    computed_in: str | None = None
    """What it was computed in: ``float32``, ``bfloat16``, ``tf32 in convolutions, float32 in matrix products``, ...;
    None where that is not known: of a black box, and of files that cnnviz wrote before 0.6."""
    of: int | str = 0
    """Which of the model's inputs was explained: its number, or its name where they were given by name."""
    together: int = 1
    """How many of the model's inputs were explained together, as for ``of="all"``."""
    originals: tuple[Original | None, ...] | None = None
    """For each input the picture it was made of, at its own size; None where the input was given as a tensor."""
    fine_values: bool | None = None
    """Whether the method gave values of the input's own shape, of which less is kept here; None: see their shape."""
    attribution: Attribution | None = field(default=None, repr=False)
    """What computed the values; None for an explanation read from a file, or pickled."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: SupportsIndex | slice) -> Explanation:
        """The answer for one input, still a batch (of one), or for a slice of them.

        Raises IndexError for an input that is not there, and TypeError for what is neither a number nor a slice.
        """
        part = item if isinstance(item, slice) else _only(item, len(self))
        return replace(
            self,
            values=self.values[part],
            inputs=self.inputs[part],
            target=None if self.target is None else self.target[part],
            score=self.score[part],
            objective=self.objective[part] if isinstance(self.objective, tuple) else self.objective,
            probability=None if self.probability is None else self.probability[part],
            boxes=None if self.boxes is None else self.boxes[part],
            originals=None if self.originals is None else self.originals[part],
            notes={name: note[part] for name, note in self.notes.items()},
        )

    def __getstate__(self) -> dict[str, Any]:
        """An explanation is pickled without what computed it, which may be a function of its own, or hold a layer."""
        return vars(self) | {"attribution": None}

    def __iter__(self) -> Iterator[Explanation]:
        return (self[item] for item in range(len(self)))

    def __repr__(self) -> str:
        if not len(self):
            return f"Explanation({self.recipe} of no inputs)"
        low, high = self.values.min().item(), self.values.max().item()
        shape = " x ".join(map(str, self.values.shape))
        return f"Explanation({self.recipe} of {', '.join(self.titles())}; {shape}, {low:.3g} to {high:.3g})"

    def titles(self) -> list[str]:
        """For each input the class explained and its score, such as ``king snake 17.31``.

        Of a class that has a name, or where what goes into a softmax or sigmoid is explained, also its probability if
        that is known and not the score itself: ``king snake 17.31 (98 %)``.
        """
        scores = [f"{value:.2f}" for value in self.score.tolist()]
        probability = self.told_probability
        if probability is not None and not torch.equal(probability, self.score):
            shares = map(percent, probability.tolist())
            scores = [f"{value} ({share})" for value, share in zip(scores, shares, strict=True)]
        return [f"{name} {value}" for name, value in zip(self.names(), scores, strict=True)]

    @property
    def told_probability(self) -> Tensor | None:
        """(N,) the probability, where outputs are of classes: these have names, or there is a softmax or sigmoid.

        K numbers without names may be no scores of classes at all, and their softmax would tell nothing.
        """
        classes = self.categories is not None or self.options.before_softmax or self.options.before_sigmoid
        return self.probability if classes else None

    def names(self) -> list[str]:
        """For each input what is explained: its class, or the objective; ``score`` of other functions."""
        if self.target is not None:
            return [self.name_of(index) for index in self.target.tolist()]
        return list(self.objective) if isinstance(self.objective, tuple) else [self.objective or "score"] * len(self)

    def name_of(self, index: int) -> str:
        """The class's name, or ``class 7`` where names are not known; of -1, what speaks against a single class."""
        if index == -1:
            return f"not {self.name_of(0)}"
        known = self.categories is not None and index < len(self.categories)
        return self.categories[index] if known and self.categories is not None else f"class {index}"

    @property
    def fine(self) -> bool:
        """Whether values are of the input's own shape, as a gradient's are: then signs are not for or against."""
        return self.values.shape == self.inputs.shape if self.fine_values is None else self.fine_values

    @property
    def usual_renderer(self) -> str:
        """The renderer if none is named: the method's own if it draws so many dimensions, else the default for them.

        Raises ValueError if no renderer is the default for such inputs.
        """
        rank, own = self.inputs.ndim - 2, self.renderer
        if own is not None and (rank == 2 or (own in renderers and rank in renderers[own].ranks)):
            return own
        default = default_renderer(rank, "fine" if self.fine else "coarse")
        if default is None:
            raise ValueError(f"there is no renderer for inputs {tuple(self.inputs.shape)}; name one")
        return default

    @overload
    def render(
        self, renderer: str | Renderer | None = ..., at: Literal["input"] = ..., **settings: Any
    ) -> NDArray[np.uint8]: ...

    @overload
    def render(
        self, renderer: str | Renderer | None = ..., *, at: Literal["original"], **settings: Any
    ) -> list[NDArray[np.uint8]]: ...

    @overload
    def render(
        self, renderer: str | Renderer | None, at: At, **settings: Any
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]: ...

    def render(
        self, renderer: str | Renderer | None = None, at: At = "input", **settings: Any
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Pictures (N, H, W, 3), uint8, drawn by the named renderer or by any callable of an explanation.

        ``at="original"`` draws each on the whole picture that its input was cut out of, at the picture's own size, and
        gives a list of (H, W, 3). The rest of the picture is shown as it is. An input that was given as a tensor is its
        own original. Raises ValueError for a renderer that draws a figure, which lies over no picture.
        """
        check_at(at)
        if renderer is None:
            renderer = self.usual_renderer
        draw: Renderer = renderer_of(renderer, settings)
        if at == "original":
            from cnnviz.explanations.on_original import drawn_on_originals

            return drawn_on_originals(self, draw)
        return drawn_by(draw, self)

    def show(self, renderer: str | Renderer | None = None, **settings: Any) -> None:
        """Open the pictures, side by side, in the viewer of the desktop."""
        _side_by_side(self.render(renderer, **settings)).show()

    def save(
        self,
        path: str | Path,
        renderer: str | Renderer | None = None,
        at: At = "input",
        inputs: bool = True,
        **settings: Any,
    ) -> list[Path]:
        """Write pictures, values or a figure, as the suffix says. Returns the files written.

        ``.png``, ``.jpg``, ``.webp``, ``.tif``: the pictures of :meth:`render`; several inputs become ``name-0.png``,
        ``name-1.png``, ... ``.safetensors``: the values with all that belongs to them, for :meth:`load`;
        ``inputs=False`` leaves the inputs out. ``.npy``: the raw values (N, C, *spatial). ``.npz``: values, inputs,
        target, score, probability and class names, by name. ``.pdf``, ``.svg``: the :meth:`figure`. A file appears
        whole or not at all. Raises ValueError for another suffix.
        """
        from cnnviz.explanations.saving import write_one

        return write_one(self, Path(path), renderer, at, inputs, settings)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that is no explanation.

        Without the inputs (``save(..., inputs=False)``), their size is known, and their values are not.
        """
        from cnnviz.explanations.saving import read_one

        return read_one(path)

    def heatmap(self, sign: Sign = "auto", at: At = "input") -> Any:
        """How much each place speaks for the target, as NumPy float32 (N, *spatial), each map divided by its own peak.

        It is :func:`cnnviz.explanations.evidence`, whose ``sign`` it takes, within 0 and 1; with ``sign="signed"``
        within -1 and 1, where zero stays zero. A blank map is zero. ``at="original"`` gives a list with one map (H, W)
        for each input, of the size of its whole picture, zero where the input shows nothing of it.
        """
        from cnnviz.explanations.evidence_maps import evidence, shares_of_peak
        from cnnviz.explanations.on_original import evidence_on_originals

        check_at(at)
        if at == "original":
            return [shares_of_peak(each[None])[0] for each in evidence_on_originals(self, sign)]
        return shares_of_peak(evidence(self, sign).cpu().numpy())

    def plot(self, ax: Any = None, renderer: str | Renderer | None = None, at: At = "input", **style: Any) -> Any:
        """Draw the explanation of one input into matplotlib's Axes ``ax``, and return it; None makes a figure.

        Without a ``renderer`` the heat map lies over the picture, more opaque where there is more evidence, in units of
        the values: from 0 to the peak in viridis; with ``sign="signed"`` from minus to plus the peak in RdBu_r. With a
        renderer its picture is drawn, with its settings. pyplot is not used: nothing but ``ax`` changes.

        Args:
            ax, renderer, at: where, and what; ``at`` as for :meth:`render`.
            style: ``sign`` as of :meth:`heatmap`; ``colormap``, a name or a matplotlib Colormap; ``opacity`` of the
                map, 0 to 1; ``bar=True`` for a colour bar; ``title=False`` for none. Others are the renderer's.

        Raises:
            ValueError: for more than one input.
        """
        return drawing_function("plotting", "plotted")(self, ax, renderer=renderer, at=at, **style)

    def figure(
        self, renderer: str | Renderer | None = None, at: At = "input", *, columns: int | None = None, **style: Any
    ) -> Any:
        """A matplotlib Figure with each input under its class and score, and colour bars. ``style`` as of :meth:`plot`.

        ``columns`` is how many stand side by side; None makes it nearly a square.
        """
        return drawing_function("plotting", "figure_of")(self, columns, renderer=renderer, at=at, **style)

    def numpy(self) -> NDArray[Any]:
        """The raw values (N, C, *spatial); bfloat16, which NumPy lacks, as float32."""
        values = self.values.detach().cpu()
        array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype, copy=copy)

    def to(self, place: str | torch.device | torch.dtype, /) -> Explanation:
        """On another device; or with its values in another floating point dtype, and all else as it is."""
        if isinstance(place, torch.dtype):
            if not place.is_floating_point:
                raise ValueError(f"values in {place} would be rounded to whole numbers; use a floating point dtype")
            return replace(self, values=self.values.to(place))

        def moved(tensor: Tensor) -> Tensor:
            return tensor if tensor.is_meta else tensor.to(place)

        tensors: dict[str, Any] = {
            name: moved(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, notes={name: moved(note) for name, note in self.notes.items()}, **tensors)


def _only(item: SupportsIndex, inputs: int) -> slice:
    """The slice of one of so many inputs."""
    try:
        number = index(item)  # numbers of NumPy and tensors, too, would take the batch dimension away
    except TypeError:
        raise TypeError(f"an input is chosen by its number or a slice, not by a {type(item).__name__}") from None
    if not -inputs <= number < inputs:
        raise IndexError(f"there is no input {number}; this explanation has {inputs}")
    return slice(number, number + 1 or None)


def drawn_by(draw: Renderer, explanation: Explanation) -> NDArray[np.uint8]:
    """The pictures (N, H, W, 3) that a renderer draws. Raises TypeError for a renderer that returns something else."""
    try:
        pictures = draw(explanation)
    except NotImplementedError:  # what torch says of tensors without values
        check_inputs_kept(explanation)
        raise
    wanted = f"a renderer returns uint8 ({len(explanation)}, H, W, 3)"
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or len(pictures) != len(explanation):
        raise TypeError(f"renderer {name_of(draw)!r} gave {pictures.dtype} {pictures.shape}; {wanted}")
    return pictures


def percent(share: float) -> str:
    """A probability as it is read: ``98 %``, ``1.2 %``, ``< 0.1 %``."""
    if share < 0.001:
        return "< 0.1 %" if share > 0 else "0 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _side_by_side(pictures: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(np.concatenate(list(pictures), axis=1))
