"""The forward pass for a plan, and the backward passes through it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.batching import is_out_of_memory
from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.item_traces import ItemTraces
from cnnviz.engine.layers import INPUT, InputPlace, Layer, Site, is_automatic
from cnnviz.engine.missed_operations import cut_off
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.speed.memory_format import ORDINARY, keep_ordinary
from cnnviz.engine.trace import Trace, TraceRequest
from cnnviz.engine.validation import check_finite, constant_score
from cnnviz.engine.written_out import SHARES, hidden
from cnnviz.run.bias_contributions import bias_terms_of, contributions, rows_of_one
from cnnviz.run.forward_passes import ForwardPasses
from cnnviz.run.layer_choice import LayerChoice
from cnnviz.run.options import Findings
from cnnviz.run.plain_pass import plain_pass
from cnnviz.run.plan import Plan, check_seen
from cnnviz.run.question import Question, with_neighbours
from cnnviz.run.relevance import all_reported, bounds

A_LAYER = Plan(layers=frozenset({None}))
SCORE = "the model's score"  # in error texts, of the inputs as they are


class Passes:
    """All passes of one question for one set of inputs; another forward pass is made where the plan grows.

    Args:
        model: in eval mode.
        inputs: all that the model is called with, the explained input first.
        question: how the score is read.
        plan: what the pass must serve.
        size: True to measure the bytes of the pass, and to follow its batch axis.
        choice: what is known of the model's layers; shared by passes of equal shapes.
        by_items: whether each input is passed by itself; None: where Python reads values of the batch.
        label: what error texts call the score.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: ModelInputs,
        question: Question,
        plan: Plan,
        *,
        size: bool = False,
        choice: LayerChoice | None = None,
        by_items: bool | None = None,
        label: str = SCORE,
    ):
        self.model, self.inputs, self.question, self.plan = model, inputs, question, plan
        self.choice = choice or LayerChoice(
            model,
            inputs,
            question,
            lambda asked: Passes(model, inputs, asked, Plan(score_layers=asked.layers)).settled(),
        )
        self.label = label
        self.is_measured = size
        self.traces = ForwardPasses(model, inputs, question.options)
        self.findings = Findings(by_items=by_items)
        """How the model treats the inputs, as far as that was found."""
        self._trace: Trace | ItemTraces | None = None
        self._score: Tensor | None = None
        self._read: Tensor | None = None  # the score, finite or not
        self._gradients: dict[tuple[Rule, Site | InputPlace], Tensor] = {}
        self._biases: list[Tensor] | None = None
        self.reported: dict[Rule, dict[str, Tensor] | None] = {}
        """By rule what it reported of its calls, over the input; None where the inputs are mixed."""

    @property
    def target(self) -> Tensor | None:
        """The class explained, (N,), the predicted one if no target was given; None for other kinds of target."""
        question = self.settled()
        return question.target if isinstance(question.target, Tensor) else None

    def settled(self) -> Question:
        """The question with what this pass decides for all variants: predicted classes, and what targets refer to."""
        if self.question.objectives and not self.question.settled:
            trace = self.trace
            seen = Seen(trace.ordinary(trace.input), trace.output, self.by_layer(trace.score_layers))
            pass_of = lambda inputs: Passes(self.model, self.inputs.repeated(inputs), self.question, Plan())  # noqa: E731
            self.question = self.question.settle(plain_pass(seen, self.question.options, pass_of))
        if self.question.target is None:
            self.question = replace(self.question, target=self.prediction())
        return self.question

    def prediction(self) -> Tensor:
        """The class with the highest score, (N,); of a single score 0, or -1 for what speaks against it."""
        known = self.question.knowing_the_head(self.model, self.inputs, self.trace.output)
        return known.predicted(self.trace.output, len(self.inputs[0]))

    def at(self, inputs: Tensor, plan: Plan | None = None, *, size: bool = False, compiled: bool = True) -> Passes:
        """The same question about other inputs, (K*N, C, *spatial): K variants, one whole batch after the other."""
        first = self.inputs.first
        copies, rest = divmod(len(inputs), len(first))
        if rest or not copies:
            raise ValueError(f"there are {len(inputs)} other inputs for a batch of {len(first)}; give whole batches")
        question = self.question if self.target is None else self.question.repeated(copies)
        if not compiled:
            question = replace(question, options=replace(question.options, compiled=None))
        choice = self.choice if inputs.shape[1:] == first.shape[1:] else None
        label = "the model's score of a changed input"
        plan = (plan or Plan()) | Plan(score_layers=question.layers)
        by_items, all_inputs = self.asked_by_items, self.inputs.repeated(inputs)
        other = Passes(self.model, all_inputs, question, plan, size=size, choice=choice, by_items=by_items, label=label)
        other.traces.keep_bindings = False
        return other

    def of(self, part: slice) -> Passes:
        """The same question about a part of the batch."""
        self.question, trace = self.settled().knowing_the_head(self.model, self.inputs, self.trace.output), self.trace
        batch = self.question.reads(
            trace.output, partial(trace.ordinary, trace.input), self.by_layer(trace.score_layers)
        )
        question = self.question.of(part, batch)
        plan = Plan(score_layers=question.layers)
        other = Passes(
            self.model, self.inputs.rows(part), question, plan, choice=self.choice, by_items=self.asked_by_items
        )
        other.traces.keep_bindings = False
        return other

    def with_model(self, model: nn.Module) -> Passes:
        """The same question put to another model with layers of the same names."""
        question = replace(self.settled(), options=replace(self.question.options, compiled=None))
        return Passes(model, self.inputs, question, Plan(score_layers=question.layers), choice=self.choice)

    def shared(self, question: Question, plan: Plan, trace: Trace | ItemTraces | None = None) -> Passes:
        """The same forward pass, or this one, for another question, which may ask for gradients of the same graph."""
        plan, choice, by_items = plan | Plan(again=True), self.choice.toward(question), self.asked_by_items
        other = Passes(self.model, self.inputs, question, plan, choice=choice, by_items=by_items, label=self.label)
        other._trace = self.trace if trace is None else trace
        return other

    @property
    def trace(self) -> Trace | ItemTraces:
        """The forward pass."""
        if self._trace is None:
            self._trace = self._forward()
        return self._trace

    @property
    def asked_by_items(self) -> bool | None:
        """Whether each input is passed by itself, because Python reads values of the batch. None: not known yet."""
        if self.findings.by_items is None and self._trace is not None:
            self.findings.by_items = isinstance(self._trace, ItemTraces)
        return self.findings.by_items

    def score(self) -> Tensor:
        """The score explained, (N,), with its graph. Raises ValueError where it is not finite."""
        if self._score is None:
            score = self.unchecked_score()
            check_finite(score.detach(), self.label, self.model)
            self._score = score
        return self._score

    def unchecked_score(self, kept: Tensor | None = None) -> Tensor:
        """The score, finite or not.

        Args:
            kept: which inputs, (N,), keep their rows of what the score is read from. Others get those of a neighbour.
        """
        trace = self.trace
        self.question = self.settled().knowing_the_head(self.model, self.inputs, self.trace.output)
        if kept is None and self._read is not None:
            return self._read  # a target may write what it reads
        with trace.following():
            layers, inputs, output = self.by_layer(trace.score_layers), trace.ordinary(trace.input), trace.output
            if kept is not None:
                inputs, output, layers = with_neighbours((inputs, output, layers), kept)
            score = self.question.read(output, len(trace.input), lambda: inputs, layers)
        self._read = score if kept is None else self._read
        return score

    def by_layer(self, outputs: Mapping[str, Tensor]) -> dict[Layer, Tensor]:
        """Outputs of the layers that the score is read from, by what the layers were given as."""
        names = {layer: self.layer_name(layer) for layer in self.question.layers}
        return {layer: outputs[name] for layer, name in names.items() if name in outputs}

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None finds the last one that is a place for a map."""
        check_seen(self.model, A_LAYER)
        return self.choice.name(layer)

    def activation(self, site: Site) -> Tensor:
        """What a layer gave in one call, detached. Raises LookupError for a layer that never ran."""
        self.require(Plan(layers=frozenset({site})))
        return self.trace.activation(site)

    def gradient(self, place: Site | InputPlace, rule: Rule, reference: Passes | None = None) -> Tensor:
        """The gradient at the input or at what a layer gave in one call.

        ``reference`` are passes that the rule compares with.
        """
        if reference is None and hides(self, rule.backwards):
            return self.at(self.inputs[0], Plan(gradients=frozenset({(rule, place)}))).gradient(place, rule)
        # operations are numbered alike only where both graphs begin at the input
        self.require(Plan(gradients=frozenset({(rule, place), (rule, INPUT if reference else place)})))
        if reference is not None:
            reference.require(Plan(references=frozenset({rule})))
            self._pass_alike(reference)
            reference.score()
            self._gradients.pop((rule, place), None)
        if (rule, place) not in self._gradients:
            self._backward(rule, reference)
        return self._gradients[rule, place]

    def bias_gradients(self) -> list[Tensor]:
        """For each operation with an implicit bias, gradient x bias."""
        if self.asked_by_items and len(self.inputs[0]) > 1:  # the operations of two inputs may differ
            of_items = (self.of(slice(item, item + 1)).bias_gradients() for item in range(len(self.inputs[0])))
            return [
                rows_of_one(term, item, len(self.inputs[0])) for item, terms in enumerate(of_items) for term in terms
            ]
        self.require(Plan(gradients=frozenset({(PLAIN, INPUT)}), biases=True))
        if self._biases is None:
            self._backward(PLAIN)
        return self._biases or []

    def require(self, more: Plan) -> None:
        """Make sure that the forward pass serves this too."""
        plan = self.plan
        together = replace(plan | more, elsewhere=plan.elsewhere)
        if together != plan:
            self.plan = together
            if self._named(together) != self._named(plan):
                self._forget()

    def _forward(self) -> Trace | ItemTraces:
        check_seen(self.model, self.plan)
        trace = self._passed()
        if not self.choice.fits(trace.counts, trace.order) and self.choice.renew():
            trace = self._passed()
        return trace

    def _passed(self) -> Trace | ItemTraces:
        plan, options = self._named(self.plan), self.question.options
        layer_gradients = {place for _, place in plan.gradients if isinstance(place, Site)}
        request = TraceRequest(
            layers=frozenset(site for site in plan.layers if isinstance(site, Site)) | layer_gradients,
            rules=frozenset(rule for rule, _ in plan.gradients if rule.backwards and not hides(self, rule.backwards)),
            input_gradient=any(place is INPUT for _, place in plan.gradients),
            layer_gradients=bool(layer_gradients),
            biases=plan.biases,
            reads=self.findings.by_items is None and len(self.inputs[0]) > 1,
            size=self.is_measured,
            score_layers=frozenset(name for name in plan.score_layers if isinstance(name, str)),
            order=any(map(is_automatic, (*self.plan.layers, *(place for _, place in self.plan.gradients)))),
            before=options.before,
            references=plan.references,
            attention=plan.attention and not hides(self, SHARES),
        )
        if options.folded is not None:
            options.folded.check_rules([*request.rules, *request.references], request.biases)
        return self.traces.of(request, by_items=bool(self.findings.by_items))

    def _backward(self, rule: Rule, reference: Passes | None = None) -> None:
        """All planned gradients under one rule, in one pass."""
        if self.trace.spent:
            self._trace = self._score = self._read = None
        named: Any = self._named(self.plan).gradients
        places: list[Site | InputPlace] = sorted({place for other, place in named if other is rule}, key=str)
        try:
            grads = self._grads(rule, places, reference)
        except Exception as error:
            if isinstance(error, LookupError) or self.trace.options.layout is ORDINARY or is_out_of_memory(error):
                raise
            grads = None
        if grads is None:  # a rule may look at strides; if that was not it, the same error comes again
            self.traces.ordinary = True
            self._forget()
            self._backward(rule, reference)
            keep_ordinary(self.model)
            return
        if not self.trace.whole and any(grad is None for grad in grads):
            # the graph that began at a layer is not all of it: the model restored the grad mode it entered a block
            # with, or goes on with what an in-place layer was given instead of what it returned
            self.traces.whole = True
            self._forget()
            self._backward(rule, reference)
            return
        for place, grad in zip(places, grads, strict=False):
            if grad is None:
                if self.label != SCORE and not self.score().requires_grad:
                    raise constant_score(self.label)
                raise cut_off(place, self.model)
            self._gradients[rule, place] = grad
        terms, rank = bias_terms_of(self.plan, self.trace.bias_terms, rule), self.inputs[0].ndim - 2
        if rule is PLAIN:
            self._biases = contributions(terms, grads[len(places) :], self.score(), rank, self.trace.gradients)
        elif rule.follows:
            self.reported[rule] = all_reported(self.trace.reported, terms, grads[len(places) :], self.inputs[0].shape)

    def _grads(
        self, rule: Rule, places: list[Site | InputPlace], reference: Passes | None
    ) -> list[Tensor | None] | None:
        score = self.score()  # its own operations may have biases too
        done = {rule, *(other for other, _ in self._gradients)}
        terms = bias_terms_of(self.plan, self.trace.bias_terms, rule)
        split = all(term.place.is_split(len(self.inputs[0])) for term in terms)
        last = split and not self.plan.again and all(other in done for other, _ in self.plan.gradients)
        wrt = [*(self.trace.edge(place, rule) for place in places), *(term.edge for term in terms)]
        pairs = {} if reference is None else dict(zip(self.trace.records, reference.trace.records, strict=True))
        box = partial(bounds, self.question.options.preprocessing, self.inputs[0])
        return self.trace.gradients(score, wrt, rule, last=last, references=pairs, bounds=box)

    def _pass_alike(self, reference: Passes) -> None:
        if isinstance(self.trace, ItemTraces) != isinstance(reference.trace, ItemTraces):
            self.findings.by_items = reference.findings.by_items = True  # both, as one of them has to be
            self._forget()
            reference._forget()

    def _named(self, plan: Plan) -> Plan:
        """The plan with every layer by its name and calls."""
        return replace(
            plan,
            layers=frozenset([site for layer in plan.layers for site in self.choice.sites(layer)]),
            gradients=frozenset([(rule, site) for rule, place in plan.gradients for site in self.choice.sites(place)]),
            score_layers=frozenset([self.layer_name(layer) for layer in plan.score_layers]),
        )

    def _forget(self) -> None:
        self._trace = self._score = self._read = self._biases = None
        self._gradients.clear()
        self.reported.clear()


def hides(passes: Passes, operations: Collection[Any]) -> bool:
    """True if a rule of the pass is about a whole, such as attention, of whose parts these operations are."""
    rules = {rule for rule, _ in passes.plan.gradients} | (passes._trace.rules if passes._trace else set())
    return hidden(operations, [rule.backwards for rule in rules])
