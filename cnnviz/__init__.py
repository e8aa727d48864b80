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
    from cnnviz.compose import activation as activation
    from cnnviz.compose import at as at
    from cnnviz.compose import attribution as attribution
    from cnnviz.compose import bias_maps as bias_maps
    from cnnviz.compose import bias_share as bias_share
    from cnnviz.compose import gradient as gradient
    from cnnviz.compose import image as image
    from cnnviz.compose import lift as lift
    from cnnviz.compose import noted as noted
    from cnnviz.compose import prediction as prediction
    from cnnviz.compose import procedure as procedure
    from cnnviz.compose import score as score
    from cnnviz.compose import toward as toward
    from cnnviz.compose import upsample as upsample
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
    from cnnviz.operations import ACTIVATIONS as ACTIVATIONS
    from cnnviz.operations import RECTIFIERS as RECTIFIERS
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
    "PLAIN": "engine",
    "PluginError": "registry",
    "Preprocessing": "preprocessing",
    "Quadrature": "points",
    "RECTIFIERS": "operations",
    "Renderer": "protocols",
    "Rule": "engine",
    "Run": "run",
    "Target": "targets",
    "activation": "compose",
    "at": "compose",
    "attribution": "compose",
    "attributions": "registry",
    "baseline_input": "baselines",
    "bias_maps": "compose",
    "bias_share": "compose",
    "explain": "explaining",
    "gradient": "compose",
    "grid": "grids",
    "hookimpl": "registry",
    "image": "compose",
    "lift": "compose",
    "load_model": "models",
    "noisy": "points",
    "noted": "compose",
    "over": "elsewhere",
    "path": "points",
    "prediction": "compose",
    "procedure": "compose",
    "renderer": "registry",
    "renderers": "registry",
    "rule": "engine",
    "score": "compose",
    "toward": "compose",
    "upsample": "compose",
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
