"""A class that a model names for an input."""

from __future__ import annotations

from dataclasses import dataclass

from cnnviz.images.in_notebooks import InNotebooks


@dataclass(frozen=True, repr=False)
class Prediction:
    """A class that a model names for an input."""

    index: int
    """Of the class; -1 is what speaks against a single one."""
    name: str | None
    """Of the class, where names are known."""
    score: float
    """As the model gives it: a logit, or a probability already."""
    probability: float | None
    """0 to 1; None where it is not known whether the score is a logit."""

    def __repr__(self) -> str:
        named = self.name or (f"class {self.index}" if self.index >= 0 else "not class 0")
        share = "" if self.probability is None else f" ({100 * self.probability:.1f} %)"
        return f"<{self.index} {named} {self.score:.2f}{share}>"


class Ranking(InNotebooks, list[Prediction]):
    """The classes that a model names for one input, the highest score first."""


class Predictions(InNotebooks, list[Ranking]):
    """What a model says of several inputs: for each of them its classes."""
