"""Follows axes and gradients through one pass, and notes what they say of each call of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.axes import CHANNEL, ROOTS, SHAPE_ALONE, AxisFollower, axes_of, plain_name, segment_size
from cnnviz.engine.axis_rules import RULES, VALUE_BY_VALUE
from cnnviz.engine.forward import ForwardHook
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.grid_reading import GridReading, NoGrid, reading_of
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import RECTIFIERS, SOFTMAXES, canonical, in_place

# Modules that only shrink or hand on a map: the map before them has the same content at a higher resolution.
PASSIVE = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_FLAT = {*RECTIFIERS, F.hardtanh, F.hardswish, F.hardsigmoid, F.hardshrink, F.softshrink, torch.clamp, *SOFTMAXES}
"""Operations on each value whose derivative is zero somewhere; and softmax, in which a class changes all others."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer."""

    name: str
    number: int
    """Which of the layer's calls it is, from 1."""
    shape: tuple[int, ...]
    reading: GridReading | None
    """How the output is read as a grid; None where it can't be."""
    misfit: str
    """Why it can't be, as words that follow "which"."""
    lost: str
    """The operation at which its axes were lost, if they were."""
    descends: bool
    """Whether it was computed from the input that is explained."""
    reached: bool
    """Whether a place of its grid can change the score."""
    cut: bool = False
    """True if the score was computed from it by operations that carry no gradient."""
    is_score: bool = False
    """True if it is a map of the scores themselves."""
    passive: bool = False
    """True if it only hands on the map of a layer before it."""
    inner: bool = False
    """True for a linear layer on tokens, which is a step inside of a block."""
    of_scores: bool = False
    """True if a map of scores that has several channels was computed from it."""

    @property
    def usable(self) -> bool:
        """True if a class activation map of this call says something about the input."""
        return self.descends and self.reached and self.reading is not None

    @property
    def usable_by_hand(self) -> bool:
        """True if it may be a place for a map, but was not followed: someone has to say how it is laid out."""
        may_be_grid = len(self.shape) > 2 and sum(size > 1 for size in self.shape[1:]) > 1
        return bool(self.lost) and self.descends and self.reached and not self.cut and may_be_grid


@dataclass(eq=False)
class _Row:
    """What is noted of one call while the pass runs."""

    name: str
    number: int
    shape: tuple[int, ...]
    label: Any
    lost: str
    descends: bool
    node: Any
    mark: int
    ancestors: int
    """The marks of all calls that it descends from, and its own."""
    passive: bool
    linear: bool
    reading: GridReading | None = None
    misfit: str = ""
    met: bool = False
    """True if a gradient came back."""
    read: bool = False
    """True if it was not zero everywhere."""
    channels: tuple[int, int] = (0, 0)
    """How many channels can change the score of one input, and of how many."""
    reached: bool = False
    is_score: bool = False
    is_number: bool = False
    """True if the score reads numbers of one place only, and few of its channels: they are scores themselves."""


