"""One question put to one model: what an attribution is handed, and all that it may be computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.item_traces import ItemTraces
from cnnviz.engine.layers import INPUT, InputPlace, Layer, check_spatial, execution_order
from cnnviz.engine.model_inputs import ModelInputs, plain
from cnnviz.engine.trace import Trace
from cnnviz.run import perturbation
from cnnviz.run.objectives import Objective
from cnnviz.run.options import RunOptions
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan
from cnnviz.run.question import AnyTarget, Question
from cnnviz.run.score_transform import score_transform
from cnnviz.run.targets import class_scores


class Run:
    """Why does ``model`` give ``inputs`` this score? The only thing that an attribution is handed.

    What is not in the plan is answered too, at the price of another forward pass.

    Args:
        model: in eval mode; it is never changed.
        inputs: the tensor explained, (N, C, *spatial); or all that the model is called with.
        target: classes (N,), an objective, a function of the output, or a function for each input; None: the
            predicted classes.
        others: the model's further inputs, each with the same batch size; they follow the one explained.
        plan: what the forward pass must serve.
        options: shared by all runs derived from this one.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor | ModelInputs,
        target: AnyTarget = None,
        *,
        others: Sequence[Tensor] = (),
        plan: Plan | None = None,
        options: RunOptions | None = None,
    ):
        if isinstance(inputs, Tensor):
            inputs = ModelInputs((plain(inputs), *map(plain, others)))
        question = Question(target, options or RunOptions(), len(inputs.first))
        plan = (plan or Plan()) | Plan(score_layers=question.layers)
        self._begin(Passes(model, inputs, question, plan), 1)

    def _begin(self, passes: Passes, copies: int) -> None:
        self._passes = passes
        self.model, self.inputs, self.others = passes.model, passes.inputs.first, passes.inputs.tensors[1:]
        self.model_inputs = passes.inputs
        """All that the model is called with, ``inputs`` first."""
        self.options = passes.question.options
        self.copies = copies
        """How many variants of the first question's batch ``inputs`` holds, one whole batch after the other."""
        self.answers: dict[Any, Tensor] = {}
        """Values of formulas that were computed, by formula."""
        self.notes: dict[Any, Tensor] = {}
        """What formulas measured on their way, (N,) each, by formula."""

    @property
    def plan(self) -> Plan:
        """What the forward pass serves."""
        return self._passes.plan

    @property
    def question(self) -> Question:
        """Which number is explained, and how it is read from an output."""
        return self._passes.question

    @property
    def target(self) -> Tensor | None:
        """The class explained, (N,); the predicted one if no target was given. None for a function or an objective."""
        return self._passes.target

    @property
    def prediction(self) -> Tensor:
        """The class with the highest score, (N,). Raises ValueError where the target is a function or an objective."""
        if _no_class(self.question):
            raise ValueError("the predicted class is asked for, and a function of the output has none; give a class")
        return self._passes.prediction()

    @property
    def objective(self) -> str | None:
        """The objective explained, as it is written; None where a class or a function of the output is."""
        return repr(self.question.target) if isinstance(self.question.target, Objective) else None

    @property
    def score(self) -> Tensor:
        """The score explained, (N,), detached. Raises ValueError where it is not finite."""
        return self._passes.score().detach()

    @property
    def generator(self) -> torch.Generator:
        """The source of all randomness: the same for the same seed, whatever was drawn before."""
        return torch.Generator(self.inputs.device).manual_seed(self.options.seed)

    def generator_of(self, *numbers: int) -> torch.Generator:
        """The source of one numbered draw: its own, however draws are chunked, and apart from every other seed's."""
        mixed = np.random.SeedSequence([self.options.seed % 2**63, *numbers]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.inputs.device).manual_seed(int(mixed >> np.uint64(1)))

    @property
    def trace(self) -> Trace | ItemTraces:
        """The forward pass that serves the plan."""
        return self._passes.trace

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None finds the last one with spatial extent. Raises LookupError for no layer."""
        return self._passes.layer_name(layer)

    def execution_order(self) -> list[str]:
        """The modules with weights of their own, by name, in the order in which they first run."""
        return execution_order(self.model, self.model_inputs)

    def activation(self, layer: Layer = None, *, spatial: bool = True) -> Tensor:
        """A layer's output, detached, (N, C, *spatial); of its last call, if it is called several times.

        Raises LookupError for a layer that does not exist or never ran, ValueError for one without spatial extent
        (unless ``spatial=False``).
        """
        name = self.layer_name(layer)
        activation = self._passes.activation(name)
        if spatial:
            check_spatial(name, self.model.get_submodule(name), activation, self.inputs)
        return activation

    def gradient(
        self, layer: Layer | InputPlace = INPUT, rule: Rule = PLAIN, *, reference: Run | None = None
    ) -> Tensor:
        """The score's gradient with respect to the input or to a layer's output, (N, C, *spatial), under a rule.

        ``reference`` is a run at as many other inputs: the rule finds each operation's call there as
        ``call.reference``. Raises LookupError for a rule that met none of its operations, ValueError where a detach()
        or no_grad() in the model cuts the way, or where the model takes another way for the reference.
        """
        return self._passes.gradient(layer, rule, None if reference is None else reference._passes)

    def bias_gradients(self) -> list[Tensor]:
        """For each operation that adds something of its own, gradient x implicit bias, (N, C, *spatial) or (N, F).

        Together with input x gradient they sum to the score (Srinivas & Fleuret, 2019, arXiv:1905.00780).
        """
        return self._passes.bias_gradients()

    def scores(self, inputs: Tensor) -> Tensor:
        """Scores of other inputs (K*N, C, *spatial) for the same targets, (K*N,), without gradients, in chunks.

        ``inputs`` holds K variants of the batch, one whole batch after the other.
        """
        variants = inputs.reshape(-1, *self.inputs.shape)
        return self.scores_of(len(variants), lambda start, stop: variants[start:stop]).flatten()

    def scores_of(self, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
        """Scores of ``count`` variants of the batch for the same targets, (count, N), without gradients, in chunks.

        ``draw(start, stop)`` gives those variants, (stop - start, N, C, *spatial): no more of them are held than are
        scored at once. It may be called again for the same variants, and must give the same. Where the model lets the
        inputs of a batch change each other's scores, each variant is passed by itself, as the batch is.
        """
        return perturbation.scores_of_inputs(self._passes, count, draw)

    def scores_of_boxes(
        self, boxes: Tensor, inside: Callable[[int, int], Tensor], layer: Layer | InputPlace = INPUT
    ) -> Tensor:
        """Scores of variants that each change a box of the inputs or of a layer's output, (count, N), no gradients.

        ``boxes`` (count, rank, 2) are where each variant's box begins and ends in every spatial dimension;
        ``inside(number, item)`` is what one item of the batch has there in that variant, (C, *spatial). Only what a box
        can reach is computed, where the model lets it; otherwise every variant is a whole pass. Equal to
        ``scores_of`` up to rounding. Raises ValueError for boxes that are empty or not inside of the input.
        """
        site = layer if isinstance(layer, InputPlace) else self.layer_name(layer)

        def values(numbers: Sequence[int], item: int) -> Any:
            return (inside(number, item) for number in numbers)

        return perturbation.scores_of_changes(self._passes, site, len(boxes), values, boxes)

    def scores_from(self, layer: Layer, count: int, change: Callable[[int, int, int], Tensor]) -> Tensor:
        """Scores with a layer's output changed, (count, N), without gradients; only what follows the layer is computed.

        ``change(start, stop, item)`` gives those variants of the layer's output for one item of the batch,
        (stop - start, C, *spatial); of its last call, if it is called several times. It may be called again for the
        same variants, and must give the same. Where the pass can't be replayed, every variant is a whole pass. Raises
        LookupError for a layer that does not exist or never ran.
        """

        def values(numbers: Sequence[int], item: int) -> Tensor:
            if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
                return change(numbers[0], numbers[-1] + 1, item)
            return torch.cat([change(number, number + 1, item) for number in numbers])

        return perturbation.scores_of_changes(self._passes, self.layer_name(layer), count, values)

    def in_chunk(self, variants: Tensor, plan: Plan | None = None, *, size: bool = False, at_least: int = 1) -> Run:
        """The same question about variants of the batch, (K, N, C, *spatial), in one pass; for a step of chunks.

        Raises ``cnnviz.engine.batching.OneByOne`` if variants change each other's scores, unless there are only
        ``at_least`` of them.
        """
        passes = perturbation.in_chunk(self._passes, variants, size, plan, at_least=at_least)
        return _derived(passes, self.copies * len(variants))

    def variants_at_once(self, items: int) -> int:
        """How many variants of a batch of ``items`` fit the memory budget, judged by this run."""
        return perturbation.variants_at_once(self._passes, items)

    def at(self, inputs: Tensor, plan: Plan | None = None, *, size: bool = False) -> Run:
        """The same question about other inputs, (K*N, C, *spatial): K variants, one whole batch after the other.

        ``size`` measures the bytes of the pass, for :meth:`variants_at_once`. Raises ValueError for other numbers.
        """
        passes = self._passes.at(inputs, plan, size=size)
        return _derived(passes, self.copies * len(inputs) // len(self.inputs))

    def of(self, model: nn.Module) -> Run:
        """The same question put to a changed copy of the model, for the same classes."""
        self.target  # noqa: B018  # the classes predicted by this model stay
        return _derived(self._passes.with_model(model), self.copies)

    def toward(self, target: Tensor | Objective, plan: Plan | None = None) -> Run:
        """The same inputs asked about other classes, (N,), or another objective; shares this run's forward pass."""
        question = replace(self.question, target=target)
        plan = (plan or self.plan) | Plan(score_layers=question.layers)
        self._passes.require(replace(plan, elsewhere=frozenset()))  # the shared forward pass must serve it
        return _derived(self._passes.shared(question, plan), self.copies)

    def as_probability(self) -> Run:
        """The same question, answered in probabilities: of classes by a softmax over them, of one alone by a sigmoid.

        Where the model gives probabilities already, or the target is a function or an objective, it is as it was. What
        is asked later is answered alike, whatever scores come then.
        """
        if _no_class(self.question) or self.options.probabilities:
            return self
        scores = class_scores(self.trace.output, len(self.inputs))
        transform = score_transform(
            self.model, self.model_inputs, scores, self.options.precision or self.trace.output_dtype
        )
        if transform is None:
            return self
        self.target  # noqa: B018  # the classes predicted by this model stay
        question = replace(self.question, options=replace(self.options, probabilities=transform))
        return _derived(self._passes.shared(question, self.plan), self.copies)


def _derived(passes: Passes, copies: int) -> Run:
    run = Run.__new__(Run)
    run._begin(passes, copies)
    return run


def _no_class(question: Question) -> bool:
    return question.is_function or isinstance(question.target, Objective)
