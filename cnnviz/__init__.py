"""See why a convolutional network decided what it did.

Everything public is here. Names are imported when first used, so that ``import cnnviz`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnviz.baselines import Baseline as Baseline
    from cnnviz.baselines import baseline_input as baseline_input
    from cnnviz.compose import Expr as Expr
    from cnnviz.compose import Formula as Formula
    from cnnviz.compose import attribution as attribution
    from cnnviz.compose import lift as lift
    from cnnviz.elsewhere import over as over
    from cnnviz.engine import PLAIN as PLAIN
    from cnnviz.engine import Call as Call
    from cnnviz.engine import Rule as Rule
    from cnnviz.engine import rule as rule
    from cnnviz.explaining import explain as explain
    from cnnviz.explanation import Explanation as Explanation
    from cnnviz.grids import grid as grid
    from cnnviz.layers import INPUT as INPUT
    from cnnviz.layers import Layer as Layer
    from cnnviz.models import LoadedModel as LoadedModel
    from cnnviz.models import load_model as load_model
    from cnnviz.objectives import Objective as Objective
    from cnnviz.objectives import alpha_norm as alpha_norm
    from cnnviz.objectives import channel as channel
    from cnnviz.objectives import class_score as class_score
    from cnnviz.objectives import closeness as closeness
    from cnnviz.objectives import direction as direction
    from cnnviz.objectives import diversity as diversity
    from cnnviz.objectives import feature_distance as feature_distance
    from cnnviz.objectives import feature_map as feature_map
    from cnnviz.objectives import l2 as l2
    from cnnviz.objectives import layer_energy as layer_energy
    from cnnviz.objectives import neuron as neuron
    from cnnviz.objectives import output_of as output_of
    from cnnviz.objectives import strongest as strongest
    from cnnviz.objectives import total_variation as total_variation
    from cnnviz.operations import ACTIVATIONS as ACTIVATIONS
    from cnnviz.operations import RECTIFIERS as RECTIFIERS
    from cnnviz.parts import activation as activation
    from cnnviz.parts import at as at
    from cnnviz.parts import bias_maps as bias_maps
    from cnnviz.parts import bias_share as bias_share
    from cnnviz.parts import gradient as gradient
    from cnnviz.parts import image as image
    from cnnviz.parts import noted as noted
    from cnnviz.parts import prediction as prediction
    from cnnviz.parts import procedure as procedure
    from cnnviz.parts import score as score
    from cnnviz.parts import toward as toward
    from cnnviz.parts import upsample as upsample
    from cnnviz.points import Quadrature as Quadrature
    from cnnviz.points import noisy as noisy
    from cnnviz.points import path as path
    from cnnviz.preprocessing import Preprocessing as Preprocessing
    from cnnviz.protocols import Attribution as Attribution
    from cnnviz.protocols import Renderer as Renderer
    from cnnviz.registry import PluginError as PluginError
    from cnnviz.registry import attributions as attributions
    from cnnviz.registry import hookimpl as hookimpl
    from cnnviz.registry import renderer as renderer
    from cnnviz.registry import renderers as renderers
    from cnnviz.run import Run as Run
    from cnnviz.seeing import Seen as Seen
    from cnnviz.targets import Target as Target

_HOME = {
    "ACTIVATIONS": "operations",
    "Attribution": "protocols",
    "Baseline": "baselines",
    "Call": "engine",
    "Explanation": "explanation",
    "Expr": "compose",
    "Formula": "compose",
    "INPUT": "layers",
    "Layer": "layers",
    "LoadedModel": "models",
    "Objective": "objectives",
    "PLAIN": "engine",
    "PluginError": "registry",
    "Preprocessing": "preprocessing",
    "Quadrature": "points",
    "RECTIFIERS": "operations",
    "Renderer": "protocols",
    "Rule": "engine",
    "Run": "run",
    "Seen": "seeing",
    "Target": "targets",
    "activation": "parts",
    "alpha_norm": "objectives",
    "at": "parts",
    "attribution": "compose",
    "attributions": "registry",
    "baseline_input": "baselines",
    "bias_maps": "parts",
    "bias_share": "parts",
    "channel": "objectives",
    "class_score": "objectives",
    "closeness": "objectives",
    "direction": "objectives",
    "diversity": "objectives",
    "explain": "explaining",
    "feature_distance": "objectives",
    "feature_map": "objectives",
    "gradient": "parts",
    "grid": "grids",
    "hookimpl": "registry",
    "image": "parts",
    "l2": "objectives",
    "layer_energy": "objectives",
    "lift": "compose",
    "load_model": "models",
    "neuron": "objectives",
    "noisy": "points",
    "noted": "parts",
    "output_of": "objectives",
    "over": "elsewhere",
    "path": "points",
    "prediction": "parts",
    "procedure": "parts",
    "renderer": "registry",
    "renderers": "registry",
    "rule": "engine",
    "score": "parts",
    "strongest": "objectives",
    "total_variation": "objectives",
    "toward": "parts",
    "upsample": "parts",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cnnviz' has no attribute {name!r}")
    found = getattr(import_module(f"cnnviz.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(_HOME)
