"""What every method owes its users, checked in one call from a plugin's own tests.

    from cnnviz.testing import check_attribution, check_renderer

    def test_my_method() -> None:
        check_attribution("my_method")

A broken promise is an AssertionError that names it. No test framework is needed.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnviz import Attribution, Explanation, Renderer, attributions, explain, renderers
from cnnviz.registry import Method, Registry

CLASSES = 5


class SmallNet(nn.Module):
    """A classifier of few weights, (N, channels, *spatial) to scores (N, 5), in eval mode.

    Its ReLUs are written the three ways models write them: as a module, as a function, and in place on a tensor. It
    has batch normalization, dropout and pooling, and ends in global average pooling and a linear layer. ``rank`` is the
    number of spatial dimensions, 1 to 3; ``seed`` determines the weights; ``between`` is put in the middle.
    """

    def __init__(self, rank: int = 2, channels: int = 3, seed: int = 0, between: nn.Module | None = None):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = conv(channels, 6, 3, padding=1)
            self.norm = norm(6)
            self.relu = nn.ReLU(inplace=True)
            self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2)
            self.second = conv(6, 8, 3, padding=1)
            self.dropout = nn.Dropout()
            self.third = conv(8, 8, 3, padding=1)
            self.classifier = nn.Linear(8, CLASSES)
            for values in (self.norm.running_mean, self.norm.running_var, self.norm.weight):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5)
            nn.init.uniform_(self.third.weight, -0.2, 0.3)  # maps of a positive part are to show something
            nn.init.uniform_(self.classifier.weight, -0.5, 1.0)
        self.between = between or nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.between(F.relu(self.second(x)))
        x = self.third(self.dropout(x)).relu_()
        scores: Tensor = self.classifier(x.flatten(2).mean(2))
        return scores


def check_attribution(
    method: str | Attribution | Method[Any], *, target_blind: bool = False, rank: int = 2, **settings: Any
) -> None:
    """Check an attribution on a small network.

    Checked is that the model, the input and torch's own state are left as they were, also when the model raises or is
    interrupted halfway; that values are (N, C, *spatial), finite and not all zero; that one seed gives one answer, for
    an input alone as in a batch, and in chunks as at once; that values depend on the weights and on the target; that
    the method works inside no_grad and inference_mode, with frozen weights and in float64; and that it refuses settings
    it does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a formula or a callable of a run.
        target_blind: whether the method explains the same whatever the target, as Eigen-CAM does. Must be true of it.
        rank: spatial dimensions of the inputs: 1 for signals, 2 for images, 3 for volumes.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = _Subject(*_built(attributions, method, settings))
    inputs = torch.randn(3, 3, *(12, 10, 8)[:rank], generator=torch.Generator().manual_seed(7))
    target = torch.tensor([0, 1, 2])
    _check_traces(subject, rank, inputs, target)
    values = subject(SmallNet(rank), inputs, target)
    subject.demand(values.shape[1:].numel() > 0, f"gives {tuple(values.shape)}, which is empty")
    subject.demand(bool(values.any()), "gives nothing but zeros")

    def same(situation: str, found: Tensor, expected: Tensor = values) -> None:
        subject.demand(_close(found, expected), f"gives other values {situation}")

    torch.rand(1)  # what is drawn from torch's global generator is something else from now on
    same("when asked again with one seed; draw from run.generator", subject(SmallNet(rank), inputs, target))
    for item in range(len(inputs)):
        part = slice(item, item + 1)
        alone = subject(SmallNet(rank), inputs[part], target[part], "for an input alone")
        same("for an input alone than in a batch; reduce over each input by itself", alone, values[part])
    same("where memory is short", subject(SmallNet(rank), inputs, target, "where memory is short", memory=1))
    subject.demand(not _close(subject(SmallNet(rank, seed=1), inputs, target), values), "ignores the model's weights")
    blind = _close(subject(SmallNet(rank), inputs, (target + 1) % CLASSES), values)
    subject.demand(target_blind or not blind, "ignores the target; if it is meant to, say target_blind=True")
    subject.demand(blind or not target_blind, "depends on the target, though it is said to be target_blind")

    model = SmallNet(rank)
    for where, entered in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
        with entered:
            same(f"inside {where}", subject(model, inputs.clone(), target, f"inside {where}"))
    same("when weights are frozen", subject(model.requires_grad_(False), inputs, target, "when weights are frozen"))
    precise = subject(SmallNet(rank).double(), inputs.double(), target, "in float64")
    subject.demand(precise.dtype == torch.float64, f"gives {precise.dtype} for a model in float64")


