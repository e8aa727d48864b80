"""Scores of variants of a batch, or of what a layer holds, for the same targets and without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine import batching
from cnnviz.engine.layers import InputPlace
from cnnviz.engine.nested import tensors
from cnnviz.engine.validation import check_finite
from cnnviz.incremental.boxes import Boxes
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.batch_independence import independent, unchanged
from cnnviz.run.passes import Passes
from cnnviz.run.question import splits_by_rows

Values = Callable[[Sequence[int], int], Iterable[Tensor]]
"""From numbers of variants and an input's place in the batch to what each holds, (C, *spatial) or (C, *sides)."""


def scores_of_inputs(passes: Passes, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
    """Scores of ``count`` variants of the batch, (count, N), in chunks; see ``Run.scores_of``."""
    items, options = len(passes.inputs[0]), passes.question.options
    scores: list[Tensor] = []
    parts = [slice(0, items)]  # of the batch, where it is too large to be passed at once

    def step(start: int, stop: int) -> int:
        nonlocal parts
        variants = draw(start, stop)
        batches = [passes] if len(parts) == 1 else [passes.of(part) for part in parts]
        pairs = zip(batches, parts, strict=True)
        passed = [batch.at(variants[:, part].flatten(0, 1), size=not start) for batch, part in pairs]
        scores.append(torch.cat([run.score().detach().view(stop - start, -1) for run in passed], 1))
        if start:
            return 0
        largest = max(1, math.ceil(passed[0].trace.bytes / (3 * items)))
        fitting = batching.passed_at_once(passes.inputs[0].device, options.memory, largest)
        if count > 1 and not _independent_at(passes, passed[0], fitting):
            return 1
        parts = [slice(first, first + fitting) for first in range(0, items, fitting)]
        return max(1, fitting // items)

    batching.in_chunks(count, step)
    return torch.cat(scores) if scores else passes.score().detach().new_empty(0, items)


def scores_of_changes(
    passes: Passes, site: str | InputPlace, count: int, values: Values, boxes: Tensor | None = None
) -> Tensor:
    """Scores of variants that replace the input or a layer's output, or a box of it, (count, N)."""
    question, score, first = passes.question, passes.score().detach(), passes.inputs[0]
    options, at_input = question.options, isinstance(site, InputPlace)
    if not count:
        return score.new_empty(0, len(first))
    made_of = None
    if not at_input and (boxes is not None or options.precision or str(site) in passes.trace.activations):
        made_of = passes.activation(str(site))
    where = None if boxes is None else Boxes.of(boxes, (first if made_of is None else made_of).shape[2:])
    together = at_input and (count < 2 or is_independent(passes))
    split = len(first) == 1 or not question.is_function or splits_by_rows(passes.trace.output, len(first))
    if at_input and not (together and split):
        return scores_of_inputs(passes, count, partial(_changed, first, count, values, where))
    evaluator = Evaluator(options.memory, together=together)
    scores = score.new_empty(count, len(first))
    for item in range(len(first)):
        one = passes.of(slice(item, item + 1))
        change = Change(
            site,
            count,
            partial(_of_item, values, item),
            where,
            None if made_of is None else made_of[item : item + 1],
            coarse=options.precision is not None,
        )
        query = Query(
            one.model,
            [tensor.detach() for tensor in one.inputs],
            partial(_read, one),
            [one.layer_name(layer) for layer in one.question.layers],
            options.before_softmax,
        )
        # inputs were found to be independent; where they mix, the score in the batch is not that of one input alone
        known = score[item : item + 1] if at_input or change.coarse else None
        scores[:, item] = evaluator.scores(query, change, known)
    check_finite(scores, f"the model's score of a changed {'input' if at_input else 'layer'}")
    return scores


def variants_at_once(passes: Passes, items: int) -> int:
    """How many variants of a batch of ``items`` fit the memory budget with a graph, judged by these passes."""
    first, options = passes.inputs[0], passes.question.options
    per_item = math.ceil(passes.trace.bytes / len(first))
    fitting = batching.items_at_once(first.device, options.memory, per_item)
    return 1 if fitting >= 2 * items and not is_independent(passes) else max(1, fitting // items)


def is_independent(passes: Passes) -> bool:
    """True if what the score of these inputs is read from stays the same where others are passed beside them."""
    first, options = passes.inputs[0], passes.question.options
    # a function may also read what has no rows, and one that a rule reads with several batches at once may mix them
    by_score, at_once = passes.target is None, passes.question.is_function and bool(passes.trace.rules)
    remembered = not by_score and len(passes.inputs) == 1  # another input may decide what the model does
    alone = _outputs(passes, len(first))

    def beside() -> Sequence[Tensor]:
        reach = first.abs().max()
        generator = torch.Generator(first.device).manual_seed(options.seed)
        noise = torch.rand(first.shape, generator=generator, device=first.device)
        unlike = (noise * reach.where(reach > 0, 1)).to(first)  # the inputs may be a baseline, all alike
        both = passes.at(torch.cat([first, unlike]), compiled=False)  # of another size, it would be compiled anew
        values = _outputs(both, 2 * len(first))
        values += [both.unchecked_score(at_once).detach()] if by_score else []
        return [value[: len(first)] for value in values]

    try:
        if not remembered:
            scores = [passes.score().detach()] if by_score else []
            return unchanged([*alone, *scores], beside, options.precision)
        layers = frozenset(passes.trace.score_layers)
        key = first.shape[1:], first.dtype, options.precision, options.before_softmax, layers
        return independent(passes.model, key, alone, beside, options.precision)
    except Exception as error:
        if batching.is_out_of_memory(error):
            return False  # there is no room for two
        raise


def _outputs(passes: Passes, count: int) -> list[Tensor]:
    """What the score may be read from, one row for each input."""
    values = tensors([passes.trace.output, passes.trace.score_layers])
    return [value.detach() for value in values if value.is_floating_point() and value.shape[:1] == (count,)]


def _independent_at(passes: Passes, variant: Passes, fitting: int) -> bool:
    """True if scores of a variant stay the same where so many inputs are passed at once: a part of it, or several."""
    items = len(passes.inputs[0])
    if fitting >= items:
        return fitting < 2 * items or is_independent(variant)
    part = slice(0, fitting)

    def alone() -> list[Tensor]:
        return [passes.of(part).at(variant.inputs[0][part]).unchecked_score().detach()]

    return unchanged([variant.score().detach()[part]], alone, passes.question.options.precision)


def _read(one: Passes, output: Any, layers: dict[str, Tensor], count: int, drawn: Callable[[], Tensor]) -> Tensor:
    return one.question.read(output, count, drawn, one.by_layer(layers)).detach()


def _of_item(values: Values, item: int, numbers: Sequence[int]) -> Iterable[Tensor]:
    return values(numbers, item)


def _changed(first: Tensor, count: int, values: Values, boxes: Boxes | None, start: int, stop: int) -> Tensor:
    """Variants of the inputs, (stop - start, N, C, *spatial)."""
    changes = [Change("", count, partial(_of_item, values, item), boxes) for item in range(len(first))]
    numbers = list(range(start, stop))
    return torch.stack([change.drawn(numbers, first[item : item + 1]) for item, change in enumerate(changes)], 1)
