"""Where the axes of an operation's output lie: one rule for each operation, by its plain name.

An operation that is not listed is not known, and what it gives has no known axes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cnnviz.engine import axis_moves as moves
from cnnviz.engine import axis_parts as parts
from cnnviz.engine import axis_products as products
from cnnviz.engine.axes import (
    CHANNEL,
    OWN,
    PLACE,
    AxisFollower,
    Call,
    Digit,
    Dim,
    Label,
    Rule,
    dim_size,
    has_kind,
    single,
    unknown,
    unpadded,
    whole,
)
from cnnviz.engine.nested import tensors


def _same(axes: AxisFollower, call: Call) -> Label | None:
    """Every value, or every vector of channels, stays where it is."""
    return axes.label_of(call.args[0] if call.args else call.kwargs["input"])


def _pointwise(axes: AxisFollower, call: Call) -> Label | None:
    """Operands are broadcast against each other."""
    labels = [axes.label_of(operand) for operand in tensors((call.args, call.kwargs)) if axes.descends(operand)]
    return tuple(parts.spread(axes, labels, call.output.ndim, call.output.shape))


def _added(axes: AxisFollower, call: Call) -> Label | None:
    """As any operation on values; the channels of what is added up become one axis."""
    labels = [axes.label_of(operand) for operand in tensors((call.args, call.kwargs)) if axes.descends(operand)]
    return tuple(parts.spread(axes, labels, call.output.ndim, call.output.shape, unite=True))


def _resampled(axes: AxisFollower, dim: Dim, size: int) -> Dim:
    """A dimension at another resolution. One that was no axis of a grid becomes one of the model's own."""
    digit = unpadded(dim)
    if digit is None or digit.axis is None or digit.axis.kind not in (PLACE, OWN):
        return unknown(size)
    if not digit.whole or (digit.axis.shift and size != digit.size) or (digit.size == 1 and size > 1):
        return unknown(size)  # of one value there are no places
    return whole(digit.axis._replace(length=size))


def _window_rank(rank: int) -> Rule:
    """A pooling or interpolation over the last ``rank`` dimensions, of one item or a batch."""

    def rule(axes: AxisFollower, call: Call) -> Label | None:
        label = _same(axes, call) or ()
        sizes = call.output.shape[-rank:]
        return (*label[:-rank], *(_resampled(axes, dim, size) for dim, size in zip(label[-rank:], sizes, strict=True)))

    return rule


def _interpolated(axes: AxisFollower, call: Call) -> Label | None:
    return _window_rank(call.output.ndim - 2)(axes, call)


