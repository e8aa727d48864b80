"""Every torchvision classification model with every attribution: it works, or it refuses and says why.

``python -m benchmarks.coverage`` writes docs/coverage.md and prints what does neither; then it exits with status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torchvision

import cnnviz
from benchmarks.markdown import table
from benchmarks.records import DOCS

FEW: dict[str, Any] = {
    "steps": 2,
    "samples": 8,
    "masks": 4,
    "permutations": 2,
    "pieces": 4,
    "window": 32,
    "channels": 4,
}
PARTICULAR = ("cam", "deconvnet", "guided_backprop", "guided_grad_cam")
FIXED_SIZE = {"vit": 224, "maxvit": 224, "inception_v3": 160}


def model_names() -> list[str]:
    """The classification models, without the quantized copies."""
    return torchvision.models.list_models(module=torchvision.models)  # type: ignore[no-any-return]


def outcomes(name: str, methods: list[str]) -> Iterator[tuple[str, str]]:
    """For each method "works", or what it says instead."""
    torch.manual_seed(0)
    quick: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **quick).eval()
    family = name if name in FIXED_SIZE else name.split("_")[0]
    size = FIXED_SIZE.get(family, 64)
    images = torch.randn(1, 3, size, size)
    # those that work everywhere share their passes; where one does not, each is asked alone
    together = [method for method in methods if method not in PARTICULAR]
    try:
        cnnviz.explain(model, images, together, **FEW)
        yield from ((method, "works") for method in together)
        methods = list(PARTICULAR)
    except Exception:
        print(f"{name}: one by one")
    for method in methods:
        settings = {key: value for key, value in FEW.items() if key in cnnviz.attributions[method].settings}
        try:
            cnnviz.explain(model, images, method, **settings)
            yield method, "works"
        except (ValueError, LookupError) as error:
            yield method, f"refuses: {error}"
        except Exception as error:  # what must not happen, and is reported
            yield method, f"FAILS: {type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="some models only; the page is not written then")
    chosen = parser.parse_args().models
    warnings.filterwarnings("ignore")
    torch.set_flush_denormal(True)  # gradients of untrained networks are full of them
    methods = list(cnnviz.attributions)
    rows: dict[str, dict[str, str]] = {}
    for name in chosen or model_names():
        started = time.perf_counter()
        rows[name] = dict(outcomes(name, methods))
        others = [f"{method}: {outcome}" for method, outcome in rows[name].items() if outcome != "works"]
        seconds = time.perf_counter() - started
        print(f"{name}: {len(methods) - len(others)} work ({seconds:.0f} s)", *others, sep="\n  ", flush=True)
    failures = [outcome for row in rows.values() for outcome in row.values() if "FAILS" in outcome]
    if not chosen:
        (DOCS / "coverage.md").write_text(page(rows, methods))
    print(f"{len(rows)} models, {len(methods)} methods, {len(failures)} failures")
    return 1 if failures else 0


def page(rows: dict[str, dict[str, str]], methods: list[str]) -> str:
    """The table in Markdown: a tick where it works, a number where a note says why not."""
    reasons: list[str] = []

    def cell(outcome: str) -> str:
        if outcome == "works":
            return "✓"
        if outcome not in reasons:
            reasons.append(outcome)
        return f"[{reasons.index(outcome) + 1}]"

    cells = [[name, *(cell(row[method]) for method in methods)] for name, row in rows.items()]
    notes = [f"{number}. {reason.replace('|', ' ')}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(
        [
            "# Every torchvision model with every method",
            "",
            f"Made by `python -m benchmarks.coverage` with torchvision {torchvision.__version__} and torch "
            f"{torch.__version__}: random weights, the automatic layer. ✓ works; a number is a refusal, "
            "explained below.",
            "",
            *table("l" + "c" * len(methods), ["model", *methods], cells),
            "",
            *notes,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
