"""The answer, with what is needed to read, draw and keep it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.saved_explanations import (
    check_explanation,
    check_values_finite,
    read_description,
    saved_options,
)
from cnnviz.images.originals import At, Original, check_at, original_pixels, read_originals
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import check_file, one_line
from cnnviz.images.writing import encoded, packed, write_result
from cnnviz.registry.configured import name_of
from cnnviz.registry.default_renderer import default_renderer
from cnnviz.registry.registry import renderers
from cnnviz.registry.resolve import renderer_of

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Attribution, Renderer

NOTE = "note."


@dataclass(frozen=True, eq=False)
class Explanation:
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
    attribution: Attribution | None = field(default=None, repr=False)
    """What computed the values; None for an explanation read from a file, or pickled."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: int | slice) -> Explanation:
        """The answer for one input, still a batch (of one), or for a slice of them."""
        if isinstance(item, int) and not -len(self) <= item < len(self):
            raise IndexError(f"there is no input {item}; this explanation has {len(self)}")
        part = slice(item, item + 1 or None) if isinstance(item, int) else item
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
        low, high = self.values.min().item(), self.values.max().item()
        shape = " x ".join(map(str, self.values.shape))
        return f"Explanation({self.recipe} of {', '.join(self.titles())}; {shape}, {low:.3g} to {high:.3g})"

    def titles(self) -> list[str]:
        """For each input the class explained and its score, such as ``king snake 17.31``.

        Where what goes into a softmax or sigmoid is explained, also its probability: ``king snake 17.31 (98 %)``.
        """
        scores = [f"{value:.2f}" for value in self.score.tolist()]
        if self.probability is not None and (self.options.before_softmax or self.options.before_sigmoid):
            shares = [f"{100 * share:.0f} %" for share in self.probability.tolist()]
            scores = [f"{value} ({share})" for value, share in zip(scores, shares, strict=True)]
        if self.target is None:
            named = self.objective if isinstance(self.objective, tuple) else [self.objective or "score"] * len(self)
            return [f"{name} {value}" for name, value in zip(named, scores, strict=True)]
        return [f"{self.name_of(index)} {value}" for index, value in zip(self.target.tolist(), scores, strict=True)]

    def name_of(self, index: int) -> str:
        """The class's name, or ``class 7`` where names are not known; of -1, what speaks against a single class."""
        if index == -1:
            return f"not {self.name_of(0)}"
        known = self.categories is not None and index < len(self.categories)
        return self.categories[index] if known and self.categories is not None else f"class {index}"

    @property
    def usual_renderer(self) -> str:
        """The renderer if none is named: the method's own if it draws so many dimensions, else the default for them.

        Raises ValueError if no renderer is the default for such inputs.
        """
        rank, own = self.inputs.ndim - 2, self.renderer
        if own is not None and (rank == 2 or (own in renderers and rank in renderers[own].ranks)):
            return own
        default = default_renderer(rank, "fine" if self.values.shape == self.inputs.shape else "coarse")
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
        self, path: str | Path, renderer: str | Renderer | None = None, at: At = "input", **settings: Any
    ) -> list[Path]:
        """Write pictures, or with the suffix ``.safetensors`` the values with all that belongs to them.

        Several inputs become ``name-0.png``, ``name-1.png``, ...; a file appears whole or not at all. ``at`` is as for
        :meth:`render`. Returns the files written. Raises ValueError for a suffix that is neither.
        """
        return write_result(path, self._packed, lambda: list(self.render(renderer, at, **settings)))

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that is no explanation."""
        import safetensors

        check_file(Path(path), "an explanation")
        try:
            tensors, about = _read(path)
            if "explanations" not in about:
                return cls._unpacked(tensors, about)
        except KeyError as error:
            raise ValueError(f"{path} is not an explanation that cnnviz saved: it has no {error}") from error
        except (safetensors.SafetensorError, NotImplementedError, TypeError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not an explanation that cnnviz saved: {one_line(error)}") from error
        raise ValueError(
            f"{path} holds explanations of {len(about['explanations'])} inputs; "
            "read it by cnnviz.explanations.JointExplanation.load"
        )

    @classmethod
    def _unpacked(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Explanation:
        explanation = cls(
            values=tensors["values"],
            inputs=tensors["inputs"],
            target=tensors.get("target"),
            score=tensors["score"],
            recipe=about["recipe"],
            preprocessing=Preprocessing.from_dict(about["preprocessing"]) if about["preprocessing"] else None,
            categories=tuple(about["categories"]) if about["categories"] else None,
            notes={name.removeprefix(NOTE): tensor for name, tensor in tensors.items() if name.startswith(NOTE)},
            renderer=about["renderer"],
            objective=tuple(told) if isinstance(told := about.get("objective"), list) else told,
            probability=tensors.get("probability"),
            boxes=tensors.get("boxes"),
            originals=read_originals(about.get("originals"), tensors),
            options=ExplainOptions(**saved_options(about)),
            computed_in=about.get("computed_in"),
            of=about.get("of", 0),
            together=about.get("together", 1),
        )
        check_explanation(explanation)
        check_values_finite(explanation)
        return explanation

    def _packed(self) -> bytes:
        return packed(*self._contents())

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the description that a file holds."""
        tensors = {"values": self.values, "inputs": self.inputs, "score": self.score}
        more = {"target": self.target, "probability": self.probability, "boxes": self.boxes}
        tensors |= {name: tensor for name, tensor in more.items() if tensor is not None}
        tensors |= {NOTE + name: note for name, note in self.notes.items()}
        tensors |= original_pixels(self.originals)
        about = {
            "recipe": self.recipe,
            "preprocessing": self.preprocessing.as_dict() if self.preprocessing else None,
            "categories": self.categories,
            "renderer": self.renderer,
            "objective": self.objective,
            "options": asdict(self.options),
            "computed_in": self.computed_in,
            "of": self.of,
            "together": self.together,
            "originals": None if self.originals is None else [each and each.described() for each in self.originals],
            "versions": {name: version(name) for name in ("cnnviz", "torch")},
        }
        return tensors, about

    def _repr_png_(self) -> bytes:
        return encoded(np.asarray(_side_by_side(self.render())), ".png")


