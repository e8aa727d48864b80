"""Methods of captum as ours: made of their classes, asked about the model that is borrowed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.layers import Layer
from cnnviz.formulas.attribution import ConfiguredAttribution, attribution
from cnnviz.registry.registry import Method
from cnnviz.run.run import Run

ASKED = ("self", "inputs", "target", "additional_forward_args", "return_convergence_delta")
"""What the question and the run give; it is no setting."""
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
    model_name = next((name for name in ("forward_func", "model") if name in made_with), None)
    inner = constructor.get("attribution_method")
    if model_name is None and not inspect.isclass(inner):
        raise TypeError(
            f"{method.__name__} is made with no model; say what is inside: attribution_method=captum.attr.Saliency"
        )
    inside: Any = method if model_name is not None else inner
    unknown = [name for name in constructor if name not in made_with]
    if unknown:
        raise TypeError(f"{method.__name__} is not made with {unknown[0]!r}; it takes {', '.join(list(made_with)[1:])}")
    settings = _settings(method) | (_settings(inside) if inside is not method else {})
    takes_layer = "layer" in inspect.signature(inside.__init__).parameters
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
            asked: dict[str, Any] = {"target": target}
            asked |= {"additional_forward_args": inputs[1:]} if len(inputs) > 1 else {}
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


class _Scores(nn.Module):
    """The model, with the number that is explained as its only score, (N, 1)."""

    def __init__(self, model: nn.Module, run: Run):
        super().__init__()
        self.training = False
        self.model, self.question = model, run.question

    def forward(self, *inputs: Tensor) -> Tensor:
        count = len(inputs[0])
        question = self.question.repeated(count // self.question.items)
        return question.read(self.model(*inputs), count, lambda: inputs[0], {})[:, None]


def _asked(run: Run, inputs: tuple[Tensor, ...], name: str) -> tuple[nn.Module, Tensor | int]:
    """The module that captum is asked about, and the class of it. Raises ValueError for what captum can't answer."""
    call, target, model = run.model_inputs.call, run.target, run.model
    if call.args is not None or call.kwargs or call.joint:
        raise ValueError(f"{name} of captum takes models of tensors in their order; leave out arguments and of")
    if run.question.objectives or run.options.before is not None:
        raise ValueError(f"{name} of captum explains what a model gives; give a class, or a function of the output")
    scores: nn.Module = _Scores(model, run)
    with torch.no_grad():
        output, score = model(*inputs), scores(*inputs)[:, 0]
    if not torch.allclose(score.float(), run.score.float(), rtol=1e-2, atol=1e-4):
        raise ValueError(f"{name} of captum is asked in another way than the question was; leave precision out")
    plain = target is not None and isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1
    if target is not None and plain and not run.options.probabilities:
        return model, target
    return scores, 0


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
