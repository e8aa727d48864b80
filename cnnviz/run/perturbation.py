"""Scores of variants of a batch, or of what a layer holds, for the same targets and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine import batching
from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.costs import Costs
from cnnviz.engine.device_policy import DevicePolicy
from cnnviz.engine.layers import INPUT, InputPlace, Site
from cnnviz.engine.meter import stage
from cnnviz.engine.pass_size import PassSize, size_of
from cnnviz.engine.validation import check_finite
from cnnviz.incremental.boxes import Boxes, grouped
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.choice import Choice
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.batch_independence import are_apart, is_independent
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan

Values = Callable[[Sequence[int], int], Iterable[Tensor]]
"""From numbers of variants and an input's place in the batch to what each holds, (C, *spatial) or (C, *sides)."""


def scores_of_inputs(passes: Passes, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
    """Scores of ``count`` variants of the batch, (count, N), in chunks; see ``Run.scores_of``."""
    items = len(passes.inputs[0])
    if not count:
        return passes.score().detach().new_empty(0, items)
    scores: list[Tensor] = []
    at_once = _inputs_at_once(passes) if count > 1 else items
    parts = [slice(0, items)]
    if at_once < items and is_independent(passes):  # the batch is too large to be passed at once
        parts = [slice(first, first + at_once) for first in range(0, items, at_once)]

    def step(start: int, stop: int) -> None:
        variants = draw(start, stop)
        batches = [passes] if len(parts) == 1 else [passes.of(part) for part in parts]
        passed = [in_chunk(batch, variants[:, part]) for batch, part in zip(batches, parts, strict=True)]
        scores.append(torch.cat([run.score().detach().view(stop - start, -1) for run in passed], 1))

    batching.in_chunks(count, step, max(1, at_once // items), items)
    return torch.cat(scores)


def in_chunk(passes: Passes, variants: Tensor, plan: Plan | None = None, *, at_least: int = 1) -> Passes:
    """The question about variants of the batch, (K, N, C, *spatial), that pass through the model together.

    Raises ``OneByOne`` if variants change each other's scores, unless there are only ``at_least`` of them.
    """
    number, known = len(variants), passes.findings.apart_in_chunks
    chunk = passes.at(variants.flatten(0, 1), plan, size=number > at_least and number not in known)
    if number > at_least and number not in known:
        known[number] = are_apart(chunk, len(passes.inputs[0]))
        passes.findings.are_proven &= chunk.findings.are_proven
    if not known.get(number, True):
        raise batching.OneByOne
    return chunk


def scores_of_changes(
    passes: Passes,
    site: Site | InputPlace,
    count: int,
    values: Values,
    boxes: Tensor | None = None,
    *,
    alone: bool = False,
) -> Tensor:
    """Scores of variants that replace the input or a layer's output, or a box of it, (count, N).

    ``alone``: each variant is a pass of its own, since the layer's first dimension is not the batch.
    """
    question, score, first = passes.question, passes.score().detach(), passes.inputs[0]
    options, at_input = question.options, isinstance(site, InputPlace)
    if not count:
        return score.new_empty(0, len(first))
    made_of = None
    needed = boxes is not None or options.precision is not None or site in passes.trace.activations
    if not isinstance(site, InputPlace) and not alone and needed:
        made_of = passes.activation(site)
    where = None if boxes is None else Boxes.of(boxes, (first if made_of is None else made_of).shape[2:])

    def by_whole_passes() -> Tensor:
        return scores_of_inputs(passes, count, partial(_changed, first, count, values, where))

    policy = options.policy_on(first.device)
    choice = None if where is None or not at_input else _choice(passes, where, policy.costs)
    if at_input and (isinstance(passes.model, BlackBox) or (choice is not None and not choice.may_pay())):
        return by_whole_passes()
    if at_input and not is_independent(passes):
        return by_whole_passes()
    evaluator = Evaluator(policy, choice)
    scores = score.new_empty(count, len(first))
    with stage(count * len(first), shared=True) as part:
        for item in range(len(first)):
            if part is not None:
                part.turn(item * count, (item + 1) * count)
            one = passes.of(slice(item, item + 1))
            change = Change(
                site,
                count,
                partial(_of_item, values, item),
                where,
                None if made_of is None else made_of[item : item + 1],
                alone=alone,
                coarse=options.precision is not None,
            )
            # inputs were found to be independent; where they mix, the score in the batch is not that of one input alone
            known = score[item : item + 1] if at_input or change.coarse else None
            # with less precision, rounding of a large score would be in each difference to it
            together = at_input and not change.coarse
            of_item = (evaluator.replayed_scores if together else evaluator.scores)(_query(one), change, known)
            if of_item is None and not evaluator.pays:
                if part is not None:
                    part.turn(0, count * len(first))
                return by_whole_passes()
            if of_item is None:  # several variants may be passed together
                one_item = partial(_of_item_alone, values, item)
                of_item = scores_of_inputs(one, count, partial(_changed, one.inputs[0], count, one_item, where))[:, 0]
            scores[:, item] = of_item
    check_finite(scores, f"the model's score of a changed {'input' if at_input else 'layer'}")
    return scores


def _choice(passes: Passes, boxes: Boxes, costs: Costs | None) -> Choice | None:
    """Whether regions are worth it; None where they are used anyway, or where a pass can't be measured."""
    if costs is None or isinstance(passes.model, BlackBox) or passes.question.options.precision is not None:
        return None
    count, groups = len(boxes.begins), sum(1 for _ in grouped(boxes.begins, boxes.ends, boxes.size, stride=1))
    size, items, at_once = _size(passes), len(passes.inputs[0]), _inputs_at_once(passes)
    parts, chunks = -(-items // at_once), -(-count // max(1, at_once // items))
    return Choice(costs, size, items, count, parts * chunks, groups) if size.total else None


def _query(passes: Passes) -> Query:
    """What the evaluator asks the model about the inputs of these passes."""
    return Query(
        passes.model,
        passes.inputs.each(Tensor.detach),
        partial(_read, passes),
        partial(_beside, passes),
        [passes.layer_name(layer) for layer in passes.question.layers],
        passes.question.options.before,
    )


def variants_at_once(passes: Passes, graphs: int = 1) -> int:
    """How many variants of the batch fit the memory budget ``graphs`` times with a graph."""
    at_once = _items_at_once(passes, lambda policy, size: policy.items_with_graph(size.total))
    return max(1, at_once // (len(passes.inputs[0]) * graphs))


def _inputs_at_once(passes: Passes) -> int:
    """How many inputs are passed at once without a graph."""
    return _items_at_once(passes, lambda policy, size: policy.items_without_graph(size.largest))


def _items_at_once(passes: Passes, fitting: Callable[[DevicePolicy, PassSize], int]) -> int:
    """How many inputs are passed at once."""
    size = _size(passes)
    mixed = passes.asked_by_items or (passes.is_measured and passes.trace.apart is False)
    if mixed or not size.total:  # where the pass could not be observed, it is not known how many fit
        return 1
    return fitting(passes.question.options.policy_on(passes.inputs[0].device), size)


def _size(passes: Passes) -> PassSize:
    """The size of a pass; where no pass was measured yet, one more is."""
    about = passes.model, passes.inputs, passes.question.options.precision
    if size_of(*about) is None:
        passes.at(passes.inputs[0], size=True).trace  # noqa: B018  # which is remembered
    return size_of(*about) or PassSize(0, 0)


def _beside(one: Passes, copies: int) -> bool:
    """True if so many variants of one input may pass through the model together."""
    if copies not in one.findings.apart_in_chunks:
        first = one.inputs[0]
        one.findings.apart_in_chunks[copies] = are_apart(one.at(first.expand(copies, *first.shape[1:]), size=True), 1)
    return one.findings.apart_in_chunks[copies]


def _read(one: Passes, output: Any, layers: dict[str, Tensor], count: int, drawn: Callable[[], Tensor]) -> Tensor:
    return one.question.read(output, count, drawn, one.by_layer(layers)).detach()


def _of_item_alone(values: Values, item: int, numbers: Sequence[int], only: int) -> Iterable[Tensor]:
    return values(numbers, item)


def _of_item(values: Values, item: int, numbers: Sequence[int]) -> Iterable[Tensor]:
    return values(numbers, item)


def _changed(first: Tensor, count: int, values: Values, boxes: Boxes | None, start: int, stop: int) -> Tensor:
    """Variants of the inputs, (stop - start, N, C, *spatial)."""
    changes = [Change(INPUT, count, partial(_of_item, values, item), boxes) for item in range(len(first))]
    numbers = list(range(start, stop))
    drawn = [change.drawn(numbers, first[item : item + 1]) for item, change in enumerate(changes)]
    return drawn[0][:, None] if len(drawn) == 1 else torch.stack(drawn, 1)
