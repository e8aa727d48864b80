"""The operations that random networks are made of: each is drawn so that it fits its operands."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz.incremental.region_rules import RULES, pointwise

SPELLED = [operation for operation, rule in RULES.items() if rule is pointwise and callable(operation)]
Make = Callable[["Draw"], nn.Module | None]


@dataclass
class Draw:
    """What an operation is drawn from: chance, and the shapes (N, C, *spatial) of its operands."""

    chance: random.Random
    shape: tuple[int, ...]
    other: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape) - 2

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def size(self) -> tuple[int, ...]:
        return self.shape[2:]

    def of(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def named(self, name: str) -> Any:
        """The function or class of that name for this rank."""
        home = nn if hasattr(nn, f"{name}1d") else F if hasattr(F, f"{name}1d") else torch
        return getattr(home, f"{name}{self.rank}d")


class Does(nn.Module):
    """A function as a module, with its text."""

    def __init__(self, text: str, function: Callable[..., Tensor], *parts: nn.Module):
        super().__init__()
        self.text, self.function, self.parts = text, function, nn.ModuleList(parts)

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*self.parts, *values)

    def __repr__(self) -> str:
        return f"{self.text} {list(self.parts) or ''}"


# Values by themselves

CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"F.{each.__name__}": each for each in (F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu)},
    **{f"F.{each.__name__}": each for each in (F.mish, F.hardswish, F.hardsigmoid, F.softplus, F.hardtanh)},
    **{f"F.{each.__name__}": each for each in (F.logsigmoid, F.softsign, F.tanhshrink, F.hardshrink, F.softshrink)},
    **{name: getattr(torch, name) for name in ("sigmoid", "tanh", "sin", "cos", "atan", "erf", "abs", "square")},
    "rrelu": F.rrelu,
    "threshold": lambda x: F.threshold(x, 0.1, -0.2),
    "exp": lambda x: torch.exp(x.clamp(max=1)),
    "exp2": lambda x: x.tanh().exp2(),
    "expm1": lambda x: torch.tanh(x).expm1(),
    "log": lambda x: (x.abs() + 0.5).log(),
    "log2": lambda x: torch.log2(x * x + 1),
    "log10": lambda x: torch.log10(2 + x.sin()),
    "log1p": lambda x: x.abs().log1p(),
    "sqrt": lambda x: (x**2 + 0.1).sqrt(),
    "rsqrt": lambda x: torch.rsqrt(torch.square(x) + 1),
    "reciprocal": lambda x: 1 / (x.abs() + 1),
    "pow": lambda x: x.clamp(-2, 2).pow(3),
    "clamp": lambda x: x.clamp(min=-0.3, max=0.7),
    "clamp_min": lambda x: torch.clamp_min(x, -0.1),
    "round": lambda x: (x * 2).round() + 0.1 * x,
    "floor": lambda x: x.floor() + 0.1 * x,
    "ceil": lambda x: torch.ceil(x * 3) - x,
    "trunc": lambda x: x - x.trunc(),
    "sign": lambda x: x.sign() * x.square(),
    "neg": lambda x: -x + torch.neg(x) * 0.5,
    "nan_to_num": lambda x: torch.nan_to_num(x),
    "cast": lambda x: x.float().to(x) + 0.1 * x,
    "half": lambda x: x.half().double() - 0.5 * x,
    "bfloat16": lambda x: x.bfloat16().double() + x.double(),
    "where": lambda x: torch.where(x > 0.2, x, 0.3 * x),
    "where_between": lambda x: torch.where((x > -0.5) & (x < 0.5), x, -x),
    "where_not": lambda x: torch.where(torch.logical_not(x.ge(0)).logical_or(x > 1), x * 0.1, x),
    "where_equal": lambda x: torch.where(x.relu().eq(0), -0.2 * x, x) + (x.relu() != 0).to(x),
    "masked_fill": lambda x: x.masked_fill(x <= -0.4, -0.4),
    "masked_fill_": lambda x: x.clone().masked_fill_(torch.logical_and(x > 0, x < 0.2), 0.5),
    "mask": lambda x: x * (x > 0).to(x.dtype),
    "rsub": lambda x: torch.rsub(x, 1.5) + (2 - x) * 0.3,
    "scalars": lambda x: x.sub(0.3).mul(1.1).div(2).add(0.2),
    "one_over": lambda x: 2 / (1 + x.square()),
    "sine_of_itself": lambda x: x.sin().mul_(x),
    "glu": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
    "softmax_of_channels": lambda x: F.softmax(x, 1) * x.shape[1],
    "log_softmax": lambda x: x.log_softmax(1),
    "normalized": lambda x: F.normalize(x, dim=1),
    "local_response": lambda x: F.local_response_norm(x, 3, 0.1, 0.75, 1.0),
}
GIVEN_BACK: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.5, False) + F.alpha_dropout(x, training=False),
    "feature_dropout": lambda x: F.feature_alpha_dropout(x, 0.3, False) * 0.9,
    "detach": lambda x: x.detach() * 0.5 + x,
    "contiguous": lambda x: x.contiguous().sin(),
    "itself": lambda x: F.dropout(x.contiguous(), training=False),
}
"""Operations that give back their operand."""
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": torch.relu_,
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True),
    "leaky_relu_": lambda x: F.leaky_relu(x, 0.1, True),
    "elu_": lambda x: F.elu_(x),
    "hardswish_": lambda x: F.hardswish(x, inplace=True),
    "sigmoid_": lambda x: x.sigmoid_(),
    "tanh_": torch.tanh_,
    "clamp_": lambda x: x.clamp_(-0.8, 0.8),
    "mul_": lambda x: x.mul_(0.7),
    "add_": lambda x: x.add_(0.1),
    "abs_": lambda x: x.abs_(),
    "div_": lambda x: x.div_(1.5),
    "neg_": lambda x: x.neg_(),
    "*=": lambda x: x.__imul__(0.9),
    "set_channel": lambda x: _set(x, (slice(None), 0), x[:, -1] * 0.5),
    "set_half": lambda x: _set(x, (..., slice(0, max(1, x.shape[-1] // 2))), 0.2),
    "write_through_a_view": lambda x: (x[:, :1].mul_(0.5), x)[1],
    "write_a_narrow_part": lambda x: (x.narrow(-1, 0, 1).add_(0.3), x)[1],
    "fill_a_canvas": lambda x: _set(torch.zeros_like(x), (slice(None), slice(0, 1)), x[:, -1:].tanh()) + x,
    "empty_canvas": lambda x: x.new_zeros(len(x), *x.shape[1:]).copy_(x) + x.new_ones(x.size(0), 1, *x.shape[2:]),
}
INTO = ("add_into", "mul_into", "+=")
TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: torch.sub(x, y, alpha=0.5),
    "mul": lambda x, y: x * y.tanh(),
    "div": lambda x, y: x / (1 + y.abs()),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "max_of_two": lambda x, y: torch.max(x, y),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp_by_a_map": lambda x, y: torch.lerp(x, y, y.sigmoid()),
    "addcmul": lambda x, y: torch.addcmul(x, y, y.sin(), value=0.3),
    "where_larger": lambda x, y: torch.where(x > y, x, y * 0.5),
    "pow_of_two": lambda x, y: (x.abs() + 0.5).pow(y.tanh()),
    "add_into": lambda x, y: x.add_(y),
    "mul_into": lambda x, y: x.mul_(y.sigmoid()),
    "+=": lambda x, y: x.__iadd__(0.5 * y),
    "cosine": lambda x, y: F.cosine_similarity(x, y, 1).unsqueeze(1) * x,
}


def _set(x: Tensor, place: Any, value: Any) -> Tensor:
    x[place] = value
    return x


# Places and channels


def convolution(draw: Draw) -> nn.Module | None:
    kernel = tuple(draw.of(1, 2, 3, 3, 5) for _ in draw.size)
    dilation = tuple(draw.of(1, 1, 2) for _ in draw.size)
    stride: Any = tuple(draw.of(1, 1, 2, 3) for _ in draw.size)
    padding: Any = tuple(draw.of(0, 1, 2) for _ in draw.size)
    groups = draw.of(1, 1, math.gcd(draw.channels, 4), draw.channels)
    if draw.chance.random() < 0.2:
        padding, stride = draw.of("same", "valid"), 1
    mode = "zeros" if isinstance(padding, str) else draw.of("zeros", "zeros", "reflect", "replicate", "circular")
    out = groups * draw.of(*range(1, max(2, 8 // groups + 1)))
    return draw.named("Conv")(  # type: ignore[no-any-return]
        draw.channels, out, kernel, stride, padding, dilation, groups, draw.of(True, False), mode
    )


def transposed(draw: Draw) -> nn.Module | None:
    stride, groups = draw.of(1, 2), draw.of(1, math.gcd(draw.channels, 2))
    grown = draw.named("ConvTranspose")
    return grown(draw.channels, 2 * groups, draw.of(2, 3), stride, draw.of(0, 1), draw.of(0, stride - 1), groups)  # type: ignore[no-any-return]


def convolution_of_made_weights(draw: Draw) -> nn.Module:
    """Weights that are computed in the pass, as standardized or normalized ones are."""
    kind, out = draw.named("conv"), draw.of(2, 3)
    layer = draw.named("Conv")(draw.channels, out, 3, padding=1)

    def standardized(layer: Any, x: Tensor) -> Tensor:
        weight = layer.weight
        weight = (weight - weight.mean()) / (weight.std() + 0.1)
        return kind(x, weight, layer.bias, 1, 1) / 3  # type: ignore[no-any-return]

    return Does("weights standardized", standardized, layer)


def max_pool(draw: Draw) -> nn.Module:
    kernel, dilation = draw.of(2, 3), draw.of(1, 1, 2)
    stride, padding = draw.of(None, 1, 2), draw.of(0, kernel // 2)
    if draw.chance.random() < 0.4:
        return Does(f"F.max_pool {kernel}", partial(draw.named("max_pool"), kernel_size=kernel))  # of that stride
    return draw.named("MaxPool")(kernel, stride, padding, dilation, ceil_mode=draw.of(True, False))  # type: ignore[no-any-return]


def average_pool(draw: Draw) -> nn.Module:
    kernel = draw.of(2, 3)
    settings: dict[str, Any] = {"ceil_mode": draw.of(True, False), "count_include_pad": draw.of(True, False)}
    if draw.chance.random() < 0.3:
        return Does(f"F.avg_pool {kernel}", partial(draw.named("avg_pool"), kernel_size=kernel))  # of that stride
    if draw.rank > 1 and draw.chance.random() < 0.3:
        settings["divisor_override"] = 3
    return draw.named("AvgPool")(kernel, draw.of(None, 1, 2), draw.of(0, kernel // 2), **settings)  # type: ignore[no-any-return]


def adaptive(draw: Draw) -> nn.Module:
    return draw.named(draw.of("AdaptiveAvgPool", "AdaptiveMaxPool"))(draw.of(*range(2, 6)))  # type: ignore[no-any-return]


def power_pool(draw: Draw) -> nn.Module | None:
    return draw.named("LPPool")(2, 2)  # type: ignore[no-any-return]


def norm(draw: Draw) -> nn.Module:
    kinds = [
        lambda: draw.named("BatchNorm")(draw.channels, affine=draw.of(True, False)),
        lambda: draw.named("InstanceNorm")(draw.channels, affine=True),
        lambda: nn.GroupNorm(math.gcd(draw.channels, draw.of(1, 2)), draw.channels),
        lambda: nn.PReLU(draw.of(1, draw.channels)),
        lambda: draw.named("Dropout")(0.5),
    ]
    return draw.of(*kinds)()  # type: ignore[no-any-return]


def layer_norm(draw: Draw) -> nn.Module:
    def last(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]

    return Does("channels last", last, nn.LayerNorm(draw.channels))


def pad(draw: Draw) -> nn.Module:
    pads = [draw.of(0, 1, 2) for _ in range(2 * draw.of(*range(1, draw.rank + 1)))]
    mode = draw.of("constant", "constant", "reflect", "replicate", "circular")
    if mode != "constant":
        pads = [draw.of(0, 1) for _ in range(2 * draw.rank)]
    elif draw.chance.random() < 0.2:
        pads[0] = -1
    value = draw.of(0.0, 0.3) if mode == "constant" else None
    return Does(f"pad {pads} {mode} {value}", lambda x: F.pad(x, pads, mode, value))


def resize(draw: Draw) -> nn.Module:
    smooth = ("linear", "bilinear", "trilinear")[draw.rank - 1]
    mode = draw.of("nearest", smooth, "area", *(["bicubic"] if draw.rank == 2 else []))
    scale = draw.of(2, 1.5, 0.5)
    return Does(f"resize {scale} {mode}", lambda x: F.interpolate(x, scale_factor=scale, mode=mode))


def slices(draw: Draw) -> nn.Module:
    step, begin = draw.of(1, 2), draw.of(0, 1)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        f"[..., {begin}::{step}]": lambda x: x[..., begin::step],
        "[:, 1:]": lambda x: x[:, 1:] if x.shape[1] > 1 else x * 2,
        "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        "split and unbind": lambda x: torch.stack([each * 2 for each in x.unbind(1)], 1),
        "narrow": lambda x: x.narrow(2, 0, x.shape[2] - 1),
        "flip": lambda x: x.flip(-1),
        "roll": lambda x: torch.roll(x, 1, 2),
        "index_select": lambda x: x.index_select(1, torch.arange(x.shape[1] - 1, -1, -1)),
        "crop to odd": lambda x: x[(..., *(slice(0, n - 1 + n % 2) for n in x.shape[2:]))],
    }
    text = draw.of(*ways)
    return Does(text, ways[text])


def shapes(draw: Draw) -> nn.Module:
    n, rank = draw.channels, draw.rank
    half = 2 if n % 2 == 0 else 1
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "channel shuffle": lambda x: x.reshape(len(x), half, n // half, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        "turn": lambda x: x.transpose(2, -1) * 1.5,
        "there and back": lambda x: (x.permute(0, *range(2, rank + 2), 1).contiguous() * 0.5).movedim(-1, 1),
        "flatten and view": lambda x: x.flatten(1).tanh().view(x.shape),
        "time first": lambda x: (x.transpose(0, 1).cumsum(0) * 0.3).transpose(0, 1),
        "folded into the batch": lambda x: (
            x.reshape(-1, 1, *x.shape[2:]).softmax(-1).reshape(x.shape[0], -1, *x.shape[2:]) + x
        ),
        "unsqueeze": lambda x: x.unsqueeze(2).mul(2).squeeze(2),
        "expand": lambda x: x[:, :1].expand_as(x) + x,
        "repeat": lambda x: x.repeat(1, 2, *(1,) * rank),
        "einsum": lambda x: torch.einsum("nc...,nd...->nc...", x, x.sigmoid()) * 0.2,
        "sum of the channels": lambda x: x - x.sum(1, keepdim=True) / 4,
        "mean of the channels": lambda x: x - x.mean(1, keepdim=True) + x.amax(1, keepdim=True),
        "std": lambda x: x / (x.std((1, 2), keepdim=True) + 0.5),
        "cumsum": lambda x: x.cumsum(-1) * 0.1,
        "sort": lambda x: x.sort(1).values,
    }
    text = draw.of(*ways)
    return Does(text, ways[text])


def gate(draw: Draw) -> nn.Module:
    """Squeeze and excitation: what is everywhere scales every place."""
    spaces = tuple(range(2, draw.rank + 2))
    squeeze: Any = draw.of(
        lambda x: x.mean(spaces, keepdim=True),
        lambda x: torch.mean(x, spaces, keepdim=True),
        getattr(nn, f"AdaptiveAvgPool{draw.rank}d")(1),
        partial(getattr(F, f"adaptive_avg_pool{draw.rank}d"), output_size=1),
        lambda x: x.amax(spaces, keepdim=True),
    )
    layer = draw.named("Conv")(draw.channels, draw.channels, 1)
    return Does("gate", lambda layer, x: x * layer(squeeze(x)).sigmoid(), layer)


def tokens(draw: Draw) -> nn.Module | None:
    """Attention between places, in three spellings, with a norm and a skip."""
    width = draw.channels * 2
    parts = nn.ModuleList([nn.Linear(draw.channels, width), nn.LayerNorm(width), nn.Linear(width, draw.channels)])
    attends: Any = draw.of(
        nn.MultiheadAttention(width, 2, batch_first=True),
        Does("sdpa", lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
        Does("by hand", lambda q, k, v: (q @ k.transpose(1, 2) / width**0.5).softmax(-1) @ v),
    )

    def attended(parts: Any, attends: Any, x: Tensor) -> Tensor:
        t = parts[1](parts[0](x.flatten(2).transpose(1, 2)))
        found = attends(t, t, t)
        t = t + (found[0] if isinstance(found, tuple) else found)
        return x + parts[2](t).transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]

    return Does("attention", attended, parts, attends)


def with_a_constant(draw: Draw) -> nn.Module:
    """A table added to every place, a row for each, or a scale for each channel."""
    generator = torch.Generator().manual_seed(draw.chance.randrange(10**6))
    shape = draw.of(draw.shape[1:], (1, *draw.shape[1:]), (draw.channels, *(1,) * draw.rank), draw.shape[-1:])
    constant = torch.randn(shape, generator=generator, dtype=torch.float64)
    ways = {
        "+ table": lambda x: x + constant,
        "* table": lambda x: constant * x,
        "max table": lambda x: x.maximum(
            constant.expand(x.shape[1:]) if constant.ndim == x.ndim - 1 else constant.expand_as(x)
        ),
    }
    text = draw.of(*ways)
    return Does(f"{text} {tuple(shape)}", ways[text])


def curve(draw: Draw) -> nn.Module:
    text = draw.of(*CURVES)
    return Does(text, CURVES[text])


def spelled(draw: Draw) -> nn.Module | None:
    """One of all spellings of the operations on values that have a rule, with as many operands as it takes."""
    operation = draw.chance.choice(SPELLED)
    example = torch.linspace(-0.9, 0.9, 24, dtype=torch.float64).view(2, 3, 4)
    forms: list[Callable[[Tensor], Sequence[Any]]] = [
        lambda x: (x,),
        lambda x: (x, x.sin()),
        lambda x: (x, 0.3),
        lambda x: (x, x.sin(), 0.3),
        lambda x: (x, x.sin(), x.cos()),
        lambda x: (x > 0.3, x < 0.5),
        lambda x: (x > 0.3, x, x.sin()),
        lambda x: (x, x > 0.3, 0.2),
        lambda x: (x, -0.3, 0.4),
    ]
    draw.chance.shuffle(forms)
    for form in forms:
        try:
            made = operation(*form(example.clone()))
        except (TypeError, RuntimeError, ValueError):
            continue
        if isinstance(made, Tensor) and made.shape == example.shape:
            text = f"spelled {getattr(operation, '__name__', operation)}{len(form(example))}"
            return Does(text, partial(_spelled, operation, form))
    return None


def _spelled(operation: Any, form: Callable[[Tensor], Sequence[Any]], x: Tensor) -> Tensor:
    return operation(*form(x.clone())).to(x.dtype) + 0.1 * x  # type: ignore[no-any-return]


def given_back(draw: Draw) -> nn.Module:
    text = draw.of(*GIVEN_BACK)
    return Does(text, GIVEN_BACK[text])


def in_place(draw: Draw) -> nn.Module:
    text = draw.of(*IN_PLACE)
    return Does(text, IN_PLACE[text])


def two(draw: Draw) -> nn.Module | None:
    """Of two maps; those of other shapes are cropped and joined."""
    if draw.shape == draw.other and draw.chance.random() < 0.7:
        text = draw.of(*TWO)
        return Does(text, TWO[text])
    low = tuple(min(pair) for pair in zip(draw.size, draw.other[2:], strict=True))
    place = (..., *(slice(0, length) for length in low))
    joins = draw.of(torch.cat, torch.concat, torch.concatenate)
    if draw.channels + draw.other[1] > 12:
        return Does("times the mean", lambda x, y: x[place] * y[place].mean(1, keepdim=True))
    if low == draw.size == draw.other[2:]:
        return Does("cat", lambda x, y: joins([x, y], 1))
    return Does(f"cat cropped to {low}", lambda x, y: joins([x[place], y[place]], dim=1))


ONE: dict[Make, int] = {
    **{convolution: 6, transposed: 1, convolution_of_made_weights: 1, max_pool: 2, average_pool: 2, adaptive: 1},
    **{power_pool: 1, norm: 3, layer_norm: 1, pad: 2, resize: 1, slices: 2, shapes: 2, gate: 1, tokens: 1},
    **{with_a_constant: 1, curve: 4, spelled: 4, in_place: 3, given_back: 2},
}
"""Operations of one map, and how often each is drawn."""
