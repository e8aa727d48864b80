"""Verdicts and figures of a few methods: as Markdown for a README, and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

from cnnviz.explanations.tables import Table
from cnnviz.testing.sanity.rows import Records, Row, error_of_mean, mean_of_networks, values
from cnnviz.testing.sanity.tables import TITLES, label
from cnnviz.testing.sanity.verdicts import RULES, verdict

MEANINGS = {
    "object": "the map and the drawn shape",
    "tag": "the share of evidence on the tag that a network reads",
    "weights": "Spearman's correlation with maps of random weights, 1 is the same map",
    "labels": "the same, with a network that learned random labels",
    "photographs": "how the score follows the map, and how far the map moves as the picture moves a little",
}
FIGURES_OF = {
    "object": ("roc_auc", "mass_inside", "pointing_game", "mask_iou"),
    "tag": ("on_tag",),
    "weights": ("output", "quarter", "all", "single"),
    "labels": ("labels",),
    "photographs": ("insertion", "deletion", "road", "max_sensitivity"),
}


def markdown(found: Records, methods: Collection[str], command: str) -> str:
    """The page: a verdict for each method, its figures beside those of maps that know nothing, how it was measured."""
    verdicts = Table({"map": name, "verdict": ", ".join(verdict(found, name)) or "nothing"} for name in methods)
    parts = ["## Sanity checks", verdicts.markdown().rstrip()]
    figures = [name for name in TITLES if any(name in row.figures for row in found.rows)]
    if figures:
        parts.append(_figures(found, methods, figures).markdown().rstrip())
        told = dict.fromkeys(row.part for row in found.rows)
        parts.append("\n".join(f"- {_titles(part)}: {MEANINGS[part]}." for part in told))
    parts += [
        f"- Left out: {entry.method}, {entry.part} of {entry.network}: {entry.reason}" for entry in found.left_out
    ]
    parts.append("Maps in brackets know nothing of the network. The verdicts follow these rules:")
    parts.append("\n".join(f"- {rule}" for rule in RULES))
    parts.append(f"Measured with {_versions()} by `{command}`: {'; '.join(_pictures(found, methods))}.")
    return "\n\n".join(parts) + "\n"


def document(found: Records, methods: Collection[str], command: str) -> dict[str, Any]:
    """The same as plain values."""
    rows = []
    for name in methods:
        own = [row for row in found.rows if row.method == name]
        figures = _measured(found, name)
        rows.append(
            {
                "method": name,
                "verdict": verdict(found, name),
                "figures": {figure: mean_of_networks(found, name, figure) for figure in figures},
                "errors": {figure: _error(found, name, figure) for figure in figures},
                "parts": [
                    {"part": row.part, "network": row.network, "pictures": row.pictures, "seconds": row.seconds}
                    for row in own
                ],
                "left_out": [
                    {"part": entry.part, "network": entry.network, "reason": entry.reason}
                    for entry in found.left_out
                    if entry.method == name
                ],
            }
        )
    beside = [
        {"map": name, "figures": {each: mean_of_networks(found, name, each) for each in _measured(found, name)}}
        for name in dict.fromkeys(row.method for row in found.rows if row.method not in methods)
    ]
    return {"command": command, "versions": _versions(), "methods": rows, "blind": beside, "rules": list(RULES)}


def _figures(found: Records, methods: Collection[str], figures: Collection[str]) -> Table:
    names = [*methods, *dict.fromkeys(row.method for row in found.rows if row.method not in methods)]
    table = Table()
    for name in names:
        cells: dict[str, Any] = {"map": label(name)}
        for figure in figures:
            average = mean_of_networks(found, name, figure)
            cells[TITLES[figure]] = "" if average is None else f"{average:.2f}"
        table.append(cells)
    return table


def _titles(part: str) -> str:
    return ", ".join(TITLES[figure] for figure in FIGURES_OF[part])


def _versions() -> str:
    return f"cnnviz {version('cnnviz')} and torch {version('torch')}"


def _pictures(found: Records, methods: Collection[str]) -> list[str]:
    """For each part on how many pictures, and in which time."""

    def told(rows: list[Row]) -> str:
        counts = {row.pictures for row in rows}
        count = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        return f"{count} pictures, {sum(row.seconds for row in rows):.0f} s"

    parts = dict.fromkeys((row.part, row.network) for row in found.rows if row.method in methods)
    return [
        f"{part} of {network}, "
        + told([row for row in found.rows if row.method in methods and (row.part, row.network) == (part, network)])
        for part, network in parts
    ] or ["nothing"]


def _measured(found: Records, name: str) -> list[str]:
    return [figure for figure in TITLES if values(found, name, figure)]


def _error(found: Records, name: str, figure: str) -> float | None:
    """The standard error of a figure's mean; None of several networks, or of one picture."""
    networks = {row.network for row in found.rows if row.method == name and figure in row.figures}
    numbers = values(found, name, figure)
    return error_of_mean(numbers) if len(networks) == 1 and len(numbers) > 1 else None
