"""Targets: which number of a model's output is explained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cnnviz.engine.deferred import require
from cnnviz.engine.model_inputs import plain
from cnnviz.engine.validation import COMPUTABLE, check_dense, whole_number

Target: TypeAlias = (
    "int | str | Sequence[int | str | tuple[int | str, ...] | Callable[[Any], Tensor]] | Tensor"
    " | Callable[[Any], Tensor] | None"
)
"""None is the predicted class; a class by number or name; a tuple is one place of a dense output, (class, *place); a
function output -> (N,) or an objective. A list has one of these for each input, whose functions read the output of that
input alone, -> (1,).
"""


def is_function(target: Any) -> bool:
    """True for a function of the output, and for an objective."""
    return callable(target) and not isinstance(target, Tensor | str)


def class_indices(target: Target, items: int, categories: tuple[str, ...] | None) -> Tensor | None:
    """The target classes, (N,) int64; None for the predicted ones. For any target except a function.

    Raises TypeError, ValueError or LookupError for what is no class, or not one for each input.
    """
    if target is None:
        return None
    if isinstance(target, Tensor):
        target = plain(target)
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"the target is a {target.dtype} tensor; classes are whole numbers, such as torch.int64")
        numbers = target.reshape(-1).tolist()
        numbers = numbers * items if target.ndim == 0 or target.shape == (1,) else numbers
    elif isinstance(target, bytes | bytearray):  # a sequence of numbers to Python
        raise TypeError(f"the target {target!r} is no class; give a number, a name, or a function of the output")
    elif hasattr(target, "tolist"):  # NumPy's
        one_for_all = getattr(target, "shape", ()) == (1,)
        return class_indices(target.tolist()[0] if one_for_all else target.tolist(), items, categories)
    elif isinstance(target, str) or not isinstance(target, Sequence):
        numbers = [class_index(target, categories)] * items
    else:
        numbers = [class_index(label, categories) for label in target]
    if len(numbers) != items:
        raise ValueError(f"there are {len(numbers)} targets for {items} inputs; give one, or one for each")
    for number in numbers:
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"there is no class {number}; classes are numbered from 0")
    return torch.tensor(numbers, dtype=torch.int64)


def class_index(target: Any, categories: tuple[str, ...] | None) -> int:
    """A class's number, of itself, its name, or any one word group in it such as ``tabby`` of ``tabby, tabby cat``.

    Raises LookupError for a name that no class has, or several.
    """
    if isinstance(target, bool) or not isinstance(target, int | str):
        whole = getattr(target, "__index__", None)  # NumPy's whole numbers
        if whole is None or isinstance(target, bool):
            raise TypeError(f"the target {short(target)} is no class; {_way_out(target)}")
        target = int(whole())
    if isinstance(target, int):
        return target
    number = whole_number(target)
    if categories is None:
        if number is not None:
            return number
        raise LookupError(f"no class names are known, so {target!r} can't be found; give the class by number")
    named = classes_named(target, categories)
    if len(named) > 1:
        raise LookupError(f"the classes {', '.join(map(str, named))} are all named {target!r}; give the number of one")
    if named:
        return named[0]
    if number is not None:
        return number
    lowered, names = target.lower(), [name.lower() for name in categories]
    within = [name for name in names if lowered in name.replace("-", " ").split()][:3]
    parts = dict.fromkeys(part for name in names for part in (name, *_parts(name)))
    near = within or difflib.get_close_matches(lowered, parts, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; there are {_listed(categories)}"
    raise LookupError(f"there is no class {target!r}{hint}")


def classes_named(name: str, categories: Sequence[str]) -> list[int]:
    """The classes that have the name: as it is spelled, or else of any case; as a whole, or else as one word group."""
    for spelled in (str, str.lower):
        wanted = spelled(name)
        for groups in (lambda text: [text], _parts):
            found = [index for index, each in enumerate(categories) if wanted in groups(spelled(each))]
            if found:
                return found
    return []


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _listed(categories: tuple[str, ...]) -> str:
    count = f"{len(categories)} classes"
    return f"{count}: {'; '.join(categories)}" if len(categories) <= 12 else count


def short(target: Any) -> str:
    """A target as error texts name it: by its name if it has one, without the address of a function."""
    name = getattr(target, "__name__", "")
    written = ("a function" if name == "<lambda>" else name) if name else repr(target)
    return f"{written[:57]}..." if len(written) > 60 or "\n" in written else written


def _way_out(target: Any) -> str:
    if callable(target):  # of a synthesis, for explain takes these
        return (
            "a class is asked for here; for what lies inside the network give an objective, such as "
            "objective=channel(LAYER, 5), or --target channel:LAYER:5"
        )
    return "give a number, a name, or a function of the output"


def class_scores(output: Any, items: int, objective: bool = False) -> Tensor:
    """The output as scores (N, K). Raises for outputs that only a function of them can read.

    ``objective`` is True where an objective reads them: then the way out is another objective.
    """
    way_out = "give a function of the output as the target, such as target=lambda output: "
    if objective:
        way_out = (
            "give another objective, such as channel(LAYER, 5) or --target channel:LAYER:5, or "
            "output_of(lambda output: ...) with "
        )
    if not isinstance(output, Tensor):
        way_out = f"{_detector(output)}{way_out}{_path(output)}"
        raise TypeError(f"the model gives {_form(output)}, not scores (N, K); {way_out}")
    check_dense(output, "the model's output")
    scores = output
    if scores.ndim == 1 and items == len(scores):
        scores = scores[:, None]
    if scores.ndim > 2 and scores.shape[2:].numel() == 1:
        scores = scores.flatten(1)
    if scores.ndim != 2:
        shape = tuple(output.shape)
        raise ValueError(f"the model gives {shape}, not scores (N, K); {way_out}output[:, 0].mean((1, 2))")
    if len(scores) != items:
        raise ValueError(
            f"the model gives {len(scores)} rows of scores for {items} inputs; "
            "for a single input without a batch dimension pass inputs[None]"
        )
    if scores.shape[1] == 0:
        raise ValueError(f"the model gives {tuple(output.shape)}, scores of no class; give a model with at least one")
    if scores.dtype not in COMPUTABLE:
        raise TypeError(f"the model gives {scores.dtype}; scores are floating point, such as output.float()")
    return scores


def _form(output: Any) -> str:
    """What the model gave, in words."""
    fields = f" with {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
    inside = ""
    if isinstance(output, list | tuple) and output and isinstance(output[0], Mapping):
        inside = f" of dicts with {', '.join(map(repr, output[0]))}"
    return f"a {type(output).__name__}{fields}{inside}"


def _detector(output: Any) -> str:
    """The way out for what a detector found."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    boxes = isinstance(first, Mapping) and any(str(name).endswith("boxes") for name in first)
    return "explain a detection by target=cnnviz.targets.box(0), or " if boxes else ""


