"""Random networks of all operations that the incremental evaluator knows, and its scores against those of slow loops.

A network is a list of operations, each of one or two earlier values, from a seed. Every operation is drawn so that it
fits; what would be too large, not finite or the same everywhere is drawn again. Many networks are compared by

    python tests/random_networks.py 20000 --first 0 --processes 2

which prints the seed of every difference, and the network.
"""

from __future__ import annotations

import argparse
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz.incremental.region_rules import RULES, pointwise
from cnnviz.incremental.replay import Replay
from cnnviz.run.options import RunOptions
from cnnviz.run.run import Run

SIZES = {1: (24, 60), 2: (10, 20), 3: (6, 9)}
TOLERANCE = 1e-6
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
    "detach": lambda x: x.detach() * 0.5 + x.contiguous(),
    "dropout": lambda x: F.dropout(x, 0.5, False) + F.alpha_dropout(x, training=False),
    "feature_dropout": lambda x: F.feature_alpha_dropout(x, 0.3, False),
    "sine_of_itself": lambda x: x.sin().mul_(x),
    "glu": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
    "softmax_of_channels": lambda x: F.softmax(x, 1) * x.shape[1],
    "log_softmax": lambda x: x.log_softmax(1),
    "normalized": lambda x: F.normalize(x, dim=1),
    "local_response": lambda x: F.local_response_norm(x, 3, 0.1, 0.75, 1.0),
}
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
    if draw.chance.random() < 0.3:
        pool = draw.named("max_pool") if hasattr(F, "max_pool1d") else None
        return Does("F.max_pool", partial(pool, kernel_size=kernel, stride=stride, padding=padding))  # type: ignore[arg-type]
    return draw.named("MaxPool")(kernel, stride, padding, dilation, ceil_mode=draw.of(True, False))  # type: ignore[no-any-return]


def average_pool(draw: Draw) -> nn.Module:
    kernel = draw.of(2, 3)
    settings: dict[str, Any] = {"ceil_mode": draw.of(True, False), "count_include_pad": draw.of(True, False)}
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


def in_place(draw: Draw) -> nn.Module:
    text = draw.of(*IN_PLACE)
    return Does(text, IN_PLACE[text])


def two(draw: Draw) -> nn.Module | None:
    """Of two maps; those of other shapes are cropped and joined."""
    if draw.shape == draw.other:
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
    **{with_a_constant: 1, curve: 4, spelled: 4, in_place: 3},
}
"""Operations of one map, and how often each is drawn."""


