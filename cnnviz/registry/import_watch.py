"""What plugins do beside offering methods: what is misspelt in them, and what they change while they are imported."""

from __future__ import annotations

import difflib
import io
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from typing import Any

from cnnviz.registry.hooks import HOME, Hooks
from cnnviz.registry.origins import origin_of

SLOW = 3.0
"""Seconds that an import may take before it is told."""


def unknown_groups(known: Iterable[str]) -> list[tuple[str, str]]:
    """Groups of entry points that look like ours and are none: what offers them, and a line about it."""
    groups, told = list(known), []
    for group in sorted(name for name in entry_points().groups if name not in groups):
        plain = re.sub(r"[-_.:/ ]+", ".", group.lower())
        near = difflib.get_close_matches(plain, groups, 1, cutoff=0.85)
        if not near and plain != HOME and not group.startswith(f"{HOME}."):
            continue
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(groups)}"
        for origin in dict.fromkeys(origin_of(entry) for entry in entry_points(group=group)):
            told.append((origin, f"there is no group {group!r} of entry points, and nothing reads it; {hint}"))
    return told


def misspelt_hooks(plugin: object) -> list[str]:
    """A line for each function that is marked as a hook and has no hook's name."""
    hooks = [name for name in vars(Hooks) if name.startswith(f"{HOME}_")]
    marked = [name for name, each in _attributes(plugin) if hasattr(each, f"{HOME}_impl") and name not in hooks]
    return [f"{name} is no hook, and nobody calls it; the hook is {', '.join(hooks)}" for name in marked]


def way_out(plugin: object, kind: str) -> str:
    """What the author of a plugin without methods has to change."""
    return "; ".join(misspelt_hooks(plugin)) or f"decorate it with @cnnviz.{kind}"


def _attributes(plugin: object) -> Iterator[tuple[str, Any]]:
    for name in dir(plugin):
        try:
            yield name, getattr(plugin, name, None)
        except Exception:  # a property may raise anything
            continue


@contextmanager
def watched(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell what an import changes for everyone, and put it back; what it prints is swallowed."""
    import numpy as np
    import torch

    def shared() -> dict[str, Any]:
        return {
            "the default dtype of torch": torch.get_default_dtype(),
            "the default device of torch": torch.get_default_device(),
            "the number of torch's threads": torch.get_num_threads(),
            "whether torch records gradients": torch.is_grad_enabled(),
            "whether torch looks for anomalies": torch.is_anomaly_enabled(),
            "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "what numpy does on errors": np.geterr(),
            "the working folder": os.getcwd(),
            "how deep Python calls": sys.getrecursionlimit(),
            "how Python shows errors": sys.excepthook,
        }

    def put_back(values: dict[str, Any]) -> None:
        dtype, device, threads, records, anomalies, deterministic, benchmark, errors, folder, deep, hook = (
            values.values()
        )
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(records)
        torch.autograd.set_detect_anomaly(anomalies)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        if torch.get_default_device() != device:
            torch.set_default_device(None if device == torch.device("cpu") else device)
        np.seterr(**errors)
        os.chdir(folder)
        sys.setrecursionlimit(deep)
        sys.excepthook = hook

    before, filters = shared(), list(warnings.filters)
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()
    printed, began = io.StringIO(), time.perf_counter()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    finally:
        seconds, after = time.perf_counter() - began, shared()
        if printed.getvalue().strip():
            tell(f"it prints {printed.getvalue().strip().splitlines()[0][:60]!r} while it is imported")
        if not torch.equal(drawn[0], torch.get_rng_state()):
            tell("it draws or seeds torch's random numbers while it is imported")
            torch.set_rng_state(drawn[0])
        if random.getstate() != drawn[1]:
            tell("it draws or seeds Python's random numbers while it is imported")
            random.setstate(drawn[1])
        if repr(np.random.get_state()) != repr(drawn[2]):
            tell("it draws or seeds numpy's random numbers while it is imported")
            np.random.set_state(drawn[2])
        changed = [name for name, value in after.items() if value != before[name]]
        for name in changed:
            tell(f"it changes {name} while it is imported")
        if changed:
            put_back(before)
        if list(warnings.filters) != filters:
            tell("it changes the filters of warnings while it is imported")
            warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever its type says
        if seconds > SLOW:
            tell(f"its import takes {seconds:.1f} s")
