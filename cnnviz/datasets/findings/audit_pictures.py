"""The pictures of an audit's report: mean maps, and what the network looked at in single pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cnnviz.datasets.findings import verdicts
from cnnviz.datasets.findings.auditing import EVERYTHING, UNKNOWN, Audit
from cnnviz.datasets.findings.map_clusters import Cluster
from cnnviz.drawing import Pixels, as_uint8, colormap_named, colors_of
from cnnviz.explanations.evidence_maps import input_pictures
from cnnviz.images.resampling import resize

SIDE = 104
"""Pixels: the longer side of a picture."""
CLASSES, CLUSTERS, SHOWN = 20, 12, 8
"""Classes and clusters with pictures of their own, and pictures of a cluster."""
DARK = 0.18
"""How bright a picture is where there is no heat."""


@dataclass(frozen=True)
class Tile:
    """A picture under its caption."""

    caption: str
    pixels: Pixels


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, and what they are."""

    title: str
    text: str
    tiles: list[Tile] = field(default_factory=list)


@dataclass
class Illustrated:
    """The groups of pictures of an audit."""

    audit: Audit
    unread: int = 0
    """How many pictures could not be read again."""
    error: str = ""
    """Why the first of them could not."""

    def clusters(self) -> list[Group]:
        """A group for each cluster that is a finding, with the pictures nearest to its middle."""
        found = [each for each in self.audit.clusters if each.is_finding]
        return [self._cluster(each) for each in found[:CLUSTERS]]

    def classes(self) -> list[Group]:
        """A group for each class that is drawn: its mean map, its most typical and its strangest pictures."""
        means = self.audit.mean_maps
        return [self._class(name, means[name]) for name in drawn_classes(self.audit)]

    def whole(self) -> Tile:
        """The mean map of all pictures."""
        return Tile("mean map of all pictures", drawn_map(self.audit.mean_maps[EVERYTHING]))

    def _cluster(self, cluster: Cluster) -> Group:
        maps = self.audit.maps[list(cluster.members)]
        mean = maps.mean(0)
        order = np.argsort(np.linalg.norm((maps - mean).reshape(len(maps), -1), axis=1), kind="stable")
        shown = [cluster.members[number] for number in _of_many_classes(self.audit, cluster, order)]
        place = f"the {cluster.place}" if cluster.is_one_place else "more than one place"
        (text,) = verdicts.cluster_sentences([cluster], self.audit.classes, len(self.audit), self.audit.right)
        tiles = [Tile("mean map", drawn_map(mean)), *self._pictures(shown, with_class=True)]
        return Group(f"{len(cluster.members):,} pictures with heat in {place}", text, tiles)

    def _class(self, name: str, mean: NDArray[np.float32]) -> Group:
        typical, strange = self.audit.examples[name]
        count = int(self.audit.members(name).sum())
        tiles = [Tile("mean map", drawn_map(mean))]
        tiles += self._pictures(typical, before="typical: ") + self._pictures(strange, before="strange: ")
        return Group(name, f"{count:,} picture{'s' if count != 1 else ''}", tiles)

    def _pictures(self, numbers: list[int], before: str = "", with_class: bool = False) -> list[Tile]:
        tiles = []
        for number in numbers:
            caption = f"{before}{self.audit.ids[number]}"
            caption += f" ({self.audit.classes[number]})" if with_class else ""
            tiles.append(Tile(caption, self._pair(number)))
        return tiles

    def _pair(self, number: int) -> Pixels:
        """The picture, and beside it the same, lit where the heat lies; without a picture, the map."""
        heat = self.audit.maps[number]
        picture = self._picture(number)
        if picture is None:
            return drawn_map(heat)
        lit = _fitted_heat(heat, picture.shape[:2])[..., None]
        gap = np.ones((picture.shape[0], 3, 3))
        return as_uint8(np.concatenate([picture, gap, picture * (DARK + (1 - DARK) * lit)], 1))

    def _picture(self, number: int) -> NDArray[np.float64] | None:
        if self.audit.explanation_of is None:
            return None
        try:
            pictures = input_pictures(self.audit.explanation_of(number))
        except (OSError, ValueError, LookupError) as error:
            self.unread += 1
            self.error = self.error or str(error)
            return None
        height, width = pictures.shape[2:]
        shrink = SIDE / max(height, width)
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        small = resize(pictures.float(), size, antialias=True)[0].clamp(0, 1)
        array: NDArray[np.float64] = small.permute(1, 2, 0).double().numpy()
        return array


def drawn_classes(audit: Audit) -> list[str]:
    """The classes with pictures of their own: those of most pictures."""
    return [name for name in audit.names if name != UNKNOWN][:CLASSES] or list(audit.names[:1])


def drawn_map(heat: NDArray[np.float32]) -> Pixels:
    """A map (s, s) in colours, its peak the brightest."""
    return as_uint8(colors_of(colormap_named("inferno"), _fitted_heat(heat, (SIDE, SIDE))))


def _fitted_heat(heat: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float64]:
    """A map (s, s) at another size, its peak 1."""
    peak = float(heat.max())
    tensor = torch.from_numpy(heat / peak if peak > 0 else heat)[None, None].double()
    fitted: NDArray[np.float64] = resize(tensor, size)[0, 0].clamp(0, 1).numpy()
    return fitted


def _of_many_classes(audit: Audit, cluster: Cluster, order: NDArray[np.int64]) -> Iterator[int]:
    """Members in that order, a picture of each class first: what they share is then not the class."""
    seen: set[str] = set()
    first: list[int] = []
    later: list[int] = []
    for number in order.tolist():
        name = audit.classes[cluster.members[number]]
        (later if name in seen else first).append(number)
        seen.add(name)
    yield from [*first, *later][:SHOWN]
