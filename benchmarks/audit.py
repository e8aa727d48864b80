"""Measures what an audit finds in tagged pictures, and its false alarms: `python -m benchmarks.audit`.

Half of the pictures have a tag in a corner, half have none. The shortcut network reads the tag: its clusters are to be
the four corners and the rest. The honest network does not: of its maps, and of maps that were made up, there is to be
no cluster. Half a minute for each seed and method on two cores; integrated gradients take several.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import cnnviz
from cnnviz import demo
from cnnviz.datasets import Audit, audit_maps
from cnnviz.datasets.findings.heat_shares import SIZE
from cnnviz.demo.drawing import draw
from cnnviz.explanations import evidence

METHODS = ("grad_cam",)
SEEDS = (11, 12, 13, 14, 15, 16)
FEW = (100, 200, 400)
"""Subsets of these sizes are audited as well."""
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Maps:
    """Maps of a network, what was drawn and what was predicted."""

    heat: Floats
    native: tuple[int, int]
    kinds: NDArray[np.int64]
    """0 without a tag, 1 to 4 for the corners."""
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def audited(self, chosen: NDArray[np.int64] | slice = slice(None)) -> Audit:
        """The audit of some of them."""
        names = [demo.CATEGORIES[label] for label in self.labels[chosen]]
        right = (self.labels == self.predicted)[chosen].tolist()
        return audit_maps(self.heat[chosen], names, native=self.native, right=right)


def maps_of(network: str, method: str, each: int, seed: int) -> Maps:
    """So many tagged pictures and so many without a tag, explained for the predicted class."""
    tagged, plain = draw(each, seed, tag="true", held_out=True), draw(each, seed + 1000, held_out=True)
    net = demo.network(network)
    heat, predicted = [], []
    native = (0, 0)
    for inputs in torch.split(demo.as_inputs(np.concatenate([tagged.pictures, plain.pictures])), 50):
        explanation = cnnviz.explain(net, inputs, method)
        native = explanation.values.shape[-2], explanation.values.shape[-1]
        # 96 / 16 = 6: a linear interpolation is made at the input's size, then its areas are averaged
        heat.append(torch.nn.functional.adaptive_avg_pool2d(evidence(explanation)[:, None], SIZE)[:, 0].numpy())
        assert explanation.target is not None
        predicted.append(explanation.target.numpy())
    corners = tagged.tags[:, [8, 8, 87, 87], [8, 87, 8, 87]].argmax(1) + 1
    kinds = np.concatenate([corners, np.zeros(each, np.int64)])
    labels = np.concatenate([tagged.labels, plain.labels])
    return Maps(np.concatenate(heat), native, kinds, labels, np.concatenate(predicted))


def rand_index(kinds: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The adjusted Rand index (Hubert and Arabie, 1985), written out."""
    table = np.zeros((kinds.max() + 1, labels.max() + 2))
    np.add.at(table, (kinds, labels + 1), 1)

    def pairs(counts: Floats) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = rows * columns / pairs(np.array([len(kinds)]))
    most = (rows + columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def purity(kinds: NDArray[np.int64], audited: Audit) -> float:
    """Of all clusters, the lowest share of one kind."""
    counts = [np.bincount(kinds[list(each.members)]) for each in audited.clusters]
    return min((float(each.max() / each.sum()) for each in counts), default=1.0)


def made_up(kind: str, count: int, rng: np.random.Generator) -> tuple[Floats, tuple[int, int]]:
    """Maps without clusters: of an object that may be anywhere, of noise, and coarse ones of few hot cells."""
    if kind == "noise":
        return rng.random((count, SIZE, SIZE)) ** 4, (SIZE, SIZE)
    side = {"objects anywhere": 16, "objects near the middle": 16, "7 x 7, few hot cells": 7}[kind]
    row, column = np.mgrid[:side, :side] + 0.5
    share = rng.uniform(0.15, 0.85, (2, count)) if kind == "objects anywhere" else rng.normal(0.5, 0.12, (2, count))
    places = np.clip(share, 0.03, 0.97) * side
    width = rng.uniform(0.06, 0.2, count)[:, None, None] * side
    squares = (row - places[0][:, None, None]) ** 2 + (column - places[1][:, None, None]) ** 2
    heat = np.exp(-squares / (2 * width**2)) * rng.uniform(0.8, 1.2, (count, side, side))
    if side == SIZE:
        return heat + 0.15 * rng.random(heat.shape) ** 3, (side, side)
    coarse = torch.from_numpy(np.clip(heat - 0.6, 0, None))[:, None]
    return cnnviz.images.resize(coarse, (SIZE, SIZE))[:, 0].numpy(), (side, side)


def has_finding(audited: Audit) -> bool:
    """Whether anything was claimed: a cluster, or a place of one class."""
    return bool(audited.repeated) or any(each.is_finding for each in audited.clusters)


def compared(method: str, each: int, seeds: list[int]) -> Iterator[str]:
    """Lines about both networks."""
    few = [size for size in FEW if size < 2 * each]
    alarms = dict.fromkeys((*few, 2 * each), 0)
    tried = dict.fromkeys(alarms, 0)
    for seed in seeds:
        shortcut, honest = (maps_of(network, method, each, seed) for network in ("demo-shortcut", "demo"))
        rng = np.random.default_rng(seed)
        found = shortcut.audited()
        index = rand_index(shortcut.kinds, found.labels)
        yield (
            f"{method}, seed {seed}, {2 * each} pictures: adjusted Rand index {index:.3f}"
            f", purity {purity(shortcut.kinds, found):.3f}, clusters "
            + ", ".join(f"{row['place']} {row['pictures']}" for row in found.cluster_table)
        )
        for size in few:
            indices = []
            for _ in range(3):
                chosen = rng.permutation(2 * each)[:size]
                indices.append(rand_index(shortcut.kinds[chosen], shortcut.audited(chosen).labels))
                tried[size] += 1
                alarms[size] += has_finding(honest.audited(chosen))
            yield f"  {size} of them, three times: {', '.join(f'{index:.3f}' for index in indices)}"
        alarms[2 * each] += has_finding(whole := honest.audited())
        tried[2 * each] += 1
        yield f"  honest network: {whole.verdict[0]}"
    told = ", ".join(f"{alarms[size]} of {tried[size]} at {size} pictures" for size in alarms)
    yield f"{method}: false alarms on the honest network: {told}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--each", type=int, default=500, help="tagged pictures, and pictures without a tag")
    parser.add_argument("--sets", type=int, default=20, help="sets of made-up maps of each kind and size; 0: none")
    options = parser.parse_args(arguments)
    for method in options.methods:
        for line in compared(method, options.each, list(options.seeds)):
            print(line, flush=True)
    for kind in (
        ("objects anywhere", "objects near the middle", "7 x 7, few hot cells", "noise") if options.sets else ()
    ):
        for size in (100, 400, 1000):
            rng = np.random.default_rng(0)
            alarms = 0
            for _ in range(options.sets):
                heat, native = made_up(kind, size, rng)
                names = [str(number % 8) for number in range(size)]
                alarms += has_finding(audit_maps(heat, names, native=native))
            print(f"{kind}: {alarms} false alarms in {options.sets} sets of {size} maps", flush=True)


if __name__ == "__main__":
    main()
