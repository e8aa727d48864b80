"""An explanation put to the test: what a metric is handed, and all that it may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cnnviz.explaining import explain
from cnnviz.explanation import Explanation
from cnnviz.maps import evidence
from cnnviz.run import Run

if TYPE_CHECKING:
    from cnnviz.protocols import Attribution


@dataclass(frozen=True, eq=False)
class Trial:
    """An explanation put to the test. What a metric asks and nobody gave is an error that says how to give it."""

    explanation: Explanation
    annotation: Tensor | None = None
    """(N, *spatial) bool, the annotated places as they were given; a metric asks :attr:`masks`."""
    question: Callable[[], Run] | None = None
    """Puts the question to the model that was given, once a metric asks :attr:`run`."""
    attribution: Attribution | None = None
    """What made the explanation; a metric asks :meth:`again`."""

    def __len__(self) -> int:
        return len(self.explanation)

    @cached_property
    def evidence(self) -> Tensor:
        """How much each place speaks for the target, (N, *spatial), not negative; see :func:`cnnviz.evidence`."""
        return evidence(self.explanation)

    @property
    def masks(self) -> Tensor:
        """The annotated places, (N, *spatial) bool. Raises ValueError where none were given."""
        if self.annotation is None:
            raise ValueError(
                "the metric compares maps with annotated places, and there are none; "
                "give evaluate(..., masks=...), or cnnviz evaluate --masks FILE"
            )
        return self.annotation

    @cached_property
    def run(self) -> Run:
        """The question that was answered, to ask the model for scores of other inputs. Raises ValueError without."""
        if self.question is None:
            raise ValueError("the metric asks the model, and there is none; give evaluate(..., model=...)")
        return self.question()

    def again(self, inputs: Tensor | None = None, model: nn.Module | None = None) -> Tensor:
        """What the same attribution gives for other inputs (N, C, *spatial), or for another model: its values.

        The target stays. Raises ValueError where the attribution is not known.
        """
        if self.attribution is None:
            raise ValueError(
                "the metric explains again, and the attribution is not known; give evaluate(..., attribution=...), "
                "such as cnnviz.attributions['grad_cam']()"
            )
        run = self.run
        told = run.circumstances
        found = explain(
            model or run.model,
            (run.inputs if inputs is None else inputs, *run.others),
            self.attribution,
            target=run._asked,
            seed=told.seed,
            memory=told.memory,
            before_softmax=told.before_softmax,
        )
        return found.values


def checked_masks(masks: Any, explanation: Explanation) -> Tensor:
    """Masks as bool on the explanation's device. Raises ValueError for another shape, or numbers that are no mask."""
    found = torch.as_tensor(masks).to(explanation.values.device)
    expected = (len(explanation), *explanation.inputs.shape[2:])
    if tuple(found.shape) != expected:
        raise ValueError(f"masks are {tuple(found.shape)} where {expected} is needed: one for each input, of its size")
    if found.dtype != torch.bool and not bool(((found == 0) | (found == 1)).all()):
        raise ValueError("masks hold other numbers than 0 and 1; compare them first, such as masks > 127")
    return found.bool()
