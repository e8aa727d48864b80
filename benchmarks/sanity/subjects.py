"""What is put to the test: every attribution, expensive ones with cheap settings, and the blind maps."""

from __future__ import annotations

from typing import Any

import cnnviz
from cnnviz import Attribution
from cnnviz.demo import TRANSFORMER
from cnnviz.testing.sanity.blind import BLIND, blind

CHEAP: dict[str, dict[str, Any]] = {
    "ablation_cam": {"channels": 32},
    "expected_gradients": {"samples": 12},
    "extremal_perturbation": {"steps": 30},
    "feature_ablation": {"pieces": 40},
    "gradient_shap": {"samples": 12},
    "integrated_gradients": {"steps": 12},
    "kernel_shap": {"samples": 100, "pieces": 40},
    "lime": {"samples": 100, "pieces": 40},
    "meaningful_perturbation": {"steps": 40},
    "rise": {"masks": 100},
    "d_rise": {"masks": 100},
    "score_cam": {"channels": 32},
    "shapley_sampling": {"permutations": 2, "pieces": 40},
    "smoothgrad": {"samples": 8},
    "smoothgrad_squared": {"samples": 8},
    "vargrad": {"samples": 8},
}


FINE = "layer_cam at layer1"
"""At a shallow layer, as its authors use it to find small things; asked about the tag only."""


ATTENDING = ("attention_rollout", "grad_sam", "legrad", "transformer_attribution")
"""They read attention, which only the bundled transformer has."""


def known() -> list[str]:
    """The names of all subjects, blind ones first."""
    return [*BLIND, *cnnviz.attributions, FINE]


def asked(name: str, part: str, network: str) -> bool:
    """Whether a part asks this of the network: what reads attention of the transformer alone, and blind maps of all."""
    return (part == "tag" or name != FINE) and (name in BLIND or (name in ATTENDING) == (network == TRANSFORMER))


def subject(name: str, side: int, thorough: bool = False) -> tuple[Attribution, str]:
    """An attribution for pictures of that side, and how it is written; ``thorough``: with its own defaults."""
    if name in BLIND:
        return blind(name), name
    if name == FINE:
        return cnnviz.attributions["layer_cam"](layer="layer1"), "layer_cam(layer='layer1')"
    method = cnnviz.attributions[name]
    settings = {} if thorough else {key: value for key, value in CHEAP.get(name, {}).items() if key in method.settings}
    if name == "occlusion" and not thorough:
        settings = {"stride": side // 7}  # windows side by side, where they overlap by half
    return method(**settings), f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"
