"""One question put to one model, and all that its answer may be computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from cnnviz.engine import batching
from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.forward import asking
from cnnviz.engine.layers import INPUT, InputPlace, Layer, check_spatial, layer_name
from cnnviz.engine.speed.memory_format import ORDINARY, keep_ordinary, preferred
from cnnviz.engine.trace import Means, Trace, Wanted
from cnnviz.engine.validation import check_finite
from cnnviz.incremental.replay import Replay
from cnnviz.incremental.windows import Windows
from cnnviz.run.batch_independence import differ, mixes
from cnnviz.run.objectives import Objective
from cnnviz.run.score_transform import Squashing, squashed, squashing
from cnnviz.run.targets import check_classes, class_scores, read_score

if TYPE_CHECKING:
    from cnnviz.engine.speed.conv_bn_folding import Folded
    from cnnviz.formulas.expr import Expr
    from cnnviz.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class Plan:
    """What a formula is going to ask for, so that one forward pass can serve it all."""

    layers: frozenset[Layer] = frozenset()
    gradients: frozenset[tuple[Rule, Layer | InputPlace]] = frozenset()
    biases: bool = False
    seen: frozenset[Layer] = frozenset()
    """Layers that the score is read from."""
    again: bool = False
    """Whether gradients are taken more often than the rules in ``gradients`` tell: the graph must last."""
    elsewhere: frozenset[Expr] = frozenset()
    """Parts that are evaluated at other inputs, and may share those evaluations."""

    def __or__(self, other: Plan) -> Plan:
        return Plan(
            self.layers | other.layers,
            self.gradients | other.gradients,
            self.biases or other.biases,
            self.seen | other.seen,
            self.again or other.again,
            self.elsewhere | other.elsewhere,
        )


@dataclass(frozen=True)
class Circumstances:
    """What stays the same for every question derived from the first."""

    preprocessing: Preprocessing | None = None
    categories: tuple[str, ...] | None = None
    seed: int = 0
    memory: int | None = None
    """Bytes that one chunk of inputs may take; None: a share of what is free."""
    before_softmax: bool = False
    """Whether scores are what goes into the model's last softmax, instead of what comes out."""
    probabilities: Squashing | None = None
    """What scores of classes are brought between 0 and 1 by."""
    precision: torch.dtype | None = None
    """What the model computes in, where that is less than its weights have."""
    folded: Folded | None = None
    """The copy that is asked instead of the model, where batch norms were folded."""
    names: Mapping[Any, str] = field(default_factory=dict)
    """What layers are called, where the model is a copy of the one whose modules are asked for."""
    compiled: nn.Module | None = None
    """The model, compiled, for passes that leave nothing but scores."""


def _of_item(inside: Callable[[int, int], Tensor], item: int, number: int) -> Tensor:
    return inside(number, item)


