"""What ``--target`` means: a class, a regressed value, or a channel of a layer."""

from __future__ import annotations

import re
from typing import Any

FORMS = "higher, lower, higher:2, near:0.5, or channel:LAYER:5 (also strongest, neuron, feature_map)"
_VALUE = re.compile(r"(higher|lower)(?::(\d+))?")
_NEAR = re.compile(r"near:(.+)")
_PLACE = re.compile(r"(channel|strongest|neuron|feature_map):(.+):([^:]*)")


def read_target(text: str | None) -> Any:
    """The target as ``explain`` takes it. Raises ValueError for a form begun and not finished."""
    if text is None:
        return None
    if found := _VALUE.fullmatch(text):
        from cnnviz.run.objectives import class_score

        score = class_score(int(found[2] or 0))
        return score if found[1] == "higher" else -score
    if found := _NEAR.fullmatch(text):
        from cnnviz.run.objectives import closeness

        try:
            values = tuple(float(each) for each in found[1].split(","))
        except ValueError:
            raise ValueError(f"--target near:VALUE takes a number, or several with commas, not {found[1]!r}") from None
        return closeness(values)
    if found := _PLACE.fullmatch(text):
        from cnnviz.run import objectives

        if not found[3].isdigit():
            raise ValueError(f"--target {found[1]}:LAYER:NUMBER ends in the channel's number, not in {found[3]!r}")
        return getattr(objectives, found[1])(found[2], int(found[3]))
    if re.match(r"(channel|strongest|neuron|feature_map|near):", text):
        raise ValueError(f"--target {text} is not whole; it is a class, or {FORMS}")
    return text