class RandomNet(nn.Module):
    """A network (N, C, *spatial) to scores (N, 3), or to scores and maps, in float64 and eval mode."""

    def __init__(self, seed: int):
        super().__init__()
        self.chance = random.Random(seed)
        rank = self.chance.choice((1, 2, 2, 2, 3))
        size = tuple(self.chance.randint(*SIZES[rank]) for _ in range(rank))
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(3, self.chance.choice((1, 2, 3)), *size, generator=generator, dtype=torch.float64)
        self.steps, self.sources = nn.ModuleList(), list[tuple[int, ...]]()
        self.several = self.chance.random() < 0.2
        count, tries = self.chance.randint(3, 10), 0
        while len(self.steps) < count and tries < 100:
            tries += 1
            self._grow(generator)
        with torch.no_grad():
            shape = self._values(self.inputs[:1].clone())[-1].shape
        self.pooled = self.chance.choice(("mean", "mean", "pool", "flatten", "amax", "sum", "mean by hand"))
        width = shape[1:].numel() if self.pooled == "flatten" else shape[1]
        self.head = settled(nn.Linear(width, 3), generator)
        self.eval()

    def _grow(self, generator: torch.Generator) -> None:
        """Add an operation, unless what it gives is nothing to go on from."""
        with torch.no_grad():
            values = self._values(self.inputs[:2].clone())
            source = len(values) - 1 if self.chance.random() < 0.7 else self.chance.randrange(len(values))
            sources: tuple[int, ...] = (source,)
            draw = Draw(self.chance, tuple(values[source].shape))
            if self.chance.random() < 0.2 and len(values) > 1:
                same = [place for place, value in enumerate(values) if value.shape == values[source].shape]
                any_one = self.chance.randrange(len(values))
                sources = (source, self.chance.choice(same) if self.chance.random() < 0.6 else any_one)
                draw.other = tuple(values[sources[1]].shape)
                step = two(draw)
            elif self.steps and self.chance.random() < 0.07:
                step = self.chance.choice(list(self.steps))  # a module that runs again
            else:
                make: Make = self.chance.choices(list(ONE), list(ONE.values()))[0]
                step = make(draw)
        if step is None:
            return
        fresh = not any(step is each for each in self.steps)
        step = settled(step, generator) if fresh else step
        self.steps.append(step)
        self.sources.append(sources)
        if not self._sound():
            del self.steps[-1], self.sources[-1]

    def _sound(self) -> bool:
        """True if the last operation fits, and gives something to go on from; also of one input alone."""
        try:
            with torch.no_grad():
                values = self._values(self.inputs[:2].clone())
                alone = self._values(self.inputs[:1].clone())[-1]
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            return False
        made, rank = values[-1], self.inputs.ndim
        if made.ndim != rank or made.dtype != torch.float64 or made.numel() > 6000 or len(made) != 2:
            return False
        if not all(bool(each.isfinite().all()) and float(each.abs().max()) < 100 for each in values):
            return False
        if not torch.allclose(alone, made[:1], rtol=1e-9, atol=1e-9):
            return False  # of one that mixes inputs nothing is computed apart
        return bool(made.std() > 1e-3) and min(made.shape[1:]) > 0

    def _values(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for step, sources in zip(self.steps, self.sources, strict=True):
            values.append(step(*(values[source] for source in sources)))
        return values

    def forward(self, x: Tensor) -> Any:
        values = self._values(x)
        maps = values[-1]
        spaces = tuple(range(2, maps.ndim))
        pooled = {
            "mean": lambda: maps.mean(spaces),
            "mean by hand": lambda: maps.sum(spaces) / maps[0, 0].numel(),
            "pool": lambda: getattr(F, f"adaptive_avg_pool{maps.ndim - 2}d")(maps, 1).flatten(1),
            "flatten": lambda: maps.flatten(1),
            "amax": lambda: maps.amax(spaces),
            "sum": lambda: maps.sum(spaces) * 0.1,
        }[self.pooled]()
        scores = self.head(pooled)
        return (scores, values[len(values) // 2]) if self.several else scores

    def text(self) -> str:
        lines = [f"x: {tuple(self.inputs.shape)}"]
        for number, (step, sources) in enumerate(zip(self.steps, self.sources, strict=True)):
            lines.append(f"v{number + 1} = {step!r} of {', '.join(f'v{each}' for each in sources)}")
        return "\n".join([*lines, f"{self.pooled}, linear{', and maps' if self.several else ''}"])


def settled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """In float64 and eval mode, all numbers drawn so that signals keep their size."""
    for name, values in module.double().eval().state_dict().items():
        if values.is_floating_point():
            drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            fan_in = max(1, values[0].numel()) if values.ndim > 1 else 1
            one = name.endswith(("weight", "running_var")) and values.ndim == 1
            values.copy_(drawn.abs() * 0.5 + 0.5 if one else drawn / fan_in**0.5 * (1 if values.ndim > 1 else 0.3))
    return module


# The comparison


@dataclass
class Outcome:
    """What came of one network."""

    seed: int
    error: float = 0.0
    """The largest difference, relative to the largest change of the score, or to 1e-4 of the score."""
    asked: str = ""
    """What the largest difference was asked as."""
    quick: int = 0
    """How often an incremental answer was verified."""
    refused: list[str] = field(default_factory=list)
    """Questions whose incremental answer was found to be wrong, or failed, so that whole passes answered."""

    @property
    def right(self) -> bool:
        return self.error <= TOLERANCE and not self.refused


def compared(seed: int) -> Outcome:
    """The network of this seed, asked in every way, against whole passes of one variant of one input each."""
    net, chance = RandomNet(seed), random.Random(-1 - seed)
    items = chance.choice((1, 1, 1, 2, 3))
    inputs = net.inputs[:items]
    generator = torch.Generator().manual_seed(seed)
    target: Any = torch.tensor([chance.randrange(3) for _ in range(items)])
    if net.several:
        target = chance.choice((lambda out: out[0][:, 1] - out[0][:, 2], _reads_maps))
    run = Run(net, inputs, target, options=RunOptions(memory=chance.choice((None, None, None, 1, 50_000))))
    outcome = Outcome(seed)

    def note(asked: str, found: Tensor, expected: Tensor) -> None:
        span = (expected - run.score).abs().max().clamp(min=1e-4 * float(run.score.abs().max()) + 1e-9)
        error = float((found - expected).abs().max() / span)
        if not error <= outcome.error:
            outcome.error, outcome.asked = error, asked

    def ask(asked: str, quickly: Callable[[], Tensor], expected: Tensor) -> None:
        with watched() as seen:
            try:
                note(asked, quickly(), expected)
            except ValueError as error:
                if "not finite" not in str(error) or bool(expected.isfinite().all()):
                    raise
        outcome.quick += seen.count(None)
        outcome.refused += [f"{asked}: {reason}" for reason in seen if reason]

    count = 4
    boxes = boxes_of(chance, count, tuple(inputs.shape[2:]))
    drawn = torch.randn(count, *inputs.shape, generator=generator, dtype=torch.float64)
    variants = with_boxes(inputs, boxes, drawn)
    expected = by_whole_passes(net, target, variants)
    ask("boxes", lambda: run.scores_of_boxes(boxes, lambda n, item: inside(drawn[n, item], boxes[n])), expected)
    if chance.random() < 0.3:
        ask("inputs", lambda: run.scores_of(count, lambda a, b: variants[a:b]), expected)
    layer = chance.choice([place for place, step in enumerate(net.steps)])
    name = next(name for name, module in net.named_modules() if module is net.steps[layer])
    kept = run.activation(name, spatial=False)
    changed = changes_of(chance, kept, generator)
    expected = by_whole_passes(net, target, inputs.expand(len(changed), *inputs.shape), name, changed)
    ask(f"from {name}", lambda: run.scores_from(name, len(changed), lambda a, b, item: changed[a:b, item]), expected)
    if chance.random() < 0.4:
        boxes = boxes_of(chance, count, tuple(kept.shape[2:]))
        drawn = torch.randn(count, *kept.shape, generator=generator, dtype=torch.float64)
        changed = with_boxes(kept, boxes, drawn)
        expected = by_whole_passes(net, target, inputs.expand(count, *inputs.shape), name, changed)
        there = lambda n, item: inside(drawn[n, item], boxes[n])  # noqa: E731
        ask(f"boxes at {name}", lambda: run.scores_of_boxes(boxes, there, name), expected)
    return outcome


def _reads_maps(output: Any) -> Tensor:
    return output[0][:, 0] + output[1].flatten(1).mean(1)  # type: ignore[no-any-return]


def boxes_of(chance: random.Random, count: int, size: Sequence[int]) -> Tensor:
    """(count, rank, 2): small ones, in corners and inside."""
    boxes = []
    for _ in range(count):
        box = []
        for length in size:
            side = chance.randint(1, max(1, min(3, length)))
            begin = chance.choice((0, length - side, chance.randint(0, length - side)))
            box.append([begin, begin + side])
        boxes.append(box)
    return torch.tensor(boxes)


def inside(values: Tensor, box: Tensor) -> Tensor:
    return values[(..., *(slice(begin, end) for begin, end in box.tolist()))]


def with_boxes(before: Tensor, boxes: Tensor, drawn: Tensor) -> Tensor:
    """(count, N, C, *spatial): ``before`` with what was drawn inside of each box."""
    variants = before.expand(len(boxes), *before.shape).clone()
    for variant, box, values in zip(variants, boxes, drawn, strict=True):
        inside(variant, box).copy_(inside(values, box))
    return variants


def changes_of(chance: random.Random, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Variants of a layer's output: without one channel each, or noise, or the same."""
    if chance.random() < 0.5:
        channels = [chance.randrange(kept.shape[1]) for _ in range(4)]
        return torch.stack([kept.index_fill(1, torch.tensor(each), 0) for each in channels])
    noise = torch.randn(3, *kept.shape, generator=generator, dtype=torch.float64)
    return torch.cat([kept + noise, kept[None], -kept[None]])


def by_whole_passes(
    net: nn.Module, target: Any, variants: Tensor, layer: str | None = None, changed: Tensor | None = None
) -> Tensor:
    """Scores (count, N): one pass for each variant of each input, the layer's last output replaced."""
    scores = torch.empty(variants.shape[:2], dtype=torch.float64)
    times = 0
    if layer is not None:
        with hook(net, layer, lambda call, output: None) as calls, torch.no_grad():
            net(variants[0, :1].clone())
        times = len(calls)
    for number in range(len(variants)):
        for item in range(variants.shape[1]):

            def replaced(call: int, output: Tensor, number: int = number, item: int = item) -> Tensor | None:
                assert changed is not None
                return changed[number, item : item + 1].clone() if call == times else None

            with hook(net, layer, replaced), torch.no_grad():
                output = net(variants[number, item : item + 1].clone())
            score = target(output) if callable(target) else output[:, target[item]]
            scores[number, item] = score[0]
    return scores


@contextmanager
def hook(net: nn.Module, layer: str | None, replaces: Callable[[int, Tensor], Tensor | None]) -> Iterator[list[int]]:
    """``replaces`` is called with the number of the layer's call, from 1, and its output."""
    calls: list[int] = []

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        calls.append(1)
        return replaces(len(calls), output)

    handle = None if layer is None else net.get_submodule(layer).register_forward_hook(replace)
    try:
        yield calls
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def watched() -> Iterator[list[str | None]]:
    """Why the incremental answer is refused, for each time that it is; None where it is taken.

    Where it differs by rounding alone, as where large values cancel, it may be refused.
    """
    seen: list[str | None] = []
    scored, agrees = Replay.scores, Replay.agrees

    def watched_scores(self: Replay, *asked: Any) -> Any:
        try:
            return scored(self, *asked)
        except Exception as error:
            if not self.record.forks:
                seen.append(f"{type(error).__name__} {error}")
            raise

    def watched_agrees(self: Replay, number: int, score: Tensor) -> bool | None:
        agreed = agrees(self, number, score)
        change = self.whole.verified(number) - self.whole.unchanged
        apart = float((score - self.record.score - change).abs())
        wrong = agreed is False and apart > 1e-9 * max(1.0, float(self.whole.unchanged.abs()))
        seen.append(f"{apart:.2g} apart" if wrong else None)
        return agreed

    Replay.scores, Replay.agrees = watched_scores, watched_agrees  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Replay.scores, Replay.agrees = scored, agrees  # type: ignore[method-assign]


def outcome_of(seed: int) -> Outcome:
    """The outcome; what raises is a difference too."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compared(seed)
        except Exception as error:
            return Outcome(seed, math.inf, f"{type(error).__name__}: {error}")


def main() -> int:
    """Compare many networks, print every difference and the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    begin, worst, quick, wrong = time.monotonic(), 0.0, 0, 0
    seeds = range(chosen.first, chosen.first + chosen.count)
    with ProcessPoolExecutor(chosen.processes) as pool:
        for number, outcome in enumerate(pool.map(outcome_of, seeds, chunksize=20), 1):
            quick, worst = quick + outcome.quick, max(worst, outcome.error)
            if not outcome.right:
                wrong += 1
                print(f"\nseed {outcome.seed}: {outcome.error:.2g} {outcome.asked}; refused {outcome.refused}")
                print(RandomNet(outcome.seed).text(), flush=True)
            if number % 50 == 0 or number == chosen.count:
                rate = number / (time.monotonic() - begin)
                print(f"\r{number} networks, {quick} verified, {wrong} wrong, {rate:.1f}/s", end="", flush=True)
    print(f"\n{chosen.count} networks, seeds {seeds[0]} to {seeds[-1]}: {wrong} differ, the largest {worst:.2g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
