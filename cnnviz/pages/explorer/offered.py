"""What the page lets a person choose: the models of the command line with their layers and classes, methods, renderers.

A request names a choice by its number or its name here. Nothing else that it names is ever looked up.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch

from cnnviz.engine.layer_flow import LayerFlow
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import as_network
from cnnviz.models.loading import LoadedModel
from cnnviz.pages.explorer.regions import ANYWHERE
from cnnviz.pages.shared.texts import plain, shown
from cnnviz.registry.registry import Method, PluginError, RendererMethod, attributions, renderers
from cnnviz.registry.setting_meanings import meaning_of
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run

COLORMAPS = ("viridis", "cividis", "magma", "inferno", "gray", "turbo", "jet", "RdBu_r", "coolwarm", "PiYG")
"""Those in the list; more are none, since colours that people can compare are few."""
_SHARES = ("opacity", "fade", "dim")
"""Settings between 0 and 1, for which the page has a slider."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that can be asked."""

    model: LoadedModel
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    """Those that are places for a map: name, and the size of their output."""
    automatic: str | None
    """The one that is taken where none is named."""
    arguments: Mapping[str, Any]
    """What :func:`cnnviz.load_model` made it of, beside its name: for the Python that makes answers again."""
    whole: bool = False
    """Whether pictures are prepared without the crop."""
    regions: bool = False
    """Whether it names a class for each place, so that questions are about the places of a class."""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        size = self.model.preprocessing.input_size
        return {
            "name": shown(self.model.name),
            "classes": None if self.model.categories is None else list(map(shown, self.model.categories)),
            "count": self.model.num_classes,
            "layers": [{"name": name, "shape": shape} for name, shape in self.layers],
            "automatic": self.automatic,
            "regions": self.regions,
            "input": None if self.whole or size is None else [size[1], size[0]],
        }


def subject(model: LoadedModel, arguments: Mapping[str, Any], whole: bool = False) -> Subject:
    """The model with its layers, as a question about a class finds them."""
    for target in (None, ANYWHERE):
        try:
            flow = _flow(model, target)
        except (RuntimeError, ValueError, TypeError, LookupError):
            continue  # the answer to the first question tells what is wrong with the model
        places = [call for call in flow.calls if call.usable and not call.passive and not call.inner]
        shapes = {call.name: call.shape[1:] for call in places}
        return Subject(model, tuple(shapes.items()), flow.automatic(), arguments, whole, target is not None)
    return Subject(model, (), None, arguments, whole)


@borrows
def _flow(model: LoadedModel, target: Any) -> LayerFlow:
    """What one pass tells of the model's layers and a question."""
    preprocessing = model.preprocessing
    size = preprocessing.input_size or (224, 224)
    like = next(iter(model.module.parameters()), torch.zeros(()))
    zeros = torch.zeros(1, len(preprocessing.mean), *size, dtype=like.dtype, device=like.device)
    with torch.inference_mode(False), torch.no_grad():
        return Run(as_network(model.module), zeros, target, plan=Plan(again=True)).layers.choice.flow


def offered_methods() -> list[dict[str, Any]]:
    """The attributions that load, with a line each; of others why they do not."""
    methods: list[dict[str, Any]] = []
    for name in attributions:
        try:
            method = attributions[name]
        except PluginError as error:
            methods.append({"name": name, "summary": shown(error), "loads": False})
            continue
        required = any(each.default is inspect.Parameter.empty for each in method.settings.values())
        if not required:  # those are for formulas
            entry = {
                "name": name,
                "summary": _uncited(plain(method.summary)),
                "loads": True,
                "layer": "layer" in method.settings,
            }
            methods.append(entry)
    return methods


def offered_renderers() -> list[dict[str, Any]]:
    """The renderers that draw pictures, with the settings that the page has a control for."""
    found = []
    for name in renderers:
        try:
            renderer = renderers[name]
        except PluginError:
            continue
        if 2 in renderer.ranks:
            settings = [told for setting in renderer.settings if (told := control(renderer, setting))]
            about = {"name": name, "summary": plain(renderer.summary), "usual": usual_settings(renderer)}
            found.append(about | {"settings": settings})
    return found


def control(renderer: RendererMethod, setting: str) -> dict[str, Any] | None:
    """The control for a setting of plain values; None for one that has others."""
    default = renderer.settings[setting].default
    kinds = _members(renderer.types.get(setting, Any))
    told = {"name": setting, "meaning": meaning_of(renderer, setting), "default": default}
    choices = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if setting == "colormap":
        first = [] if default in COLORMAPS else [default]
        return told | {"kind": "choice", "choices": [*first, *COLORMAPS]}
    if choices and isinstance(default, str):
        return told | {"kind": "choice", "choices": choices}
    if bool in kinds:
        return told | {"kind": "switch"}
    if setting in _SHARES:
        return told | {"kind": "share"}
    if float in kinds or int in kinds:
        return told | {"kind": "number", "whole": float not in kinds}
    return None


def checked_settings(renderer: RendererMethod, given: Any) -> dict[str, Any]:
    """Settings of a request that have a control and a value of its kind. Raises ValueError for others."""
    if not isinstance(given, dict):
        raise ValueError("the settings of a renderer are names with values")
    settings: dict[str, Any] = {}
    for name, value in given.items():
        known = control(renderer, name) if name in renderer.settings else None
        if known is None:
            raise ValueError(f"{renderer.name} has no setting {name!r} that can be chosen here")
        most = 1000 if known.get("whole") else 1e9  # columns, iterations
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
        share = number and 0 <= value <= 1
        fits = {"share": share, "choice": value in known.get("choices", ()), "switch": isinstance(value, bool)}
        if not fits.get(known["kind"], number):
            raise ValueError(f"{name} of {renderer.name} can't be {str(value)[:40]!r}")
        settings[name] = int(value) if known.get("whole") else value
    return settings


def usual_settings(renderer: RendererMethod) -> dict[str, Any]:
    """Those that the page begins with: heat in colours that everybody can tell apart."""
    known = renderer.settings.get("colormap")
    return {"colormap": "viridis"} if known is not None and known.default == "turbo" else {}


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _uncited(text: str) -> str:
    """A summary without the paper in its last brackets, which have a comma: (Selvaraju et al., 2017, ...)."""
    return re.sub(r" \([^()]*, [^()]*\)\.?$", ".", text)


def method_named(name: Any) -> Method[Any]:
    """The attribution of that name. Raises LookupError for a name that is none."""
    if not isinstance(name, str) or name not in attributions:
        raise LookupError(f"there is no method {str(name)[:80]!r}")
    return attributions[name]
