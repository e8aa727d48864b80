"""One forward pass through a borrowed model: the only place of the package that calls a model.

Everything that a pass needs (hooks, modes, gradient mode) is entered here and left here, also when the model raises.
Tensors that the pass binds to attributes, parameters or buffers of the model are unbound when it ends, or when the
question is answered whose score may be read from them (``keep_bindings``).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cnnviz.engine.checkpointing import checkpoints_set_aside
from cnnviz.engine.loans import Loan, Setting, question_of_thread
from cnnviz.engine.model_facts import modules_of
from cnnviz.engine.model_inputs import AnyInputs, ModelInputs
from cnnviz.engine.operations import SIGMOIDS, SOFTMAXES, Operation
from cnnviz.engine.thread_state import WatchingMode, let_go

Head = Literal["softmax", "sigmoid"]
"""The last operation of a model that gives probabilities."""
HEADS: dict[Head, tuple[Operation, ...]] = {"softmax": SOFTMAXES, "sigmoid": SIGMOIDS}
ForwardHook = Callable[[nn.Module, Any, Any], Any]
"""As for ``register_forward_hook``: takes module, arguments and output; a result other than None is the new output."""

_LIST = re.compile(r"(typing\.)?[lL]ist\[(torch\.)?Tensor\]")


class PassEnded(BaseException):
    """Raised by a hook to end the pass early. Not an Exception, since models may catch those."""


class OutputRecorder(WatchingMode):
    """Records the first input and the output of each call of some operations."""

    def __init__(self, operations: Collection[Operation]):
        super().__init__()
        self.operations = operations
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in self.operations and isinstance(output, Tensor):
            self.calls.append((args[0] if args else (kwargs or {})["input"], output))
        return output

    def input_of(self, output: Any) -> Tensor | None:
        """The input of the last operation that returned these values; None where none did."""
        for operand, result in reversed(self.calls):
            if isinstance(output, Tensor) and torch.equal(result.flatten(), output.flatten()):
                # a view would be one more operation, outside of the model
                return operand if operand.shape == output.shape else operand.reshape(output.shape)
        return None


class InputTooSmall(ValueError):
    """The network's layers leave nothing of an input of this size."""


_TOO_SMALL = re.compile(
    r"Output size is too small|[Kk]ernel size can't be greater than actual input|[Pp]adding size should be less than|"
    r"input image \(.*\) smaller than kernel"
)
"""What torch says where a layer meets a map that is smaller than what it looks at."""


def forward(
    model: nn.Module,
    inputs: AnyInputs,
    *,
    hooks: Iterable[tuple[str, ForwardHook]] = (),
    pre_hooks: Iterable[tuple[str, Callable[[nn.Module, Any], None]]] = (),
    modes: Sequence[AbstractContextManager[Any]] = (),
    grad: bool = False,
    before: Head | None = None,
    compiled: Callable[..., Any] | None = None,
    copy: bool = True,
    keep_bindings: bool = False,
    batch: Tensor | None = None,
    survey: bool = False,
) -> Any:
    """The output of one pass, or the input of the head that gave it; None if a hook raised PassEnded.

    Args:
        model: in eval mode.
        inputs: all that the model is called with, the explained input first.
        hooks: layers by name, each with a forward hook. They act in this pass alone: not in other threads, and not in
            passes of other questions that a hook of the user's asks meanwhile.
        pre_hooks: layers by name, each with a hook that is called before the layer.
        modes: contexts that surround the model's call and nothing else, the outermost first.
        grad: whether operations are recorded for gradients.
        before: return the input of the model's last softmax or sigmoid instead of its output.
        compiled: what torch.compile made of the model, to be called instead of it. Otherwise compiled parts of the
            model run operation by operation, so that they can be seen.
        copy: hand copies to the model, which may write into its inputs.
        keep_bindings: leave what the pass binds to names of the model until the question is answered.
        batch: what error texts describe, where the first input is only a part of it.
        survey: the hooks look at all layers and need none; one that runs in another thread is passed over.

    Raises:
        LookupError: for ``before`` where the output is not what such an operation gave; for a layer with a hook that
            ran in a thread of the model's own.
        ValueError: where the input has not the shape that the model's convolutions expect.
    """
    inputs = ModelInputs.of(inputs)
    heads = {head: OutputRecorder(HEADS[head]) for head in HEADS} if before else {}
    batch = inputs.apart()[0] if batch is None or inputs.call.joint else batch
    loan, question = Loan(), question_of_thread()
    try:
        try:
            loan.begin()
            for module in modules_of(model):
                if isinstance(module, _ConvNd) and batch.ndim == len(module.kernel_size) + 1:
                    # a convolution takes an image without a batch dimension, and makes something else of it
                    loan.hook(module.register_forward_pre_hook, module, "", _refusal(model, batch))
            for name, hook in hooks:
                module = model.get_submodule(name)
                loan.hook(module.register_forward_hook, module, name, hook)
            for name, pre_hook in pre_hooks:
                module = model.get_submodule(name)
                loan.hook(module.register_forward_pre_hook, module, name, pre_hook)
            if question is not None:
                question.keep(model)
            if not keep_bindings:
                loan.keep(model, containers=False)
            if compiled is None and "torch._dynamo" in sys.modules:  # else nothing can have been compiled
                loan.hold(_eager)
            call: Callable[..., Any] = model if compiled is None else compiled
            call = partial(_with_list, call) if takes_list(model) else call
            around = [*modes, *heads.values()]
            # tensors of inference mode can't carry gradients
            loan.hold(checkpoints_set_aside)
            with torch.inference_mode(False):
                torch._C._set_grad_enabled(grad)
                output = _surrounded(around, call, inputs, copy)
        except PassEnded:
            return None
        except (RuntimeError, ValueError) as error:
            let_go(error)
            # beside a table, the first convolution is about another input
            another = len(inputs) > 1 and batch.ndim < 3
            reason = None if another or isinstance(error, torch.OutOfMemoryError) else misfit(model, batch)
            if reason is None and not another and _TOO_SMALL.search(str(error)):
                raise InputTooSmall(
                    f"the input is {tuple(batch.shape)}, too small for {type(model).__name__}: its layers make maps "
                    "smaller and smaller, and nothing is left for one of them; give a larger input"
                ) from error
            if reason is None:
                raise
            raise ValueError(reason) from error
        except TypeError as error:
            let_go(error)
            reason = _lacking(model, inputs)
            if reason is None:
                raise
            raise TypeError(reason) from error
        except BaseException as error:
            let_go(error)
            raise
        finally:
            loan.end()
    finally:
        loan.end()
    if loan.elsewhere and not survey:
        raise _in_a_thread(model, min(loan.elsewhere))
    if before is None:
        return output
    with torch.inference_mode(False), torch.enable_grad():  # a graph goes on, if there is one
        logits = {head: recorder.input_of(output) for head, recorder in heads.items()}
    if logits[before] is None:
        other = next((head for head in HEADS if logits[head] is not None), None)
        way_out = f"say before_{other}=True" if other else f"leave before_{before} out"
        raise LookupError(
            f"the output of {type(model).__name__} is not what a {before} gave, so there is nothing before it to "
            f"explain; {way_out}"
        )
    return logits[before]


