"""Whether a method's maps of any network depend on what that learned: the check of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox, opaque_part
from cnnviz.engine.validation import as_network
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.evidence_maps import evidence
from cnnviz.explanations.explain import explain
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution
from cnnviz.registry.registry import metrics
from cnnviz.run.targets import Target
from cnnviz.testing.sanity.cases import FIGURES
from cnnviz.testing.sanity.reasons import ANY, reason
from cnnviz.testing.sanity.verdicts import FEWEST, of_random_weights

WEIGHTS = {"output": "the output layer", "quarter": "the quarter of layers next to the output", "all": "all layers"}


@dataclass(frozen=True)
class ModelVerdict:
    """What random weights tell of a method on one network."""

    method: str
    """As it prints, with its settings."""
    sentences: tuple[str, ...]
    """The verdict, in the words of the documentation's page on sanity checks; empty where there is none."""
    figures: Mapping[str, float]
    """Mean similarity of the maps to those with random weights in "output", "quarter" and "all" layers, -1 to 1."""
    pictures: int
    """On how many pictures it rests."""
    untold: str = ""
    """Why there is no verdict, or what it does not tell."""

    def __str__(self) -> str:
        return "; ".join([", ".join(self.sentences) or "no verdict", *filter(None, [self.untold])])


def check_on_model(
    model: nn.Module | LoadedModel,
    inputs: Tensor,
    attribution: str | Attribution,
    *,
    target: Target = None,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
) -> ModelVerdict:
    """Do a method's maps depend on what the network learned (Adebayo et al., 2018, arXiv:1810.03292)?

    The maps are compared, by the correlation of their ranks, with those of a copy of the network whose weights are
    random: in the output layer, in the quarter of layers next to it, in all layers. The rules and the words are those
    of the documentation's page on sanity checks. It costs four explanations of each picture. The network is only read.

    Args:
        model: the network; what has no weights that can be made random gets no verdict.
        inputs: (N, C, *spatial). With fewer than 6 the verdict is about these pictures.
        attribution, target, preprocessing, seed: as for :func:`cnnviz.explain`.

    Raises:
        ValueError, TypeError, LookupError: where the method can't explain these inputs at all.
    """
    answer = explain(model, inputs, attribution, target=target, preprocessing=preprocessing, seed=seed)
    if not isinstance(answer, Explanation):
        raise TypeError(f"a verdict is of one explanation of each input, not of a {type(answer).__name__}")
    network = as_network(model.module if isinstance(model, LoadedModel) else model)
    if isinstance(network, BlackBox) or opaque_part(network) is not None:
        return ModelVerdict(answer.recipe, (), {}, 0, "the network is a black box, whose weights can't be made random")
    try:
        shown = evidence(answer).flatten(1).any(1)
        scores = [metrics[name](**settings) for name, settings in (FIGURES["weights"][each] for each in WEIGHTS)]
        found = evaluate(answer, scores, model=network, target=target)
    except ANY as error:
        return ModelVerdict(answer.recipe, (), {}, 0, reason(error))
    alike = {name: values.cpu() for name, values in zip(WEIGHTS, found.values(), strict=True)}
    return _verdict(answer.recipe, shown.cpu(), alike)


def _verdict(method: str, shown: Tensor, alike: Mapping[str, Tensor]) -> ModelVerdict:
    """Of similarities (N,) in each figure. Maps that are zero everywhere, of which ``shown`` is False, tell nothing."""
    count = int(shown.sum())
    if not count:
        return ModelVerdict(method, (), {}, 0, "its maps are zero everywhere")
    counted = {name: values[shown] for name, values in alike.items()}
    figures = {name: float(values.mean()) for name, values in counted.items()}
    # exactly 0 is the similarity to a map without any evidence: one that random weights cut off, not another map
    blank = next((name for name, values in counted.items() if 2 * int((values == 0).sum()) > count), None)
    if blank is not None:
        told = f"with random weights in {WEIGHTS[blank]} most maps are zero everywhere, which tells nothing"
        return ModelVerdict(method, (), figures, count, told)
    few = f"on {count} picture{'s' * (count > 1)} only, which tells little of others" if count < FEWEST else ""
    return ModelVerdict(method, tuple(of_random_weights(*figures.values())), figures, count, few)
