"""The promises of an attribution: one seed gives one answer, and the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cnnviz import Attribution, Explanation, attributions, explain
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import CLASSES, HalfBlindNet, PairNet, SmallNet
from cnnviz.testing.subject import Subject, check_seeds, close, has_a_page, refuses_settings_it_does_not_have


def check_attribution(
    method: str | Attribution | Method[Any],
    *,
    target_blind: bool = False,
    rank: int = 2,
    attention: bool = False,
    **settings: Any,
) -> None:
    """Check an attribution on small networks.

    Checked is that the model, the input and torch's own state are left as they were, also when the model raises or is
    interrupted halfway; that values are (N, C, *spatial), finite, not all zero, and largest where the evidence is; that
    one seed gives one answer, for an input alone as in a batch, and in chunks as at once; that values depend on the
    weights and on the target, which may be a function; that the method works inside no_grad and inference_mode, with
    frozen weights, in float64, beside further inputs and in any memory format; and that it refuses settings it does not
    have. :func:`checks` runs each of these by itself.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a formula or a callable of a run.
        target_blind: whether the method explains the same whatever the target, as Eigen-CAM does. Must be true of it.
        rank: spatial dimensions of the inputs: 1 for signals, 2 for images, 3 for volumes.
        attention: whether the small networks have a self-attention, for methods that need one.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = AttributionSubject.of(method, target_blind=target_blind, rank=rank, attention=attention, **settings)
    for check in ATTRIBUTION_CHECKS:
        check(subject)


@dataclass(frozen=True, eq=False)
class AttributionSubject(Subject):
    """An attribution, and how it is asked."""

    target_blind: bool = False
    rank: int = 2
    attention: bool = False

    @classmethod
    def of(
        cls,
        method: str | Attribution | Method[Any],
        *,
        target_blind: bool = False,
        rank: int = 2,
        attention: bool = False,
        **settings: Any,
    ) -> AttributionSubject:
        built = Subject.built(attributions, method, settings)
        return cls(**built, target_blind=target_blind, rank=rank, attention=attention)

    @cached_property
    def inputs(self) -> Tensor:
        """(3, 3, *spatial), of different lengths."""
        return torch.randn(3, 3, *(12, 10, 8)[: self.rank], generator=torch.Generator().manual_seed(7))

    @cached_property
    def values(self) -> Tensor:
        """What the method gives for the small network."""
        return self.ask(self.net(), "on a small network")

    def net(self, seed: int = 0) -> SmallNet:
        return SmallNet(self.rank, seed=seed, attention=self.attention)

    def explained(self, model: SmallNet, inputs: Any, **options: Any) -> Tensor:
        """The values for classes 0, 1 and 2, unless options say another target."""
        explanation: Explanation = explain(model, inputs, self.method, **{"target": torch.tensor([0, 1, 2]), **options})
        return explanation.values

    def ask(self, model: SmallNet, situation: str, **options: Any) -> Tensor:
        lent = self.inputs.to(next(model.parameters()).dtype, copy=True)  # inside inference mode it is made in it
        return self.answer(lambda: self.explained(model, lent, **options), situation)

    def same(self, values: Tensor, difference: str) -> None:
        self.demand(close(values, self.values), f"gives other values {difference}")


def gives_finite_values(subject: AttributionSubject) -> None:
    """Values are (N, C, *spatial), not empty, finite, and of the model's type."""
    values = subject.values
    subject.demand(values.shape[1:].numel() > 0, f"gives {tuple(values.shape)}, which is empty")
    subject.demand(values.dtype == torch.float32, f"gives {values.dtype} for a model in float32")


def gives_more_than_zeros(subject: AttributionSubject) -> None:
    """For most inputs some values are not zero."""
    some = subject.values.flatten(1).any(1).float().mean() > 0.5
    subject.demand(bool(some), "gives nothing but zeros for most inputs")


def leaves_everything_as_it_was(subject: AttributionSubject) -> None:
    """The model, the input, the settings and torch's own state are what they were."""
    model = subject.net()
    with subject.unchanged(model, subject.inputs) as lent:
        subject.answer(lambda: subject.explained(model, lent), "on a small network")


def lets_errors_through(subject: AttributionSubject) -> None:
    """An error or interrupt in the model comes through, and nothing is left behind."""
    subject.check_failures(subject.explained, subject.rank, subject.inputs, "values", attention=subject.attention)


def gives_the_same_again(subject: AttributionSubject) -> None:
    """One seed gives one answer, whatever else is drawn from global generators."""
    expected = subject.values
    torch.rand(1)  # what is drawn from torch's global generator is something else from now on
    again = subject.ask(subject.net(), "on a small network")
    subject.demand(close(again, expected), "gives other values when asked again with one seed; draw from run.draws")


def draws_by_the_seed(subject: AttributionSubject) -> None:
    """Random numbers come from generators that follow the seed."""
    check_seeds(subject, lambda seed: subject.ask(subject.net(), "on a small network", seed=seed), "run")


def depends_on_the_weights(subject: AttributionSubject) -> None:
    """Another network gets other values."""
    other = subject.ask(subject.net(seed=1), "on a small network")
    subject.demand(not close(other, subject.values), "ignores the model's weights")


def works_without_grad_mode(subject: AttributionSubject) -> None:
    """Values are the same inside torch.no_grad() and torch.inference_mode()."""
    expected, model = subject.values, subject.net()
    for where, mode in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
        with mode:
            subject.demand(close(subject.ask(model, f"inside {where}"), expected), f"gives other values inside {where}")