def check_renderer(method: str | Renderer | Method[Any], **settings: Any) -> None:
    """Check a renderer on signals, images and volumes, none of them square, with one to four channels.

    Checked is that it draws uint8 (N, H, W, 3) or refuses in one line (ValueError); that the picture shows the values;
    that a blank map stays blank and nothing is divided by zero; that it draws half precision; that one explanation
    gives one picture; that it changes neither the explanation nor matplotlib's or NumPy's global state, and leaves no
    figure open; and that it refuses settings it does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of an explanation.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    name, draw = _built(renderers, method, settings)
    drawn = 0
    for shown in _explanations():
        picture = _picture(name, draw, shown)
        if picture is None:
            continue
        drawn += 1
        again = _picture(name, draw, shown)
        if again is None or not np.array_equal(picture, again):
            raise AssertionError(f"{name} draws one explanation in two ways")
        if drawn == 1:
            _check_blank(name, draw, shown)
    if not drawn:
        raise AssertionError(f"{name} refuses everything: signals, images and volumes")


@dataclass(frozen=True)
class _Subject:
    """The attribution that is checked."""

    name: str
    formula: Any

    def __call__(self, model: nn.Module, inputs: Tensor, target: Any, situation: str = "", **how: Any) -> Tensor:
        try:
            found: Explanation = explain(model, inputs, self.formula, target=target, **how)
            return found.values
        except Exception as error:
            where = situation or "on a small network"
            raise AssertionError(f"{self.name} fails {where}: {type(error).__name__}: {error}") from error

    def demand(self, kept: bool, broken: str) -> None:
        if not kept:
            raise AssertionError(f"{self.name} {broken}")


class _Halfway(Exception):
    """Raised inside the model."""


class _Trouble(nn.Module):
    """Counts the passes through it, and raises in one of them, on the way forward or back."""

    def __init__(self, error: type[BaseException] = _Halfway, forward: int = 0, backward: int = 0):
        super().__init__()
        self.error, self.at = error, {"forward": forward, "backward": backward}
        self.met = {"forward": 0, "backward": 0}

    def meet(self, way: str) -> None:
        self.met[way] += 1
        if self.met[way] == self.at[way]:
            raise self.error

    def forward(self, x: Tensor) -> Tensor:
        self.meet("forward")
        passed: Tensor = _Passed.apply(x, self)
        return passed


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, trouble: _Trouble) -> Tensor:
        ctx.trouble = trouble
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.trouble.meet("backward")
        return grad, None


def _check_traces(subject: _Subject, rank: int, inputs: Tensor, target: Tensor) -> None:
    """Nothing is left behind: in peace, by an exception or an interrupt, in the first pass or the last, either way."""
    counted = _Trouble()
    with _unchanged(subject, SmallNet(rank, between=counted), inputs, "") as lent:
        subject(*lent, target)
    for way, passes in counted.met.items():
        for error in (_Halfway, KeyboardInterrupt):
            for place in sorted({1, passes}) if passes else ():
                model = SmallNet(rank, between=_Trouble(error, **{way: place}))
                what = f" when {error.__name__.lstrip('_')} is raised in {way} pass {place}"
                with _unchanged(subject, model, inputs, what) as lent:
                    try:
                        explain(*lent, subject.formula, target=target)
                    except error:
                        continue
                    except Exception as other:
                        raise AssertionError(f"{subject.name} raises {type(other).__name__}{what}") from other
                    raise AssertionError(f"{subject.name} gives values even{what}")


@contextmanager
def _unchanged(subject: _Subject, model: nn.Module, inputs: Tensor, what: str) -> Iterator[tuple[nn.Module, Tensor]]:
    """Lends a model and an input with gradients of their own; raises unless both come back as they were."""
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    inputs = inputs.detach().clone().requires_grad_()
    inputs.grad = torch.ones_like(inputs)
    lent = [*model.modules(), *model.parameters(), *model.buffers()]  # held, so that no id is given out again
    before = _state(model, inputs)
    yield model, inputs
    after = _state(model, inputs)
    del lent
    for name in before | after:
        old, new = before.get(name), after.get(name)
        subject.demand(_equal(old, new), f"{name}{what}")


def _state(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """All that must stay as it was, by what to say if it does not."""
    state: dict[str, Any] = {
        "changes torch's grad mode": torch.is_grad_enabled(),
        "leaves torch's inference mode changed": torch.is_inference_mode_enabled(),
        "leaves autocast changed": torch.is_autocast_enabled("cpu"),
        "leaves a torch function mode entered": torch._C._len_torch_function_stack(),
        "changes torch's default dtype": torch.get_default_dtype(),
        "seeds or uses torch's global generator; draw from run.generator": torch.get_rng_state(),
        "replaces torch.nn.functional.relu": F.relu,
        "writes into the input": inputs.detach().clone(),
    }
    for name, module in model.named_modules():
        place = repr(name) if name else "the model"
        hooks = {key: tuple(kept) for key, kept in vars(module).items() if key.endswith("_hooks") and kept}
        state |= {
            f"replaces the module {place}": id(module),
            f"changes the training flag of {place}": module.training,
            f"leaves hooks on {place}": hooks,
            f"leaves attributes on {place}": sorted(vars(module)),
        }
    for name, tensor in [("the input", inputs), *model.named_parameters(), *model.named_buffers()]:
        state |= {
            f"replaces {name}": id(tensor),
            f"changes the values of {name}": tensor.detach().clone(),
            f"changes requires_grad of {name}": tensor.requires_grad,
            f"changes the gradient kept in {name}": None if tensor.grad is None else tensor.grad.clone(),
            f"leaves hooks on {name}": len(tensor._backward_hooks or ()),
        }
    return state


def _explanations() -> Iterator[Explanation]:
    """Of every rank: fine and coarse maps, one to four channels, four maps without negative values, half precision."""
    for rank, size in ((1, (22,)), (2, (14, 22)), (3, (6, 14, 22))):
        half = tuple(length // 2 for length in size)
        for channels in (1, 2, 3, 4):
            yield _explanation(channels, size, (channels, *size))
        yield _explanation(3, size, (1, *half))
        yield _explanation(3, size, (4, *half), signed=False)
        if rank == 2:
            yield _explanation(3, size, (1, *half), dtype=torch.bfloat16)


def _explanation(
    channels: int, size: tuple[int, ...], shape: tuple[int, ...], signed: bool = True, dtype: Any = torch.float32
) -> Explanation:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, *shape, generator=generator).to(dtype)
    inputs = torch.rand(2, channels, *size, generator=generator).to(dtype)
    target = torch.tensor([1, 2])
    return Explanation(values if signed else values.abs(), inputs, target, torch.ones(2), "checked()")


def _picture(name: str, draw: Renderer, shown: Explanation) -> NDArray[np.uint8] | None:
    """What the renderer draws; None where it refuses as it should."""
    what = f"values {tuple(shown.values.shape)} over inputs {tuple(shown.inputs.shape)} ({shown.values.dtype})"
    before = _drawing_state(shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = draw(shown)
    except ValueError as error:
        if not str(error) or "\n" in str(error):
            raise AssertionError(f"{name} refuses {what} without saying why in one line: {error!r}") from error
        picture = None
    except Exception as error:
        raise AssertionError(f"{name} fails on {what}: {type(error).__name__}: {error}") from error
    for broken, kept in _drawing_state(shown).items():
        if not _equal(before[broken], kept):
            raise AssertionError(f"{name} {broken}")
    if picture is None:
        return None
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise AssertionError(f"{name} gives {kind} for {what}, not a uint8 array")
    if picture.ndim != 4 or picture.shape[-1] != 3 or len(picture) != len(shown) or not picture.size:
        raise AssertionError(f"{name} gives {picture.shape} for {what}, not ({len(shown)}, H, W, 3)")
    return picture


def _drawing_state(shown: Explanation) -> dict[str, Any]:
    pyplot, matplotlib = sys.modules.get("matplotlib.pyplot"), sys.modules.get("matplotlib")
    return {
        "writes into the values": shown.values.clone(),
        "writes into the inputs": shown.inputs.clone(),
        "leaves a pyplot figure open; draw on a Figure of its own": pyplot.get_fignums() if pyplot else [],
        "changes matplotlib's rcParams": repr(matplotlib.rcParams) if matplotlib else None,
        "uses NumPy's global random numbers": repr(np.random.get_state()),
    }


def _check_blank(name: str, draw: Renderer, like: Explanation) -> None:
    """Where a map holds nothing, its picture looks as that of a map with its evidence elsewhere."""
    flat, nothing = torch.full_like(like.inputs, 0.5), torch.zeros_like(like.values)

    def drawn(place: int, evidence: float) -> NDArray[np.int64]:
        values = nothing.clone()
        values.flatten(2)[:, :, place] = evidence
        picture = _picture(name, draw, Explanation(values, flat, like.target, like.score, like.recipe))
        if picture is None:
            raise AssertionError(f"{name} refuses {'a map of one point' if evidence else 'a blank map'}")
        return picture.astype(np.int64)

    blank, middle = drawn(0, 0), nothing[0, 0].numel() // 2
    for evidence in (1.0,) if like.values.min() >= 0 else (1.0, -1.0):
        here, there, elsewhere = (drawn(place, evidence) for place in (0, -1, middle))
        shown = (here != elsewhere) & (there == elsewhere)
        if shown.any():
            if np.abs(blank - elsewhere)[shown].mean() >= np.abs(blank - here)[shown].mean():
                raise AssertionError(
                    f"{name} shows evidence on a blank map; where all values are zero, nothing may be drawn"
                )
            return
    raise AssertionError(f"{name} draws the same picture whatever the values")


def _built(registry: Registry[Any], method: Any, settings: dict[str, Any]) -> tuple[str, Any]:
    """The method's name, and the method with its settings, after a look at how it takes them."""
    found: Callable[..., Any] = registry[method] if isinstance(method, str) else method
    if not isinstance(found, Method):
        if settings:
            raise TypeError(f"{method!r} has its settings in it; give the method itself to check it with others")
        return getattr(found, "__name__", repr(found)), found
    if not found.summary:
        raise AssertionError(f"{found.name} has no docstring, which is its page")
    try:
        found(**settings, no_such_setting=0)
    except TypeError as error:
        if "no_such_setting" not in str(error):
            raise AssertionError(f"{found.name} does not name the setting it refuses: {error}") from error
    else:
        raise AssertionError(f"{found.name} takes settings it does not have")
    return found.name, found(**settings)


def _equal(old: Any, new: Any) -> bool:
    both = isinstance(old, Tensor) and isinstance(new, Tensor)
    return torch.equal(old, new) if both else bool(old is new or old == new)


def _close(found: Tensor, expected: Tensor) -> bool:
    reach = expected.detach().abs().max().item()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * reach)
