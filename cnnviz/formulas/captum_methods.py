"""Methods of captum as ours: made of their classes, asked about the model that is borrowed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import Parameter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.layers import Layer
from cnnviz.engine.nested import is_result_of_each, mapped
from cnnviz.formulas.attribution import ConfiguredAttribution, attribution
from cnnviz.registry.registry import Method
from cnnviz.run.question import Question
from cnnviz.run.run import Run

ASKED = ("self", "inputs", "target", "additional_forward_args", "return_convergence_delta")
"""What the question and the run give; it is no setting."""
MODEL = ("forward_func", "model")
"""What classes call the model that they are made with."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def from_captum(method: type[Any], **constructor: Any) -> Method[ConfiguredAttribution]:
    """One of our attributions, made of a class of captum's: ``from_captum(captum.attr.Saliency)``.

    Its settings are those of the class's ``attribute``, and ``layer`` where the class takes one. Register it by
    ``cnnviz.attributions.register(from_captum(captum.attr.Saliency), name="captum_saliency")``, or call it with its
    settings. Values are captum's own: (N, C, *spatial) at the input or at the layer. Targets are classes
    and functions of the output; objectives inside of the network are refused with a ValueError, and so are gradients of
    black boxes, further arguments and ``before_softmax``.

    Args:
        method: a class such as ``captum.attr.Saliency``, ``LayerGradCam`` or ``NoiseTunnel``.
        constructor: what the class is made with beside the model and the layer, such as ``multiply_by_inputs=False``;
            for NoiseTunnel the method inside, ``attribution_method=captum.attr.Saliency``.

    Raises:
        TypeError: for what is no class of captum's attributions, and for an argument that the class does not take.
    """
    if not (inspect.isclass(method) and callable(getattr(method, "attribute", None))):
        raise TypeError(f"from_captum takes a class such as captum.attr.Saliency, not {method!r}")
    made_with = inspect.signature(method.__init__).parameters
    inner = constructor.get("attribution_method")
    inside: Any = method if _takes_model(method) else inner
    if not _takes_model(inside):
        raise TypeError(
            f"{method.__name__} is made with no model; say what is inside: attribution_method=captum.attr.Saliency"
        )
    given = [name for name in constructor if name in (*MODEL, "layer")]
    if given:
        raise TypeError(f"{method.__name__} gets {given[0]} when it is asked; leave it out of from_captum")
    unknown = [name for name in constructor if name not in made_with]
    if unknown:
        raise TypeError(f"{method.__name__} is not made with {unknown[0]!r}; it takes {', '.join(list(made_with)[1:])}")
    needed = [name for name in _needed(method) if name not in constructor]
    if needed:
        raise TypeError(
            f"{method.__name__} is made with {needed[0]}; say from_captum({method.__name__}, {needed[0]}=…)"
        )
    settings = _settings(method) | (_settings(inside) if inside is not method else {})
    takes_layer = "layer" in inspect.signature(inside.__init__).parameters
    takes_target = "target" in inspect.signature(inside.attribute).parameters  # a neuron's methods don't
    own = [Parameter("layer", Parameter.KEYWORD_ONLY, default=None, annotation=Layer)] if takes_layer else []
    needs_gradients = "Perturbation" not in "".join(base.__name__ for base in inside.__mro__)

    def build(**chosen: Any) -> Callable[[Run], Tensor]:
        layer = chosen.pop("layer", None)

        def answer(run: Run) -> Tensor:
            model = run.model
            if isinstance(model, BlackBox) and needs_gradients:
                raise ValueError(f"{method.__name__} asks for gradients, which a black box does not give")
            with torch.inference_mode(False):
                inputs = tuple(tensor.detach().clone() for tensor in run.model_inputs.tensors)
            if needs_gradients:
                inputs[0].requires_grad_()
            asked_of, target = _asked(run, inputs, method.__name__)
            at = {"layer": model.get_submodule(run.layer_name(layer))} if takes_layer else {}
            asked: dict[str, Any] = {"target": target} if takes_target else {}
            rows = torch.arange(len(inputs[0]), device=inputs[0].device)
            further = inputs[1:] if asked_of is model else (*inputs[1:], rows)
            asked |= {"additional_forward_args": further} if further else {}
            with _borrowed(run), torch.inference_mode(False), torch.enable_grad():
                asker: Any = (
                    method(asked_of, **at, **constructor)
                    if inside is method
                    else method(**{**constructor, "attribution_method": inside(asked_of, **at)})
                )
                values = asker.attribute(inputs[0], **asked, **chosen)
            if not isinstance(values, Tensor):
                raise ValueError(f"{method.__name__} gave a {type(values).__name__}, and a map is one tensor")
            return values.detach()

        return answer

    build.__name__ = build.__qualname__ = "captum_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.__name__).lower()
    build.__doc__ = f"{method.__name__} of captum, on the model borrowed."
    parameters = [*own, *settings.values()]
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what settings are read from
    build.__annotations__ = {"layer": Layer} if takes_layer else {}
    return attribution(build)


