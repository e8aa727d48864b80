"""Targets that find a reference in the plain pass: contrasts of classes, regressed values, similarity.

A target finds its reference once, in the pass of the inputs as they are; every variant is then read with the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.nested import mapped, tensors
from cnnviz.run.objectives import Objective, output_of
from cnnviz.run.plain_pass import PlainPass
from cnnviz.run.targets import class_index, class_scores, short
from cnnviz.run.written import written

Class = int | str
"""A class by number or name."""


class OutputTarget(Objective):
    """A number for each input, read from the model's output with a reference that the plain pass gave."""

    def find(self, plain: PlainPass) -> Any:
        """The reference: tensors (N, ...), alone or in a tuple, detached."""
        raise NotImplementedError

    def scores(self, seen: Seen, reference: Any) -> Tensor:
        """The number for each input, (N,), with its graph; ``reference`` has a row for each."""
        raise NotImplementedError

    def bound(self, plain: PlainPass) -> Bound:
        """With the reference that the plain pass gives, held fixed."""
        with torch.no_grad():
            return Bound(self, self.find(plain))

    def __call__(self, seen: Seen, /) -> Tensor:
        """Read with what is found in the same pass."""
        return self.bound(PlainPass(seen))(seen)

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return True

    def __repr__(self) -> str:
        """As a call, without what is the default."""
        arguments: list[str] = []
        for place, part in enumerate(fields(self)):  # type: ignore[arg-type]  # every target is a dataclass
            value = getattr(self, part.name)
            # a text that came from another process is another object
            if part.default is MISSING or not (value is part.default or (_plain(value) and value == part.default)):
                told = written(value)
                arguments.append(told if place == len(arguments) else f"{part.name}={told}")
        return f"{type(self).__name__}({', '.join(arguments)})"


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


@dataclass(frozen=True, eq=False, repr=False)
class Bound(Objective):
    """A target with the reference that was found for it."""

    of: OutputTarget
    reference: Any

    def __call__(self, seen: Seen, /) -> Tensor:
        reference, rows = self.reference, len(seen.inputs)
        items = next((len(tensor) for tensor in tensors(reference)), rows)
        if items != rows:  # variants of the batch, one whole batch after the other
            reference = mapped(lambda tensor: tensor.repeat(rows // items, *(1,) * (tensor.ndim - 1)), reference)
        return self.of.scores(seen, reference)

    @property
    def reads_output(self) -> bool:
        """True if it needs the model's output."""
        return self.of.reads_output

    def __repr__(self) -> str:
        return repr(self.of)


@dataclass(frozen=True, repr=False)
class against(OutputTarget):
    """Why this class and not that one: z_a - z_b; of several classes their mean.

    Classes by number or name, or lists of them. The score is the difference as the model gives it: of logits, unless
    the model gives probabilities.
    """

    cls: Class | tuple[Class, ...]
    other: Class | tuple[Class, ...]

    def __post_init__(self) -> None:
        for side in ("cls", "other"):
            classes = getattr(self, side)
            if isinstance(classes, list):
                object.__setattr__(self, side, tuple(classes))
            if isinstance(classes, list | tuple) and not classes:
                raise ValueError("against compares classes, and one side has none; give at least one")

    def find(self, plain: PlainPass) -> tuple[Tensor, Tensor]:
        """The classes on both sides, (N, number of classes) each."""
        count = class_scores(plain.seen.output, len(plain.seen.inputs), objective=True).shape[1]
        sides = []
        for classes in (self.cls, self.other):
            numbers = [known_class(one, plain, count) for one in _several(classes)]
            sides.append(torch.tensor([numbers] * len(plain.seen.inputs), device=plain.seen.inputs.device))
        return sides[0], sides[1]

    def scores(self, seen: Seen, reference: tuple[Tensor, Tensor]) -> Tensor:
        """The difference of the means of both sides, (N,)."""
        scores = class_scores(seen.output, len(seen.inputs), objective=True)
        own, other = (scores.gather(1, side.to(scores.device)).mean(1) for side in reference)
        return own - other


@dataclass(frozen=True, repr=False)
class value(OutputTarget):
    """A regressed value: the output ``index`` as it is; or how far it is ``above`` or ``below`` a number.

    ``toward`` a number: minus the distance to it, so that what brings the output nearer counts positive. One of the
    three at most.
    """

    index: int = 0
    toward: float | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.toward, self.above, self.below)) > 1:
            raise ValueError("a value is explained toward, above or below a number; give one of them")

    def find(self, plain: PlainPass) -> tuple[()]:
        """Nothing is looked for."""
        return ()

    def scores(self, seen: Seen, reference: Any) -> Tensor:
        """The value, or how it lies to the number, (N,)."""
        outputs = class_scores(seen.output, len(seen.inputs), objective=True)
        if not 0 <= self.index < outputs.shape[1]:
            raise ValueError(f"there is no value {self.index}; the model gives {outputs.shape[1]}, numbered from 0")
        output = outputs[:, self.index]
        if self.toward is not None:
            return -(output - self.toward).abs()
        if self.above is not None:
            return output - self.above
        return output if self.below is None else self.below - output