def _with_list(call: Callable[..., Any], images: Tensor, *others: Any) -> Any:
    """Hand a batch over as a list of images."""
    return call(list(images.unbind()), *others)


def takes_list(model: nn.Module) -> bool:
    """True for models that take a list of images (C, *spatial), as torchvision's detectors do: by their annotation."""
    return _takes_list(type(model).forward)


@lru_cache(maxsize=256)
def _takes_list(forward_of: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(forward_of).parameters.values())[1:]
    written = parameters[0].annotation if parameters else ""
    return bool(_LIST.fullmatch(written if isinstance(written, str) else repr(written)))


def layer_tensor(name: str, output: Any) -> Tensor:
    """A layer's output. Raises TypeError where that is no tensor, or one of quantized numbers."""
    if isinstance(output, Tensor):
        if output.is_quantized:
            raise TypeError(f"layer {name!r} gives {output.dtype}, which is quantized; name a layer behind dequantize")
        return output
    raise TypeError(
        f"layer {name!r} gives a {type(output).__name__}, not a tensor; "
        "name one of the layers inside it (`cnnviz layers` lists them)"
    )


def never_ran(layer: Any) -> LookupError:
    """The error for a layer that the model did not call."""
    return LookupError(f"layer {layer!r} did not run for this input; choose one that does")


def _surrounded(
    modes: Sequence[AbstractContextManager[Any]], call: Callable[..., Any], inputs: ModelInputs, copy: bool
) -> Any:
    """Call inside of these contexts, the outermost first, which see the copies being made."""
    if not modes:
        args, kwargs = inputs.arguments(copy)
        return call(*args, **kwargs)
    with modes[0]:
        return _surrounded(modes[1:], call, inputs, copy)


def _in_a_thread(model: nn.Module, layer: str) -> LookupError:
    return LookupError(
        f"layer {layer!r} ran in a thread of {type(model).__name__}'s own, where it can't be looked at; "
        "choose one that runs in the thread that calls the model"
    )


class _Eager(Setting):
    """How torch calls what it compiled: operation by operation, so that they can be seen."""

    former: Any = None

    def change(self) -> None:
        if self.former is None:
            self.former = _compiler()._stance
            torch.compiler.set_stance("force_eager")

    def restore(self) -> None:
        if self.former is not None:
            if _compiler()._stance is not self.former:
                _compiler()._set_stance(self.former)
            self.former = None


def _compiler() -> Any:
    from torch._dynamo import eval_frame

    return eval_frame


_eager = _Eager()


def misfit(model: nn.Module, inputs: Tensor) -> str | None:
    """Why the input's shape does not fit the model's first convolution; None where it does."""
    first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
    if first is None:
        return None
    rank, channels, shape = len(first.kernel_size), first.in_channels, tuple(inputs.shape)
    expected = f"{type(model).__name__} takes (N, {channels}, {('L', 'H, W', 'D, H, W')[rank - 1]})"
    if inputs.ndim == rank + 1:
        return f"the input is {shape}, without a batch dimension; {expected}; pass inputs[None]"
    if inputs.ndim != rank + 2:
        return f"the input is {shape}, of the wrong rank; {expected}"
    if inputs.shape[1] != channels:
        way_out = "; it looks channels last: pass inputs.movedim(-1, 1)" if inputs.shape[-1] == channels else ""
        return f"the input is {shape}, but {expected}{way_out}"
    return None


def _lacking(model: nn.Module, inputs: ModelInputs) -> str | None:
    """Which argument the model is not given; None where none is missing, or its signature is not known."""
    args, kwargs = inputs.arguments(False)
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        missing = str(error).removeprefix("missing ")
        if missing != str(error):
            return f"{type(model).__name__}.forward is missing {missing}; give it by explain(..., arguments=...)"
    return None


def _refusal(model: nn.Module, inputs: Tensor) -> Any:
    def refuse(module: nn.Module, args: tuple[Any, ...]) -> None:
        operand = args[0] if args else None
        if isinstance(operand, Tensor) and operand.ndim == inputs.ndim:
            raise ValueError(misfit(model, inputs))

    return refuse
