"""What a user gives as target, as a run takes it; and targets that are several questions at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnviz.run.objectives import Objective
from cnnviz.run.output_targets import Place, for_each
from cnnviz.run.targets import class_index, class_indices, is_function


@dataclass(frozen=True)
class top:
    """The classes with the highest scores: :func:`cnnviz.explain` gives a list of ``count`` explanations by rank.

    Each has its own classes (N,). Raises ValueError for more classes than the model has, and for less than one.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"the top {self.count!r} classes can't be; ask for 1 or more")


class several:
    """Several targets: :func:`cnnviz.explain` gives a list with an explanation for each.

    They share the forward pass of the inputs; ``d_rise`` shares those of the masks too. Each is what explain takes as
    one target, such as ``several(box(0), box(1))``.
    """

    def __init__(self, *targets: Any):
        if not targets:
            raise ValueError("several targets are asked for, and none is given; give at least one")
        if any(isinstance(target, top | several) for target in targets):
            raise TypeError("one of several targets is itself several; give each target once")
        self.targets = targets

    def __repr__(self) -> str:
        return f"several({', '.join(map(repr, self.targets))})"


def check_single(target: Any) -> None:
    """Raises TypeError for a target that stands for several."""
    if isinstance(target, top | several):
        raise TypeError(f"{target!r} is several questions, and one is asked here; give one target")


def resolved_target(target: Any, items: int, categories: tuple[str, ...] | None) -> Any:
    """What :class:`~cnnviz.Run` takes as target: classes (N,), a function of the output, an objective, or one of
    either for each input.

    Raises TypeError, ValueError or LookupError for what is no target, or not one for each input.
    """
    check_single(target)
    if is_function(target):
        return target
    if not isinstance(target, list | tuple):
        return class_indices(target, items, categories)
    if any(is_function(each) or isinstance(each, tuple) for each in target):
        if len(target) != items:
            raise ValueError(f"there are {len(target)} targets for {items} inputs; give one, or one for each")
        if not all(is_function(each) or isinstance(each, tuple) for each in target):
            raise TypeError(
                "some targets are functions and some are not; give a function, an objective or a place for each input, "
                "or a class for each"
            )
        plain = not any(isinstance(each, tuple | Objective) for each in target)
        return tuple(target) if plain else for_each(target)
    if isinstance(target, tuple) and target and not all(isinstance(each, str) for each in target):
        for place, each in enumerate(target):
            class_index(each, categories if place == 0 or len(target) == items else None)
        return Place(tuple(each if isinstance(each, str) else class_index(each, None) for each in target))
    return class_indices(target, items, categories)
