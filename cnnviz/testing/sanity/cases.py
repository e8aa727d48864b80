"""The parts of the checks, each with its network, its pictures and its figures.

object: does the map lie on the drawn shape? tag: on the tag that gives the class away? weights: is it another map when
weights are random, in the output layer, the quarter of layers next to it, all of them, or single ones? labels: is it
another map for a network that learned random labels? photographs: does the score follow the map (insertion, deletion,
ROAD), and does the map stay when the picture is changed a little?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz import demo
from cnnviz.demo import drawing
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.evidence_maps import evidence
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.metric_context import Trial
from cnnviz.explanations.similarity import map_similarity
from cnnviz.registry.protocols import Attribution
from cnnviz.registry.registry import metrics

SEED = 11
DRAWN: dict[str, str] = {"object": "demo", "tag": "demo-shortcut", "weights": "demo", "labels": "demo"}
"""The parts that a bundled network answers, with its name."""
ATTENDING: dict[str, str] = {"object": demo.TRANSFORMER, "weights": demo.TRANSFORMER}
"""Those that a bundled transformer answers: methods that read attention can be asked of it alone."""
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
RANDOM_LABELS = "random-labels.safetensors"


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
    large: bool = False
    """Whether the network is asked one picture at a time, and what costs most is left out."""

    def figures(self, attribution: Attribution, start: int, stop: int) -> dict[str, list[float]]:
        """All figures of some of the pictures, a number for each picture. Raises for what can't be measured."""
        part = slice(start, stop)
        target = None if self.targets is None else self.targets[part]
        answer = explain(self.model, self.inputs[part], attribution, target=target)
        evidence(answer)  # of a method without one map for each picture this says so
        scores: dict[str, Callable[[Trial], Tensor]] = {
            figure: metrics[name](**settings)
            for figure, (name, settings) in FIGURES.get(self.part, {}).items()
            if figure not in DRAWN_ONLY or not self.large
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


def drawn_case(part: str, name: str, pictures: int, device: torch.device | None = None) -> Case:
    """A part's question to a bundled network, about so many drawn pictures."""
    drawn = drawing.draw(pictures, SEED, held_out=True, tag="true" if name == "demo-shortcut" else "none")
    places = drawn.tags if part == "tag" else drawn.masks
    other, remark = None, ""
    if part == "labels":
        other, share = learned_random_labels()
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


def learned_random_labels() -> tuple[nn.Module, float]:
    """The bundled network that learned random labels of drawn pictures, and the share of these that it gives."""
    from safetensors import safe_open

    module = demo.untrained("demo")
    with (
        as_file(files("cnnviz.testing.sanity") / RANDOM_LABELS) as path,
        safe_open(path, framework="pt") as weights,
    ):
        module.load_state_dict({key: weights.get_tensor(key).float() for key in weights.keys()})  # noqa: SIM118
        share = float(weights.metadata()["learned"])
    return module.eval(), share


def own_cases(name: str, model: nn.Module, inputs: Tensor) -> list[Case]:
    """The parts that any network can answer, about inputs (N, C, *spatial) of its own."""
    return [Case(part, name, model, inputs, large=True) for part in ("weights", "photographs")]
