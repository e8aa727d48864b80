"""Settings that make every attribution quick enough to be asked many times."""

from __future__ import annotations

from typing import Any

from cnnviz import attributions

FEW = {"samples": 3, "steps": 4, "masks": 8, "permutations": 2, "pieces": 4, "window": 4}
PARTICULAR: dict[str, dict[str, Any]] = {
    "extremal_perturbation": {"steps": 6, "lr": 8.0},  # with fewer or shorter steps the mask is still whole
    "kernel_shap": {"samples": 16},  # which it needs to tell pieces apart
    "projections": {"of": "gradient"},  # also of layers before the first rectifier
    "rise": {"cells": 2},
    "d_rise": {"cells": 2},
}
PERTURBING = {
    *("ablation_cam", "feature_ablation", "kernel_shap", "lime", "occlusion", "rise", "score_cam", "shapley_sampling"),
    *("d_rise",),
}
"""Those that ask for scores alone, and need no gradient."""
ATTENDING = {"attention_rollout", "grad_sam", "legrad", "transformer_attribution"}
"""Those that need a network with attention."""
OF_ANY_NETWORK = [name for name in attributions if name not in ATTENDING]
LEARNING = {"extremal_perturbation", "meaningful_perturbation"}
"""Those that learn a mask."""


def quick(name: str) -> dict[str, Any]:
    return {key: value for key, value in FEW.items() if key in attributions[name].settings} | PARTICULAR.get(name, {})
