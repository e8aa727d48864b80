"""What a metric is handed: the explanation, annotated places, and the model that was explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from cnnviz.engine.model_inputs import plain
from cnnviz.engine.validation import as_network, check_dense, check_inputs, check_model
from cnnviz.explanations.answers import answered, recipe_of
from cnnviz.explanations.evidence_maps import evidence
from cnnviz.explanations.explanation import Explanation
from cnnviz.formulas.expr import Expr
from cnnviz.models.loading import LoadedModel
from cnnviz.run.run import Run

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Attribution

CurvePoints: TypeAlias = tuple[Tensor, Tensor]
"""Shares of places (K,), and scores (K, N)."""


@dataclass(frozen=True, eq=False)
class Trial:
    """An explanation with all that a metric may need; reading what was not given raises an error that says how to.

    One of ``len(trial)`` inputs is scored by one number.
    """

    subject_of_methods = True  # of what methods are asked

    explanation: Explanation
    annotation: Tensor | None = None
    """(N, *spatial) bool, the annotated places as they were given; a metric asks :attr:`masks`."""
    question: Callable[[], Run] | None = None
    """Puts the question to the model that was given, once a metric asks :attr:`run`."""
    attribution: Attribution | None = None
    """What computed the explanation, where that does not know it; a metric asks :meth:`again`."""
    told: list[CurvePoints] | None = None
    """Where curves go that a metric tells by :meth:`draws`; None where nobody asks for them."""

    def __len__(self) -> int:
        return len(self.explanation)

    @cached_property
    def evidence(self) -> Tensor:
        """How much each place speaks for the target, (N, *spatial), not negative.

        See :func:`cnnviz.explanations.evidence`.
        """
        return evidence(self.explanation)

    def draws(self, shares: Tensor, scores: Tensor) -> None:
        """Tell the curve that the metric is the area or mean of, for :func:`cnnviz.explanations.curves`.

        ``shares`` (K,) of the places came or went, and the inputs had ``scores`` (K, N) then.
        """
        if self.told is not None:
            self.told.append((shares, scores))

    @property
    def masks(self) -> Tensor:
        """The annotated places, (N, *spatial) bool. Raises ValueError where none were given."""
        if self.annotation is None:
            raise ValueError(
                "the metric compares maps with annotated places, and there are none; "
                "give evaluate(..., masks=...), batch(..., annotations=...), or --annotations"
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

        The target stays, and so do layers, by name. Raises ValueError where the attribution is not known, or not the
        one of the explanation.
        """
        run, method = self.run, self._method
        # a layer that was chosen automatically, or given as a module, stays the one of that name
        names = {module: name for name, module in run.model.named_modules()} | dict(run.options.names)
        names |= {None: run.layer_name(None)} if isinstance(method, Expr) and method.automatic() else {}
        network, options = run.model, replace(run.options, names=names)
        if model is not None:
            network = as_network(model.module if isinstance(model, LoadedModel) else model)
            options = replace(options, folded=None, compiled=None)  # these stand for the model explained
        check_model(network)
        all_inputs = run.model_inputs if inputs is None else run.model_inputs.with_first(inputs)
        check_inputs(network, all_inputs.tensors)
        return answered(network, all_inputs, run.question.target, {"again": method}, options)["again"][0].values

    @cached_property
    def _method(self) -> Attribution:
        """What computed the explanation. Raises ValueError where it is not known, or another was given."""
        if self.explanation.together > 1:
            raise ValueError(
                f"the metric explains again, and {self.explanation.together} inputs were explained together; "
                f"give an explanation of one, of={self.explanation.of!r}"
            )
        if self.attribution is None:
            if self.explanation.attribution is None:
                raise ValueError(
                    "the metric explains again, and the attribution is not known; give evaluate(..., attribution=...), "
                    "such as cnnviz.attributions['grad_cam']()"
                )
            return self.explanation.attribution
        recipe = recipe_of(self.attribution, self.run)
        if recipe != self.explanation.recipe:
            raise ValueError(
                f"the explanation is of {self.explanation.recipe}, and the attribution given is {recipe}; "
                "give the one that was used"
            )
        return self.attribution


def checked_masks(masks: Any, explanation: Explanation) -> Tensor:
    """Masks as bool on the explanation's device. Raises ValueError for another shape, or numbers that are no mask."""
    tensor = torch.as_tensor(masks)
    check_dense(tensor, "what is given as masks")
    tensor = plain(tensor).to(explanation.values.device)
    expected = (len(explanation), *explanation.inputs.shape[2:])
    if tuple(tensor.shape) != expected:
        raise ValueError(f"masks are {tuple(tensor.shape)} where {expected} is needed: one for each input, of its size")
    if tensor.dtype != torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
        raise ValueError("masks hold other numbers than 0 and 1; compare them first, such as masks > 127")
    return tensor.bool()
