"""The explanations that methods give of one score, by forward passes that they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.deferred import tell_if, uploaded
from cnnviz.engine.loans import question_of_thread
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.randomness import GENERATORS, Draws
from cnnviz.engine.speed.autocast import converted_once
from cnnviz.engine.speed.tf32 import computed_in
from cnnviz.engine.validation import check_finite
from cnnviz.explanations.explanation import Explanation
from cnnviz.formulas.attribution import ConfiguredAttribution
from cnnviz.formulas.expr import Expr, plan
from cnnviz.formulas.layer_fusion import MapWarning, layer_maps
from cnnviz.formulas.terms import noted
from cnnviz.registry.configured import name_of
from cnnviz.registry.protocols import Attribution
from cnnviz.run.options import RunOptions
from cnnviz.run.plan import Plan
from cnnviz.run.question import Question
from cnnviz.run.run import Run
from cnnviz.run.told import objectives_of, probability_of, target_boxes


def answered_together(
    model: nn.Module,
    inputs: ModelInputs,
    targets: Sequence[Any],
    methods: Mapping[str, Attribution],
    options: RunOptions,
    top: int | None = None,
) -> list[dict[str, list[Explanation]]]:
    """As :func:`answered` for each target, or for the ``top`` classes by rank; one forward pass serves all."""
    if len(targets) == 1 and top is None:
        return [answered(model, inputs, targets[0], methods, options)]
    first = inputs.first
    targets = [_on_device(target, first) for target in targets]
    layers = (layer for target in targets for layer in Question(target, options, len(first)).layers)
    needed = plan(*methods.values()) | Plan(score_layers=frozenset(layers), again=True)
    run = Run(model, inputs, targets[0], plan=needed, options=options)
    with torch.inference_mode(False), torch.no_grad(), converted_once(first.device, options.precision):
        if top is not None:
            run.score  # noqa: B018  # what is wrong with the model or its input shows here
            targets = run.question.ranked(run.trace.output, len(first), top).unbind(1)
        runs = tuple(run.toward(target, needed) for target in targets)
        for each in runs:
            each.together = runs
        return [{name: _answer(each, each.score, method) for name, method in methods.items()} for each in runs]


def answered(
    model: nn.Module,
    inputs: ModelInputs,
    target: Any,
    methods: Mapping[str, Attribution],
    options: RunOptions,
) -> dict[str, list[Explanation]]:
    """The explanations that several methods give of one score, by the names of the methods; one for each input."""
    target = _on_device(target, inputs.first)
    run = Run(model, inputs, target, plan=plan(*methods.values()), options=options)
    drawn, question = Draws(inputs.first.device), question_of_thread()
    with torch.inference_mode(False), torch.no_grad(), converted_once(inputs.first.device, options.precision):
        score = run.score  # asked first: what is wrong with the model, its input or the target shows here
        if drawn or (question is not None and question.holds(model, GENERATORS)):
            _compare_passes(run, score)
        return {name: _answer(run, score, method) for name, method in methods.items()}


def _on_device(target: Any, like: Tensor) -> Any:
    """Classes (N,) where the inputs are; other targets as they are."""
    if not isinstance(target, Tensor) or target.device == like.device:
        return target
    return uploaded(target, like.device) if target.device.type == "cpu" else target.to(like.device)


def _compare_passes(run: Run, score: Tensor) -> None:
    """Warns where a second pass of the same inputs gives other scores."""
    again = run.at(run.inputs).score
    tell_if((score != again).any(), lambda: _of_draws(type(run.model).__name__, score, again))


def _of_draws(model: str, score: Tensor, again: Tensor) -> str:
    item = int((again - score).abs().argmax())
    return (
        f"{model} draws random numbers in forward: two passes of one input gave the scores "
        f"{float(score[item]):.4g} and {float(again[item]):.4g}, and an explanation of several passes mixes them; "
        "turn its randomness off"
    )


def recipe_of(method: Attribution, run: Run) -> str:
    """How a method is written in its explanation: a formula as code, any other callable by its name."""
    return method.recipe(run) if isinstance(method, Expr) else name_of(method)


def _answer(run: Run, score: Tensor, method: Attribution) -> list[Explanation]:
    """What a method gives for each input that is explained."""
    recipe = recipe_of(method, run)
    values = method(run)
    expected = f"an attribution gives ({len(run.inputs)}, C, *spatial), with {run.inputs.ndim} dimensions as the input"
    if not isinstance(values, Tensor):
        raise TypeError(f"{recipe} gave a {type(values).__name__}; {expected}")
    apart = run.model_inputs.by_input
    inputs, shape = apart(run.inputs.detach().clone()), values.shape  # the caller may fill his batch anew
    if len(inputs) > 1 and shape != run.inputs.shape:
        raise ValueError(
            f"{recipe} gave {tuple(shape)} for {len(inputs)} inputs that are explained together, "
            "and nothing tells which of them a value is of; explain them one after the other: of=0, of=1"
        )
    rank, own = max(run.inputs.ndim, 2), run.layers.own_grid  # the grid of a layer may be its own
    if len(shape) not in {rank, rank if own is None else 2 + len(own)} or len(values) != len(run.inputs):
        raise ValueError(f"{recipe} gave {tuple(shape)}; {expected}")
    check_finite(values, f"what {recipe} gives")
    if not _reads_maps(method):  # of a layer's map it is said why it is zero
        zeros = (
            f"{recipe} is zero everywhere: the score does not change, a channel is not active, or gradients do not "
            "vary; choose another target, layer or channel"
        )
        tell_if(~values.any(), lambda: zeros, MapWarning)
    values = values.clone() if values.data_ptr() == run.inputs.data_ptr() else values.detach()
    notes = _notes(run, method)
    whole = Explanation(
        values=values,
        inputs=inputs[0],
        target=run.target,
        score=score,
        recipe=recipe,
        preprocessing=run.options.preprocessing,
        categories=run.options.categories,
        notes=notes,
        renderer=method.renderer if isinstance(method, ConfiguredAttribution) else None,
        objective=objectives_of(run),
        probability=probability_of(run),
        boxes=target_boxes(run),
        computed_in=None if isinstance(run.model, BlackBox) else str(computed_in(run.inputs, run.options.precision)),
        together=len(inputs),
        attribution=method,
    )
    return [
        replace(
            whole,
            values=part.contiguous(),
            inputs=inputs[number].contiguous(),
            notes={name: apart(note)[number] if note.shape == shape else note for name, note in notes.items()},
        )
        for number, part in enumerate(apart(values))
    ]


def _reads_maps(method: Any) -> bool:
    """True for a formula with maps of layers in it."""
    return isinstance(method, layer_maps) or (isinstance(method, Expr) and any(map(_reads_maps, method.parts())))


def _notes(run: Run, method: Any) -> dict[str, Tensor]:
    """What the parts of a method measured, by name; a second one of a name is numbered."""
    notes: dict[str, Tensor] = {}
    for part in _noted(method):
        if part in run.notes:
            alike = sum(re.fullmatch(rf"{part.name}(_\d+)?", name) is not None for name in notes)
            notes[f"{part.name}_{alike + 1}" if alike else part.name] = run.notes[part]
    return notes


def _noted(method: Any) -> Iterable[noted]:
    if isinstance(method, noted):
        yield method
    if isinstance(method, Expr):
        for part in method.parts():
            yield from _noted(part)
