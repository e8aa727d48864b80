"""How well maps find the whole object: weakly supervised segmentation by every attribution, against the true masks.

``python -m benchmarks.segmentation`` cuts the shape out of held-out drawn pictures with each map of the bundled network
(Simonyan et al., 2014, arXiv:1312.6034, 3.2) and prints the mean intersection over union of what was cut out and what
was drawn; beside them maps made without a network. ``--write docs/segmentation.md`` keeps the table as a page, with a
picture. Ends with status 1 where no map reaches a mean of 0.5.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import cnnviz
from benchmarks.markdown import table
from cnnviz import Attribution, Explanation, demo
from cnnviz.demo import drawing
from cnnviz.images.writing import encoded, write
from cnnviz.testing.sanity.blind import blind_maps

BATCH = 25
SEED = 7
SAMPLES = 16  # of methods that sum over noise or along a path; their own defaults would take three times as long
MOST = 300.0  # seconds of one method; slower ones are measured on fewer pictures, but on so many:
FEWEST = 10
SHOWN = ("grad_cam", "guided_grad_cam", "guided_backprop", "smoothgrad", "gradient")
PAGE = Path(__file__).with_suffix(".md")
TITLES = ("map", "mean IoU", "± s.e.", "IoU ≥ 0.5", "IoU of boxes", "nothing found", "pictures")


@dataclass(frozen=True)
class Overlaps:
    """Of one method on all pictures, each (N,)."""

    overlap: Tensor
    boxes: Tensor
    nothing: Tensor

    def row(self) -> tuple[str, ...]:
        """The numbers of the table, as text."""
        count = len(self.overlap)
        error = float(self.overlap.std()) / count**0.5 if count > 1 else 0.0
        passed, nothing = float((self.overlap >= 0.5).float().mean()), int(self.nothing.sum())
        boxes = f"{float(self.boxes.mean()):.3f}"
        return f"{self.mean:.3f}", f"{error:.3f}", f"{passed:.0%}", boxes, f"{nothing / count:.1%}", str(count)

    @property
    def mean(self) -> float:
        return float(self.overlap.mean())


def formula(name: str, samples: int) -> Attribution:
    """The method with so many samples or steps, where it takes some and not hundreds."""
    method = cnnviz.attributions[name]
    defaults = {name: method.settings[name].default for name in ("samples", "steps") if name in method.settings}
    return method(**{name: samples for name, default in defaults.items() if samples < default <= 100})


def tried(methods: Sequence[str], samples: int) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds that each method takes for a picture; and which give no one map of it, with the reason."""
    model, inputs = cnnviz.load_model("demo"), demo.as_inputs(demo.pictures().pictures[:1])
    seconds, refused = {}, {}
    for name in methods:
        try:
            for _ in range(2):  # what is imported for the first is no part of it
                start = time.perf_counter()
                cnnviz.segment(cnnviz.explain(model, inputs, formula(name, samples)))
                seconds[name] = time.perf_counter() - start
        except (ValueError, LookupError, TypeError) as error:
            refused[name] = str(error).partition(";")[0]
    return seconds, refused


def measure(
    methods: Sequence[str], count: int, seed: int = SEED, samples: int = SAMPLES, quiet: bool = True
) -> dict[str, Overlaps]:
    """By method and by blind map; methods share their passes through the network."""
    drawn = drawing.draw(count, seed=seed, held_out=True)
    model, formulas = cnnviz.load_model("demo"), [formula(name, samples) for name in methods]
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for start in track(range(0, count, BATCH), "cutting", console=Console(stderr=True), disable=quiet):
        part = slice(start, start + BATCH)
        inputs, labels = demo.as_inputs(drawn.pictures[part]), torch.from_numpy(drawn.labels[part])
        masks = torch.from_numpy(drawn.masks[part])
        explained = cnnviz.explain(model, inputs, formulas, target=labels) if formulas else {}
        answers = dict(zip(methods, explained.values(), strict=True))
        for name, values in blind_maps(inputs).items():
            answers[f"({name})"] = Explanation(
                values[:, None], inputs, labels, torch.zeros(len(labels)), name, model.preprocessing
            )
        for name, answer in answers.items():
            cut = cnnviz.segment(answer)
            boxes, nothing = overlap(filled(cut.masks), filled(masks)), ~cut.masks.flatten(1).any(1)
            parts.setdefault(name, []).append((overlap(cut.masks, masks), boxes, nothing))
    return {name: Overlaps(*map(torch.cat, zip(*tensors, strict=True))) for name, tensors in parts.items()}


