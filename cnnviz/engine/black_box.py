"""Models of which nothing is seen but what they answer: functions, scripted and exported programs, ONNX sessions.

Such a model has no layers, no gradients and no operations that could be replayed. Whole passes answer everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.nested import mapped, tensors

_ONNX_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(bool)": torch.bool,
}


class BlackBox(nn.Module):
    """A module that calls something opaque.

    Args:
        call: what is called, with tensors.
        reason: why nothing else is seen of it, as a clause of error texts.
        batch_size: how many inputs it takes, neither more nor less; None: any number.
        source: the module inside, if there is one.
    """

    def __init__(
        self, call: Callable[..., Any], reason: str, batch_size: int | None = None, source: nn.Module | None = None
    ):
        super().__init__()
        # in a tuple, which keeps the modules inside from being found as parts of this one
        self._inside = call, source
        self.reason = reason
        self.batch_size = batch_size
        self.eval()

    @property
    def source(self) -> nn.Module | None:
        """The module that is called, if it is one."""
        return self._inside[1]

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The weights of what is called, as far as they are known: they tell its device and precision."""
        return iter(()) if self.source is None else self.source.parameters(recurse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # half of the operations seen would prove what only all of them can
        with torch._C.DisableTorchFunction():
            return self._answer(args, kwargs)

    def _answer(self, args: Any, kwargs: Any) -> Any:
        call, size = self._inside[0], self.batch_size
        given = list(tensors((args, kwargs)))
        if size is None or not given:
            return call(*args, **kwargs)
        items = len(given[0])
        outputs = []
        for start in range(0, items, size):
            missing = max(0, start + size - items)

            def cut(tensor: Tensor, start: int = start, missing: int = missing) -> Tensor:
                if tensor.shape[:1] != (items,):
                    return tensor
                part = tensor[start : start + size]
                return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part

            some, named = mapped(cut, (args, kwargs))
            outputs.append(mapped(partial(_first_rows, size - missing), call(*some, **named)))
        parts = zip(*map(tensors, outputs), strict=True)
        return mapped(lambda _: _joined(next(parts)), outputs[0])


def black_box(model: Any, *, numpy: bool = False, batch_size: int | None = None) -> BlackBox:
    """A model that is only asked for its answers, for methods and metrics that need nothing but scores.

    Args:
        model: any callable of a batch, a TorchScript module, what ``torch.export`` gives, or an ONNX session (of
            ``onnxruntime``). It returns scores (N, K), or anything that a target function can read.
        numpy: hand NumPy arrays to the callable. What it returns may be arrays in any case.
        batch_size: the number of inputs that it takes, where that is fixed; batches are cut, and the last one is filled
            up with copies of its last input. None: any number, or what an exported program or a session says.

    Raises:
        TypeError: for what can't be called.
        ValueError: for a batch size below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"a batch of {batch_size} holds no input; give the number of inputs that the model takes")
    if isinstance(model, BlackBox):
        return model
    export = sys.modules.get("torch.export")  # which takes seconds to import
    if export is not None and isinstance(model, export.ExportedProgram):
        model = model.module()
    if isinstance(model, nn.Module):
        size = _exported_size(model) if batch_size is None else batch_size
        return BlackBox(_Arrays(model) if numpy else model, _reason(model), size, model)
    if hasattr(model, "get_inputs") and hasattr(model, "run"):
        session = _Session(model)
        reason = "an ONNX session gives only its outputs; explain the network that it was exported from"
        return BlackBox(session, reason, session.batch_size if batch_size is None else batch_size)
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"the model is a {type(model).__name__}; cnnviz explains a torch.nn.Module, or any callable")
    name = getattr(model, "__name__", type(model).__name__)
    return BlackBox(_Arrays(model, numpy), f"{name} is no torch.nn.Module, and gives only its outputs", batch_size)


def opaque_part(model: nn.Module) -> str | None:
    """Why the operations of a model can't be seen; None where they can."""
    facts = facts_of(model)
    if "opaque part" not in facts:
        facts["opaque part"] = _opaque_part(model)
    return facts["opaque part"]  # type: ignore[no-any-return]  # facts are of any kind


def _opaque_part(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        if is_exported(module):
            return "the model comes from torch.export, which hides its layers; give it as it was before torch.export"
        if isinstance(module, torch.jit.ScriptModule):
            return (
                f"{name or 'the model'} is a {type(module).__name__}, whose operations can't be seen; "
                "give the model as it was before torch.jit"
            )
    return None


def is_exported(module: nn.Module) -> bool:
    """True for the module of an exported program, which has no evaluation mode."""
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def _reason(model: nn.Module) -> str:
    return opaque_part(model) or f"{type(model).__name__} was made a black box; give the model itself"


def _exported_size(model: nn.Module) -> int | None:
    """The batch size that a program was exported for, if it is fixed."""
    if not isinstance(model, torch.fx.GraphModule):
        return None
    values = [node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder"]
    first = next((value for value in values if isinstance(value, Tensor) and value.ndim), None)
    return first.shape[0] if first is not None and isinstance(first.shape[0], int) else None


def _first_rows(count: int, tensor: Tensor) -> Tensor:
    return tensor[:count] if tensor.ndim else tensor


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts[0].ndim else parts[0]


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A callable whose arrays become tensors on the device of the inputs."""

    call: Callable[..., Any]
    numpy: bool = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        device = next((tensor.device for tensor in tensors((args, kwargs))), torch.device("cpu"))
        if self.numpy:
            args, kwargs = mapped(_array, (args, kwargs))
        return as_tensors(self.call(*args, **kwargs), device)


class _Session:
    """An ONNX session as a function of tensors; several outputs are a dict by name."""

    def __init__(self, session: Any):
        self.session = session
        self.inputs = list(session.get_inputs())
        self.outputs = [output.name for output in session.get_outputs()]
        shape: Sequence[Any] = self.inputs[0].shape if self.inputs else ()
        self.batch_size = shape[0] if len(shape) and isinstance(shape[0], int) else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        device = next((tensor.device for tensor in tensors((args, kwargs))), torch.device("cpu"))
        names = [each.name for each in self.inputs]
        if len(args) > len(names):
            raise TypeError(f"the session takes {len(names)} inputs, {', '.join(names)}, and is given {len(args)}")
        given = dict(zip(names, args, strict=False)) | kwargs
        fed = {each.name: _fed(each, given[each.name]) for each in self.inputs if each.name in given}
        values = dict(zip(self.outputs, self.session.run(None, fed), strict=True))
        outputs = as_tensors(values, device)
        return outputs if len(outputs) > 1 else outputs[self.outputs[0]]


def _fed(expected: Any, value: Any) -> Any:
    """An argument as the session's array. Raises TypeError for another type of numbers."""
    tensor, dtype = torch.as_tensor(value), _ONNX_TYPES.get(expected.type)
    if dtype is not None and tensor.dtype is not dtype:
        raise TypeError(f"input {expected.name!r} is {tensor.dtype}, the session takes {dtype}; convert with .to(...)")
    return _array(tensor)


def as_tensors(value: Any, device: torch.device) -> Any:
    """Arrays inside of a value as tensors; copies, since the callable may write there again."""
    import numpy as np

    return mapped(lambda array: torch.tensor(array, device=device), value, np.ndarray)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()
