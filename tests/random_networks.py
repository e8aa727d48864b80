"""Random networks of all operations that the incremental evaluator knows.

A network is a list of operations, each of one or two earlier values, from a seed. What an operation gives is drawn
again where it is too large, not finite, or the same everywhere.
"""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from random_operations import IN_PLACE, INTO, ONE, Does, Draw, Make, two
from torch import Tensor, nn

SIZES = {1: (24, 60), 2: (10, 20), 3: (6, 9)}


class RandomNet(nn.Module):
    """A network (N, C, *spatial) to scores (N, 3), or to scores and maps, in float64 and eval mode."""

    def __init__(self, seed: int):
        super().__init__()
        self.chance = random.Random(seed)
        rank = self.chance.choice((1, 2, 2, 2, 3))
        size = tuple(self.chance.randint(*SIZES[rank]) for _ in range(rank))
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(3, self.chance.choice((1, 2, 3)), *size, generator=generator, dtype=torch.float64)
        self.steps, self.sources = nn.ModuleList(), list[tuple[int, ...]]()
        self.several = self.chance.random() < 0.2
        count, tries = self.chance.randint(3, 10), 0
        while len(self.steps) < count and tries < 100:
            tries += 1
            self._grow(generator)
        with torch.no_grad():
            shape = self._values(self.inputs[:1].clone())[-1].shape
        self.pooled = self.chance.choice(("mean", "mean", "pool", "flatten", "amax", "sum", "mean by hand"))
        width = shape[1:].numel() if self.pooled == "flatten" else shape[1]
        self.head = settled(nn.Linear(width, 3), generator)
        self.eval()

    def _grow(self, generator: torch.Generator) -> None:
        """Add an operation, unless what it gives is nothing to go on from."""
        with torch.no_grad():
            values = self._values(self.inputs[:2].clone())
            source = len(values) - 1 if self.chance.random() < 0.7 else self.chance.randrange(len(values))
            sources: tuple[int, ...] = (source,)
            draw = Draw(self.chance, tuple(values[source].shape))
            if self.chance.random() < 0.2 and len(values) > 1:
                same = [place for place, value in enumerate(values) if value.shape == values[source].shape]
                sizes = [place for place, value in enumerate(values) if value.shape[2:] == values[source].shape[2:]]
                any_one = self.chance.choice(sizes if self.chance.random() < 0.7 else range(len(values)))
                sources = (source, self.chance.choice(same) if self.chance.random() < 0.6 else any_one)
                draw.other = tuple(values[sources[1]].shape)
                step = two(draw)
            elif self.steps and self.chance.random() < 0.07:
                step = self.chance.choice(list(self.steps))  # a module that runs again
            else:
                make: Make = self.chance.choices(list(ONE), list(ONE.values()))[0]
                step = make(draw)
        if step is None:
            return
        fresh = not any(step is each for each in self.steps)
        step = settled(step, generator) if fresh else step
        self.steps.append(step)
        self.sources.append(sources)
        if not self._sound():
            del self.steps[-1], self.sources[-1]

    def _sound(self) -> bool:
        """True if the last operation fits, and gives something to go on from; also of one input alone."""
        try:
            with torch.no_grad():
                values = self._values(self.inputs[:2].clone())
                alone = self._values(self.inputs[:1].clone())[-1]
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            return False
        made, rank = values[-1], self.inputs.ndim
        if made.ndim != rank or made.dtype != torch.float64 or made.numel() > 6000 or len(made) != 2:
            return False
        if not all(each.numel() and bool(each.isfinite().all()) and float(each.abs().max()) < 100 for each in values):
            return False
        if not torch.allclose(alone, made[:1], rtol=1e-9, atol=1e-9):
            return False  # of one that mixes inputs nothing is computed apart
        return bool(made.std() > 1e-3) and min(made.shape[1:]) > 0

    def _values(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for step, sources in zip(self.steps, self.sources, strict=True):
            values.append(step(*(values[source] for source in sources)))
        return values

    def forward(self, x: Tensor) -> Any:
        values = self._values(x)
        maps = values[-1]
        spaces = tuple(range(2, maps.ndim))
        pooled = {
            "mean": lambda: maps.mean(spaces),
            "mean by hand": lambda: maps.sum(spaces) / maps[0, 0].numel(),
            "pool": lambda: getattr(F, f"adaptive_avg_pool{maps.ndim - 2}d")(maps, 1).flatten(1),
            "flatten": lambda: maps.flatten(1),
            "amax": lambda: maps.amax(spaces),
            "sum": lambda: maps.sum(spaces) * 0.1,
        }[self.pooled]()
        scores = self.head(pooled)
        return (scores, values[len(values) // 2]) if self.several else scores

    @property
    def writes_in_place(self) -> bool:
        """True if a value is written, so that it may be known by two names of which a change replaces one."""
        writes = (*IN_PLACE, *INTO)
        return any(getattr(step, "inplace", isinstance(step, Does) and step.text in writes) for step in self.steps)

    def text(self) -> str:
        lines = [f"x: {tuple(self.inputs.shape)}"]
        for number, (step, sources) in enumerate(zip(self.steps, self.sources, strict=True)):
            lines.append(f"v{number + 1} = {step!r} of {', '.join(f'v{each}' for each in sources)}")
        return "\n".join([*lines, f"{self.pooled}, linear{', and maps' if self.several else ''}"])


def settled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """In float64 and eval mode, all numbers drawn so that signals keep their size."""
    for name, values in module.double().eval().state_dict().items():
        if values.is_floating_point():
            drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            fan_in = max(1, values[0].numel()) if values.ndim > 1 else 1
            one = name.endswith(("weight", "running_var")) and values.ndim == 1
            values.copy_(drawn.abs() * 0.5 + 0.5 if one else drawn / fan_in**0.5 * (1 if values.ndim > 1 else 0.3))
    return module
