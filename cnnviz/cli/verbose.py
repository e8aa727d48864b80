"""What ``--verbose`` tells on stderr: which network runs where, and what each batch was asked and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from cnnviz.cli.errors import print_failure
from cnnviz.explanations.explanation import Explanation
from cnnviz.models.loading import LoadedModel


class Watch:
    """Counts the passes of a command's network, and tells about each batch that is explained.

    A network that is watched has a hook, so that no CUDA graph is made of it. Where another network is computed with,
    a folded or compiled one, passes are not counted.
    """

    def __init__(self, model: LoadedModel, counting: bool) -> None:
        self._passes = 0
        self._counting = counting
        self._told: set[str] = set()
        model.module.register_forward_pre_hook(self._count)
        weight = next(model.module.parameters(), None)
        where = "no weights" if weight is None else f"{weight.device}, {str(weight.dtype).removeprefix('torch.')}"
        print_failure(f"network {model.name}, {type(model.module).__name__}: {where}")

    def __call__(self, explain: Callable[[Tensor], dict[str, Explanation]], inputs: Tensor) -> dict[str, Explanation]:
        """The explanations of the inputs (N, C, *spatial), by name."""
        before, start = self._passes, time.perf_counter()
        explanations = explain(inputs)
        for explanation in explanations.values():  # whoever waits for the numbers waits for a GPU
            explanation.values.sum().item()
        seconds, passes = time.perf_counter() - start, self._passes - before
        self._tell_what(explanations)
        pictures = "1 picture" if len(inputs) == 1 else f"{len(inputs)} pictures"
        counted = "1 forward pass, " if passes == 1 else f"{passes} forward passes, "
        took = f"{counted if self._counting else ''}{seconds / len(inputs):.3f} s a picture"
        print_failure(f"{pictures} of {_size(inputs)}: {took}")
        return explanations

    def _tell_what(self, explanations: Mapping[str, Explanation]) -> None:
        """Each formula with its layer, once."""
        for each in explanations.values():
            computed = f", computed in {each.computed_in}" if each.computed_in else ""
            line = f"{each.recipe}: maps of {_size(each.values)}{computed}"
            if line not in self._told:
                self._told.add(line)
                print_failure(line)

    def _count(self, *call: Any) -> None:
        self._passes += 1


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:]))
