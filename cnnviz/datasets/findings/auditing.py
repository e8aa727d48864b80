"""What a data set says about a network: where the heat of its maps lies, by class, and which maps are exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnviz.datasets.findings import verdicts
from cnnviz.datasets.findings.heat_shares import SIZE, inside_table, region_table, unit_maps
from cnnviz.datasets.findings.map_clusters import Cluster, cluster_maps, clusters_of, typical_and_strange
from cnnviz.datasets.findings.repeated_places import RepeatedPlace, repeated_places
from cnnviz.explanations.tables import Table
from cnnviz.images.in_notebooks import InNotebooks

if TYPE_CHECKING:
    from cnnviz.explanations.evidence_maps import Sign
    from cnnviz.explanations.explanation import Explanation

EVERYTHING = "all pictures"
UNKNOWN = "(no class)"
MOST = 50_000
"""Maps of an audit; of more, as many are chosen evenly."""
SENTENCES = 12
"""Sentences of one kind in a verdict."""
EXAMPLES = 4
"""Typical and strange pictures of each class."""


@dataclass(frozen=True, eq=False)
class Audit(InNotebooks):
    """What many maps of a method say together; prints as its verdict, one sentence for each finding."""

    method: str
    by: str
    """Which class is meant: "label", the true one, or "predicted"."""
    ids: tuple[str, ...]
    """Of the items, (n,)."""
    classes: tuple[str, ...]
    """The class of each item by name, (n,)."""
    maps: NDArray[np.float32]
    """Where the heat of each item lies: (n, 16, 16), not negative, with a sum of 1; all 0 for a map without heat."""
    labels: NDArray[np.int64]
    """The cluster of each item, (n,); -1 for an item of none."""
    clusters: tuple[Cluster, ...]
    """Those of one place first, then those that are spread, then those that are no finding: most maps."""
    repeated: tuple[RepeatedPlace, ...]
    """Places that are hot in one class again and again."""
    inside: Table
    """For each class, the share of its heat inside of the masks; no rows without masks."""
    right: tuple[bool | None, ...]
    """Whether each item was classified right; None where that is not known."""
    of: int
    """How many answered items there are; more than ``ids`` if some were chosen."""
    explanation_of: Callable[[int], Explanation] | None = field(default=None, repr=False)
    """The explanation of an item by its number here, for pictures."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that occur, those of most pictures first."""
        counts: dict[str, int] = {}
        for name in self.classes:
            counts[name] = counts.get(name, 0) + 1
        return tuple(sorted(counts, key=lambda name: (name == UNKNOWN, -counts[name], name)))

    def members(self, name: str) -> NDArray[np.bool_]:
        """Which items are of a class, (n,)."""
        return np.array([each == name for each in self.classes], np.bool_)

    @cached_property
    def regions(self) -> Table:
        """A row for each class and region: the mean share of heat in it, and how many times a uniform map's."""
        everyone = {EVERYTHING: np.ones(len(self), np.bool_)}
        return region_table(self.maps, everyone | {name: self.members(name) for name in self.names})

    @cached_property
    def places(self) -> Table:
        """A row for each place that is hot in one class again and again."""
        return Table(
            {
                "class": each.name,
                "pictures": each.of,
                "row": min(row for row, _ in each.cells),
                "column": min(column for _, column in each.cells),
                "cells": len(each.cells),
                "hot_in": each.pictures,
                "share": each.share,
                "elsewhere": each.elsewhere,
                "chance": each.chance,
                "p": each.p,
            }
            for each in self.repeated
        )

    @cached_property
    def cluster_table(self) -> Table:
        """A row for each cluster: how many pictures and classes it has, and where its heat lies."""
        return Table(
            {
                "cluster": each.number,
                "place": each.place if each.is_one_place else "spread",
                "pictures": len(each.members),
                "classes": len({self.classes[number] for number in each.members}),
                "from_top": each.centre[0],
                "from_left": each.centre[1],
                "share": each.share,
                "apart": each.apart if np.isfinite(each.apart) else None,
                "usual": each.usual,
            }
            for each in self.clusters
        )

    @cached_property
    def examples(self) -> Mapping[str, tuple[list[int], list[int]]]:
        """For each class the numbers of its most typical items, and of its strangest."""
        return {name: typical_and_strange(self.maps, self.members(name), EXAMPLES) for name in self.names}

    @property
    def mean_maps(self) -> dict[str, NDArray[np.float32]]:
        """The mean map (16, 16) of all items and of each class, of those that have heat."""
        everyone = {EVERYTHING: np.ones(len(self), np.bool_)} | {name: self.members(name) for name in self.names}
        hot = self.maps.any((1, 2))
        return {
            name: self.maps[chosen & hot].mean(0) if (chosen & hot).any() else np.zeros_like(self.maps[0])
            for name, chosen in everyone.items()
        }

    @property
    def blank(self) -> int:
        """How many maps have no heat."""
        return int((~self.maps.any((1, 2))).sum())

    @cached_property
    def verdict(self) -> tuple[str, ...]:
        """One sentence for each finding, with its numbers; where there is none, one that says so."""
        sentences = [
            *some(verdicts.cluster_sentences(self.clusters, self.classes, len(self), self.right), "clusters"),
            *some(verdicts.region_sentences(self.regions, EVERYTHING, len(self) - self.blank), "regions"),
            *some(verdicts.repeated_sentences(self.repeated, self.maps.shape[1]), "places"),
        ]
        sentences = sentences or [verdicts.nothing_sentence(self.regions, EVERYTHING, len(self) - self.blank)]
        sentences += some(verdicts.inside_sentences(self.inside, EVERYTHING), "classes") if self.inside else []
        if self.blank:
            sentences.append(f"{self.blank:,} of {len(self):,} maps have no heat, and count in no share.")
        if self.of > len(self):
            sentences.append(f"{len(self):,} of {self.of:,} pictures were looked at, chosen evenly.")
        return tuple(sentence[0].upper() + sentence[1:] for sentence in sentences)

    def document(self) -> dict[str, Any]:
        """All that was found, for JSON."""
        examples = {
            name: {"typical": [self.ids[each] for each in typical], "strange": [self.ids[each] for each in strange]}
            for name, (typical, strange) in self.examples.items()
        }
        clusters = [
            row | {"ids": [self.ids[number] for number in each.members]}
            for row, each in zip(self.cluster_table, self.clusters, strict=True)
        ]
        return {
            "method": self.method,
            "by": self.by,
            "pictures": len(self),
            "of": self.of,
            "blank": self.blank,
            "verdict": list(self.verdict),
            "regions": list(self.regions),
            "inside": list(self.inside),
            "places": list(self.places),
            "clusters": clusters,
            "examples": examples,
        }

    def report(self, path: str | Path) -> Path:
        """Write what was found: a page that needs nothing else (``.html``), or one picture (``.png``, ``.jpg``, ...).

        The page has thumbnails of the pictures where they can be read, and asks nothing of the network. Returns the
        path. Raises ValueError for another suffix, OSError where it can't be written.
        """
        from cnnviz.datasets.findings.audit_report import write_report

        return write_report(self, Path(path))

    def __repr__(self) -> str:
        head = f"Audit of {len(self):,} maps by {self.method}, by {self.by} class"
        return "\n".join([head, *(f"- {sentence}" for sentence in self.verdict)])