def overlap(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of masks (N, H, W), (N,); 0 where both are empty."""
    both, either = (masks & others).flatten(1).sum(1), (masks | others).flatten(1).sum(1)
    return both / either.clamp(min=1)


def filled(masks: Tensor) -> Tensor:
    """The boxes around masks (N, H, W), as masks."""
    rows, columns = masks.any(2), masks.any(1)
    return spanned(rows)[:, :, None] & spanned(columns)[:, None, :]


def spanned(lines: Tensor) -> Tensor:
    """Lines (N, L) that are True from their first True place to their last."""
    return lines.cummax(1).values & lines.flip(1).cummax(1).values.flip(1)


def measured(
    seconds: Mapping[str, float], count: int, seed: int, samples: int, most: float, quiet: bool
) -> dict[str, Overlaps]:
    """All methods; those that would take more than ``most`` seconds of fewer pictures."""
    slow = {name: max(FEWEST, int(most / duration)) for name, duration in seconds.items() if duration * count > most}
    overlaps = measure([name for name in seconds if name not in slow], count, seed, samples, quiet)
    for name, fitting in slow.items():
        overlaps[name] = measure([name], min(count, fitting), seed, samples, quiet)[name]
    return overlaps


def ranked(overlaps: dict[str, Overlaps]) -> list[tuple[str, ...]]:
    """The rows of the table, the best map first."""
    return [(name, *overlap.row()) for name, overlap in sorted(overlaps.items(), key=lambda pair: -pair[1].mean)]


def page(overlaps: dict[str, Overlaps], refused: dict[str, str], count: int, samples: int) -> str:
    """The table as a page in Markdown."""
    reasons = "\n".join(f"- `{name}`: {why}" for name, why in refused.items())
    return PAGE.read_text().format(
        count=count,
        samples=samples,
        table="\n".join(table("l" + "r" * 6, TITLES, ranked(overlaps))),
        versions=", ".join(f"{name} {version(name)}" for name in ("torch", "opencv-python-headless")),
        refused=f"\nNot in the table, for they give no one map of a picture:\n\n{reasons}\n" if refused else "",
    )


def examples() -> bytes:
    """The bundled pictures with the object cut out by several methods, as a .jpg."""
    model, inputs = cnnviz.load_model("demo"), demo.as_inputs(demo.pictures().pictures[2:6])
    return encoded(cnnviz.grid(cnnviz.explain(model, inputs, SHOWN), "segmentation"), ".jpg")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="of pictures")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="and steps, of methods that take them")
    parser.add_argument("--most", type=float, default=MOST, help="seconds of a method; slow ones see fewer pictures")
    parser.add_argument("--methods", nargs="*", default=list(cnnviz.attributions))
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    if options.count < 1:
        parser.error("--count is of pictures; use 1 or more")
    seconds, refused = tried(options.methods, options.samples)
    quiet = not sys.stderr.isatty()
    overlaps = measured(seconds, options.count, options.seed, options.samples, options.most, quiet)
    printed = Table(*TITLES, title=f"{options.count} held-out pictures")
    printed.columns[0].no_wrap = True
    printed.columns[0].min_width = max(map(len, overlaps))
    for row in ranked(overlaps):
        printed.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(printed)
    for name, why in refused.items():
        Console(stderr=True).print(f"{name} is left out: {why}", markup=False)
    if options.write is not None:
        (options.write.parent / "pictures").mkdir(exist_ok=True)
        write(options.write.parent / "pictures" / "segmentation.jpg", examples())
        write(options.write, page(overlaps, refused, options.count, options.samples).encode())
    return int(max(method.mean for method in overlaps.values()) < 0.5)


if __name__ == "__main__":
    sys.exit(main())
