"""Where the batch axis lies in the output of each known operation, or why that operation mixes the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import spelled


class Unproven(Exception):
    """It is not known whether the operation keeps the inputs apart."""


class Mixing(Exception):
    """The operation combines values of several inputs."""


@dataclass(frozen=True)
class Place:
    """The dimension that holds the batch axis. Its size is ``outer`` * N * ``inner``, N inputs in each outer part."""

    dim: int
    outer: int = 1
    inner: int = 1


LOST = Place(-1)
"""Of a tensor that descends from the inputs in a way that could not be followed."""

Places = Place | list[Place | None] | None
"""Of an operation's output: one for all its tensors, one for each of them, or None for a constant."""


@dataclass(frozen=True, eq=False)
class OperationCall:
    """One call of an operation, at least one operand of which descends from the inputs."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    output: Any
    places: Mapping[Tensor, Place]
    """Of the operands that descend from the inputs."""
    items: int
    """The number N of inputs in the batch."""

    @property
    def operand(self) -> Tensor:
        return next(tensors((self.args, dict(self.kwargs))))

    @property
    def result(self) -> Tensor:
        return next(tensors(self.output))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def place(self, tensor: Any) -> Place | None:
        return self.places.get(tensor) if isinstance(tensor, Tensor) else None

    def first(self) -> Place:
        """Where the first operand has the batch axis; the operation must not have others that have one."""
        return self.only(self.operand)

    def only(self, tensor: Tensor) -> Place:
        """Where this operand has the batch axis; it must be the only one that has one."""
        place = self.place(tensor)
        if place is None or any(other is not tensor for other in self.places):
            raise Unproven
        return place


Rule = Callable[[OperationCall], Places]


def _constant_along(tensor: Tensor, from_right: int) -> None:
    """Raises Unproven unless a tensor that does not descend from the inputs is the same for all of them."""
    if tensor.ndim < -from_right or tensor.shape[from_right] == 1 or tensor.stride(from_right) == 0:
        return
    if not bool((tensor == tensor.narrow(from_right, 0, 1)).all()):
        raise Unproven


def _aligned(call: OperationCall, operands: Sequence[Tensor]) -> tuple[int, Place]:
    """Where operands that are broadcast have the batch axis, counted from the right (negative)."""
    places = {tensor: call.place(tensor) for tensor in operands}
    found = {(place.dim - tensor.ndim, place.outer, place.inner) for tensor, place in places.items() if place}
    if len(found) != 1:
        raise Unproven
    from_right, outer, inner = found.pop()
    for tensor, place in places.items():
        if place is None:
            _constant_along(tensor, from_right)
    return from_right, Place(0, outer, inner)


def _pointwise(call: OperationCall) -> Places:
    operands = list(tensors((call.args, dict(call.kwargs))))
    from_right, place = _aligned(call, operands)
    return replace(place, dim=max(tensor.ndim for tensor in operands) + from_right)


def _same(call: OperationCall) -> Places:
    """The first operand's values; of others only type, size or device are used."""
    return call.place(call.operand)


def _constant(call: OperationCall) -> Places:
    return None


def _by_rows(call: OperationCall) -> Places:
    """Each entry of dimension 0 by itself; weights and settings are constants."""
    place = call.first()
    if place.dim:
        raise Unproven
    return place


def _convolution(call: OperationCall) -> Places:
    if call.operand.ndim != call.argument(1, "weight").ndim:
        raise Unproven  # an image without a batch dimension
    return _by_rows(call)


def _linear(call: OperationCall) -> Places:
    place = call.first()
    if place.dim == call.operand.ndim - 1:
        raise Mixing
    return place


def _batch_norm(call: OperationCall) -> Places:
    if call.argument(1, "running_mean") is None or call.argument(5, "training", False):
        raise Mixing
    return _by_rows(call)


def _instance_norm(call: OperationCall) -> Places:
    if not call.argument(5, "use_input_stats", True):
        raise Unproven
    return _by_rows(call)


def _layer_norm(call: OperationCall) -> Places:
    place = call.first()
    if place.dim >= call.operand.ndim - len(call.argument(1, "normalized_shape")):
        raise Mixing
    return place


def _matmul(call: OperationCall) -> Places:
    left, right = call.argument(0, "input"), call.argument(1, "other", call.kwargs.get("mat2"))
    return _product(call, left, right)


