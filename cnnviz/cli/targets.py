"""What ``--target`` means: a class, a regressed value, a contrast, a region, a box, or a channel of a layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cnnviz.engine.validation import whole_number
from cnnviz.run import objectives
from cnnviz.run.box_target import box
from cnnviz.run.dense_targets import region
from cnnviz.run.output_targets import against

FORMS = (
    "higher, lower, higher:2, near:0.5, against:CLASS,CLASS, region:CLASS, box:NUMBER, box:CLASS, or channel:LAYER:5 "
    "(also strongest, neuron, feature_map)"
)
_VALUE = re.compile(r"(higher|lower)(?::([0-9]+))?")
_NEAR = re.compile(r"near:(.+)")
_CHANNEL = re.compile(r"(channel|strongest|neuron|feature_map):(.+):([^:]*)")


_AGAINST = re.compile(r"against:([^,]+),([^,]+)")
_BEGUN = re.compile(r"(channel|strongest|neuron|feature_map|near|higher|lower|against|region|box):")
_OUTPUT = re.compile(r"(region|box):(.+)")


def separate_targets(texts: Sequence[str], categories: Sequence[str] | None) -> list[str]:
    """The targets in ``a,b`` and in repeated options, each once. Commas in a class's name, or in a form, stay."""
    names = {name.lower() for name in categories or ()}
    targets: list[str] = []
    for text in texts:
        whole = text.lower() in names or _BEGUN.match(text)
        targets += [text] if whole else [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(targets))


def label_of(text: str) -> str:
    """What stands for a target in the name of a file."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-") or "target"


def read_target(text: str | None) -> Any:
    """The target as ``explain`` takes it. Raises ValueError for a form begun and not finished."""
    if text is None:
        return None
    if match := _VALUE.fullmatch(text):
        score = objectives.class_score(int(match[2] or 0))
        return score if match[1] == "higher" else -score
    if match := _NEAR.fullmatch(text):
        try:
            return objectives.closeness(tuple(float(value) for value in match[1].split(",")))
        except ValueError:
            raise ValueError(f"--target near:VALUE takes a number, or several with commas, not {match[1]!r}") from None
    if match := _CHANNEL.fullmatch(text):
        if (number := whole_number(match[3])) is None:
            raise ValueError(f"--target {match[1]}:LAYER:NUMBER ends in the channel's number, not in {match[3]!r}")
        return getattr(objectives, match[1])(match[2], number)
    if match := _AGAINST.fullmatch(text):
        return against(_class(match[1]), _class(match[2]))
    if match := _OUTPUT.fullmatch(text):
        return {"region": region, "box": box}[match[1]](_class(match[2]))
    if _BEGUN.match(text):
        raise ValueError(f"--target {text} is not whole; it is a class, or {FORMS}")
    return text


def _class(text: str) -> int | str:
    """A class by number or name."""
    number = whole_number(text)
    return text.strip() if number is None else number
