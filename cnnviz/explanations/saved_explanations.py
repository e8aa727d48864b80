"""Checks of what a file says an explanation is: nothing of it is believed before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnviz.engine.validation import COMPUTABLE, check_finite

if TYPE_CHECKING:
    from cnnviz.explanations.explanation import Explanation

_TYPES: Mapping[str, tuple[type, ...]] = {
    "recipe": (str,),
    "preprocessing": (dict, type(None)),
    "categories": (list, type(None)),
    "renderer": (str, type(None)),
    "objective": (str, list, type(None)),
    "options": (dict,),
    "computed_in": (str, type(None)),
    "fine_values": (bool, type(None)),
}
_OPTIONS: Mapping[str, tuple[type, ...]] = {
    "seed": (int,),
    "memory": (int, type(None)),
    "before_softmax": (bool,),
    "before_sigmoid": (bool,),
    "precision": (str, type(None)),
    "fold": (bool,),
    "compile": (bool, str),
}
_JSON = {
    dict: "an object",
    list: "a list",
    type(None): "null",
    str: "text",
    int: "a whole number",
    bool: "true or false",
}


def read_description(text: str) -> dict[str, Any]:
    """The description that is saved with an explanation's tensors, as JSON. Raises ValueError for any other text."""
    try:
        about = json.loads(text)
    except RecursionError:
        raise ValueError("its description is nested too deeply") from None
    if not isinstance(about, dict):
        raise ValueError(f"its description is {_JSON.get(type(about), 'a number')}, not an object")
    _check_types(about, _TYPES, "its description")
    _check_types(about.get("options", {}), _OPTIONS, "its options")
    if not all(isinstance(name, str) for name in about.get("categories") or []):
        raise ValueError("its categories are not all text")
    return about


def saved_options(about: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a description, by name."""
    options = dict(about.get("options", {}))  # 0.3.0 kept none
    if "computed_in" not in about and options.get("precision") == "float32":
        options["precision"] = None  # before 0.6 that was the default, and changed nothing
    return options


def check_explanation(explanation: Explanation) -> None:
    """Raises ValueError if the tensors of an explanation do not belong together; says which, and what is needed."""
    values, inputs = explanation.values, explanation.inputs
    for name, tensor in {"values": values, "inputs": inputs, "score": explanation.score}.items():
        if tensor.dtype not in COMPUTABLE:
            raise ValueError(f"its {name} are {tensor.dtype}, not floating point")
    items = len(values) if values.ndim else 0
    if values.ndim < 2 or values.ndim != inputs.ndim or len(inputs) != items:
        raise ValueError(
            f"its values are {tuple(values.shape)} and its inputs {tuple(inputs.shape)}; both are (N, C, *spatial)"
        )
    if values.numel() == 0 or inputs.numel() == 0:
        raise ValueError(
            f"its values are {tuple(values.shape)} and its inputs {tuple(inputs.shape)}: nothing is in them"
        )
    if explanation.score.shape != (items,):
        raise ValueError(f"its score is {tuple(explanation.score.shape)}, not one number for each input, ({items},)")
    target = explanation.target
    if target is not None:
        if target.shape != (items,) or target.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
            raise ValueError(
                f"its target is {target.dtype} {tuple(target.shape)}, not one class for each input, int64 ({items},)"
            )
        if bool((target < -1).any()):  # -1 speaks against the only class
            raise ValueError(f"its target is {target.tolist()}; classes are numbered from 0")
    boxes, probability, objective = explanation.boxes, explanation.probability, explanation.objective
    if boxes is not None and (boxes.ndim != 3 or len(boxes) != items or boxes.shape[2] != 4):
        raise ValueError(f"its boxes are {tuple(boxes.shape)}, not x1, y1, x2, y2 for each input, ({items}, B, 4)")
    if probability is not None and probability.shape != (items,):
        raise ValueError(f"its probability is {tuple(probability.shape)}, not one for each input, ({items},)")
    if isinstance(objective, tuple) and (len(objective) != items or not all(isinstance(x, str) for x in objective)):
        raise ValueError(f"its objectives are {len(objective)}, not one text for each input, {items}")
    for name, note in explanation.notes.items():
        if note.ndim == 0 or len(note) != items:
            raise ValueError(
                f"its note {name!r} is {tuple(note.shape)}; a note has a row for each input, ({items}, ...)"
            )


def check_inputs_kept(explanation: Explanation) -> None:
    """Raises ValueError for an explanation that was saved without its inputs."""
    if explanation.inputs.is_meta:
        raise ValueError(
            f"the inputs of {explanation.recipe} were not saved (inputs=False), and are needed here; use heatmap(), or "
            "explain again"
        )


def check_values_finite(explanation: Explanation) -> None:
    """Raises ValueError for values, inputs or scores that are NaN or infinite."""
    tensors: dict[str, Tensor] = {
        "its values": explanation.values,
        "its input": explanation.inputs,
        "its score": explanation.score,
    }
    for what, tensor in tensors.items():
        if not tensor.is_meta:
            check_finite(tensor, what)


def _check_types(settings: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], what: str) -> None:
    for name, value in settings.items():
        # in JSON true is no number, and in Python it is
        if name in types and type(value) not in types[name]:
            wanted = " or ".join(_JSON[kind] for kind in types[name])
            raise ValueError(f"{what} has {name}={str(value)[:40]!r}, which is not {wanted}")
