"""Operations of torch that consist of other operations, written out so that rules and biases meet those.

Attention is torch's own function, run so that what it calls is seen; recurrent networks are loops over their cells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.operations import Operation

SHARES = (F.softmax,)
"""What gives the shares of an attention."""
_ATTENTION = (F.linear, torch.matmul, torch.baddbmm, F.softmax, F.scaled_dot_product_attention, torch.mul)
_QUOTIENTS = (F.normalize, F.local_response_norm, F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)
_GATES = (F.linear, torch.sigmoid, torch.tanh, torch.mul)


class Composite(NamedTuple):
    """How an operation is written out, and of which operations."""

    run: Callable[..., Any]
    of: tuple[Operation, ...]
    biased: bool = True
    """False if the implicit biases of the whole are asked for, and not those of what it consists of."""


def composite(func: Operation) -> Composite | None:
    """How this operation is written out; None for one that stands for itself."""
    return _COMPOSITES.get(func)


def hidden(parts: Collection[Operation], others: Iterable[Collection[Operation]]) -> bool:
    """True if other rules are about an operation as a whole, of whose parts a rule with ``parts`` is about some."""
    return any(
        whole in operations and whole not in parts and not set(parts).isdisjoint(composite.of)
        for whole, composite in _COMPOSITES.items()
        for operations in others
    )


def _body(func: Any, *args: Any, **kwargs: Any) -> Any:
    """torch's own function, all of whose operations are seen: its first line would hand the whole of it to a mode."""
    asked = dict.fromkeys(("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _never)
    names = {**func.__globals__, **asked}
    body = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body(*args, **kwargs)


def _never(*tensors: Any) -> bool:
    return False


def _dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention in the steps that torch documents, of which the softmax gives each query's shares of the values."""
    if enable_gqa and (groups := query.shape[-3] // key.shape[-3]) > 1:
        key, value = (
            each.unsqueeze(-3).expand(*each.shape[:-2], groups, *each.shape[-2:]).flatten(-4, -3)
            for each in (key, value)
        )
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        shares = F.softmax(scores, -1)
    else:
        allowed = attn_mask if attn_mask.dtype == torch.bool else ~attn_mask.isneginf()
        scores = scores.masked_fill(~allowed, -torch.inf) if attn_mask is allowed else scores + attn_mask
        none = ~allowed.any(-1, keepdim=True)  # such a query has no shares, where a softmax gives NaN
        shares = F.softmax(scores.masked_fill(none, 0.0), -1).masked_fill(none, 0.0)
    return torch.matmul(F.dropout(shares, dropout_p) if dropout_p else shares, value)


def _cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = (torch.linalg.vector_norm(each, dim=dim, keepdim=True).clamp_min(eps) for each in (x1, x2))
    return torch.mul(*(torch.div(each, length) for each, length in zip((x1, x2), lengths, strict=True))).sum(dim)


# Cells: from the weighted input, the states and the weights to the new states, the first of which is the output

States = tuple[Tensor, ...]
Weights = Sequence[Tensor | None]
Cell = Callable[[Tensor, States, Weights], States]


def _lstm(given: Tensor, states: States, weights: Weights) -> States:
    hidden, memory = states
    to_hidden, bias, *projection = weights
    enter, forget, new, leave = (given + _linear(hidden, to_hidden, bias)).chunk(4, 1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
    hidden = leave.sigmoid() * memory.tanh()
    return (F.linear(hidden, *projection) if projection else hidden), memory  # type: ignore[arg-type]  # a weight


def _gru(given: Tensor, states: States, weights: Weights) -> States:
    (hidden,) = states
    (reset, keep, new), (reset_too, keep_too, new_too) = (
        values.chunk(3, 1) for values in (given, _linear(hidden, *weights))
    )
    keep = (keep + keep_too).sigmoid()
    new = (new + (reset + reset_too).sigmoid() * new_too).tanh()
    return ((1 - keep) * new + keep * hidden,)


def _rnn(curve: Callable[[Tensor], Tensor], given: Tensor, states: States, weights: Weights) -> States:
    return (curve(given + _linear(states[0], *weights)),)


def _linear(values: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    assert weight is not None
    return F.linear(values, weight, bias)


def _one_step(
    cell: Cell,
    values: Tensor,
    states: Any,
    from_input: Tensor,
    to_hidden: Tensor,
    input_bias: Tensor | None = None,
    bias: Tensor | None = None,
) -> Any:
    """A cell called by itself, as ``nn.LSTMCell`` does; it returns its states, or its only state."""
    single = isinstance(states, Tensor)
    after = cell(F.linear(values, from_input, input_bias), (states,) if single else tuple(states), (to_hidden, bias))
    return after[0] if single else after


def _recurrent(cell: Cell, values: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """All layers of a recurrent network, as ``nn.LSTM`` calls them: the outputs, and each state at the end.

    ``settings`` are states, weights, whether there are biases, the number of layers, dropout, training, bidirectional
    and batch_first. Packed sequences have how many rows each step has in front, and no batch_first.
    """
    packed = isinstance(settings[0], Tensor) and not settings[0].is_floating_point()
    sizes, *rest = settings if packed else (None, *settings)
    states, weights, biased, layers, dropout, training, bidirectional, *_ = rest
    batch_first = not packed and rest[-1]
    states = (states,) if isinstance(states, Tensor) else tuple(states)
    ways = 2 if bidirectional else 1
    each = len(weights) // (layers * ways)
    values = values.transpose(0, 1) if batch_first else values
    ends: list[States] = []
    for layer in range(layers):
        outputs = []
        for way in range(ways):
            number = layer * ways + way
            from_input, to_hidden, *others = weights[number * each : (number + 1) * each]
            input_bias, bias, *projection = others if biased else (None, None, *others)
            given = F.linear(values, from_input, input_bias)
            steps = torch.split(given, sizes.tolist()) if sizes is not None else given.unbind(0)
            begin = tuple(state[number] for state in states)
            output, end = _one_way(partial(_step, cell, (to_hidden, bias, *projection)), steps, begin, way == 1)
            outputs.append(torch.cat(output) if packed else torch.stack(output))
            ends.append(end)
        values = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        if dropout and training and layer < layers - 1:
            values = F.dropout(values, dropout, training)
    return values.transpose(0, 1) if batch_first else values, *map(torch.stack, zip(*ends, strict=True))


def _step(cell: Cell, weights: Weights, given: Tensor, states: States) -> States:
    return cell(given, states, weights)


def _one_way(
    step: Callable[[Tensor, States], States], given: Sequence[Tensor], begin: States, backward: bool
) -> tuple[list[Tensor], States]:
    """The output of each step, and the states at the end of each row; the longest rows come first in every step."""
    numbers = range(len(given))
    outputs: dict[int, Tensor] = {}
    states = tuple(state[: len(given[-1 if backward else 0])] for state in begin)
    ended: list[States] = []
    for number in reversed(numbers) if backward else numbers:
        rows, before = len(given[number]), len(states[0])
        if rows < before:
            ended.append(tuple(state[rows:] for state in states))
            states = tuple(state[:rows] for state in states)
        elif rows > before:
            states = tuple(torch.cat([state, first[before:rows]]) for state, first in zip(states, begin, strict=True))
        states = step(given[number], states)
        outputs[number] = states[0]
    ends = states if not ended else tuple(map(torch.cat, zip(states, *reversed(ended), strict=True)))
    return [outputs[number] for number in numbers], ends


_CELLS: dict[Operation, tuple[Cell, Operation]] = {
    torch.lstm: (_lstm, torch.lstm_cell),
    torch.gru: (_gru, torch.gru_cell),
    torch.rnn_tanh: (partial(_rnn, torch.tanh), torch.rnn_tanh_cell),
    torch.rnn_relu: (partial(_rnn, torch.relu), torch.rnn_relu_cell),
}
_COMPOSITES: Mapping[Operation, Composite] = {
    F.multi_head_attention_forward: Composite(partial(_body, F.multi_head_attention_forward), _ATTENTION),
    **{func: Composite(partial(_body, func), (torch.div, torch.pow), biased=False) for func in _QUOTIENTS},
    torch.cosine_similarity: Composite(_cosine, (torch.mul, torch.div), biased=False),
    F.scaled_dot_product_attention: Composite(_dot_product, (torch.matmul, F.softmax), biased=False),
    **{func: Composite(partial(_recurrent, cell), (*_GATES, F.relu)) for func, (cell, _) in _CELLS.items()},
    **{one: Composite(partial(_one_step, cell), (*_GATES, F.relu)) for cell, one in _CELLS.values()},
}
