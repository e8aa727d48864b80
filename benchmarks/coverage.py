"""Many networks with every attribution: the automatic layer is the right one, and each method answers or says why not.

``python -m benchmarks.coverage`` asks all torchvision models, the timm families and the Hugging Face models of
``benchmarks.zoo``, and prints what is wrong; then it exits with status 1. It writes docs/coverage.md when the layers of
all are known. ``--rows FILE`` keeps answers, and a later command asks only what is missing: ``--methods`` without names
asks for the layers, which takes half an hour; with all methods it takes many hours.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torchvision

import cnnviz
from benchmarks.expected_layers import EXPECTED, verdict
from benchmarks.markdown import table
from benchmarks.records import DOCS
from benchmarks.zoo import Network, networks

FEW: dict[str, Any] = {
    "steps": 2,
    "samples": 4,
    "masks": 4,
    "permutations": 2,
    "pieces": 4,
    "window": 32,
    "channels": 4,
    "iterations": 2,
}
LAYER, GRID = "layer", "grid"
CLASS = re.compile(r"\b(in|of) [A-Z]\w+(?=[ :])")
"""The network's class, as a refusal names it; the page numbers what is said of several networks once."""
Row = dict[str, str]
"""Of one network: its layer, its grid, and for each method "works" or what it says instead."""


def outcomes(network: Network, methods: list[str]) -> Iterator[tuple[str, str]]:
    """The automatic layer, its grid, and for each method "works", or what it says instead."""
    try:
        model, images = network.made()
        explanation = cnnviz.explain(model, images, "grad_cam", target=network.target)
        # the recipe names the layer
        yield LAYER, explanation.recipe.partition("layer='")[2].partition("'")[0]
        yield GRID, "x".join(map(str, explanation.values.shape[2:]))
    except Exception as error:
        yield LAYER, "none"
        yield GRID, f"FAILS: {type(error).__name__}: {error}"
        methods = []
    for method in methods:
        yield method, outcome(lambda method=method: _asked(network, model, images, method))  # type: ignore[misc]


def _asked(network: Network, model: torch.nn.Module, images: torch.Tensor, method: str) -> torch.Tensor:
    settings = {key: value for key, value in FEW.items() if key in cnnviz.attributions[method].settings}
    target: Any = network.target
    values: torch.Tensor = cnnviz.explain(model, images, method, target=target, **settings).values
    return values


def outcome(answer: Callable[[], torch.Tensor]) -> str:
    """Gives "works", "refuses: " with one clear line, or "FAILS: " with what must not happen."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            values = answer()
        except (ValueError, LookupError) as error:
            return f"refuses: {error}" if "\n" not in str(error) else f"FAILS: many lines: {error}"
        except Exception as error:
            return f"FAILS: {type(error).__name__}: {error}"
    if not values.isfinite().all():
        return "FAILS: gives values that are no numbers"
    if not values.any() and not any("zero" in str(warning.message) for warning in said):
        return "FAILS: the map is zero everywhere, without a word"
    return "works"


def ask(network: Network, methods: list[str], seconds: float) -> Row:
    """``outcomes`` in a process of its own, which ends after so many seconds of the CPU, and at the latest ten times
    as many of the clock."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(network, methods, there, math.ceil(seconds)), daemon=True)
    process.start()
    there.close()
    row: Row = {}
    end = time.monotonic() + 10 * seconds
    reason = f"no answer within the {seconds:.0f} s of CPU time of a network"
    while here.poll(max(0.0, end - time.monotonic())):
        try:
            name, said = here.recv()
        except EOFError:
            process.join()
            if process.exitcode != -signal.SIGXCPU:
                reason = "FAILS: the process ended"
            break
        row[name] = said
    process.kill()
    process.join()
    return row | {name: reason for name in (LAYER, GRID, *methods) if name not in row}


def _answer(network: Network, methods: list[str], there: Connection, seconds: int) -> None:
    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds + 5))
    torch.set_num_threads(1)
    for found in outcomes(network, methods):
        there.send(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="some networks only")
    parser.add_argument("--seconds", type=float, default=300, help="CPU time of one network")
    parser.add_argument("--methods", nargs="*", help="these only")
    parser.add_argument("--rows", type=Path, help="a file that keeps what is known; what it holds is not asked again")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # gradients of untrained networks are full of them
    methods = list(cnnviz.attributions) if given.methods is None else given.methods
    rows: dict[str, Row] = json.loads(given.rows.read_text()) if given.rows and given.rows.exists() else {}
    by_name = {network.name: network for network in networks()}
    for network in [by_name[name] for name in given.models or by_name]:
        missing = [method for method in methods if method not in rows.get(network.name, {})]
        if network.name in rows and not missing:
            continue
        started = time.perf_counter()
        row = rows[network.name] = rows.get(network.name, {}) | ask(network, missing, given.seconds)
        others = [f"{method}: {row[method]}" for method in methods if row[method] != "works"]
        others.insert(0, verdict(network.name, row[LAYER], row[GRID]))
        took = f"{time.perf_counter() - started:.0f} s"
        print(f"{network.name}: {row[LAYER]} {row[GRID]} ({took})", *others, sep="\n  ", flush=True)
        if given.rows:
            given.rows.write_text(json.dumps(rows, indent=1))
    failures = [said for row in rows.values() for said in row.values() if "FAILS" in said]
    wrong = [name for name, row in rows.items() if verdict(name, row[LAYER], row[GRID]).startswith("wrong")]
    if set(by_name) <= set(rows):
        (DOCS / "coverage.md").write_text(page({name: rows[name] for name in by_name}, list(cnnviz.attributions)))
    print(f"{len(rows)} networks, {len(methods)} methods, {len(failures)} failures, {len(wrong)} wrong layers")
    return 1 if failures or wrong else 0


def page(rows: dict[str, Row], methods: list[str]) -> str:
    """Both tables in Markdown: the layers, and for each method a tick, or the number of a note that says why not."""
    reasons: list[str] = []

    def cell(said: str) -> str:
        if said in ("works", ""):
            return "✓" if said else ""
        said = CLASS.sub(r"\1 this network", said)
        if said not in reasons:
            reasons.append(said)
        return f"[{reasons.index(said) + 1}]"

    verdicts = {name: verdict(name, row[LAYER], row[GRID]) for name, row in rows.items()}
    listed = [said for said in verdicts.values() if said != "not listed"]
    layers = [
        [
            name,
            f"`{row[LAYER]}`",
            row[GRID],
            "" if verdicts[name] == "not listed" else verdicts[name].replace("|", " or "),
        ]
        for name, row in rows.items()
    ]
    cells = [[name, *(cell(row.get(method, "")) for method in methods)] for name, row in rows.items() if len(row) > 2]
    notes = [f"{number}. {' '.join(reason.replace('|', ' ').split())}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(
        [
            "# Many networks with every method",
            "",
            f"Made by `python -m benchmarks.coverage` with torch {torch.__version__}, torchvision "
            f"{torchvision.__version__}: {len(rows)} networks with random weights, one small input.",
            "",
            "## The automatic layer",
            "",
            f"The layer that Grad-CAM takes, and the grid of its map. {len(EXPECTED)} layers were written down by a "
            f"person before any was measured (`benchmarks/expected_layers.py`): "
            f"{listed.count('right')} of {len(listed)} are those.",
            "",
            *table("llll", ["network", "layer", "grid", "by the list"], layers),
            "",
            "## The methods",
            "",
            f"✓ works; a number is explained below. {len(cells)} of the networks were asked for every method.",
            "",
            *table("l" + "c" * len(methods), ["network", *methods], cells),
            "",
            *notes,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
