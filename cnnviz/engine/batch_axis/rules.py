"""The rule of each operation of which it is known how it treats the batch axis."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.batch_axis import computing, reshaping
from cnnviz.engine.batch_axis.calls import OperationCall, Rule
from cnnviz.engine.operations import spelled


def _named(rule: Rule, *names: str) -> dict[Any, Rule]:
    """The rule for operations of these names, however they are spelled."""
    found = [*spelled(*names)]
    for home in (F, torch._C._nn, torch.nn.functional, torch.linalg, torch.fft):
        found += [getattr(home, form) for name in names for form in (name, f"{name}_") if hasattr(home, form)]
    return {operation: rule for operation in found if callable(operation)}


RULES: dict[Any, Rule] = {
    **_named(
        computing.pointwise,
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
        computing.same_values,
        *("clone", "detach", "contiguous", "to", "type", "type_as", "float", "double", "half", "bfloat16", "long"),
        *("int", "bool", "cpu", "cuda", "requires_grad_", "alias", "real", "imag", "conj_physical", "resolve_conj"),
        *("resolve_neg", "byte", "short", "char"),
    ),
    "real": computing.same_values,
    "imag": computing.same_values,
    **_named(
        computing.constant,
        *("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor"),
        *("new_empty",),
    ),
    **_named(
        computing.convolution, "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"
    ),
    **_named(
        computing.by_rows,
        *(f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for rank in (1, 2, 3)),
        *(f"{kind}_pool{rank}d_with_indices" for kind in ("max", "adaptive_max") for rank in (1, 2, 3)),
        *("interpolate", "upsample", "upsample_bilinear", "upsample_nearest", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "group_norm", "local_response_norm", "fold", "affine_grid", "stft"),
    ),
    F.unfold: computing.by_rows,
    **_named(computing.with_rows, "grid_sample"),
    **_named(computing.linear, "linear"),
    **_named(computing.batch_norm, "batch_norm"),
    **_named(computing.instance_norm, "instance_norm"),
    **_named(computing.layer_norm, "layer_norm", "rms_norm"),
    **_named(computing.matmul, "matmul", "mm", "bmm"),
    **_named(computing.baddbmm, "baddbmm"),
    torch.einsum: computing.einsum,
    F.scaled_dot_product_attention: computing.attention,
    F.multi_head_attention_forward: computing.multi_head_attention,
    **_named(
        computing.along(1), "softmax", "log_softmax", "softmin", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"
    ),
    **_named(computing.along(1, name="dims"), "flip"),
    **_named(computing.along(2, name="dims"), "roll"),
    **_named(computing.along(1, -1), "glu", "sort", "argsort", "fftshift", "ifftshift"),
    **_named(computing.along(2, -1), "topk", "fft", "ifft", "rfft", "irfft", "hfft", "ihfft"),
    **_named(computing.along(2, (-2, -1)), "fft2", "ifft2", "rfft2", "irfft2"),
    **_named(computing.along(2), "fftn", "ifftn", "rfftn", "irfftn"),
    **_named(computing.along(2, 1), "normalize"),
    **_named(computing.along(1), "gather", "take_along_dim"),
    **_named(
        computing.reduction(),
        *("sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "std", "var", "prod"),
        *("median", "nansum", "nanmean", "std_mean", "var_mean", "count_nonzero", "aminmax", "logsumexp"),
    ),
    **_named(computing.reduction(2), "norm", "vector_norm"),
    **_named(computing.cosine, "cosine_similarity"),
    **_named(reshaping.permute, "permute"),
    **_named(reshaping.transpose, "transpose", "swapaxes", "swapdims"),
    **_named(reshaping.matrix_transpose, "t", "adjoint"),
    "T": reshaping.matrix_transpose,
    "mT": reshaping.matrix_transpose,
    "mH": reshaping.matrix_transpose,
    **_named(reshaping.movement, "movedim", "moveaxis"),
    **_named(
        reshaping.reshape,
        *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "ravel"),
    ),
    **_named(reshaping.unsqueeze, "unsqueeze"),
    **_named(reshaping.squeeze, "squeeze"),
    **_named(reshaping.expand, "expand", "expand_as", "broadcast_to"),
    **_named(reshaping.repeat, "repeat", "tile"),
    **_named(reshaping.repeat_interleave, "repeat_interleave"),
    **_named(reshaping.concatenation, "cat", "concat", "concatenate"),
    **_named(reshaping.stack, "stack"),
    **_named(reshaping.pieces(2), "chunk", "split", "split_with_sizes", "tensor_split"),
    **_named(reshaping.unbind, "unbind"),
    **_named(reshaping.selection, "select"),
    **_named(reshaping.elsewhere(1), "narrow", "index_select"),
    Tensor.unfold: reshaping.elsewhere(1, "dimension"),
    Tensor.__getitem__: reshaping.indexing,
    Tensor.__setitem__: reshaping.assignment,
    **_named(computing.padding, "pad"),
    **_named(computing.triangle, "tril", "triu"),
    **_named(
        computing.dropout, "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"
    ),
    **_named(OperationCall.first, "embedding", "one_hot"),
}
"""By operation; properties of tensors by their names."""
