"""What an operation adds to its output that is not proportional to its input.

For piecewise linear networks the score is exactly the input's share plus the share of these implicit biases
(Srinivas & Fleuret, 2019, arXiv:1905.00780): f(x) = <df/dx, x> + sum over operations of <df/dy, y - J x>.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends, _sdpa_kernel, sdpa_kernel
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.axes import AxisFollower
from cnnviz.engine.axis_rules import RULES
from cnnviz.engine.bias_terms import BiasTerm, Placed, unmerged
from cnnviz.engine.deferred import reads_at_once
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import RECTIFIERS, Operation, canonical, in_place, name_of
from cnnviz.engine.thread_state import let_go

_BIASED = (torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d)
_LINEAR = (F.linear, torch._C._nn.linear, *_BIASED, torch.conv_transpose3d)
_PADDINGS = (F.pad, torch._C._nn.pad)
_HOMOGENEOUS = {
    *(operation for operation in RECTIFIERS if operation not in (F.relu6, F.threshold)),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.adaptive_max_pool2d, F.interpolate),
    *(torch.max_pool1d, torch.max_pool2d, torch.max_pool3d, torch.avg_pool1d, torch._C._nn.avg_pool2d),
    *(torch.cat, torch.concat, torch.stack, torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape),
    *(Tensor.permute, torch.permute, Tensor.transpose, torch.transpose, Tensor.contiguous, Tensor.clone),
    *(Tensor.mean, torch.mean, Tensor.sum, torch.sum, Tensor.chunk, torch.chunk, Tensor.split, torch.split),
    *(Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze, Tensor.__getitem__, Tensor.unbind),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.pad, torch._C._nn.pad, Tensor.neg, torch.neg),
    *(Tensor.__neg__, Tensor.to, Tensor.float, Tensor.expand, torch.channel_shuffle),
}
_PACKING = {torch._pack_padded_sequence, torch._pad_packed_sequence, torch.index_select, Tensor.index_select}


@cache
def _prepare_forward_derivatives() -> None:
    """On first use torch compiles some forward derivatives with functions of its own that some versions deprecate."""
    with warnings.catch_warnings(action="ignore"):
        import_module("torch._decomp.decompositions_for_jvp")


_one_at_a_time = threading.RLock()


def _end_forward_derivatives(outside: int, kernels: list[SDPBackend]) -> None:
    """What an interruption inside of torch's own contexts leaves undone. They are as they were ``outside``."""
    if outside < 0:
        with suppress(RuntimeError):  # the level has ended
            torch._C._exit_dual_level(level=0)
        forward_ad._current_level = outside
    _sdpa_kernel(kernels)