def _path(output: Any) -> str:
    """Code that takes one score for each input out of an output, as far as its form tells."""
    if isinstance(output, list | tuple) and output and isinstance(output[0], Mapping):
        name = next((name for name in output[0] if "score" in str(name)), next(iter(output[0]), "scores"))
        return f"torch.stack([each[{name!r}].sum() for each in output])"
    if isinstance(output, Mapping):
        named = [name for name, value in output.items() if isinstance(value, Tensor) and value.ndim > 1]
        return f"output[{next(iter(named or output), 'out')!r}][:, 0]"
    if isinstance(output, list | tuple):
        return f"output[{next((place for place, each in enumerate(output) if isinstance(each, Tensor)), 0)}][:, 0]"
    return "output.logits[:, 0]" if hasattr(output, "logits") else "output[0][:, 0]"


def check_classes(indices: Tensor, items: int, classes: int, categories: tuple[str, ...] | None) -> None:
    """Raises ValueError for a class the model does not have, or names that are not one for each class."""
    if indices.shape != (items,):
        raise ValueError(f"there are targets {tuple(indices.shape)} for {items} inputs; give one for each")
    if categories is not None and len(categories) != classes:
        raise ValueError(f"there are {len(categories)} names for the model's {classes} classes; give one for each")
    with torch._C.DisableTorchFunction():  # this is no operation of the model
        absent = (indices < 0) | (indices >= classes)
        present = ~absent.any()
    require(present, lambda: _refuse_class(int(indices[absent][0]), classes))


def _refuse_class(index: int, classes: int) -> None:
    raise ValueError(f"there is no class {index}; the model has {classes}, numbered 0 to {classes - 1}")


def read_score(read: Callable[[Any], Tensor], output: Any, items: int) -> Tensor:
    """A function target's scores, (N,). Raises for one that does not return that."""
    score = read(output)
    if isinstance(score, Tensor):
        check_dense(score, "what the target function gave")
    if not isinstance(score, Tensor) or score.shape != (items,):
        shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise ValueError(f"the target function gave {shape}; it returns one score for each input, ({items},)")
    if score.dtype not in COMPUTABLE and (score.is_floating_point() or score.is_complex() or score.dtype is torch.bool):
        raise TypeError(
            f"the target function gave {score.dtype}; a score is a real number, such as .float() or .abs() makes"
        )
    return score.clone()  # it may be a view of what the next pass writes over