def _baddbmm(call: OperationCall) -> Places:
    place = _product(call, call.argument(1, "batch1"), call.argument(2, "batch2"))
    start = call.argument(0, "input")
    added = call.place(start)
    if added is None:
        _constant_along(start, place.dim - 3)
    elif added != place:
        raise Unproven
    return place


def _product(call: OperationCall, left: Tensor, right: Tensor) -> Place:
    rows, columns = call.place(left), call.place(right)
    if left.ndim < 2 or right.ndim < 2:
        raise Unproven
    if rows and columns:
        from_right, place = _aligned(call, [left, right])
        if from_right >= -2:
            raise Mixing
    elif rows:
        from_right, place = rows.dim - left.ndim, rows
        if from_right == -1:
            raise Mixing
        if from_right < -2:
            _constant_along(right, from_right)
    elif columns:
        from_right, place = columns.dim - right.ndim, columns
        if from_right == -2:
            raise Mixing
        if from_right < -2:
            _constant_along(left, from_right)
    else:
        raise Unproven
    return replace(place, dim=max(left.ndim, right.ndim) + from_right)


def _einsum(call: OperationCall) -> Places:
    equation, operands = call.args[0], list(tensors(call.args[1:]))
    if "." in equation or "->" not in equation:
        raise Unproven
    before, after = equation.replace(" ", "").split("->")
    letters = dict(zip(operands, before.split(","), strict=True))
    places = {tensor: call.place(tensor) for tensor in operands}
    found = {(letters[tensor][place.dim], place.outer, place.inner) for tensor, place in places.items() if place}
    if len(found) != 1:
        raise Unproven
    letter, outer, inner = found.pop()
    if letter not in after:
        raise Mixing
    for tensor, place in places.items():
        if letters[tensor].count(letter) > (place is not None):
            raise Unproven
    return Place(after.index(letter), outer, inner)


def _attention(call: OperationCall) -> Places:
    operands = list(tensors((call.args, dict(call.kwargs))))
    from_right, place = _aligned(call, operands)
    if from_right >= -2:
        raise Mixing
    return replace(place, dim=max(tensor.ndim for tensor in operands) + from_right)


def _multi_head_attention(call: OperationCall) -> Places:
    query, key, value = call.args[:3]
    masks = [mask for mask in (call.kwargs.get("key_padding_mask"), call.kwargs.get("attn_mask")) if mask is not None]
    if query.ndim != 3 or any(call.place(mask) for mask in masks):
        raise Unproven
    if {call.place(tensor) for tensor in (query, key, value)} != {Place(1)}:
        raise Unproven
    places: list[Place | None] = [Place(1), Place(0)]  # the weights are (N, T, T)
    return places[: sum(1 for _ in tensors(call.output))]


def _dims(tensor: Tensor, dims: Any) -> set[int]:
    """Dimensions that an operation combines; None means all."""
    if dims is None or (isinstance(dims, tuple | list) and not dims):
        return set(range(tensor.ndim))
    return {dim % tensor.ndim for dim in ([dims] if isinstance(dims, int) else dims)}


def _along(position: int, default: Any = None, name: str = "dim") -> Rule:
    """An operation along some dimensions that keeps their number."""

    def rule(call: OperationCall) -> Places:
        place, dims = _pointwise(call), call.argument(position, name, default)
        if not isinstance(place, Place) or isinstance(dims, Tensor):
            raise Unproven
        if place.dim in _dims(call.operand, dims):
            raise Mixing
        return place

    return rule


def _reduction(position: int = 1) -> Rule:
    """An operation that combines the values along some dimensions."""

    def rule(call: OperationCall) -> Places:
        dims = call.argument(position, "dim", call.kwargs.get("axis"))
        if isinstance(dims, Tensor):
            return _pointwise(call)  # the larger or the smaller of two
        operand, place = call.operand, call.first()
        reduced = _dims(operand, None if isinstance(dims, bool) else dims)
        if place.dim in reduced:
            raise Mixing
        if call.result.ndim == operand.ndim:
            return place
        return replace(place, dim=place.dim - sum(dim < place.dim for dim in reduced))

    return rule


def _cosine(call: OperationCall) -> Places:
    place = _along(2, 1)(call)
    assert isinstance(place, Place)
    ndim = max(tensor.ndim for tensor in tensors(call.args))
    return replace(place, dim=place.dim - (call.argument(2, "dim", 1) % ndim < place.dim))


def _permute(call: OperationCall) -> Places:
    place, operand = call.first(), call.operand
    order = call.argument(1, "dims")
    order = order if isinstance(order, tuple | list) else call.args[1:]
    return replace(place, dim=[dim % operand.ndim for dim in order].index(place.dim))


