"""Whether the inputs of one pass change each other's scores, as norms without running statistics let them.

Proof comes first: the operations of a pass are known, and none of them combines values of several inputs, or one does.
Where an operation is not known, evidence decides: the same pass with other neighbours. At one batch size the same
kernels run, so that scores have equal bits unless the neighbours change them. Operations do not tell what Python code
makes of the size of a batch, so the first inputs are passed by themselves too.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cnnviz.engine.agreement import are_close, special_or_plain
from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.deferred import assumed
from cnnviz.engine.device_policy import kind_of
from cnnviz.engine.draws import RandomNumbers
from cnnviz.run.passes import Passes
from cnnviz.run.question import splits_by_rows

LOUD = 1000.0
"""How many times larger than the inputs noise beside them is."""


def is_independent(passes: Passes) -> bool:
    """True if no input of these passes changes the score of another one; found once for these passes."""
    return are_apart(passes, 1)


def are_apart(passes: Passes, unit: int) -> bool:
    """True if the inputs of these passes change each other's scores at most within ``unit`` consecutive ones.

    Args:
        passes: of several inputs.
        unit: 1, or the number of inputs in one variant of a batch.
    """
    if unit not in passes.findings.apart:
        alone = len(passes.inputs[0]) <= unit or bool(passes.asked_by_items)
        if passes.question.reads_batches:
            passes.findings.are_proven = False  # what a function makes of a batch is tried, not proven
        passes.findings.apart[unit] = _read_apart(passes) if alone and unit == 1 else alone or _found(passes, unit)
    return passes.findings.apart[unit]


def _found(passes: Passes, unit: int) -> bool:
    if unit == 1 and not _read_apart(passes):
        return False
    if isinstance(passes.model, BlackBox) and passes.model.batch_size == 1:
        return True  # it never sees two

    def found() -> bool:
        return _are_kept_apart(passes, unit) and _is_as_alone(passes, unit)

    # where the model can't be observed, or does not take such inputs, each input is asked by itself
    apart, _ = special_or_plain(found, lambda: False)
    return apart


def _are_kept_apart(passes: Passes, unit: int) -> bool:
    """True if the operations of a pass do not combine values of several inputs, or, if not known, by trials."""
    observed = passes if passes.is_measured else passes.at(passes.inputs[0], size=True)
    proven = observed.trace.apart
    if proven is None:
        passes.findings.are_proven = False  # for other inputs it is tried again
        return _stays_the_same(passes, unit)
    return proven


def _is_as_alone(passes: Passes, unit: int) -> bool:
    """True if the first inputs have the scores that they have alone, so that the size of the batch changes nothing."""
    precision, first = passes.question.options.precision, passes.of(slice(0, unit))
    alone, together = first.unchecked_score().detach(), passes.unchecked_score().detach()[:unit]
    # the operations are known not to mix inputs: what Python makes of the size of a batch is larger than rounding
    rounding = kind_of(together.device).rounding
    if not assumed(are_close(together, alone, precision=precision, rounding=rounding)):
        return False
    if passes.question.options.findings is not None and passes.findings.are_proven:  # others may ask other classes
        whole, part = passes.trace.output, first.trace.output
        alike = isinstance(whole, Tensor) and isinstance(part, Tensor) and whole.shape[1:] == part.shape[1:]
        passes.findings.are_proven = alike and assumed(
            are_close(whole.detach()[:unit], part.detach(), precision=precision, rounding=rounding)
        )
    return True


def _stays_the_same(passes: Passes, unit: int) -> bool:
    """True if the bits of each score are the same beside other neighbours, of which the model knows nothing else."""
    chunk = passes.inputs[0]
    reference = passes.at(chunk).unchecked_score().detach()
    for kept, neighbours in _trials(chunk, unit, passes.question.options.seed):
        shape = (-1, *(1,) * (chunk.ndim - 1))
        score = passes.at(torch.where(kept.view(shape), chunk, neighbours)).unchecked_score().detach()
        same = (score == reference) | (score.isnan() & reference.isnan())
        if not assumed((same | ~kept).all()):
            return False  # also where the model is not repeatable, which is asked one by one as well
    return True


def _trials(chunk: Tensor, unit: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Which inputs are kept, (N,), and what stands in the place of the others; each input is kept at least once.

    Nothing of it is NaN, with which some operations of torch read outside of their tensors, as grid_sample does.
    """
    number = torch.arange(len(chunk), device=chunk.device) // unit
    draws = RandomNumbers(seed, device=chunk.device)
    loudness = LOUD * chunk.detach().abs().max().clamp(min=1e-3)
    every_other, first_half = number % 2 == 0, number < (number[-1] + 2) // 2
    for kept in (every_other, ~every_other):
        yield kept, (draws.normal(chunk.shape) * loudness).to(chunk)
    yield ~first_half, torch.zeros_like(chunk)
    yield first_half, chunk[:unit].repeat(len(chunk) // unit, *(1,) * (chunk.ndim - 1))


def _read_apart(passes: Passes) -> bool:
    """True if a function of the output of the whole batch gives each input a score that is that of its row alone."""
    trace, count = passes.trace, len(passes.inputs[0])
    if count == 1 or not passes.question.reads_batches:
        return True
    if not splits_by_rows(trace.output, count):
        return False
    reference = passes.unchecked_score().detach()
    for first in range(2):  # each row is kept in one of both
        kept = torch.arange(count, device=reference.device) % 2 == first
        score = passes.unchecked_score(kept=kept).detach()
        if not assumed(((score == reference) | ~kept).all()):
            return False
    return True