def some(sentences: list[str], kind: str) -> list[str]:
    """The first of many sentences, and one that tells how many there are more."""
    more = len(sentences) - SENTENCES
    return (
        sentences if more <= 0 else [*sentences[:SENTENCES], f"{more:,} more {kind} stand out; the tables have them."]
    )


def audit_maps(
    heat: NDArray[Any],
    classes: Sequence[str | None],
    *,
    ids: Sequence[str] | None = None,
    masks: NDArray[Any] | None = None,
    masked: NDArray[np.bool_] | None = None,
    native: tuple[int, int] | None = None,
    right: Sequence[bool | None] | None = None,
    method: str = "maps",
    by: str = "label",
    of: int | None = None,
    explanation_of: Callable[[int], Explanation] | None = None,
) -> Audit:
    """An :class:`Audit` of maps.

    Args:
        heat: (n, s, s) with s = 16, or another multiple of 4; what is below zero counts as zero.
        classes: the class of each map by name; None where it is not known.
        ids: what each map is of; None: its number.
        masks: for each map how much of each cell is inside of the annotated evidence, (n, s, s), 0 to 1.
        masked: which maps have a mask, (n,); None: all.
        native: the method's own height and width, if maps are coarser than (s, s).
        right: whether each picture was classified right.
        method, by, of, explanation_of: as of :class:`Audit`.

    Raises:
        ValueError: for no maps, for numbers that don't fit each other, for values that are not finite.
        ImportError: where scikit-learn is not installed.
    """
    maps = unit_maps(np.asarray(heat))
    total = len(maps)
    if not total:
        raise ValueError("there are no maps to audit; a batch run answered no item")
    ids = [str(number) for number in range(total)] if ids is None else ids
    right = [None] * total if right is None else right
    for name, given in (("classes", classes), ("ids", ids), ("right", right), ("masks", masks), ("masked", masked)):
        if given is not None and len(given) != total:
            raise ValueError(f"{name} has {len(given)} entries for {total} maps; give one for each")
    if masks is not None and masks.shape != maps.shape:
        raise ValueError(f"masks {masks.shape} do not lie over maps {maps.shape}; give one of that size for each")
    named = tuple(UNKNOWN if each is None else each for each in classes)
    members = {
        name: np.array([each == name for each in named], np.bool_) for name in dict.fromkeys(named) if name != UNKNOWN
    }
    labels = cluster_maps(maps, native, members)
    inside = Table()
    if masks is not None:
        known = np.ones(total, np.bool_) if masked is None else masked
        inside = inside_table(maps, masks, known, {EVERYTHING: np.ones(total, np.bool_)} | members)
    return Audit(
        method,
        by,
        tuple(ids),
        named,
        maps,
        labels,
        tuple(clusters_of(maps, labels, native)),
        tuple(repeated_places(maps, members)),
        inside,
        tuple(right),
        total if of is None else of,
        explanation_of,
    )