def _transpose(call: OperationCall) -> Places:
    first = call.argument(1, "dim0", call.kwargs.get("axis0"))
    second = call.argument(2, "dim1", call.kwargs.get("axis1"))
    return _exchanged(call, first, second)


def _matrix_transpose(call: OperationCall) -> Places:
    return _exchanged(call, -2, -1) if call.operand.ndim > 1 else call.first()


def _exchanged(call: OperationCall, first: int, second: int) -> Place:
    place, ndim = call.first(), call.operand.ndim
    exchanged = {first % ndim: second % ndim, second % ndim: first % ndim}
    return replace(place, dim=exchanged.get(place.dim, place.dim))


def _moved(call: OperationCall) -> Places:
    place, ndim = call.first(), call.operand.ndim
    source, target = call.argument(1, "source"), call.argument(2, "destination")
    if not isinstance(source, int):
        raise Unproven
    order = [dim for dim in range(ndim) if dim != source % ndim]
    order.insert(target % ndim, source % ndim)
    return replace(place, dim=order.index(place.dim))


def _reshape(call: OperationCall) -> Places:
    place = call.place(call.operand)
    if place is None:
        return None
    before, after = call.operand.shape, call.result.shape
    if before == after:
        return place
    if math.prod(before) != math.prod(after):
        raise Unproven  # a view in another dtype
    ahead = math.prod(before[: place.dim]) * place.outer
    done = 1
    for dim, size in enumerate(after):
        if ahead % done:
            break
        if (done * size) % (ahead * call.items) == 0:
            outer = ahead // done
            if call.items == outer == size == 1 and after[dim + 1 : dim + 2] == (1,):
                raise Unproven  # of several dimensions of size 1, one is that of the batch
            return Place(dim, outer, size // (outer * call.items))
        done *= size
    raise Unproven


def _unsqueeze(call: OperationCall) -> Places:
    place, new = call.first(), call.argument(1, "dim") % call.result.ndim
    return replace(place, dim=place.dim + (new <= place.dim))


def _squeeze(call: OperationCall) -> Places:
    place, dims = call.first(), call.argument(1, "dim")
    if call.operand.shape[place.dim] == 1 and (dims is None or place.dim in _dims(call.operand, dims)):
        raise Unproven  # with more inputs the dimension stays
    gone = [dim for dim in _dims(call.operand, dims) if call.operand.shape[dim] == 1]
    return replace(place, dim=place.dim - sum(dim < place.dim for dim in gone))


def _expand(call: OperationCall) -> Places:
    place = call.place(call.operand)
    if place is None:
        return None
    dim = call.result.ndim + place.dim - call.operand.ndim
    if call.result.shape[dim] != call.operand.shape[place.dim]:
        raise Unproven
    return replace(place, dim=dim)


def _repeat(call: OperationCall) -> Places:
    place = call.first()
    dim = call.result.ndim + place.dim - call.operand.ndim
    return Place(dim, place.outer * (call.result.shape[dim] // call.operand.shape[place.dim]), place.inner)


def _repeat_interleave(call: OperationCall) -> Places:
    place, repeats, dim = call.first(), call.argument(1, "repeats"), call.argument(2, "dim")
    if not isinstance(repeats, int) or dim is None:
        raise Unproven
    return replace(place, inner=place.inner * repeats) if dim % call.operand.ndim == place.dim else place


def _cat(call: OperationCall) -> Places:
    parts = list(call.argument(0, "tensors"))
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.result.ndim
    from_right, place = _aligned(call, parts)
    if call.result.ndim + from_right == dim:  # one batch behind the other
        if not all(call.place(part) for part in parts):
            raise Unproven
        return Place(dim, place.outer * len(parts), place.inner)
    return replace(place, dim=call.result.ndim + from_right)


def _stack(call: OperationCall) -> Places:
    parts = list(call.argument(0, "tensors"))
    new = call.argument(1, "dim", 0) % call.result.ndim
    from_right, place = _aligned(call, parts)
    dim = parts[0].ndim + from_right
    return replace(place, dim=dim + (new <= dim))


def _pieces(position: int) -> Rule:
    """Consecutive pieces along one dimension."""

    def rule(call: OperationCall) -> Places:
        place, dim = call.first(), call.argument(position, "dim", 0) % call.operand.ndim
        if dim != place.dim:
            return place
        block, start = call.items * place.inner, 0
        places: list[Place | None] = []
        for piece in tensors(call.output):
            if start % block or piece.shape[dim] % block:
                raise Mixing
            places.append(replace(place, outer=piece.shape[dim] // block))
            start += piece.shape[dim]
        return places

    return rule


def _unbind(call: OperationCall) -> Places:
    return _without(call, call.argument(1, "dim", 0))


def _select(call: OperationCall) -> Places:
    return _without(call, call.argument(1, "dim"))


def _without(call: OperationCall, dim: int) -> Place:
    place, dim = call.first(), dim % call.operand.ndim
    if dim == place.dim:
        raise Mixing
    return replace(place, dim=place.dim - (dim < place.dim))


def _elsewhere(position: int, name: str = "dim") -> Rule:
    """An operation that chooses places along one dimension, which must not be that of the batch."""

    def rule(call: OperationCall) -> Places:
        place = call.first()
        if call.argument(position, name) % call.operand.ndim == place.dim:
            raise Mixing
        return place

    return rule


def _index(call: OperationCall) -> Places:
    return _indexed(call, call.operand, call.first(), call.args[1])


def _indexed(call: OperationCall, operand: Tensor, place: Place, index: Any) -> Place:
    """Where the batch axis of ``operand[index]`` lies, if that leaves it whole."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if any(isinstance(part, bool) for part in parts) or sum(part is Ellipsis for part in parts) > 1:
        raise Unproven
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    lists = [part for part in parts if isinstance(part, Tensor | list)]
    if len(lists) > 1 or any(isinstance(part, Tensor) and part.dtype is torch.bool for part in lists):
        raise Unproven
    if lists and any(isinstance(part, int) for part in parts):
        raise Unproven
    dim = result = 0
    for part in parts:
        if part is None:
            result += 1
        elif part is Ellipsis:
            covered = operand.ndim - used
            if dim <= place.dim < dim + covered:
                return replace(place, dim=result + place.dim - dim)
            dim, result = dim + covered, result + covered
        else:
            if dim == place.dim:
                if part != slice(None):
                    raise Mixing
                return replace(place, dim=result)
            dim += 1
            result += 0 if isinstance(part, int) else part.ndim if isinstance(part, Tensor) else 1
    raise Unproven


def _assigned(call: OperationCall) -> Places:
    operand, index, value = call.args[:3]
    place = call.place(operand)
    if place is None or any(call.place(part) for part in tensors(index)):
        raise Unproven
    if not isinstance(value, Tensor):
        return None
    chosen = OperationCall((operand, index), {}, None, {operand: place}, call.items)
    assigned = _indexed(chosen, operand, place, index)
    from_right = assigned.dim - operand[index].ndim
    its = call.place(value)
    if its is None:
        _constant_along(value, from_right)
    elif (its.dim - value.ndim, its.outer, its.inner) != (from_right, place.outer, place.inner):
        raise Unproven
    return None


def _pad(call: OperationCall) -> Places:
    place = call.first()
    if len(call.argument(1, "pad")) // 2 >= call.operand.ndim - place.dim:
        raise Unproven
    return place


def _triangle(call: OperationCall) -> Places:
    place = call.first()
    if place.dim >= call.operand.ndim - 2:
        raise Unproven
    return place


def _dropout(call: OperationCall) -> Places:
    if call.argument(2, "training", True):
        raise Unproven  # each place of the batch draws its own noise
    return call.first()


def _with_rows(call: OperationCall) -> Places:
    """Each entry of dimension 0 of all operands by itself."""
    place = _aligned(call, list(tensors((call.args, dict(call.kwargs)))))
    if any(found.dim for found in call.places.values()):
        raise Unproven
    return place[1]


def _named(rule: Rule, *names: str) -> dict[Any, Rule]:
    """The rule for operations of these names, however they are spelled."""
    found = [*spelled(*names)]
    for home in (F, torch._C._nn, torch.nn.functional, torch.linalg, torch.fft):
        found += [getattr(home, form) for name in names for form in (name, f"{name}_") if hasattr(home, form)]
    return {operation: rule for operation in found if callable(operation)}


RULES: dict[Any, Rule] = {
    **_named(
        _pointwise,
        *("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "truediv", "floor_divide"),
        *("floordiv", "remainder", "mod", "fmod", "pow", "float_power", "neg", "pos", "abs", "absolute", "sign"),
        *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "sin"),
        *("cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf"),
        *("erfc", "sigmoid", "expit", "logit", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "elu"),
        *("selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "hardtanh", "logsigmoid"),
        *("softsign", "tanhshrink", "hardshrink", "softshrink", "clamp", "clip", "clamp_min", "clamp_max", "floor"),
        *("ceil", "round", "trunc", "frac", "maximum", "minimum", "fmax", "fmin", "where", "masked_fill", "lerp"),
        *("addcmul", "addcdiv", "copy", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "rsub"),
        *("logical_not", "logical_xor", "and", "or", "xor", "invert", "bitwise_and", "bitwise_or", "bitwise_not"),
        *("isnan", "isinf", "isfinite", "nan_to_num", "heaviside", "hypot", "sinc", "angle", "polar", "conj"),
    ),
    **_named(
        _same,
        *("clone", "detach", "contiguous", "to", "type", "type_as", "float", "double", "half", "bfloat16", "long"),
        *("int", "bool", "cpu", "cuda", "requires_grad_", "alias", "real", "imag", "conj_physical", "resolve_conj"),
        *("resolve_neg", "byte", "short", "char"),
    ),
    "real": _same,
    "imag": _same,
    **_named(
        _constant,
        *("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor"),
        *("new_empty",),
    ),
    **_named(_convolution, "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    **_named(
        _by_rows,
        *(f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for rank in (1, 2, 3)),
        *(f"{kind}_pool{rank}d_with_indices" for kind in ("max", "adaptive_max") for rank in (1, 2, 3)),
        *("interpolate", "upsample", "upsample_bilinear", "upsample_nearest", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "group_norm", "local_response_norm", "fold", "affine_grid", "stft"),
    ),
    F.unfold: _by_rows,
    **_named(_with_rows, "grid_sample"),
    **_named(_linear, "linear"),
    **_named(_batch_norm, "batch_norm"),
    **_named(_instance_norm, "instance_norm"),
    **_named(_layer_norm, "layer_norm", "rms_norm"),
    **_named(_matmul, "matmul", "mm", "bmm"),
    **_named(_baddbmm, "baddbmm"),
    torch.einsum: _einsum,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head_attention,
    **_named(_along(1), "softmax", "log_softmax", "softmin", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"),
    **_named(_along(1, name="dims"), "flip"),
    **_named(_along(2, name="dims"), "roll"),
    **_named(_along(1, -1), "glu", "sort", "argsort", "fftshift", "ifftshift"),
    **_named(_along(2, -1), "topk", "fft", "ifft", "rfft", "irfft", "hfft", "ihfft"),
    **_named(_along(2, (-2, -1)), "fft2", "ifft2", "rfft2", "irfft2"),
    **_named(_along(2), "fftn", "ifftn", "rfftn", "irfftn"),
    **_named(_along(2, 1), "normalize"),
    **_named(_along(1), "gather", "take_along_dim"),
    **_named(
        _reduction(),
        *("sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "std", "var", "prod"),
        *("median", "nansum", "nanmean", "std_mean", "var_mean", "count_nonzero", "aminmax", "logsumexp"),
    ),
    **_named(_reduction(2), "norm", "vector_norm"),
    **_named(_cosine, "cosine_similarity"),
    **_named(_permute, "permute"),
    **_named(_transpose, "transpose", "swapaxes", "swapdims"),
    **_named(_matrix_transpose, "t", "adjoint"),
    "T": _matrix_transpose,
    "mT": _matrix_transpose,
    "mH": _matrix_transpose,
    **_named(_moved, "movedim", "moveaxis"),
    **_named(
        _reshape,
        *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "ravel"),
    ),
    **_named(_unsqueeze, "unsqueeze"),
    **_named(_squeeze, "squeeze"),
    **_named(_expand, "expand", "expand_as", "broadcast_to"),
    **_named(_repeat, "repeat", "tile"),
    **_named(_repeat_interleave, "repeat_interleave"),
    **_named(_cat, "cat", "concat", "concatenate"),
    **_named(_stack, "stack"),
    **_named(_pieces(2), "chunk", "split", "split_with_sizes", "tensor_split"),
    **_named(_unbind, "unbind"),
    **_named(_select, "select"),
    **_named(_elsewhere(1), "narrow", "index_select"),
    Tensor.unfold: _elsewhere(1, "dimension"),
    Tensor.__getitem__: _index,
    Tensor.__setitem__: _assigned,
    **_named(_pad, "pad"),
    **_named(_triangle, "tril", "triu"),
    **_named(_dropout, "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    **_named(OperationCall.first, "embedding", "one_hot"),
}
"""By operation; properties of tensors by their names."""