def _settings(method: Any) -> dict[str, Parameter]:
    """The parameters of ``attribute`` that are settings, without captum's annotations."""
    parameters = inspect.signature(method.attribute).parameters.values()
    kept = [each for each in parameters if each.name not in ASKED and each.kind is not Parameter.VAR_KEYWORD]
    return {each.name: Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default) for each in kept}


def _takes_model(method: Any) -> bool:
    return inspect.isclass(method) and any(name in MODEL for name in inspect.signature(method.__init__).parameters)


def _needed(method: Any) -> list[str]:
    """What a class can't be made without, beside the model, the layer and the method inside."""
    parameters = [*inspect.signature(method.__init__).parameters.values()][1:]
    needed = [each.name for each in parameters if each.default is Parameter.empty and each.kind is not each.VAR_KEYWORD]
    return [name for name in needed if name not in (*MODEL, "layer", "attribution_method")]


class _Scores(nn.Module):
    """The model, with the number that is explained as its only score, (N, 1).

    The last argument says which input of the batch each row is of: captum repeats some batches as a whole, in others
    each row, and asks about a single one, and does so with all arguments alike.
    """

    def __init__(self, model: nn.Module, question: Question, output: Any, rows: int):
        super().__init__()
        self.training = False
        self.model, self.question, self.rows = model, question, rows
        self.batch = question.reads(_picked(output, [*range(question.items)], rows), lambda: output, {})

    def forward(self, *given: Tensor) -> Tensor:
        inputs, items = given[:-1], given[-1]
        count, whole = len(items), torch.arange(self.rows, device=items.device)
        output = self.model(*inputs)
        if count % len(whole) == 0 and torch.equal(items, whole.repeat(count // len(whole))):
            question = self.question.repeated(count // len(whole))
            return question.read(output, count, lambda: inputs[0], {})[:, None]
        scores: list[Any] = [None] * count
        for item in set(items.tolist()):
            rows = [row for row, other in enumerate(items.tolist()) if other == item]
            # a class stands there for each row of variants of the batch, a function for each input of the batch
            place = item if isinstance(self.question.target, Tensor) else item % self.question.items
            question, seen = self.question.of(slice(place, place + 1), self.batch), inputs[0][rows]
            read = question.read(_picked(output, rows, count), len(rows), partial(_the, seen), {})
            for row, score in zip(rows, read.unbind(), strict=True):
                scores[row] = score
        return torch.stack(scores)[:, None]


def _the(value: Tensor) -> Tensor:
    return value


def _picked(output: Any, rows: list[int], count: int) -> Any:
    """Some rows of what a model gave for ``count`` inputs; what is of no input stays."""
    if is_result_of_each(output, count):
        return [output[row] for row in rows]
    return mapped(lambda tensor: tensor[rows] if tensor.shape[:1] == (count,) else tensor, output)


def _asked(run: Run, inputs: tuple[Tensor, ...], name: str) -> tuple[nn.Module, Tensor | int]:
    """The module that captum is asked about, and the class of it. Raises ValueError for what captum can't answer."""
    call, target, model = run.model_inputs.call, run.target, run.model
    if call.args is not None or call.kwargs or call.joint:
        raise ValueError(f"{name} of captum takes models of tensors in their order; leave out arguments and of")
    if run.question.objectives or run.options.before is not None:
        raise ValueError(f"{name} of captum explains what a model gives; give a class, or a function of the output")
    with torch.no_grad():
        output = model(*inputs)
        question = run.question
        score = question.read(output, len(inputs[0]), lambda: inputs[0], {})
    if not torch.allclose(score.float(), run.score.float(), rtol=1e-2, atol=1e-4):
        raise ValueError(f"{name} of captum is asked in another way than the question was; leave precision out")
    plain = target is not None and isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1
    if target is not None and plain and not run.options.probabilities:
        return model, target
    return _Scores(model, question, output, len(inputs[0])), 0


@contextmanager
def _borrowed(run: Run) -> Iterator[None]:
    """Whatever captum leaves on the modules goes, also after an error; random numbers are drawn by the run's seed."""
    modules = list(run.model.modules())
    before = [({name: set(getattr(module, name)) for name in HOOKS}, set(vars(module))) for module in modules]
    numpy_state, devices = np.random.get_state(), list(range(torch.cuda.device_count()))
    seed = run.generator.initial_seed()
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(numpy_state)
        for module, (hooks, names) in zip(modules, before, strict=True):
            _cleaned(module, hooks, names)


def _cleaned(module: nn.Module, hooks: Mapping[str, set[int]], names: set[str]) -> None:
    for name, kept in hooks.items():
        held = getattr(module, name)
        for key in [key for key in held if key not in kept]:
            del held[key]
    for name in set(vars(module)) - names:
        del module.__dict__[name]
