"""Checks of settings that several metrics have."""

from __future__ import annotations

from typing import Literal

Scale = Literal["probability", "score"]


def check_choice(name: str, value: str, *choices: str) -> None:
    """Raises ValueError, which names the choices, for a value that is none of them."""
    if value not in choices:
        listed = f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
        raise ValueError(f"there is no {name}={value!r}; use {listed}")


def check_curve(step: float, scale: str) -> None:
    """Raises ValueError for a ``step`` that is no share of the places, or an unknown ``scale``."""
    if not 0 < step <= 1:
        raise ValueError(f"step={step:g} is no share of the places; use more than 0, and up to 1")
    check_choice("scale", scale, "probability", "score")
