"""From what a user gives as inputs to what the model is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from cnnviz.engine.model_inputs import ModelCall, ModelInputs, Place, plain
from cnnviz.engine.nested import mapped
from cnnviz.engine.validation import check_inputs, spatial_rank

InputKey: TypeAlias = int | str
"""Which of the model's inputs: its number in the tuple, or its name in the mapping."""
Explained: TypeAlias = InputKey | Sequence[InputKey] | Literal["all"]
"""One of the model's inputs, or several that are explained together."""
Arguments: TypeAlias = Mapping[InputKey, Any] | Sequence[Any]
"""Further arguments of the model: by name, by position, or in the order in which they follow the inputs."""


@dataclass(frozen=True, eq=False)
class shared:
    """An argument that all inputs share, also where its tensors have as many rows as there are inputs."""

    value: Any


def called_with(
    model: nn.Module,
    inputs: Any,
    arguments: Arguments = (),
    of: Explained = 0,
) -> tuple[ModelInputs, tuple[InputKey, ...]]:
    """What the model is called with, and which of its inputs are explained; :func:`read_inputs` reads pictures before.

    A tensor of ``arguments`` whose first dimension is the number of inputs N has one row for each input; other values,
    and what ``shared`` holds, are the same for all inputs.

    Raises TypeError, ValueError or LookupError for inputs and arguments that make no call, and for an ``of`` that is
    none of them.
    """
    given = _given(model, inputs)
    explained = _explained(of, list(given))
    ordered = [*explained, *(key for key in given if key not in explained)]
    tensors = [given[key] for key in ordered]
    for key in reversed(explained):
        if len(given) > 1 and not given[key].is_floating_point() and not given[key].is_complex():
            raise TypeError(
                f"input {key!r} is {given[key].dtype}, whole numbers that can't be changed a little; "
                "say which other input is explained, such as of=1"
            )
        check_inputs(model, [given[key], *(given[other] for other in ordered if other != key)])
    items = len(tensors[0])
    values: dict[InputKey, Any] = {key: Place(number) for number, key in enumerate(ordered)}

    def placed(leaf: Any) -> Any:
        if isinstance(leaf, shared):
            return mapped(plain, leaf.value)
        leaf = plain(leaf)
        if leaf.shape[:1] != (items,):
            return leaf
        tensors.append(leaf)
        return Place(len(tensors) - 1)

    by_key = _by_key(arguments, len(given))
    twice = next((key for key in by_key if isinstance(key, str) and key in given), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is both an input and an argument; give it once")
    further = {key: mapped(placed, value, (Tensor, shared)) for key, value in by_key.items()}
    call = ModelCall()
    if further or ordered != list(range(len(ordered))):
        call = _call({key: values[key] for key in given}, further)
    if len(explained) > 1:
        call = ModelCall(
            call.args if call.args is not None else tuple(values[key] for key in given),
            call.kwargs,
            tuple(tensor.shape[1:] for tensor in tensors[: len(explained)]),
        )
        tensors[: len(explained)] = [_packed(tensors[: len(explained)])]
    return ModelInputs(tuple(tensors), call), explained


def chooses_input(of: Any, inputs: Any) -> bool:
    """True if ``of`` says which input is explained; methods may have a setting of that name, which is a formula."""
    if isinstance(of, str):
        return of == "all" or (isinstance(inputs, Mapping) and of in inputs)
    return isinstance(of, int | tuple | list)


def _by_key(arguments: Arguments, given: int) -> Mapping[InputKey, Any]:
    """Further arguments by position or name; those without follow the inputs. Raises TypeError for no arguments."""
    if isinstance(arguments, Mapping):
        wrong = next((key for key in arguments if isinstance(key, bool) or not isinstance(key, int | str)), None)
        if wrong is not None:
            raise TypeError(f"arguments has the key {wrong!r}; it is the name or the position of an argument")
        return arguments
    if isinstance(arguments, str | bytes) or not isinstance(arguments, Sequence):
        raise TypeError(
            f"arguments is a {type(arguments).__name__}; give a mapping from names or positions, or a list of those "
            "that follow the inputs"
        )
    return dict(enumerate(arguments, given))


def _given(model: nn.Module, inputs: Any) -> dict[InputKey, Tensor]:
    """The model's inputs by number or name."""
    if isinstance(inputs, Mapping):
        named = dict(inputs)
    elif isinstance(inputs, tuple) and any(isinstance(each, Tensor) for each in inputs):
        named = dict(enumerate(inputs))
    else:
        named = {0: _batch(model, inputs)}
    if not named:
        raise ValueError("there are no inputs; give at least one")
    for key, each in named.items():
        if not isinstance(each, Tensor):
            raise TypeError(
                f"input {key!r} is a {type(each).__name__}, not a tensor (N, C, *spatial); "
                "what is no tensor goes to explain(..., arguments=...)"
            )
    return {key: plain(each) for key, each in named.items()}


def _batch(model: nn.Module, inputs: Any) -> Tensor:
    """One tensor, of a tensor, or of tensors in a list."""
    if isinstance(inputs, Tensor):
        return inputs
    several = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    if not several:
        raise ValueError("there are no inputs; give at least one")
    if not all(isinstance(each, Tensor) for each in several):
        kind = next(type(each).__name__ for each in several if not isinstance(each, Tensor))
        raise TypeError(f"the input is a {kind}; give a tensor (N, C, *spatial), pictures or a DataLoader")
    return _stacked(model, [plain(each) for each in several])


def _stacked(model: nn.Module, tensors: Sequence[Tensor]) -> Tensor:
    """A batch of tensors (C, *spatial) or (1, C, *spatial); which of the two, the model's first convolution tells."""
    shape, rank = tensors[0].shape, spatial_rank(model)
    other = next((tensor.shape for tensor in tensors if tensor.shape != shape), None)
    if other is not None:
        raise ValueError(
            f"a list of tensors is one batch, and these are {tuple(shape)} and {tuple(other)}; bring them to one shape "
            "or explain each by itself; several inputs of one call are a tuple"
        )
    if len(shape) == 1 or (rank is not None and len(shape) == rank + 1):
        return torch.stack(list(tensors))
    if rank is not None and len(shape) == rank + 2 and (shape[0] == 1 or len(tensors) == 1):
        return torch.cat(list(tensors))
    raise ValueError(
        f"a list of tensors is one batch of inputs (C, *spatial) or (1, C, *spatial), and these are {tuple(shape)}; "
        "give a tensor, torch.stack(...) or torch.cat(...) of them; several inputs of one call are a tuple"
    )


def _explained(of: Explained, keys: Sequence[InputKey]) -> tuple[InputKey, ...]:
    """The inputs that are explained, by key."""
    if isinstance(of, str) and of == "all" and "all" not in keys:
        return tuple(keys)
    several = [of] if isinstance(of, int | str) else list(of)
    chosen = []
    for each in several:
        if isinstance(each, bool) or not isinstance(each, int | str):
            raise TypeError(f"of={of!r} is no input; give a number, a name, several of them, or 'all'")
        known = each in keys if isinstance(each, str) else 0 <= each < len(keys)
        if not known:
            raise LookupError(f"there is no input {each!r} to explain; there are {', '.join(map(repr, keys))}")
        chosen.append(each if isinstance(each, str) else keys[each])
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"of={of!r} names {'an input twice' if chosen else 'no input'}; name each input once")
    return tuple(chosen)


def _call(given: Mapping[InputKey, Any], further: Mapping[InputKey, Any]) -> ModelCall:
    """Inputs and further arguments by their places: inputs without names take the positions that are left, in order."""
    positions = {key: value for key, value in further.items() if isinstance(key, int)}
    unnamed = iter([value for key, value in given.items() if isinstance(key, int)])
    count = len(positions) + sum(isinstance(key, int) for key in given)
    gap = next((key for key in positions if not 0 <= key < count), None)
    if gap is not None:
        raise ValueError(f"argument {gap} leaves places before it empty; there are {count} arguments without names")
    args = tuple(positions[place] if place in positions else next(unnamed) for place in range(count))
    return ModelCall(args, {key: value for key, value in {**given, **further}.items() if isinstance(key, str)})


def _packed(explained: Sequence[Tensor]) -> Tensor:
    """Inputs (N, C, *spatial) as one tensor (N, values)."""
    kinds = {(tensor.dtype, tensor.device) for tensor in explained}
    if len(kinds) > 1:
        names = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise TypeError(f"inputs that are explained together are {names}; bring them to one, or explain one, of=0")
    return torch.cat([tensor.flatten(1) for tensor in explained], 1)
