"""What an audit found, in sentences: one for each finding, and none where there is nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cnnviz.datasets.findings.heat_shares import CORNERS, EDGES
from cnnviz.datasets.findings.map_clusters import Cluster, place_name
from cnnviz.datasets.findings.repeated_places import RepeatedPlace
from cnnviz.explanations.tables import ERROR, Table

TIMES = 1.5
"""How many times its part of the picture a region has of the heat, to be told."""
ERRORS = 4.0
"""By how many standard errors: the chance is 1 in 30,000 for each region and class."""
WIDEST = 3
"""Classes that are named in one sentence."""


def stands_out(row: Mapping[str, Any]) -> bool:
    """True for a region with at least 1.5 times a uniform map's share of the heat, by 4 standard errors."""
    error = row["share" + ERROR]
    if row["times"] is None or error is None:
        return False
    return bool(row["times"] >= TIMES and row["share"] - row["uniform"] > ERRORS * error)


def region_sentences(table: Table, everything: str, of: int) -> list[str]:
    """Of corners and edges that have more heat than their size, in all pictures or in a class more than in all."""
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for row in table:
        by_name.setdefault(row["class"], {})[row["region"]] = row
    sentences = []
    whole = by_name[everything]
    for group, parts in (("corners", CORNERS), ("edges", EDGES)):
        if stands_out(whole[group]):
            several = [part for part in parts if stands_out(whole[part])]
            times = [whole[part]["times"] for part in several]
            each = ""
            if len(several) == 1:
                each = f", most of it in the {several[0]}: {percent(whole[several[0]]['share'])}"
            elif several:
                each = f"; {_list(several)} each have {_between(times)} times their part"
            sentences.append(f"{_heat(whole[group])} of the heat of all {of:,} pictures lies {_in(group)}{each}.")
        else:
            sentences += [
                f"{_heat(whole[part])} of the heat of all {of:,} pictures lies {_in(part)}."
                for part in parts
                if stands_out(whole[part])
            ]
    told: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, rows in by_name.items():
        if name == everything:
            continue
        for region in ("corners", *CORNERS, "edges", *EDGES):
            row, usual = rows[region], whole[region]
            more = row["share"] is not None and row["share"] > TIMES * usual["share"]
            if more and stands_out(row) and row["share"] - usual["share"] > ERRORS * row["share" + ERROR]:
                told.setdefault(name, []).append((region, row))
    for name, found in told.items():
        region, row = max(found, key=lambda pair: pair[1]["times"])
        usual_share = percent(whole[region]["share"])
        sentences.append(
            f"{quoted(name)}: {_heat(row)} of its heat lies {_in(region)}, and {usual_share} in all pictures."
        )
    return sentences


def cluster_sentences(
    clusters: Sequence[Cluster], classes: Sequence[str], total: int, right: Sequence[bool | None]
) -> list[str]:
    """Of clusters of maps: those of one place, then those that are spread; the usual maps are no finding."""
    places = [each for each in clusters if each.is_one_place and each.is_finding]
    sentences = []
    if len(places) > 1:
        number = sum(len(each.members) for each in places)
        where = Counter(each.place for each in places)
        named = _list([f"{name} ({count} clusters)" if count > 1 else name for name, count in where.items()])
        sentences.append(
            f"{number:,} of {total:,} pictures form {len(places)} clusters of one place each: {named}. Something there "
            "may decide the class by itself."
        )
    for each in places:
        sentences.append(
            f"{len(each.members):,} pictures {_classes(each, classes)} have {percent(each.share)} of their heat in one "
            f"place, the {each.place}, which is {percent(1 / 16)} of the picture; their maps are "
            f"{_times(each.apart)} from other maps as from each other{_right(each, right)}."
        )
    for each in clusters:
        if not each.is_one_place and each.is_finding:
            sentences.append(
                f"{len(each.members):,} pictures {_classes(each, classes)} have maps like each other and unlike the "
                f"rest, spread over more than one place: {_times(each.apart)} from other maps as from each "
                f"other{_right(each, right)}."
            )
    return sentences


