"""One question put to one model: what an attribution is handed, and all that it may be computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.engine import batching
from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.draws import RandomNumbers
from cnnviz.engine.item_traces import ItemTraces
from cnnviz.engine.layers import INPUT, InputPlace, Layer, Site
from cnnviz.engine.model_inputs import ModelInputs, plain
from cnnviz.engine.pass_size import size_of
from cnnviz.engine.trace import Trace
from cnnviz.run import perturbation
from cnnviz.run.attention_reader import AttentionReader
from cnnviz.run.changed_outputs import changed_outputs
from cnnviz.run.layer_reader import LayerReader
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

    subject_of_methods = True  # of what methods are asked

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
        unknown = size_of(model, inputs, question.options.precision) is None
        # whether several inputs are independent will be asked too, and this pass tells
        found = question.options.findings is not None and 1 in question.options.findings.apart
        measured = plan.variants and (unknown or (len(inputs.first) > 1 and not found))
        passes = Passes(model, inputs, question, plan, size=measured)
        passes.findings = question.options.findings or passes.findings
        self._begin(passes, 1)

    def _begin(self, passes: Passes, copies: int, chosen: dict[str, int] | None = None) -> None:
        self._passes = passes
        self.model, self.inputs, self.others = passes.model, passes.inputs.first, passes.inputs.tensors[1:]
        self.model_inputs = passes.inputs
        """All that the model is called with, ``inputs`` first."""
        self.options = passes.question.options
        self.copies = copies
        """How many variants of the first question's batch ``inputs`` holds, one whole batch after the other."""
        self.together: tuple[Run, ...] = ()
        """The runs of all targets that are asked about these inputs together, this one too; empty for a single one."""
        self.answers: dict[Any, Tensor] = {}
        """Values of formulas that were computed, by formula."""
        self.notes: dict[Any, Tensor] = {}
        """What formulas measured on their way, (N,) each, by formula."""
        self.layers = LayerReader(passes, chosen)
        """Reads what layers give."""
        self.attention = AttentionReader(passes)
        """Reads the self-attentions between the inputs and the score."""

    @property
    def plan(self) -> Plan:
        """What the forward pass serves."""
        return self._passes.plan

    @property
    def question(self) -> Question:
        """Which number is explained, and how it is read from an output; with what this pass decides."""
        return self._passes.settled()

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

    def draws(self, *numbers: int | range) -> RandomNumbers:
        """The random numbers of one draw: the same for the same seed on every device, however draws are chunked.

        They depend on the seed and on ``numbers`` alone. With a ``range`` as the last number tensors hold one draw for
        each. Raises ValueError for numbers that are negative or beyond 62 bits.
        """
        return RandomNumbers(self.options.seed, *numbers, device=self.inputs.device)

    def generator_of(self, *numbers: int) -> torch.Generator:
        """A generator of torch's for one numbered draw. It gives other values on each kind of device; see `draws`."""
        seed = self.options.seed
        if numbers:
            mixed = np.random.SeedSequence([seed % 2**63, *numbers]).generate_state(1, np.uint64)[0]
            seed = int(mixed >> np.uint64(1))
        return torch.Generator(self.inputs.device).manual_seed(seed)

    generator = property(generator_of, doc="A generator of torch's for the draw without a number; see `generator_of`.")

    @property
    def trace(self) -> Trace | ItemTraces:
        """The forward pass that serves the plan."""
        return self._passes.trace

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None finds the last one that is a place for a map.

        Raises LookupError where there is none.
        """
        return self._passes.layer_name(layer)

    def activation(self, layer: Layer = None, *, spatial: bool = True, call: int | None = None) -> Tensor:
        """What a layer gives, detached: its map (N, C, *spatial), or with ``spatial=False`` the output as it is.

        Tokens and channels-last outputs are read as maps too. ``call`` chooses one of several calls, from 1. Raises
        LookupError for a layer that does not exist or never ran, ValueError for one that is no place for a map, or
        where several calls are.
        """
        at = self.layers.at(layer, call)
        return self.layers.activation(at if spatial else replace(at, layout="raw", grid=None, extra=0))

    def gradient(
        self,
        layer: Layer | InputPlace = INPUT,
        rule: Rule = PLAIN,
        *,
        reference: Run | None = None,
        call: int | None = None,
    ) -> Tensor:
        """The score's gradient with respect to the input or to a layer's output, (N, C, *spatial), under a rule.

        Of a layer that is no map it is laid out as the output. ``reference`` is a run at as many other inputs: the rule
        finds each operation's call there as ``call.reference``. ``call`` chooses one of several calls, from 1. Raises
        LookupError for a rule that met none of its operations, ValueError where a detach() or no_grad() in the model
        cuts the way, or where the model takes another way for the reference.
        """
        passes = None if reference is None else reference._passes
        if isinstance(layer, InputPlace):
            return self._passes.gradient(layer, rule, passes)
        return self.layers.gradient(self.layers.at(layer, call), rule, passes)

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
        site: Site | InputPlace = INPUT
        if not isinstance(layer, InputPlace):
            at = self.layers.at(layer)
            site, reading = self._passes.choice.sites(at)[0], None
            if at.layout != "raw":
                site, reading = self.layers.site(at)
            if reading is not None and not reading.channels_first:
                raise ValueError(f"layer {site.name!r} does not give (N, C, *spatial), of which boxes are cut")

        def values(numbers: Sequence[int], item: int) -> Any:
            return (inside(number, item) for number in numbers)

        return perturbation.scores_of_changes(self._passes, site, len(boxes), values, boxes)

    def scores_from(
        self, layer: Layer, count: int, change: Callable[[int, int, int], Tensor], *, call: int | None = None
    ) -> Tensor:
        """Scores with a layer's output changed, (count, N), without gradients; only what follows the layer is computed.

        ``change(start, stop, item)`` gives those variants of the layer's map for one item of the batch,
        (stop - start, C, *spatial), as ``activation`` reads it. It may be called again for the same variants, and must
        give the same. ``call`` chooses one of several calls, from 1. Where the pass can't be replayed, every variant
        is a whole pass. Raises LookupError for a layer that does not exist or never ran.
        """
        at, passes = self.layers.at(layer, call), self._passes
        site, reading = passes.choice.sites(at)[0], None
        if at.layout != "raw" and passes.choice.is_place(at):
            site, reading = self.layers.site(at)
        alone = reading is not None and not reading.batch_first
        outputs = changed_outputs(passes, site, reading, change)
        return perturbation.scores_of_changes(passes, site, count, outputs, alone=alone)

    def in_chunks(self, count: int, step: Callable[[int, int], None], *, graphs: int = 1) -> None:
        """Call ``step(start, stop)`` for chunks of ``count`` variants, as many at once as fit the memory budget.

        The step passes its variants by :meth:`in_chunk`. Where memory runs out, or where variants change each other's
        scores, smaller chunks are taken again: a step must not have changed anything before it is through. ``graphs``
        is how many passes with a graph one step holds.
        """
        at_once = perturbation.variants_at_once(self._passes, graphs) if count > 1 else 1
        batching.in_chunks(count, step, at_once, len(self.inputs))

    def in_chunk(self, variants: Tensor, plan: Plan | None = None, *, at_least: int = 1) -> Run:
        """The same question about variants of the batch, (K, N, C, *spatial), in one pass; for a step of chunks.

        Raises ``cnnviz.engine.batching.OneByOne`` if variants change each other's scores, unless there are only
        ``at_least`` of them.
        """
        passes = perturbation.in_chunk(self._passes, variants, plan, at_least=at_least)
        return _derived(passes, self.copies * len(variants))

    def at(self, inputs: Tensor, plan: Plan | None = None) -> Run:
        """The same question about other inputs, (K*N, C, *spatial): K variants, one whole batch after the other.

        Raises ValueError for other numbers.
        """
        return _derived(self._passes.at(inputs, plan), self.copies * len(inputs) // len(self.inputs))

    def of(self, model: nn.Module) -> Run:
        """The same question put to a changed copy of the model, for the same classes."""
        self.target  # noqa: B018  # the classes predicted by this model stay
        return _derived(self._passes.with_model(model), self.copies)

    def toward(
        self,
        target: Tensor | Objective,
        plan: Plan | None = None,
        *,
        same_layers: bool = False,
        together: bool = False,
    ) -> Run:
        """The same inputs asked about other classes, (N,), or another objective; shares this run's forward pass.

        With ``same_layers`` the layer that is found for this question is that of the other one too. An objective reads
        one batch of the first question at a time, or all these inputs ``together``.
        """
        items = len(self.inputs) if together else self._passes.question.items
        question = replace(self._passes.question, target=target, settled=False, items=items)
        plan = (plan or self.plan) | Plan(score_layers=question.layers)
        self._passes.require(replace(plan, elsewhere=frozenset()))  # the shared forward pass must serve it
        passes = self._passes.shared(question, plan)
        passes.choice = self._passes.choice if same_layers else passes.choice
        return _derived(passes, self.copies, self.layers.chosen)

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
        findings = self.options.findings and self.options.findings.of_probabilities
        options = replace(self.options, probabilities=transform, findings=findings)
        passes = self._passes.shared(replace(self._passes.question, options=options), self.plan)
        passes.findings = findings or passes.findings
        return _derived(passes, self.copies)


def at_call(run: Run, layer: Layer, call: int) -> Run:
    """The same question, in which one call of a layer is meant wherever none is said."""
    derived = Run.__new__(Run)
    derived._begin(run._passes, run.copies, {**run.layers.chosen, run.layer_name(layer): call})
    return derived


def _derived(passes: Passes, copies: int, chosen: dict[str, int] | None = None) -> Run:
    run = Run.__new__(Run)
    run._begin(passes, copies, chosen)
    return run


def _no_class(question: Question) -> bool:
    return question.is_function or isinstance(question.target, Objective)