def works_with_frozen_weights(subject: AttributionSubject) -> None:
    """Values are the same where no weight requires a gradient."""
    situation = "when weights are frozen"
    subject.same(subject.ask(subject.net().requires_grad_(False), situation), situation)


def works_in_float64(subject: AttributionSubject) -> None:
    """A network in float64 gets values in float64."""
    precise = subject.ask(subject.net().double(), "in float64")
    subject.demand(precise.dtype == torch.float64, f"gives {precise.dtype} for a model in float64")


def works_in_any_memory_format(subject: AttributionSubject) -> None:
    """Inputs whose channels lie side by side in memory give the same values."""
    situation = "for inputs whose channels are last in memory"
    last = subject.inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    subject.same(subject.answer(lambda: subject.explained(subject.net(), last), situation), situation)


def works_beside_further_inputs(subject: AttributionSubject) -> None:
    """A model of two inputs, the second of which changes nothing, gives the same values."""
    situation = "for a model of two inputs"
    pair = PairNet(subject.rank, attention=subject.attention)
    found = subject.answer(lambda: subject.explained(pair, (subject.inputs.clone(), torch.ones(3, 1))), situation)
    subject.same(found, situation)


def explains_each_input_by_itself(subject: AttributionSubject) -> None:
    """An input alone gets the values that it gets in a batch."""
    for item in range(len(subject.inputs)):
        alone = subject.answer(
            lambda item=item: subject.explained(  # type: ignore[misc]
                subject.net(), subject.inputs[item : item + 1].clone(), target=torch.tensor([item])
            ),
            "for an input alone",
        )
        subject.demand(
            close(alone, subject.values[item : item + 1]),
            "gives other values for an input alone than in a batch; reduce over each input by itself",
        )


def gives_the_same_in_chunks(subject: AttributionSubject) -> None:
    """Where memory is short, values are the same."""
    subject.same(subject.ask(subject.net(), "where memory is short", memory=1), "where memory is short")


def explains_the_target(subject: AttributionSubject) -> None:
    """Another class has other values, unless the method is said to be blind to the target."""
    other = subject.ask(subject.net(), "on a small network", target=(torch.tensor([0, 1, 2]) + 1) % CLASSES)
    blind = close(other, subject.values)
    subject.demand(subject.target_blind or not blind, "ignores the target; if it is meant to, say target_blind=True")
    subject.demand(blind or not subject.target_blind, "depends on the target, though it is said to be target_blind")


def explains_a_function(subject: AttributionSubject) -> None:
    """A target that is a function of the output is explained, or refused in one line."""
    found = []
    for index in (0, 3):

        def score(output: Tensor, index: int = index) -> Tensor:
            return output[:, index]

        values = subject.answer_or_refusal(
            lambda score=score: subject.explained(subject.net(), subject.inputs.clone(), target=score),  # type: ignore[misc]
            "a target that is a function",
            faults=("an attribution gives", "not finite"),
        )
        if values is None:
            return
        found.append(values)
    blind = close(found[1], found[0])
    subject.demand(subject.target_blind or not blind, "explains the same whatever the function that is the target")


def finds_the_evidence(subject: AttributionSubject) -> None:
    """Where all that a network sees speaks for the target, values are larger there than where it sees nothing."""
    size = (12, 10, 16)[-subject.rank :]
    inputs = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(7)) + 0.5
    values = subject.answer(
        lambda: subject.explained(
            HalfBlindNet(subject.rank, subject.attention), inputs, target=torch.zeros(3, dtype=torch.int64)
        ),
        "on a network that sees the first half",
    )
    third = values.shape[-1] // 3
    seen, unseen = values[..., :third].double(), values[..., -third:].double()
    contrast, total = (seen - unseen).sum(), (seen.abs() + unseen.abs()).sum()
    subject.demand(
        bool(contrast >= -0.1 * total),
        "has less for the target where the evidence is than where the network sees nothing; "
        "positive values speak for the target",
    )


def is_finite_where_nothing_speaks(subject: AttributionSubject) -> None:
    """Where scores do not depend on the input, or it is blank, values are finite or refused in one line."""
    deaf = subject.net()
    with torch.no_grad():
        deaf.classifier.weight.zero_()
    blank = torch.zeros_like(subject.inputs)
    for what, model, inputs in (
        ("a score that nothing changes", deaf, subject.inputs.clone()),
        ("a blank input", subject.net(), blank),
    ):
        subject.answer_or_refusal(
            lambda model=model, inputs=inputs: subject.explained(model, inputs),  # type: ignore[misc]
            what,
            faults=("an attribution gives", "not finite"),
        )


AttributionCheck = Callable[[AttributionSubject], None]
ATTRIBUTION_CHECKS: tuple[AttributionCheck, ...] = (
    has_a_page,
    refuses_settings_it_does_not_have,
    gives_finite_values,
    gives_more_than_zeros,
    leaves_everything_as_it_was,
    lets_errors_through,
    gives_the_same_again,
    draws_by_the_seed,
    depends_on_the_weights,
    works_without_grad_mode,
    works_with_frozen_weights,
    works_in_float64,
    works_in_any_memory_format,
    works_beside_further_inputs,
    explains_each_input_by_itself,
    gives_the_same_in_chunks,
    explains_the_target,
    explains_a_function,
    finds_the_evidence,
    is_finite_where_nothing_speaks,
)
