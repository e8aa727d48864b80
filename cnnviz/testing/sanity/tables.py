"""How figures and verdicts are written in tables."""

from __future__ import annotations

from cnnviz.testing.sanity.blind import BLIND

WEIGHTS = ("output", "quarter", "all", "single")
PHOTOGRAPHS = ("insertion", "deletion", "road", "max_sensitivity")
TITLES = {
    "roc_auc": "ROC area",
    "mass_inside": "on the shape",
    "pointing_game": "peak on it",
    "mask_iou": "IoU",
    "on_tag": "on the tag",
    "output": "output layer",
    "quarter": "upper quarter",
    "all": "all layers",
    "single": "single layers",
    "labels": "labels",
    "insertion": "insertion",
    "deletion": "deletion",
    "road": "ROAD",
    "max_sensitivity": "max-sensitivity",
}


def label(method: str) -> str:
    return f"({method})" if method in BLIND else method