class FlowObserver(AxisFollower):
    """Follows axes, and which calls of layers every tensor descends from."""

    def __init__(self, source: Tensor):
        super().__init__(RULES)
        self.items, self.rank = len(source) if source.ndim else 1, source.ndim - 2
        self.source = source
        self.follow(source)
        self.rows: list[_Row] = []
        self.marks: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """By tensor, a bit for each call of a layer that it descends from."""
        self.copies: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """By tensor, the same for calls of which its values are single values, moved or changed one by one."""
        self.anchors: list[Tensor] = [source] if source.requires_grad else []
        self.read_channels: dict[int, list[tuple[int, int]]] = {}
        """By the number of an axis of channels of the output: how many of them the score reads, and of how many."""
        self.shown = 0
        """A bit for each call of a layer whose values are values of the output, as of a detector's last layers."""
        self._passed_on: list[tuple[Tensor, int]] = []
        self._counts: dict[str, int] = {}
        self._ancestry: dict[Any, bool] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = list(tensors((args, kwargs)))
        if plain_name(func) in ROOTS and not self.descends(operands[0]) and self._has_ancestor(operands[0]):
            self.labels[operands[0]] = None  # it came from the input by what was not seen
        if canonical(func, args, kwargs) in _FLAT and operands and operands[0].requires_grad:
            output = self._passing(func, args, kwargs, operands[0])
            self.see(func, args, kwargs, output)
        else:
            output = super().__torch_function__(func, types, args, kwargs)
        name = plain_name(func)
        if name not in SHAPE_ALONE:
            written = operands[:1] if in_place(func, kwargs) or getattr(func, "__name__", "") == "__setitem__" else []
            bases = [tensor._base for tensor in written if tensor._base is not None]
            results = [*tensors(output), *written, *bases]
            _hand_on(self.marks, operands, results)
            if name in VALUE_BY_VALUE:
                _hand_on(self.copies, operands, results)
        return output

    def _passing(self, func: Any, args: Any, kwargs: Any, operand: Tensor) -> Tensor:
        """The operation's values, with a derivative that is nowhere zero."""
        with torch.no_grad(), torch._C.DisableTorchFunction():
            copies = {id(operand): operand.detach().clone()}
            plain = [copies.get(id(arg), arg) for arg in args]
            named = {name: copies.get(id(arg), arg) for name, arg in kwargs.items()}
            values = func(*plain, **named)
        with torch._C.DisableTorchFunction():
            passed: Tensor = _Passing.apply(operand, values, in_place(func, kwargs))
            return passed

    def hook(self, name: str, module: nn.Module) -> ForwardHook:
        """A hook that notes a call of this layer."""

        def note(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            self._counts[name] = self._counts.get(name, 0) + 1
            if not isinstance(output, Tensor):
                return None
            with torch._C.DisableTorchFunction():
                unchanged = any(output is given for given in args)
                return self._note(name, module, output, unchanged)

        return note

    def _note(self, name: str, module: nn.Module, output: Tensor, unchanged: bool) -> Tensor | None:
        passed_on = any(output is tensor and output._version == version for tensor, version in self._passed_on)
        passive = isinstance(module, PASSIVE) or passed_on
        if passive and not unchanged:  # what an identity gives is still the map of the layer before it
            self._passed_on.append((output, output._version))
        replaced = None
        label, descends = self.of(output), self.descends(output) or self._has_ancestor(output)
        if torch.is_grad_enabled() and output.is_floating_point() and not output.requires_grad:
            # the way from the input carries no gradient up to here, the way on to the score may
            leaf = output.detach().clone().requires_grad_()
            self.anchors.append(leaf)
            replaced = leaf.view_as(leaf) * 1.0
            if self.descends(output):
                self.labels[replaced] = label
            _hand_on(self.marks, [output], [replaced])
            _hand_on(self.copies, [output], [replaced])
            output = replaced
        mark = 1 << len(self.rows)
        for known in (self.marks, self.copies):
            known[output] = known.get(output, 0) | mark  # type: ignore[no-untyped-call]  # torch has no types here
        row = _Row(
            *(name, self._counts[name], tuple(output.shape), label, next(reversed(self.lost), ""), descends),
            *(None, mark, self.marks[output], passive, isinstance(module, nn.Linear)),
        )
        self._read(row)
        self.rows.append(row)
        _on_gradient(output, lambda grad: self._came_back(row, grad))
        return replaced

    def _read(self, row: _Row) -> None:
        if row.label is None:
            return
        try:
            row.reading = reading_of(row.label, self.rank, self.items, self)
        except NoGrid as reason:
            row.reading, row.misfit = None, str(reason)

    def _came_back(self, row: _Row, grad: Tensor) -> None:
        nan = grad.isnan()
        row.read = row.read or bool(nan.any())
        if row.reading is not None:
            nan = row.reading.read(nan, self.items)
            row.channels = int(nan.flatten(2).any(2).sum(1).max()), nan.shape[1]
            row.is_number = row.is_number or _reads_numbers(nan)
        row.met, row.reached = True, row.reached or bool(nan.any())

    def _has_ancestor(self, tensor: Tensor) -> bool:
        """True if the graph leads from a tensor back to the input, whether its operations were seen or not."""
        if not tensor.requires_grad or tensor.grad_fn is None or not self.source.requires_grad:
            return False
        self._ancestry[get_gradient_edge(self.source).node] = True
        return leads_back(tensor.grad_fn, self._ancestry)

    def watch_result(self, tensor: Tensor) -> None:
        """Note which channels of a tensor the score is read from, and of which layers it holds the values."""
        self.shown |= self.copies.get(tensor, 0)  # type: ignore[no-untyped-call]  # nor here
        label = self.of(tensor)
        if label is None:
            return

        def came_back(grad: Tensor) -> None:
            for number, dim in enumerate(label):
                others = tuple(other for other in range(grad.ndim) if other != number)
                read = grad.isnan().any(others) if others else grad.isnan()
                begin = 0
                for segment in dim:
                    size = segment_size(segment)
                    digits = [digit for digit in segment if digit.size > 1] or list(segment)
                    if len(digits) == 1 and digits[0].axis is not None and digits[0].axis.kind == CHANNEL:
                        found = int(read[begin : begin + size].sum()), size
                        self.read_channels.setdefault(self.number(digits[0].axis), []).append(found)
                    begin += size

        _on_gradient(tensor, came_back)

    def send_back(self, score: Tensor) -> None:
        """NaN from the score to all layers."""
        if score.requires_grad and self.anchors:
            nan = torch.full_like(score, torch.nan)
            torch.autograd.grad(score, self.anchors, nan, allow_unused=True)

    def reads_nothing(self) -> bool:
        """True if gradients come back, and all are zero: the score is constant, as a sum over an empty list."""
        met = [row for row in self.rows if row.met and row.descends]
        return bool(met) and not any(row.read for row in met)

    def release(self) -> None:
        """Let go of everything. Hooks on tensors hold this observer, and no collector sees them."""
        vars(self).clear()

    def judged(self, score: Tensor) -> Iterator[LayerCall]:
        """What is known of every call, after the backward pass."""
        descendants = self.marks.get(score, 0)  # type: ignore[no-untyped-call]  # torch has no types here
        of_scores = 0
        for row in self.rows:
            self._read(row)  # what becomes queries, keys and values shows behind the layer
            row.is_score = self._is_score(row)
            if row.is_score and row.channels[1] > 1:
                of_scores |= row.ancestors
        for row in self.rows:
            cut = not row.met and bool(descendants & row.mark)
            yield LayerCall(
                row.name,
                row.number,
                row.shape,
                row.reading,
                row.misfit,
                "" if row.label is not None else row.lost or "what the model does unseen",
                row.descends,
                row.reached or cut,
                cut,
                row.is_score,
                row.passive,
                row.linear and row.reading is not None and not row.reading.channels_first,
                bool(of_scores & row.mark),
            )

    def _is_score(self, row: _Row) -> bool:
        """True if the channels are scores, and the score reads at most half of them.

        They are if they are still channels of the output, or if each value of the output is one value of theirs; but
        not where others change the score too, as in the stream that residual blocks add to. Those of which one place is
        read for each item, as the anchors of a detector, are scores too.
        """
        if row.is_number:
            return True
        if row.label is None:
            return False
        numbers = {self.number(axis) for dim in row.label for axis in axes_of(dim) if axis.kind == CHANNEL}
        read = [found for number in numbers for found in self.read_channels.get(number, ()) if found[0]]
        still = any(2 * count <= size or size == 1 for count, size in read)
        reached, size = row.channels
        return (still or bool(self.shown & row.mark)) and reached > 0 and (2 * reached <= size or size == 1)


def _hand_on(marks: WeakIdKeyDictionary, operands: Iterable[Tensor], results: Iterable[Tensor]) -> None:
    """Results descend from all that operands descend from."""
    mark = 0
    for operand in operands:
        mark |= marks.get(operand, 0)  # type: ignore[no-untyped-call]  # torch has no types here
    for tensor in results if mark else ():
        marks[tensor] = marks.get(tensor, 0) | mark  # type: ignore[no-untyped-call]  # nor here


def _reads_numbers(read: Tensor) -> bool:
    """True if of a map (N, C, *grid) with several places one is read for each item, and one or few of its channels."""
    places, channels = read.any(1).flatten(1), read.flatten(2).any(2)
    local = places.shape[1] > 1 and int(places.sum(1).max()) == 1
    return local and (channels.shape[1] == 1 or 2 * int(channels.sum(1).max()) <= channels.shape[1])


def _on_gradient(tensor: Tensor, func: Callable[[Tensor], None]) -> None:
    if tensor.requires_grad:
        tensor.register_hook(func)  # type: ignore[no-untyped-call]  # nor here


class _Passing(torch.autograd.Function):
    """Takes values as they are, and hands every gradient on."""

    @staticmethod
    def forward(ctx: Any, operand: Tensor, values: Tensor, writes: bool) -> Tensor:
        if not writes:
            return values
        operand.copy_(values)
        ctx.mark_dirty(operand)
        return operand

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None
