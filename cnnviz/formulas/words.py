"""The words of the formula language: which name means what, the same in every installation.

A method is called by its name alone, unless the language has that name for something else: then, and where the name is
none of Python's, it is ``attributions['name']``. So no plugin changes what a text means.
"""

from __future__ import annotations

import keyword
from typing import Any

from cnnviz.engine.layers import LayerAt
from cnnviz.engine.torch_functions import PLAIN
from cnnviz.formulas.baseline_contributions import along, baseline_score, compared
from cnnviz.formulas.baselines import backgrounds, baseline_input
from cnnviz.formulas.expectation import over
from cnnviz.formulas.layer_fusion import layer_maps
from cnnviz.formulas.sample_points import between, noisy, path
from cnnviz.formulas.terms import (
    activation,
    at,
    bias_share,
    gradient,
    image,
    noted,
    prediction,
    score,
    toward,
    upsample,
)
from cnnviz.run.box_target import box
from cnnviz.run.dense_targets import region
from cnnviz.run.objectives import (
    channel,
    class_score,
    closeness,
    diversity,
    feature_map,
    layer_energy,
    neuron,
    strongest,
)
from cnnviz.run.output_targets import against, value
from cnnviz.run.regularizers import alpha_norm, l2, total_variation

_FORMULAS: tuple[Any, ...] = (
    *(image, score, prediction, activation, gradient, bias_share, upsample, at, toward, noted, over, along, compared),
    *(baseline_score, baseline_input, layer_maps, path, noisy, between, backgrounds),
)
_OBJECTIVES: tuple[Any, ...] = (
    *(channel, neuron, strongest, feature_map, layer_energy, class_score, closeness, diversity, against, value),
    *(region, box, alpha_norm, l2, total_variation),
)
PARTS: dict[str, Any] = {
    **{part.called: part for part in _FORMULAS},
    **{part.__name__: part for part in _OBJECTIVES},
    "LayerAt": LayerAt,
}
"""What is called by a name, apart from methods and torch functions."""
PREFIXES = ("cnnviz.formulas.", "cnnviz.objectives.", "cnnviz.targets.", "cnnviz.")
"""What may stand before these names, as in Python."""
UNREADABLE: dict[str, str] = {
    "tensor": "a tensor is not in a formula's text; give the formula to explain in Python",
    "procedure": "a function of one's own is not in a formula's text; register it as a method, or use Python",
    "bias_maps": "it takes a function of one's own, which is not in a formula's text; use Python",
    "composite": "it is made of rules in Python; a text has the names of composites, such as 'epsilon_gamma_box'",
    "similar": "it reads a picture from a file, and a formula's text opens none; use Python",
    "direction": "it takes a tensor, which is not in a formula's text; use Python",
    "feature_distance": "it takes a tensor, which is not in a formula's text; use Python",
    "output_of": "it takes a function of one's own, which is not in a formula's text; use Python",
}
"""Names that formulas print and no text makes again, each with the reason."""
CONSTANTS = ("None", "True", "False", "INPUT")
_TAKEN = {*PARTS, *UNREADABLE, *CONSTANTS, *PLAIN, "attributions", "cnnviz", "torch", "rule"}


def method_text(name: str) -> str:
    """How a method is called in a formula."""
    if name in _TAKEN or not name.isidentifier() or keyword.iskeyword(name):
        return f"attributions[{name!r}]"
    return name


def part_named(name: str) -> Any:
    """What is called by this name, with or without what may stand before it; None for nothing."""
    if name in PARTS:
        return PARTS[name]
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
    short = name.removeprefix(prefix) if prefix else ""
    return PARTS.get(short) or (PARTS.get(f"cnnviz.{short}") if short else None)