def _padded(axes: AxisFollower, call: Call) -> Label | None:
    label = list(_same(axes, call) or ())
    widths = call.argument(1, "pad")
    for pair in range(len(widths) // 2):
        before, after = widths[2 * pair], widths[2 * pair + 1]
        dim, number = label[-1 - pair], -1 - pair
        size = call.output.shape[number]
        if before == after == 0:
            continue
        if has_kind(dim, PLACE, OWN) and single(dim) is not None:
            ((digit,),) = _resampled(axes, dim, size)
            axis = digit.axis and digit.axis._replace(padded=before > 0 or after > 0)
            label[number] = ((digit._replace(axis=axis),),)
        elif before >= 0 and after >= 0:
            label[number] = (*(unknown(before) if before else ()), *dim, *(unknown(after) if after else ()))
        else:
            label[number] = unknown(size)
    return tuple(label)


def _convolved(rank: int) -> Rule:
    def rule(axes: AxisFollower, call: Call) -> Label | None:
        source, weight = call.args[0], call.argument(1, "weight")
        label = axes.of(source) or _rooted(axes, source, rank)
        leading = call.output.ndim - rank - 1
        begin = leading + 1
        # one kernel for each channel keeps the channels apart
        depthwise = weight.shape[1] == 1 and call.output.shape[leading] == source.shape[leading] > 1
        channels = label[leading] if depthwise else axes.channel(call.output.shape[leading])
        grid = [
            _convolved_dim(axes, dim, size) for dim, size in zip(label[begin:], call.output.shape[begin:], strict=True)
        ]
        return (*label[:leading], channels, *grid)

    return rule


def _convolved_dim(axes: AxisFollower, dim: Dim, size: int) -> Dim:
    digit = single(dim)
    if digit is not None and (digit.axis is None or digit.axis.kind == CHANNEL) and digit.size > 1:
        return whole(axes.new(OWN, size))
    return _resampled(axes, dim, size)


def _rooted(axes: AxisFollower, source: Tensor, rank: int) -> Label:
    """The label of a convolution's input whose axes were lost.

    Pictures that were pasted into a batch, as detectors do, begin anew. Any other grid is the model's own.
    """
    anew = axes.begin(source.shape)
    leading = source.ndim - rank - 1
    items = leading == 1 and source.shape[:1] == axes.shape[:1]
    if items and source.ndim == len(axes.shape):
        return anew
    batch = anew[:1] if items else tuple(map(unknown, source.shape[:leading]))
    grid = (whole(axes.new(OWN, size)) for size in source.shape[leading + 1 :])
    return (*batch, unknown(source.shape[leading]), *grid)


def _reduced(axes: AxisFollower, call: Call) -> Label | None:
    label = _same(axes, call) or ()
    where = call.argument(1, "dim", call.kwargs.get("axis"))
    if isinstance(where, Tensor):
        return _pointwise(axes, call)
    if where is None or (isinstance(where, tuple | list) and not where):
        return tuple(map(unknown, call.output.shape))
    gone = {number % len(label) for number in ([where] if isinstance(where, int) else where)}
    if call.output.ndim == len(label):
        return tuple(unknown(1) if number in gone else dim for number, dim in enumerate(label))
    return tuple(dim for number, dim in enumerate(label) if number not in gone)


def _norm(axes: AxisFollower, call: Call) -> Label | None:
    """``norm(x, p, dim)``, whose second argument is the order."""
    where = call.argument(2, "dim")
    return _reduced(axes, Call((call.args[0],), {"dim": where}, call.output, call.place))


def _gated(axes: AxisFollower, call: Call) -> Label | None:
    label = list(_same(axes, call) or ())
    number = call.argument(1, "dim", -1)
    label[number] = axes.channel(call.output.shape[number])
    return tuple(label)


def _shuffled(axes: AxisFollower, call: Call) -> Label | None:
    """Channels become places, or places channels."""
    label, sizes = _same(axes, call) or (), call.output.shape
    grid = (_resampled(axes, dim, size) for dim, size in zip(label[-2:], sizes[-2:], strict=True))
    return (*label[:-3], axes.channel(sizes[-3]), *grid)


def _channels_shuffled(axes: AxisFollower, call: Call) -> Label | None:
    label = _same(axes, call) or ()
    return (label[0], axes.channel(call.output.shape[1]), *label[2:])


def _patches(axes: AxisFollower, call: Call) -> Label | None:
    """``F.unfold``: each place of the coarser grid is a column. ``Tensor.unfold`` cuts one dimension into windows."""
    if call.output.ndim > call.args[0].ndim:
        return _windows(axes, call)
    label = _same(axes, call) or ()
    kernel, dilation, padding, stride = (
        _pair(call.argument(place, name, default))
        for place, name, default in ((1, "kernel_size", None), (2, "dilation", 1), (3, "padding", 0), (4, "stride", 1))
    )
    sizes = [
        (dim_size(dim) + 2 * padding[n] - dilation[n] * (kernel[n] - 1) - 1) // stride[n] + 1
        for n, dim in enumerate(label[-2:])
    ]
    grid = [_resampled(axes, dim, size) for dim, size in zip(label[-2:], sizes, strict=True)]
    return (*label[:-3], axes.channel(call.output.shape[-2]), (tuple(digit for dim in grid for digit in dim[0]),))


def _folded(axes: AxisFollower, call: Call) -> Label | None:
    """``F.fold``, the opposite, of patches that were cut of the input's grid."""
    label = _same(axes, call) or ()
    found = [digit.axis for digit in label[-1][0]] if len(label[-1]) == 1 else []
    sizes = call.output.shape[-2:]
    if len(found) != 2 or any(axis is None for axis in found):
        return (*label[:-2], axes.channel(call.output.shape[-3]), *map(unknown, sizes))
    grid = (_resampled(axes, whole(axis), size) for axis, size in zip(found, sizes, strict=True) if axis is not None)
    return (*label[:-2], axes.channel(call.output.shape[-3]), *grid)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _windows(axes: AxisFollower, call: Call) -> Label | None:
    """``x.unfold(dim, size, step)``: windows; side by side they are digits of the axis."""
    label = list(_same(axes, call) or ())
    number, size, step = call.argument(1, "dimension") % len(label), call.argument(2, "size"), call.argument(3, "step")
    digit = single(label[number])
    count = call.output.shape[number]
    if digit is None or digit.axis is None or not digit.whole or size != step or count * size != digit.size:
        label[number] = unknown(count)
        return (*label, unknown(size))
    label[number] = ((Digit(digit.axis, size, count),),)
    return (*label, ((Digit(digit.axis, 1, size),),))


def _spectrogram(axes: AxisFollower, call: Call) -> Label | None:
    """Frequencies are an axis of the model's own; time is resampled."""
    label, shape = _same(axes, call) or (), call.output.shape
    leading = len(label) - 1
    frequency = whole(axes.new(OWN, shape[leading]))
    time = _resampled(axes, label[-1], shape[leading + 1])
    return (*label[:-1], frequency, time, *map(unknown, shape[leading + 2 :]))


def _as_real(axes: AxisFollower, call: Call) -> Label | None:
    return (*(_same(axes, call) or ()), unknown(2))


def _recurrent(axes: AxisFollower, call: Call) -> Label | None:
    label = _same(axes, call) or ()
    return (
        (*label[:-1], axes.channel(call.output.shape[-1]))
        if call.place == 0 and len(label) == call.output.ndim
        else None
    )


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_SAME = (
    "relu relu6 leaky_relu prelu rrelu threshold elu selu celu gelu silu mish hardswish hardsigmoid softplus "
    "hardtanh sigmoid tanh logsigmoid softsign tanhshrink hardshrink softshrink clamp clip exp exp2 expm1 log "
    "log2 log10 log1p sqrt rsqrt square reciprocal abs sin cos atan erf neg sign round floor ceil nan_to_num softmax "
    "log_softmax softmin "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout "
    "batch_norm layer_norm group_norm instance_norm rms_norm "
    "local_response_norm normalize contiguous clone detach to type float double half bfloat16 cuda cpu type_as "
    "requires_grad real imag angle data bool int long logical_not isnan isfinite positive "
    "fake_quantize_per_tensor_affine gumbel_softmax conj resolve_conj logit absolute"
)
_POINTWISE = (
    "mul multiply div divide true_divide truediv floordiv floor_divide pow maximum minimum where masked_fill addcmul "
    "addcdiv fmod remainder atan2 eq ne lt le gt ge and or xor logical_and logical_or hypot lerp"
)

RULES: Mapping[str, Rule] = {
    **_named(_SAME, _same),
    **_named(_POINTWISE, _pointwise),
    **_named("add sub subtract rsub", _added),
    **_named("view reshape flatten unflatten view_as reshape_as ravel", moves.reshape),
    **_named("squeeze", moves.squeeze),
    **_named("unsqueeze", moves.unsqueeze),
    **_named("permute", moves.permute),
    **_named("transpose swapaxes swapdims", moves.transpose),
    **_named("movedim moveaxis", moves.movedim),
    **_named("t mT adjoint H mH", moves.turned),
    "T": moves.reversed_dims,
    "flip": moves.flip,
    "fliplr": moves.fliplr,
    "flipud": moves.flipud,
    "rot90": moves.rot90,
    "roll": moves.roll,
    "narrow": parts.narrow,
    "select": parts.select,
    "unbind": parts.unbind,
    "iter": parts.iterated,
    **_named("split chunk tensor_split split_with_sizes", parts.split),
    "getitem": parts.getitem,
    **_named("index_select gather take_along_dim sort topk argsort", parts.gathered),
    **_named("cat concat concatenate", parts.joined),
    "stack": parts.stacked,
    **_named("expand expand_as broadcast_to", parts.expand),
    **_named("repeat tile", parts.repeat),
    **{f"conv{rank}d": _convolved(rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _convolved(rank) for rank in (1, 2, 3)},
    **{
        f"{kind}_pool{rank}d{more}": _window_rank(rank)
        for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg", "fractional_max")
        for more in ("", "_with_indices")
        for rank in (1, 2, 3)
    },
    **_named("interpolate upsample", _interpolated),
    "pad": _padded,
    "linear": products.linear,
    **_named("matmul mm bmm", products.matmul),
    "rmatmul": products.reflected_matmul,
    **_named("addmm baddbmm", products.product_with_sum),
    "scaled_dot_product_attention": products.attention,
    "multi_head_attention_forward": products.multi_head,
    "einsum": products.einsum,
    **_named("mean sum amax amin max min std var prod logsumexp median nansum nanmean any all", _reduced),
    **_named("norm vector_norm", _norm),
    "glu": _gated,
    **_named("pixel_shuffle pixel_unshuffle", _shuffled),
    **_named("channel_shuffle native_channel_shuffle", _channels_shuffled),
    "unfold": _patches,
    "fold": _folded,
    "stft": _spectrogram,
    "view_as_real": _as_real,
    **_named("lstm gru rnn_tanh rnn_relu", _recurrent),
}

_ALONG = (
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm normalize conj resolve_conj "
    "expand expand_as broadcast_to"
)
_MOVES = (
    "add sub subtract rsub view reshape flatten unflatten view_as reshape_as ravel squeeze unsqueeze permute transpose "
    "swapaxes swapdims movedim moveaxis t mT adjoint H mH T flip fliplr flipud rot90 roll narrow select unbind iter "
    "split chunk tensor_split split_with_sizes getitem setitem copy index_select gather take_along_dim sort topk "
    "masked_select cat concat concatenate stack pixel_shuffle pixel_unshuffle channel_shuffle"
)
VALUE_BY_VALUE = frozenset(f"{_SAME} {_POINTWISE} {_MOVES}".split()) - frozenset(_ALONG.split())
"""Operations whose output's values are each made of one value of an operand, or one of each. Softmax counts too."""
