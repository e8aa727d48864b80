"""Time and memory of several works, run in turns, so that other load of the machine affects all of them alike.

Garbage is collected before every run, outside of the time that is taken. On CUDA events are what is timed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

LONG = 10.0
"""Seconds: runs that are expected to take longer are not warmed up, and made once."""

T = TypeVar("T")
Work = Callable[[], Tensor]
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measured:
    """The cost of one work, and its result."""

    seconds: list[float]
    """Of every run, in the order of the rounds."""
    peak: int | None
    """Bytes that one run needed at most, beyond what was there before it; None where the system does not tell."""
    result: Tensor


def in_turns(
    works: Mapping[str, Work],
    repeats: int,
    device: torch.device,
    *,
    expected: float = 0.0,
    process_time: bool = False,
    clean: Callable[[], object] = lambda: None,
) -> dict[str, Measured]:
    """Each of ``works``, one after the other, ``repeats`` times; once where ``expected`` seconds are too long.

    ``process_time`` takes the CPU time of this process, which other processes do not lengthen; for one thread.
    ``clean`` is called between the runs.
    """
    timed_work = {name: partial(timed, work, device, process_time) for name, work in works.items()}
    with _garbage_outside(clean) as collect:
        if expected > LONG:
            once = {}
            for name, work in timed_work.items():
                collect()
                peak, (took, result) = peaking(work, device)
                once[name] = Measured([took], peak, result)
            return once
        first = {name: work() for name, work in works.items()}
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(repeats):
            for name, work in timed_work.items():
                collect()
                seconds[name].append(work()[0])
        peaks = {}
        for name, work in timed_work.items():
            collect()
            peaks[name] = peaking(work, device)[0]
    return {name: Measured(seconds[name], peaks[name], first[name]) for name in works}


@contextmanager
def _garbage_outside(clean: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Gives the function that collects it."""

    def collect() -> None:
        clean()
        gc.collect()

    gc.collect()
    frozen = gc.get_freeze_count() > 0
    gc.freeze()  # what is there stays, and collecting the rest takes no time
    gc.disable()
    try:
        yield collect
    finally:
        gc.enable()
        if not frozen:  # by others, for whom it goes on
            gc.unfreeze()


def timed(work: Work, device: torch.device, process_time: bool = False) -> tuple[float, Tensor]:
    """The seconds of one run, and its result."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's
        torch.cuda.synchronize(device)
        start.record()
        result = work()
        stop.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(stop) / 1000, result
    clock = time.process_time if process_time else time.perf_counter
    began = clock()
    result = work()
    return clock() - began, result


def peaking(work: Callable[[], T], device: torch.device) -> tuple[int | None, T]:
    """The most bytes that one run needs beyond what was there before it, and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, result
    if not _CLEAR.exists():
        return None, work()
    _give_back()
    _CLEAR.write_text("5")  # the kernel's mark of the most memory this process had begins anew
    before = _status("VmRSS")
    result = work()
    return max(0, _status("VmHWM") - before), result


def _give_back() -> None:
    """Memory that was freed and that the allocator keeps would be used again, and not be seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def room_for(module: nn.Module, one: Tensor) -> int:
    """How many inputs like ``one`` a forward and a backward pass may take at once; at least one."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(one.clone().requires_grad_())
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    bytes_of_one = sum(size for place, size in saved.items() if place not in weights)
    if one.device.type == "cuda":
        free = torch.cuda.mem_get_info(one.device)[0]
    else:
        known = "SC_AVPHYS_PAGES" in os.sysconf_names
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 2**33
    return max(1, free // (4 * bytes_of_one))  # gradients, and what frees late