class Biases:
    """Collects the implicit biases of one forward pass, each with the graph edge at which it is added."""

    def __init__(self, source: Tensor):
        self.terms: list[BiasTerm] = []
        self.axes = AxisFollower(RULES)
        self.axes.follow(source)
        self._reached: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._reached[source] = True

    def call(
        self,
        func: Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        run: Callable[..., Any],
        descends: Callable[[Tensor], bool],
    ) -> Any:
        """``run`` the operation, and collect its bias if it depends on the model's input.

        ``descends`` tells of a tensor whether the graph leads from it to the input.
        """
        for arg in args:
            refuse_transformed(func, arg, self._depends)
        reads = getattr(func, "__name__", "") == "__get__"
        if reads and next(tensors(fact := run(func, args, kwargs)), None) is None:
            return fact  # such as a shape, or whether there is a graph: nothing of it is in the score
        self._check_seen([*args, *kwargs.values()], descends)
        # without a graph nothing adds to the score, as inside of an autograd.Function
        if not torch.is_grad_enabled() or not any(self._depends(arg) for arg in (*args, *kwargs.values())):
            return run(func, args, kwargs)
        if func is Tensor.__setitem__:
            raise _assigned_in_part()
        writes = in_place(func, kwargs)
        biases = self._biases(func, args, kwargs) if writes else []  # asked before its input is gone
        output = run(func, args, kwargs)
        output = list(output) if func is Tensor.__iter__ else output
        self.axes.see(func, args, kwargs, output)
        outputs = list(tensors(output))
        for tensor in outputs:
            if tensor.requires_grad:  # x.new_zeros(...) and x > 0 are made of x and depend on nothing
                self._reached[tensor] = True
        if func is Tensor.__iter__:
            return iter(output)
        if reads or not any(tensor.requires_grad for tensor in outputs):
            return output
        biases = biases if writes else self._biases(func, args, kwargs)
        for tensor, bias in zip(outputs, biases, strict=False):
            if bias is not None and tensor.requires_grad:
                place = Placed(unmerged(self.axes.of(tensor), self.axes.mixed))
                self.terms.append(BiasTerm(get_gradient_edge(tensor), bias, place, canonical(func, args, kwargs)))
        return output

    def _biases(self, func: Operation, args: Any, kwargs: Any) -> list[Tensor | None]:
        """The implicit bias of each output tensor; an empty list if the operation has none."""
        operands = list(tensors([args, list(kwargs.values())]))
        all_depend = all(self._depends(operand) for operand in operands)
        padded = func in _PADDINGS and (kwargs.get("value") or (args[3] if len(args) > 3 else 0))
        weights = [operand for operand in operands if isinstance(operand, nn.Parameter)]
        if func in _PACKING and not any(args[3:4]):
            return []
        if canonical(func, args, kwargs) in _HOMOGENEOUS and not padded and (all_depend or weights):
            return []
        if func in _LINEAR and len(args) > 1 and not any(self._depends(operand) for operand in operands[1:]):
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            if bias is None:
                return []
            spread = (1,) * (args[1].ndim - 2) if func is not F.linear and func is not torch._C._nn.linear else ()
            return [bias.detach().reshape(-1, *spread)]
        return self._by_forward_derivative(func, args, kwargs)

    def _by_forward_derivative(self, func: Operation, args: Any, kwargs: Any) -> list[Tensor | None]:
        """y - J x of any operation, with J x as the forward derivative in the direction of x."""
        writes = in_place(func, kwargs)
        # one level of forward derivatives, one choice of attention kernels, and one list of warnings to ignore is all
        # that a process has; the fused kernels have no forward derivative
        with _one_at_a_time, torch.no_grad():
            _prepare_forward_derivatives()
            outside, kernels = forward_ad._current_level, _cur_sdpa_kernel_backends()
            try:
                with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
                    named = {name: self._dual(arg, writes) for name, arg in kwargs.items()}
                    try:
                        output = func(*(self._dual(arg, writes) for arg in args), **named)
                    except torch.OutOfMemoryError:
                        raise
                    except RuntimeError as error:
                        raise LookupError(
                            f"the implicit bias of {name_of(func)} is not known: "
                            "PyTorch has no forward derivative of it"
                        ) from error
                    return [_remainder(tensor) for tensor in tensors(output)]
            except BaseException as error:
                let_go(error)
                _end_forward_derivatives(outside, kernels)
                raise

    def _dual(self, value: Any, copied: bool) -> Any:
        """Tensors that depend on the input as dual numbers, with themselves as the tangent; others as constants."""
        if isinstance(value, tuple | list):
            return type(value)([self._dual(item, copied) for item in value])
        if not isinstance(value, Tensor):
            return value
        if not self._depends(value) or not (value.is_floating_point() or value.is_complex()):
            return value.detach()
        # a tensor that was expanded has one place for several values, which no tangent can be written to
        primal = value.detach().clone() if copied or 0 in value.stride() else value.detach()
        tangent = torch.where(primal.isfinite(), primal, 0)  # nothing moves with the infinite masks of attention
        return forward_ad.make_dual(primal, tangent)  # type: ignore[no-untyped-call]  # torch has no types here

    def _depends(self, value: Any) -> bool:
        if isinstance(value, tuple | list):
            return any(self._depends(item) for item in value)
        return isinstance(value, Tensor) and value in self._reached

    def _check_seen(self, value: Any, descends: Callable[[Tensor], bool]) -> None:
        """Raises LookupError for a tensor that an operation gave which was not seen, so that its bias is not known."""
        for tensor in tensors(value):
            if tensor.grad_fn is None or tensor in self._reached or is_functorch_wrapped_tensor(tensor):
                continue
            if descends(tensor):
                if "CopySlices" in tensor.grad_fn.name():  # a view of it was written
                    raise _assigned_in_part()
                raise LookupError(
                    f"the implicit bias of {tensor.grad_fn.name().removesuffix('Backward')} is not known: it is not "
                    "seen in TorchScript, an autograd.Function, an extension or another thread"
                )


def _assigned_in_part() -> LookupError:
    return LookupError("what an assignment into part of a tensor adds to the score is not known")


def _remainder(output: Tensor) -> Tensor | None:
    if not (output.is_floating_point() or output.is_complex()):
        return None
    primal, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]  # nor here
    bias = primal if tangent is None else primal - tangent
    # while values are not read, a bias of zeros is kept, too
    return None if reads_at_once() and not bool(bias.any()) else bias.clone()


def refuse_transformed(func: Operation, value: Any, matters: Callable[[Tensor], bool]) -> None:
    """Raises ValueError for a tensor of torch.func in place of one that matters: no rule reaches what is done there."""
    base = value
    while isinstance(base, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(base):
        base = torch._C._functorch.get_unwrapped(base)
    if base is not value and matters(base):
        raise ValueError(
            f"{name_of(func)} is called inside torch.func (such as vmap), where rules and biases can't reach; "
            "write that part of the model without it"
        )