def repeated_sentences(places: Sequence[RepeatedPlace], side: int) -> list[str]:
    """Of places that are hot again and again in one class."""
    sentences = []
    for place in places:
        rows, columns = zip(*place.cells, strict=True)
        centre = (sum(rows) / len(rows) + 0.5) / side, (sum(columns) / len(columns) + 0.5) / side
        sentences.append(
            f"{quoted(place.name)}: the same place is hot in {percent(place.share)} of its {place.of:,} pictures, "
            f"{percent(centre[0])} from the top and {percent(centre[1])} from the left ({place_name(centre)}); in "
            f"{percent(place.elsewhere)} of other classes', and {percent(place.chance)} would be chance "
            f"(p < {_probability(place.p)})."
        )
    return sentences


def inside_sentences(table: Table, everything: str) -> list[str]:
    """How much heat lies inside of the annotated evidence, and of which classes less than elsewhere in the picture."""
    whole = next(row for row in table if row["class"] == everything)
    if whole["share"] is None:
        return []
    sentences = [
        f"{percent(whole['share'])} of the heat of {whole['pictures']:,} pictures lies inside of their masks, which "
        f"are {percent(whole['uniform'])} of the picture ({whole['times'] or 0:.1f} times)."
    ]
    for row in table:
        error = row["share" + ERROR]
        if row is whole or row["share"] is None or error is None:
            continue
        if whole["share"] - row["share"] > max(ERRORS * error, 0.1):
            sentences.append(
                f"{quoted(row['class'])}: {percent(row['share'])} of its heat lies inside of its masks, less than in "
                "all pictures."
            )
    return sentences


def nothing_sentence(table: Table, everything: str, of: int) -> str:
    """What is said where nothing was found."""
    whole = {row["region"]: row for row in table if row["class"] == everything}
    if whole["corners"]["share"] is None:
        return "no picture has a map with heat, so that there is nothing to tell."
    return (
        f"nothing stands out in {of:,} pictures: the corners have {percent(whole['corners']['share'])} of the heat "
        f"({percent(whole['corners']['uniform'])} of the picture), no maps form a cluster of their own, and no place "
        "is hot in one class more than in others."
    )


def percent(share: float) -> str:
    """A share as it is read: ``87 %``, below one in a hundred ``0.3 %``."""
    return f"{100 * share:.1f} %" if 0 < share < 0.00995 else f"{100 * share:.0f} %"


def quoted(name: str) -> str:
    """The name of a class in a sentence, on one line."""
    return f"'{' '.join(name.split())}'"


def _heat(row: Mapping[str, Any]) -> str:
    return f"{percent(row['share'])} ({row['times']:.1f} times its part of the picture, {percent(row['uniform'])})"


def _in(region: str) -> str:
    return f"in the {region}" if "corner" in region else f"at the {region}"


def _times(apart: float) -> str:
    if apart == float("inf"):
        return "the same, and as far as any"
    return f"{apart:.1f} times as far" if apart < 10 else f"{apart:.0f} times as far"


def _classes(cluster: Cluster, classes: Sequence[str]) -> str:
    counts = Counter(classes[number] for number in cluster.members)
    if len(counts) > WIDEST:
        return f"of {len(counts)} classes"
    return "of " + _list([f"{quoted(name)} ({count:,})" for name, count in counts.most_common()])


def _right(cluster: Cluster, right: Sequence[bool | None]) -> str:
    own = [right[number] for number in cluster.members if right[number] is not None]
    inside = set(cluster.members)
    rest = [each for number, each in enumerate(right) if number not in inside and each is not None]
    if not own or not rest:
        return ""
    return f"; {percent(sum(map(bool, own)) / len(own))} of them are classified right, and " + (
        f"{percent(sum(map(bool, rest)) / len(rest))} of the others"
    )


def _probability(p: float) -> str:
    return "1e-12" if p < 1e-12 else f"{p * 1.05:.1g}"


def _between(times: Sequence[float]) -> str:
    low, high = f"{min(times):.1f}", f"{max(times):.1f}"
    return low if low == high else f"{low} to {high}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