@dataclass(frozen=True, eq=False, repr=False)
class similar(OutputTarget):
    """How similar the model's output, an embedding (N, D), is to another one.

    Args:
        to: another input, (C, *spatial) or (1 or N, C, *spatial), or a picture (a path or PIL image) where the
            preprocessing is known; or an embedding itself, (D,) or (1 or N, D).
        by: "cosine"; "dot", the inner product; or "distance", minus the squared Euclidean distance.
    """

    to: Any
    by: Literal["cosine", "dot", "distance"] = "cosine"

    def __post_init__(self) -> None:
        if self.by not in ("cosine", "dot", "distance"):
            raise ValueError(f"there is no similarity {self.by!r}; it is 'cosine', 'dot' or 'distance'")

    def find(self, plain: PlainPass) -> Tensor:
        """The embedding that others are compared with, (N, D)."""
        inputs, embedding = plain.seen.inputs, _embedding(plain.seen.output, len(plain.seen.inputs))
        other = self.to if isinstance(self.to, Tensor) else _picture(self.to, plain)
        other = other.detach().to(embedding)
        if other.ndim >= inputs.ndim - 1 and other.shape[-inputs.ndim + 1 :] == inputs.shape[1:]:
            pictures = other.to(inputs).reshape(-1, *inputs.shape[1:])
            other = _embedding(plain.output_of(pictures), len(pictures))
        vectors = other.reshape(1, -1) if other.ndim < 2 else other.flatten(1)
        if vectors.shape[1] != embedding.shape[1] or len(vectors) not in (1, len(embedding)):
            raise ValueError(
                f"similar is to {tuple(other.shape)}, and the model gives {tuple(embedding.shape)}; give one embedding "
                "or input, or one for each"
            )
        return vectors.expand_as(embedding).clone()

    def scores(self, seen: Seen, reference: Tensor) -> Tensor:
        """The similarity, (N,)."""
        embedding = _embedding(seen.output, len(seen.inputs))
        reference = reference.to(embedding)
        if self.by == "cosine":
            return F.cosine_similarity(embedding, reference)
        if self.by == "dot":
            return (embedding * reference).sum(1)
        return -(embedding - reference).square().sum(1)


@dataclass(frozen=True, repr=False)
class Place(OutputTarget):
    """One place of a dense output, (class, *place): what a tuple as target means.

    Where the output is (N, K) and the tuple has N classes, it is one class for each input.
    """

    index: tuple[Class, ...]

    def bound(self, plain: PlainPass) -> Any:
        output, items, device = plain.seen.output, len(plain.seen.inputs), plain.seen.inputs.device
        if isinstance(output, Tensor) and (output.ndim <= 2 or output[0, 0].numel() == 1):
            if len(self.index) == 1 != items:
                return torch.tensor([class_index(self.index[0], plain.categories)] * items, device=device)
            if len(self.index) != items:
                raise ValueError(
                    f"there are {len(self.index)} targets for {items} inputs; give one, or one for each. A tuple is "
                    f"also one place of a dense output, and the model gives {tuple(output.shape)}"
                )
            return torch.tensor([class_index(number, plain.categories) for number in self.index], device=device)
        return super().bound(plain)

    def find(self, plain: PlainPass) -> Tensor:
        output, items = dense_output(plain.seen.output), len(plain.seen.inputs)
        number, *place = self.index
        index = [class_index(number, plain.categories), *(class_index(at, None) for at in place)]
        sizes = tuple(output.shape[1:])
        if len(index) != len(sizes) or not all(0 <= at < size for at, size in zip(index, sizes, strict=True)):
            raise ValueError(f"the target {tuple(index)} is no place of the output {tuple(output.shape)}; {PLACE}")
        return torch.tensor([index] * items)

    def scores(self, seen: Seen, reference: Tensor) -> Tensor:
        output = dense_output(seen.output)
        rows = torch.arange(len(output), device=output.device)
        score: Tensor = output[(rows, *reference.to(output.device).unbind(1))]
        return score

    def __repr__(self) -> str:
        return f"place {self.index}"


WAY_OUT = "a region or a place is of a network for segmentation; of others name a class"
PLACE = "give (class, *place) within it, one number for each of its dimensions after the first"


def dense_output(output: Any) -> Tensor:
    """Scores of every place, (N, K, *spatial): the output, or what segmentation networks give as "out" or "logits".

    Raises TypeError or ValueError for other outputs.
    """
    if isinstance(output, dict):
        output = next((output[name] for name in ("out", "logits") if name in output), output)
    if not isinstance(output, Tensor):
        raise TypeError(f"the model gives a {type(output).__name__}, not scores of places (N, K, *spatial); {WAY_OUT}")
    if output.ndim < 3:
        raise ValueError(f"the model gives {tuple(output.shape)}, not scores of places (N, K, *spatial); {WAY_OUT}")
    return output


def known_class(one: Class, plain: PlainPass, count: int) -> int:
    """A class's number, of ``count``. Raises LookupError or ValueError for no class."""
    number = class_index(one, plain.categories)
    if not 0 <= number < count:
        raise ValueError(f"there is no class {number}; the model has {count}, numbered 0 to {count - 1}")
    return number


def for_each(targets: Sequence[Any]) -> tuple[Objective, ...]:
    """A target for each input as objectives: places, objectives; functions of the output are wrapped."""
    objectives: list[Objective] = []
    for target in targets:
        if isinstance(target, tuple):
            objectives.append(Place(target))
        elif isinstance(target, Objective):
            objectives.append(target)
        else:
            objectives.append(output_of(target))
    return tuple(objectives)


def _several(classes: Class | tuple[Class, ...]) -> tuple[Class, ...]:
    return classes if isinstance(classes, tuple) else (classes,)


def _embedding(output: Any, items: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != items:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model gives {shape}; similar compares embeddings (N, D)")
    return output.flatten(1)


def _picture(picture: Any, plain: PlainPass) -> Tensor:
    from cnnviz.images.reading import read_input

    if plain.preprocessing is None:
        raise TypeError(
            f"similar is to {short(picture)}, and without a preprocessing only tensors are taken; give preprocessing"
        )
    if isinstance(picture, str | Path):
        return read_input(picture, plain.preprocessing)
    return plain.preprocessing(picture)
