"""The parts of the benchmark, each with its networks, its pictures and its figures.

object: does the map lie on the drawn shape? tag: on the tag that gives the class away? weights: is it another map when
weights are random, in the output layer, the quarter of layers next to it, all of them, or single ones? labels: is it
another map for a network that learned random labels? photographs: does the score follow the map (insertion, deletion,
ROAD), and does the map stay when the picture is changed a little?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from benchmarks import networks
from benchmarks.training import learned_by_heart
from cnnviz import Attribution, Explanation, Trial, demo, evaluate, explain, metrics
from cnnviz.demo import drawing
from cnnviz.explanations import evidence
from cnnviz_plugins.metrics._map_similarity import map_similarity

SEED = 11
TRAINED = ("squeezenet1_0", "mobilenet_v2")
PARTS: dict[str, tuple[str, ...]] = {
    "object": ("demo",),
    "tag": ("demo-shortcut",),
    "weights": ("demo", *TRAINED),
    "labels": ("demo",),
    "photographs": TRAINED,
}
NETWORKS = ("demo", "demo-shortcut", *TRAINED)
FIGURES: dict[str, Mapping[str, tuple[str, dict[str, Any]]]] = {
    "object": {name: (name, {}) for name in ("roc_auc", "mass_inside", "pointing_game", "mask_iou")},
    "tag": {"on_tag": ("mass_inside", {})},
    "weights": {
        "output": ("randomization", {"stops": 1, "share": 1e-9}),
        "quarter": ("randomization", {"stops": 1, "share": 0.25}),
        "all": ("randomization", {"stops": 1}),
        "single": ("randomization", {"stops": 3, "order": "independent"}),
    },
    "photographs": {
        "insertion": ("insertion", {"step": 0.1}),
        "deletion": ("deletion", {"step": 0.1}),
        "road": ("road", {"step": 0.2}),
        "max_sensitivity": ("max_sensitivity", {"samples": 3}),
    },
}
"""By part and figure the metric and its settings; the labels' figure is this file's own."""
DRAWN_ONLY = ("single",)  # of large networks it would take as long as all the rest


@dataclass(frozen=True, eq=False)
class Case:
    """A network with the pictures that it is asked about."""

    part: str
    network: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor | None = None
    """None: what the network predicts."""
    masks: Tensor | None = None
    other: nn.Module | None = None
    """The network that learned random labels."""
    remark: str = ""

    def figures(self, attribution: Attribution, start: int, stop: int) -> dict[str, list[float]]:
        """All figures of some of the pictures, a number for each picture. Raises for what can't be measured."""
        part = slice(start, stop)
        target = None if self.targets is None else self.targets[part]
        answer = explain(self.model, self.inputs[part], attribution, target=target)
        evidence(answer)  # of a method without one map for each picture this says so
        scores: dict[str, Callable[[Trial], Tensor]] = {
            figure: metrics[name](**settings)
            for figure, (name, settings) in FIGURES.get(self.part, {}).items()
            if figure not in DRAWN_ONLY or self.network not in TRAINED
        }
        if self.other is not None:
            scores["labels"] = self._labels
        masks = None if self.masks is None else self.masks[part]
        return {name: evaluate(answer, score, masks=masks, model=self.model).tolist() for name, score in scores.items()}

    def _labels(self, trial: Trial) -> Tensor:
        """How alike the map is to that of the network that learned random labels: Spearman's correlation."""
        values = trial.again(model=self.other)
        target, score = trial.explanation.target, trial.explanation.score
        others = evidence(Explanation(values, trial.explanation.inputs, target, score, trial.explanation.recipe))
        pairs = zip(trial.evidence, others, strict=True)
        alike = [map_similarity("spearman", *pair) for pair in pairs]
        return torch.tensor(alike, dtype=torch.float64, device=values.device)


def case(part: str, name: str, pictures: int, photographs: int, size: int, device: torch.device) -> Case:
    """A part's question to one network. Raises FileNotFoundError where trained weights or photographs are missing."""
    if name in TRAINED:
        weights = networks.weights_of(name)
        if not weights.is_file() or len(networks.photographs()) < photographs:
            missing = networks.ASSETS if weights.is_file() else weights
            raise FileNotFoundError(f"{missing} has not what {name} needs: weights, and {photographs} photographs")
        inputs = networks.pictures(photographs, size, spread=True).to(device)
        model, remark = networks.network(name, device).module, ""
        if isinstance(model, SqueezeNet) and part == "weights":
            # random scores are negative as often as not, and where a ReLU ends the network nothing passes it then
            model.classifier[2] = nn.Identity()
            remark = "SqueezeNet's random weights are asked without the ReLU that its scores end in"
        return Case(part, name, model, inputs, remark=remark)
    drawn = drawing.draw(pictures, SEED, held_out=True, tag="true" if name == "demo-shortcut" else "none")
    places = drawn.tags if part == "tag" else drawn.masks
    other, remark = None, ""
    if part == "labels":
        other, share = learned_by_heart()
        other, remark = other.to(device), f"for the labels the other network gives {share:.1%} of its random labels"
    return Case(
        part,
        name,
        demo.network(name).to(device),
        demo.as_inputs(drawn.pictures).to(device),
        torch.from_numpy(drawn.labels).to(device),
        torch.from_numpy(places).to(device),
        other,
        remark,
    )