class JointExplanation(tuple[Explanation, ...]):
    """Explanations of several inputs of one model, one for each, computed together.

    Where a method has a path or subsets, all inputs move along it together; values of all inputs add up.
    """

    def save(self, path: str | Path, renderer: str | Renderer | None = None, **settings: Any) -> list[Path]:
        """As :meth:`Explanation.save`; pictures are those of the first input, then of the second, and so on."""

        def pictures() -> list[NDArray[np.uint8]]:
            return [picture for each in self for picture in each.render(renderer, **settings)]

        return write_result(path, self._packed, pictures)

    @classmethod
    def load(cls, path: str | Path) -> JointExplanation:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that holds something else."""
        import safetensors

        try:
            tensors, about = _read(path)
            parts = []
            for number, each in enumerate(about["explanations"]):
                own = f"{number}."
                chosen = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
                parts.append(Explanation._unpacked(chosen, each))
            return cls(parts)
        except KeyError as error:
            reason = f"it has no {error}"
            raise ValueError(f"{path} holds no explanations of several inputs that cnnviz saved: {reason}") from error
        except (safetensors.SafetensorError, NotImplementedError, TypeError, ValueError, OSError) as error:
            reason = one_line(error)
            raise ValueError(f"{path} holds no explanations of several inputs that cnnviz saved: {reason}") from error

    def _packed(self) -> bytes:
        contents = [each._contents() for each in self]
        # copies: a file can't hold one tensor under two names
        tensors = {
            f"{number}.{name}": value.clone()
            for number, (part, _) in enumerate(contents)
            for name, value in part.items()
        }
        return packed(tensors, {"explanations": [about for _, about in contents]})


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what is said about them."""
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        return tensors, read_description((file.metadata() or {})["cnnviz"])


def drawn_by(draw: Renderer, explanation: Explanation) -> NDArray[np.uint8]:
    """The pictures (N, H, W, 3) that a renderer draws. Raises TypeError for a renderer that returns something else."""
    pictures = draw(explanation)
    wanted = f"a renderer returns uint8 ({len(explanation)}, H, W, 3)"
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or len(pictures) != len(explanation):
        raise TypeError(f"renderer {name_of(draw)!r} gave {pictures.dtype} {pictures.shape}; {wanted}")
    return pictures


def _side_by_side(pictures: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(np.concatenate(list(pictures), axis=1))