class Run:
    """Why does ``model`` give ``inputs`` this score? The only thing an attribution is handed.

    ``inputs`` is the tensor explained, (N, C, *spatial); ``others`` are the model's further inputs. Whatever is asked
    beyond the plan is answered too, at the price of another forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Tensor | Objective | Callable[[Any], Tensor] | None = None,
        *,
        others: Sequence[Tensor] = (),
        plan: Plan | None = None,
        circumstances: Circumstances | None = None,
        size: bool = False,
    ):
        self.model = model
        self.inputs = inputs
        self.others = tuple(others)
        self.plan = plan or Plan()
        if isinstance(target, Objective):
            self.plan |= Plan(seen=target.layers)
        self.circumstances = circumstances or Circumstances()
        self.answers: dict[Any, Tensor] = {}
        self.notes: dict[Any, Tensor] = {}
        self._asked = target
        self._size = size
        self._told = "the model's score"
        self._whole = False
        self._ordinary = False
        """Whether the order of numbers in memory is to be left alone."""
        self._copies = 1
        self._names: dict[Layer, str] = {}
        self._scored: Tensor | None = None
        self._trace: list[Trace] = []
        self._gradients: dict[tuple[Rule, str | InputPlace], Tensor] = {}
        self._biases: list[Tensor] | None = None
        self._replays: dict[tuple[str, int], Replay] = {}

    # What was asked

    @property
    def target(self) -> Tensor | None:
        """The class explained, (N,); the predicted one if none was asked for. None for a function target."""
        if callable(self._asked) and not isinstance(self._asked, Tensor):
            return None
        if self._asked is None:
            self._asked = self.prediction
        return self._asked

    @property
    def prediction(self) -> Tensor:
        """The class with the highest score, (N,). Raises ValueError where the target is a function of the output."""
        if callable(self._asked) and not isinstance(self._asked, Tensor):
            raise ValueError("the predicted class is asked for, and a function of the output has none; give a class")
        return class_scores(self.trace.output, len(self.inputs)).detach().argmax(1)

    @property
    def objective(self) -> str | None:
        """The objective explained, as it is written; None where a class or a function of the output is."""
        return repr(self._asked) if isinstance(self._asked, Objective) else None

    @property
    def copies(self) -> int:
        """How many variants of the first question's batch ``inputs`` holds, one whole batch after the other."""
        return self._copies

    @property
    def score(self) -> Tensor:
        """The score explained, (N,), detached."""
        return self._score().detach()

    @property
    def generator(self) -> torch.Generator:
        """The source of all randomness: the same for the same seed, whatever was drawn before."""
        return torch.Generator(self.inputs.device).manual_seed(self.circumstances.seed)

    def generator_of(self, *numbers: int) -> torch.Generator:
        """The source of one numbered draw: its own, however draws are chunked, and apart from every other seed's."""
        mixed = np.random.SeedSequence([self.circumstances.seed % 2**63, *numbers]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.inputs.device).manual_seed(int(mixed >> np.uint64(1)))

    # What the model shows

    def activation(self, layer: Layer = None, *, spatial: bool = True) -> Tensor:
        """A layer's output, detached, (N, C, *spatial); of its last call, if it is called several times.

        Raises LookupError for a layer that does not exist or never ran, ValueError for one without spatial extent
        (unless ``spatial=False``).
        """
        name = self.layer_name(layer)
        self._require(Plan(layers=frozenset({name})))
        if name not in self.trace.activations:
            raise LookupError(f"layer {name!r} did not run for this input; choose one that does")
        kept = self.trace.activation(name)
        if spatial:
            check_spatial(name, self.model.get_submodule(name), kept, self.inputs)
        return kept

    def gradient(self, layer: Layer | InputPlace = INPUT, rule: Rule = PLAIN) -> Tensor:
        """The score's gradient with respect to the input or to a layer's output, under a rule.

        Raises LookupError for a rule that met none of its operations, ValueError where a detach() or no_grad() in the
        model cuts the way.
        """
        at = self._place(layer)
        self._require(Plan(gradients=frozenset({(rule, at)})))
        if (rule, at) not in self._gradients:
            self._backward(rule)
        return self._gradients[rule, at]

    def bias_gradients(self) -> list[Tensor]:
        """For each operation that adds something of its own, gradient x implicit bias, (N, C, *spatial) or (N, F).

        Together with input x gradient they sum to the score (Srinivas & Fleuret, 2019, arXiv:1905.00780).
        """
        self._require(Plan(gradients=frozenset({(PLAIN, INPUT)}), biases=True))
        if self._biases is None:
            self._backward(PLAIN)
        return self._biases or []

    def _backward(self, rule: Rule) -> None:
        """All that is planned under one rule, in one pass."""
        if self.trace.spent:
            self._trace, self._scored = [], None
        wanted = {self._place(each) for other, each in self.plan.gradients if other is rule}
        places = sorted(wanted, key=str)
        done = {rule, *(other for other, _ in self._gradients)}
        last = not self.plan.again and all(other in done for other, _ in self.plan.gradients)
        biases = self.trace.biases.found if self.trace.biases is not None and rule is PLAIN else []
        asked = [*map(self._kept, places), *(edge for edge, _ in biases)]
        try:
            found = self.trace.gradients(self._score(), asked, rule, last=last)
        except Exception as error:
            refused = isinstance(error, LookupError)
            if refused or self.trace.means.layout is ORDINARY or batching.is_out_of_memory(error):
                raise
            found = None
        if found is None:  # a rule may look at strides; if that was not it, the same error comes again
            self._ordinary = True
            self._forget()
            self._backward(rule)
            keep_ordinary(self.model)
            return
        if not self.trace.whole and (self.trace.lost or any(grad is None for grad in found)):
            # the graph that began at a layer is not all of it: the model restored the grad mode it entered a block
            # with, or goes on with what an in-place layer was given instead of what it returned
            self._whole = True
            self._forget()
            self._backward(rule)
            return
        for place, grad in zip(places, found, strict=False):
            if grad is None:
                where = f"layer {place!r}" if isinstance(place, str) else place.value
                raise ValueError(
                    f"the score does not depend on {where} by operations that carry gradients; a detach() or "
                    f"no_grad() in {type(self.model).__name__}.forward cuts them, or the layer decides nothing"
                )
            self._gradients[rule, place] = grad
        if rule is PLAIN:
            shares = zip(found[len(places) :], biases, strict=True)
            self._biases = [grad * bias for grad, (_, bias) in shares if grad is not None]

    # Other questions

    def scores(self, inputs: Tensor) -> Tensor:
        """Scores of other inputs (K*N, C, *spatial) for the same targets, (K*N,), without gradients, in chunks.

        ``inputs`` holds K variants of the batch, one whole batch after the other.
        """
        variants = inputs.reshape(-1, *self.inputs.shape)
        return self.scores_of(len(variants), lambda start, stop: variants[start:stop]).flatten()

    def scores_of(self, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
        """Scores of ``count`` variants of the batch for the same targets, (count, N), without gradients, in chunks.

        ``draw(start, stop)`` gives those variants, (stop - start, N, C, *spatial): no more of them are kept than are
        scored at once. It may be called again for the same variants, and must give the same. Where the model lets the
        inputs of a batch change each other's scores, each variant is passed by itself, as the batch is.
        """
        items = len(self.inputs)
        found: list[Tensor] = []
        parts = [slice(0, items)]  # of the batch, where it is too large to be passed at once

        def step(start: int, stop: int) -> int:
            nonlocal parts
            variants = draw(start, stop)
            asked = [self if len(parts) == 1 else self._only(part) for part in parts]
            runs = [
                run.at(variants[:, part].flatten(0, 1), size=not start) for run, part in zip(asked, parts, strict=True)
            ]
            found.append(torch.cat([run.score.view(stop - start, -1) for run in runs], 1))
            if start:
                return 0
            largest = max(1, math.ceil(runs[0].trace.bytes / (3 * items)))
            fitting = batching.passed_at_once(self.inputs.device, self.circumstances.memory, largest)
            if count > 1 and self._mixes_at(runs[0], fitting):
                return 1
            parts = [slice(first, first + fitting) for first in range(0, items, fitting)]
            return max(1, fitting // items)

        batching.in_chunks(count, step)
        return torch.cat(found) if found else self.score.new_empty(0, items)

    def scores_of_boxes(self, boxes: Tensor, inside: Callable[[int, int], Tensor]) -> Tensor:
        """Scores of variants that each change a box of the inputs, (count, N), without gradients.

        ``boxes`` (count, rank, 2) are where each variant's box begins and ends in every spatial dimension;
        ``inside(number, item)`` is what one item of the batch has there in that variant, (C, *spatial). Only what a box
        can reach is computed, where the model lets it; otherwise every variant is a whole pass. Equal to
        ``scores_of`` up to rounding. Raises ValueError for boxes that are empty or not inside of the input.
        """
        windows = Windows(self.model, boxes, self.inputs.shape[2:], self.circumstances.memory)
        if len(boxes) > 1 and self._mixes():
            return self.scores_of(len(boxes), partial(self._changed_in, boxes, inside))
        scores = self.score.new_empty(len(boxes), len(self.inputs))
        for item in range(len(self.inputs)):
            one = self._alone(item)
            watched = [one.layer_name(layer) for layer in one.plan.seen]
            scores[:, item] = windows.scores(
                (one.inputs, *one.others),
                partial(_of_item, inside, item),
                one._read_varied,
                watched,
                self.circumstances.before_softmax,
                self.score[item],
                coarse=self.circumstances.precision is not None,
            )
        check_finite(scores, "the model's score of a changed input")
        return scores

    def scores_from(self, layer: Layer, count: int, change: Callable[[int, int], Tensor]) -> Tensor:
        """Scores with a layer's output changed, (count, N), without gradients; only what follows the layer is computed.

        ``change(start, stop)`` gives those variants of the layer's output, (stop - start, N, C, *spatial); of its last
        call, if it is called several times. Where the model can't be replayed, every variant is a whole pass.
        Raises LookupError for a layer that does not exist or never ran.
        """
        name = self.layer_name(layer)
        scores = self.score.new_empty(count, len(self.inputs))
        replays = [self._replay(name, item) for item in range(len(self.inputs))]
        if name in self.trace.activations:  # which differs from what a replay recorded by rounding
            for item, replay in enumerate(replays):
                replay.output = self.trace.activation(name)[item : item + 1]
        beside = torch.zeros_like(self.score)
        if self.circumstances.precision is not None:  # replays are in full precision, unlike the score and the layer
            kept = self.activation(name, spatial=False)
            beside = self.score - torch.cat([replay(kept[item][None]) for item, replay in enumerate(replays)])

        def step(start: int, stop: int) -> int:
            changed = change(start, stop)
            for item, replay in enumerate(replays):
                scores[start:stop, item] = replay(changed[:, item]) + beside[item]
            return batching.variants_of(self.inputs.device, self.circumstances.memory, max(r.largest for r in replays))

        batching.in_chunks(count, step)
        check_finite(scores, "the model's score of a changed layer")
        return scores

    def _replay(self, name: str, item: int) -> Replay:
        if (name, item) not in self._replays:
            one = self._alone(item)
            watched = [one.layer_name(layer) for layer in one.plan.seen]
            before = self.circumstances.before_softmax
            self._replays[name, item] = Replay(
                self.model, (one.inputs, *one.others), name, one._read_changed, watched, before_softmax=before
            )
        return self._replays[name, item]

    def _alone(self, item: int) -> Run:
        """The same question about one input of the batch."""
        return self._only(slice(item, item + 1))

    def _only(self, part: slice) -> Run:
        """The same question about a part of the batch."""
        return Run(
            self.model,
            self.inputs[part],
            self._asked_of(part),
            others=[each[part] for each in self.others],
            circumstances=self.circumstances,
        )

    def _asked_of(self, part: slice) -> Any:
        """What is asked of a part of the batch."""
        if callable(self._asked) and not isinstance(self._asked, Tensor):
            return self._asked
        target = self.target
        return None if target is None else target[part]

    def _read_changed(self, output: Any, shown: Mapping[str, Tensor]) -> Tensor:
        """Scores of variants of this run's one input, (K,), read from a replayed pass."""
        variants = len(next(iter(shown.values())))
        inputs = self.inputs.expand(variants, *self.inputs.shape[1:])
        return self._read_as(self._asked_of_each(variants), output, inputs, shown).detach()

    def _read_varied(
        self, output: Any, shown: Mapping[str, Tensor], variants: int, drawn: Callable[[], Tensor]
    ) -> Tensor:
        """Scores of variants of this run's one input, (K,), which are drawn where the score is read from them."""
        objective = isinstance(self._asked, Objective)
        inputs = drawn() if objective else self.inputs.expand(variants, *self.inputs.shape[1:])
        return self._read_as(self._asked_of_each(variants), output, inputs, shown).detach()

    def _asked_of_each(self, variants: int) -> Any:
        """What is asked of so many variants of this run's one input."""
        return self._asked.expand(variants) if isinstance(self._asked, Tensor) else self._asked

    def at(
        self, inputs: Tensor, plan: Plan | None = None, *, size: bool = False, told: Circumstances | None = None
    ) -> Run:
        """The same question about other inputs, (K*N, C, *spatial): K variants, one whole batch after the other."""
        copies, rest = divmod(len(inputs), len(self.inputs))
        if rest or not copies:
            raise ValueError(
                f"there are {len(inputs)} other inputs for a batch of {len(self.inputs)}; give whole batches"
            )
        asked = self._asked if callable(self._asked) and not isinstance(self._asked, Tensor) else self.target
        other = Run(
            self.model,
            inputs,
            asked.repeat(copies) if isinstance(asked, Tensor) else asked,
            others=[each.repeat(copies, *(1,) * (each.ndim - 1)) for each in self.others],
            plan=plan,
            circumstances=told or self.circumstances,
            size=size,
        )
        other._told = "the model's score of a changed input"
        other._copies = self._copies * copies
        other._names = self._names if inputs.shape[1:] == self.inputs.shape[1:] else {}
        return other

    def toward(self, target: Tensor | Objective, plan: Plan | None = None) -> Run:
        """The same inputs asked about other classes, (N,), or another objective; shares this run's forward pass."""
        plan = plan or self.plan
        if isinstance(target, Objective):
            plan |= Plan(seen=target.layers)
        self._require(replace(plan, elsewhere=frozenset()))  # the shared forward pass must serve it
        other = Run(
            self.model,
            self.inputs,
            target,
            others=self.others,
            plan=plan | Plan(again=True),  # others may take gradients of the same graph
            circumstances=self.circumstances,
        )
        other._trace = [self.trace]
        other._copies, other._names = self._copies, self._names
        return other

    def as_probability(self) -> Run:
        """The same question, answered in probabilities: of classes by a softmax over them, of one alone by a sigmoid.

        Where the model gives probabilities already, or the target is a function or an objective, it is as it was. What
        is asked later is answered alike, whatever scores come then.
        """
        if callable(self._asked) and not isinstance(self._asked, Tensor):
            return self
        scores = class_scores(self.trace.output, len(self.inputs))
        computed = self.circumstances.precision or scores.dtype
        by = squashing(self.model, (self.inputs, *self.others), scores, computed)
        if by is None or self.circumstances.probabilities:
            return self
        told = replace(self.circumstances, probabilities=by)
        shared = self.plan | Plan(again=True)
        other = Run(self.model, self.inputs, self.target, others=self.others, plan=shared, circumstances=told)
        other._trace, other._copies, other._names = [self.trace], self._copies, self._names
        return other

    def layer_name(self, layer: Layer) -> str:
        """The dotted name of a layer; None finds the last one with spatial extent."""
        layer = tuple(layer) if isinstance(layer, list) else layer
        if layer not in self._names:
            folded = self.circumstances.folded
            name = layer_name(self.model, self.circumstances.names.get(layer, layer), (self.inputs, *self.others))
            self._names[layer] = folded.check_layer(name) if folded else name
        return self._names[layer]

    def variants_at_once(self, items: int) -> int:
        """How many variants of a batch of ``items`` fit the memory budget, judged by this run."""
        per_item = math.ceil(self.trace.bytes / len(self.inputs))
        fitting = batching.items_at_once(self.inputs.device, self.circumstances.memory, per_item)
        return 1 if fitting >= 2 * items and self._mixes() else max(1, fitting // items)

    def _changed_in(self, boxes: Tensor, inside: Callable[[int, int], Tensor], start: int, stop: int) -> Tensor:
        """Variants of the inputs that each change a box, (stop - start, N, C, *spatial)."""
        variants = self.inputs.expand(stop - start, *self.inputs.shape).clone()
        for variant, number in zip(variants, range(start, stop), strict=True):
            box = [slice(begin, end) for begin, end in boxes[number].tolist()]
            for item in range(len(self.inputs)):
                variant[(item, slice(None), *box)] = inside(number, item)
        return variants

    def _mixes(self) -> bool:
        """Whether these inputs' scores change where others are asked beside them."""

        def judged() -> bool:
            reach = self.inputs.abs().max()
            drawn = torch.rand(self.inputs.shape, generator=self.generator, device=self.inputs.device)
            unlike = (drawn * reach.where(reach > 0, 1)).to(self.inputs)  # the inputs may be a baseline, all alike
            both = torch.cat([self.inputs, unlike])
            told = replace(self.circumstances, compiled=None)  # a pass of another size would be compiled anew
            return differ(self.score, lambda: self.at(both, told=told)._unchecked()[: len(self.inputs)], told.precision)

        function = callable(self._asked) and not isinstance(self._asked, Tensor | Objective)
        try:  # a function may mix what the model does not
            return judged() if function else mixes(self.model, judged)
        except Exception as error:
            if batching.is_out_of_memory(error):
                return True  # there is no room for two
            raise

    def _mixes_at(self, variant: Run, fitting: int) -> bool:
        """Whether scores of a variant change where so many inputs are passed at once: a part of it, or several."""
        if fitting >= len(self.inputs):
            return fitting >= 2 * len(self.inputs) and variant._mixes()
        first, told = slice(0, fitting), self.circumstances
        part = self._only(first).at(variant.inputs[first])
        return differ(variant.score[first], part._unchecked, told.precision)

    def _unchecked(self) -> Tensor:
        """The score as :attr:`score`, finite or not."""
        return self._read_unchecked(self.trace.output).detach()

    @property
    def trace(self) -> Trace:
        """The forward pass that serves the plan."""
        if not self._trace:
            self._trace.append(self._forward())
        return self._trace[0]

    def _forward(self) -> Trace:
        names = {at for _, at in self.plan.gradients if at is not INPUT}
        wanted = Wanted(
            layers=frozenset([self.layer_name(layer) for layer in self.plan.layers | names]),
            rules=frozenset(rule for rule, _ in self.plan.gradients if rule.backwards),
            input_gradient=any(at is INPUT for _, at in self.plan.gradients),
            layer_gradients=bool(names),
            biases=self.plan.biases,
            size=self._size,
            seen=frozenset([self.layer_name(layer) for layer in self.plan.seen]),
            before_softmax=self.circumstances.before_softmax,
        )
        everything, precision = (self.inputs, *self.others), self.circumstances.precision
        if self.circumstances.folded is not None:
            self.circumstances.folded.check_rules([*wanted.rules], wanted.biases)
        if self.circumstances.compiled is not None and wanted == Wanted():
            with asking(self.model, self.inputs, eager=False):
                return Trace(self.circumstances.compiled, everything, wanted, means=Means(precision=precision))
        # implicit biases are found by operations that differ between the orders
        ordinary = self._ordinary or wanted.biases
        layout = ORDINARY if ordinary else preferred(self.model, self.inputs, precision)
        with asking(self.model, self.inputs):
            try:
                trace = Trace(self.model, everything, wanted, self._whole, Means(layout, precision))
                if layout is ORDINARY or not trace.layout_read:
                    return trace
            except Exception as error:  # of whatever kind: the model may assert how its tensors lie in memory
                if layout is ORDINARY or batching.is_out_of_memory(error):
                    raise
            trace = Trace(self.model, everything, wanted, self._whole, Means(precision=precision))
            keep_ordinary(self.model)
            return trace

    def _score(self) -> Tensor:
        if self._scored is None:
            self._scored = self._read(self.trace.output)
        return self._scored

    def _read(self, output: Any) -> Tensor:
        score = self._read_unchecked(output)
        check_finite(score.detach(), self._told)
        return score

    def _read_unchecked(self, output: Any) -> Tensor:
        with self.trace.following():
            inputs = self.trace.input
            inputs = self.trace.ordinary(inputs) if isinstance(self._asked, Objective) else inputs
            score = self._read_as(self._asked, output, inputs, self.trace.seen)
        return score.to(self.inputs.dtype) if score.dtype is self.circumstances.precision else score

    def _read_as(self, asked: Any, output: Any, inputs: Tensor, shown: Mapping[str, Tensor]) -> Tensor:
        """The scores asked for, (N,), from the model's output and from layers by name."""
        items = len(inputs)
        with torch.inference_mode(False), torch.set_grad_enabled(True):
            if isinstance(asked, Objective):
                named = {layer: self.layer_name(layer) for layer in asked.layers}
                layers = {layer: shown[name] for layer, name in named.items() if name in shown}
                return read_score(asked, Seen(inputs, output, layers), items)
            if callable(asked) and not isinstance(asked, Tensor):
                return read_score(asked, output, items)
            scores = class_scores(output, items)
            scores = squashed(scores, self.circumstances.probabilities)
            index = scores.detach().argmax(1) if asked is None else asked.to(scores.device)
            check_classes(index, items, scores.shape[1], self.circumstances.categories)
            return scores.gather(1, index[:, None])[:, 0]

    def _place(self, layer: Layer | InputPlace) -> str | InputPlace:
        return layer if isinstance(layer, InputPlace) else self.layer_name(layer)

    def _kept(self, place: str | InputPlace) -> Tensor | GradientEdge:
        if isinstance(place, InputPlace):
            return self.trace.input
        if place not in self.trace.activations:
            raise LookupError(f"layer {place!r} did not run for this input; choose one that does")
        return self.trace.places.get(place, self.trace.activations[place])

    def _require(self, more: Plan) -> None:
        """Make sure that the forward pass serves this too."""
        have, more = self._named(self.plan), self._named(more)
        if have | more == have:
            return
        self.plan = replace(have | more, elsewhere=self.plan.elsewhere)
        self._forget()

    def _forget(self) -> None:
        self._trace = []
        self._scored = None
        self._gradients.clear()
        self._biases = None

    def _named(self, plan: Plan) -> Plan:
        """The plan with every layer by its name."""
        return replace(
            plan,
            layers=frozenset([self.layer_name(layer) for layer in plan.layers]),
            gradients=frozenset([(rule, self._place(at)) for rule, at in plan.gradients]),
            seen=frozenset([self.layer_name(layer) for layer in plan.seen]),
        )
