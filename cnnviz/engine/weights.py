"""Operations that are linear in what comes from the input: their weights, and the same with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.operations import Operation, canonical, name_of


class Linear(NamedTuple):
    """A call that is linear in its only operand from the input."""

    weight: Tensor
    """The constant factor, as the operation is given it."""
    bias: Tensor | None
    """What is added, as it broadcasts to the output; None where nothing is."""
    run: Callable[[Tensor, Tensor], Tensor]
    """From another operand and another weight to the output, to which nothing is added."""


class Arguments(NamedTuple):
    """The arguments of a call, with holes in the place of those that come from the input."""

    func: Operation
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    is_hole: Callable[[Any], bool]
    """True for the place of an argument that comes from the input."""

    def constant(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def refilled(self, changes: Mapping[tuple[int, str], Any]) -> Any:
        """What the operation gives with some arguments replaced, by place and name."""
        args, kwargs = list(self.args), dict(self.kwargs)
        for (place, name), value in changes.items():
            if len(args) > place:
                args[place] = value
            else:
                kwargs[name] = value
        return self.func(*args, **kwargs)


def linear(call: Arguments) -> Linear:
    """The weight and bias of a call. Raises LookupError for an operation that has none, or not as constants."""
    operation = canonical(call.func, call.args, call.kwargs)
    form = _FORMS.get(operation)
    found = None if form is None else form(call)
    if found is None:
        raise LookupError(
            f"{name_of(operation)} has no weights here: they are known of convolutions, linear layers and matrix "
            "products with one operand from the input"
        )
    weight, bias, run = found
    return Linear(weight.detach(), None if bias is None else bias.detach(), run)


def _layer(call: Arguments) -> Linear | None:
    """A convolution or a linear layer: (input, weight, bias, ...)."""
    given, weight, bias = call.constant(0, "input"), call.constant(1, "weight"), call.constant(2, "bias")
    if not call.is_hole(given) or not isinstance(weight, Tensor) or call.is_hole(bias):
        return None
    spread = (1,) * max(0, weight.ndim - 2)

    def run(values: Tensor, weight: Tensor) -> Tensor:
        changes = {(0, "input"): values, (1, "weight"): weight}
        output: Tensor = call.refilled(changes if bias is None else changes | {(2, "bias"): None})
        return output

    return Linear(weight, None if bias is None else bias.reshape(-1, *spread), run)


def _product(call: Arguments) -> Linear | None:
    """A matrix product, with the constant on either side."""
    first, second = (next((name for name in names if name in call.kwargs), "") for names in _PRODUCT_NAMES)
    return _factors(call, [(0, first), (1, second)], call.refilled)


def _factors(
    call: Arguments,
    places: Sequence[tuple[int, str]],
    product: Callable[[dict[tuple[int, str], Any]], Tensor],
    scale: float = 1,
    bias: Tensor | None = None,
) -> Linear | None:
    """A product of two factors, one of which is constant."""
    factors = [call.constant(*place) for place in places]
    holes = [number for number, factor in enumerate(factors) if call.is_hole(factor)]
    constants = [number for number, factor in enumerate(factors) if isinstance(factor, Tensor)]
    if len(holes) != 1 or len(constants) != 1:
        return None
    (hole,), (constant,) = holes, constants
    weight = factors[constant] if scale == 1 else factors[constant] * scale
    return Linear(weight, bias, lambda values, weight: product({places[hole]: values, places[constant]: weight}))


def _sum_and_product(call: Arguments) -> Linear | None:
    """What is added and a matrix product, with a factor for each."""
    added, beta, alpha = call.constant(0, "input"), call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)
    if not isinstance(added, Tensor) or len(call.args) > 3:
        return None
    names = _ADDED[canonical(call.func, call.args, call.kwargs)]
    places = [(1, names[0]), (2, names[1])]
    summed = names[2:]

    def product(factors: dict[tuple[int, str], Any]) -> Tensor:
        output = torch.matmul(factors[places[0]], factors[places[1]])
        return output.sum(0) if summed else output

    return _factors(call, places, product, alpha, added * beta)


def _einsum(call: Arguments) -> Linear | None:
    operands = call.args[1:]
    operands = getattr(operands[0], "items", operands) if operands else ()  # those in a list
    if not isinstance(call.constant(0, "equation"), str) or len(operands) != 2:
        return None
    flat = Arguments(torch.einsum, [call.args[0], *operands], {}, call.is_hole)
    return _factors(flat, [(1, ""), (2, "")], flat.refilled)


def _bilinear(call: Arguments) -> Linear | None:
    """One operand from the input; the other one and the weight make its weight."""
    places = [call.constant(0, "input1"), call.constant(1, "input2")]
    weight, bias = call.constant(2, "weight"), call.constant(3, "bias")
    constants = [number for number, operand in enumerate(places) if isinstance(operand, Tensor)]
    if len(constants) != 1 or not isinstance(weight, Tensor) or call.is_hole(bias):
        return None
    other = places[constants[0]]
    letters = "kij,...j->...ki" if constants[0] == 1 else "kij,...i->...kj"
    joint = torch.einsum(letters, weight, other)
    return Linear(joint, bias, lambda values, weight: torch.einsum("...ki,...i->...k", weight, values))


CONVOLUTIONS: tuple[Operation, ...] = (
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.convolution),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
)
"""Convolutions and transposed ones."""
_ADDED: Mapping[Operation, tuple[str, ...]] = {
    torch.addmm: ("mat1", "mat2"),
    torch.addmv: ("mat", "vec"),
    torch.baddbmm: ("batch1", "batch2"),
    torch.addbmm: ("batch1", "batch2", "summed"),
}
_PRODUCT_NAMES = ("input", "a", "x"), ("other", "mat2", "vec", "vec2", "tensor", "b", "y")
_PRODUCTS = (torch.matmul, torch.tensordot, torch.inner, torch.dot, torch.outer, torch.kron, torch.linalg.vecdot)
MATRIX_PRODUCTS: tuple[Operation, ...] = (F.linear, *_PRODUCTS, *_ADDED, torch.einsum, F.bilinear)
"""Linear layers, however they are spelled, and products of matrices, which are such if one factor is constant."""
LINEAR = frozenset((*CONVOLUTIONS, *MATRIX_PRODUCTS))
_FORMS: Mapping[Operation, Callable[[Arguments], Linear | None]] = {
    **dict.fromkeys((F.linear, *CONVOLUTIONS), _layer),
    **dict.fromkeys(_ADDED, _sum_and_product),
    **dict.fromkeys(_PRODUCTS, _product),
    **{torch.einsum: _einsum, F.bilinear: _bilinear},
}
