"""What the figures say of a method, in words: by rules that are the same for all, and are printed with the table."""

from __future__ import annotations

from collections.abc import Iterator

from cnnviz.testing.sanity.blind import BLIND
from cnnviz.testing.sanity.rows import Records, error_of_mean, mean, mean_of_networks, values

SAME, STEADFAST, CLASSLESS, ALIKE = 0.9, 0.7, 0.95, 0.7
ON_TAG, NEAR_TAG = 0.6, 0.3
UNSTEADY = 1.0
ERRORS = 2.0
"""So many standard errors apart are not by chance."""
FEWEST = 6

RULES = (
    "*does not depend on the weights*: with all weights random the map stays as it is: Spearman's correlation, a mean "
    f"over networks, is at least {SAME}.",
    "*hardly heeds the upper layers*: it stays with the quarter of layers next to the output random, at least "
    f"{STEADFAST}. Guided backprop is known for this.",
    f"*does not depend on the class*: it stays with the output layer alone random, at least {CLASSLESS}.",
    "*depends on the weights*: none of these three.",
    f"*does not depend on the labels*: a network that learned random labels has the same map (at least {ALIKE}).",
    "*finds the object*: area under the ROC curve and share of evidence on the drawn shape are both above those of "
    "every map that knows nothing.",
    "*points at the object*: only its peak is on the shape more often than theirs; *not above*: nor that.",
    f"*finds the tag*: at least {ON_TAG:.0%} of the evidence is on it; *half finds the tag*: at least {NEAR_TAG:.0%}.",
    "*the score follows it*: on photographs ROAD is above 0, and insertion minus deletion above chance's.",
    f"*unsteady*: a change of 2 % of the input's range changes the map by more than its own size ({UNSTEADY:g}).",
    f"A figure is *above* another if the mean of their differences on the same pictures is more than {ERRORS:g} "
    f"standard errors above zero. Fewer than {FEWEST} pictures are not enough to say so. Where the table says nothing "
    "about a method, nothing was found out.",
)


def verdict(records: Records, method: str) -> list[str]:
    """What can be said of a method."""
    weights = [] if method == "random" else _weights(records, method)  # chance is drawn anew for other weights
    return [*weights, *_places(records, method), *_score(records, method)]


def of_random_weights(output: float, quarter: float, all_layers: float) -> list[str]:
    """What is said of a map that is so like those with random weights in the output layer, the quarter, all layers."""
    if all_layers >= SAME:
        return ["does not depend on the weights"]
    said = ["hardly heeds the upper layers"] if quarter >= STEADFAST else []
    said += ["does not depend on the class"] if output >= CLASSLESS else []
    return said or ["depends on the weights"]


def _weights(records: Records, method: str) -> Iterator[str]:
    output, quarter, all_layers = (mean_of_networks(records, method, name) for name in ("output", "quarter", "all"))
    labels = mean(values(records, method, "labels"))
    if output is not None and quarter is not None and all_layers is not None:
        yield from of_random_weights(output, quarter, all_layers)
        if all_layers >= SAME:
            return
    if labels is not None and labels >= ALIKE:
        yield "does not depend on the labels"


def _places(records: Records, method: str) -> Iterator[str]:
    if values(records, method, "roc_auc"):
        area, mass, peak = (_beats_blind(records, method, name) for name in ("roc_auc", "mass_inside", "pointing_game"))
        if area and mass:
            yield "finds the object"
        elif peak:
            yield "points at the object"
        elif method not in BLIND:
            yield "not above the blind maps at the object"
    tag = mean(values(records, method, "on_tag"))
    if tag is not None and tag >= NEAR_TAG:
        yield "finds the tag" if tag >= ON_TAG else "half finds the tag"


def _score(records: Records, method: str) -> Iterator[str]:
    road = values(records, method, "road")
    if road and method not in BLIND:
        gains = _differences(records, method, "random", "insertion")
        losses = _differences(records, method, "random", "deletion")
        both = [gained - lost for gained, lost in zip(gains, losses, strict=True)]
        if _above_zero(road) and _above_zero(both):
            yield "the score follows it"
    moved = mean(values(records, method, "max_sensitivity"))
    if moved is not None and moved > UNSTEADY:
        yield "unsteady"


def _beats_blind(records: Records, method: str, figure: str) -> bool:
    return all(_above_zero(_differences(records, method, blind, figure)) for blind in BLIND)


def _differences(records: Records, method: str, other: str, figure: str) -> list[float]:
    """By how much a method's figure exceeds another's, on every picture that both were measured on."""
    names = dict.fromkeys(row.network for row in records.rows if figure in row.figures)
    pairs = [(values(records, method, figure, name), values(records, other, figure, name)) for name in names]
    return [one - two for own, others in pairs for one, two in zip(own, others, strict=False)]


def _above_zero(numbers: list[float]) -> bool:
    """Whether the mean is, by more than chance."""
    return len(numbers) >= FEWEST and sum(numbers) / len(numbers) > ERRORS * error_of_mean(numbers)