def audit(
    batch: Any,
    method: str | None = None,
    *,
    by: Literal["auto", "label", "predicted"] = "auto",
    masks: str | Path | NDArray[Any] | None = None,
    sign: Sign = "auto",
    most: int = MOST,
) -> Audit:
    """Look at all maps of a batch run together: where heat lies, by class, and which maps are unlike the others.

        print(cnnviz.datasets.audit(cnnviz.open_batch("out")))

    Args:
        batch: a :class:`~cnnviz.datasets.Batch`; items that failed or are not computed yet are left out.
        method: its name; None where there is one.
        by: which class is meant: the "label", or the "predicted" one; "auto": the label where there are labels.
        masks: a folder of masks, or a table of boxes, of the annotated evidence, as ``cnnviz evaluate`` takes them; or
            an array (items of the batch, H, W). How much heat lies inside is told for those that have one.
        sign: how values become heat, as for :meth:`Explanation.heatmap`: "auto" is the positive part of a coarse map,
            and the magnitude of a gradient.
        most: how many maps are looked at; of more, as many are chosen evenly.

    Raises:
        ValueError: for a batch without answers, several methods and no name, maps of no pictures, masks that fit none.
        LookupError: for a method that there is not.
        ImportError: where scikit-learn is not installed: ``pip install 'cnnviz[audit]'``.
    """
    from cnnviz.datasets.findings.audited_batch import read_batch

    return audit_maps(**read_batch(batch, method, by, masks, sign, most, SIZE))
