"""What a device can take at once, as a value: every decision about chunks is a function of one.

Tests hand in a policy that says it is a large GPU, and count the passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from cnnviz.engine.costs import Costs
from cnnviz.engine.speed.tf32 import of_cuda


@dataclass(frozen=True)
class DevicePolicy:
    """How much of a question is computed at once on a device.

    Limits in inputs and bytes hold beside the budget; None: the budget alone decides.
    """

    kind: str
    """The kind of device, as torch names it: "cpu", "cuda"."""
    budget: int
    """Bytes that one chunk may take."""
    graph_items: int | None = None
    """Most inputs of one pass that keeps a graph."""
    output_bytes: int | None = None
    """Most bytes of the largest output in a pass without a graph."""
    replayed_bytes: int | None = None
    """Most bytes of the largest output where variants are replayed from a recorded pass."""
    rounding: float = 1e-4
    """By how much of the largest score one input's score may differ between batches of two sizes by rounding alone."""
    defers: bool = False
    """True if Python goes on while the device works, so that values are read together at the end of a question."""
    costs: Costs | None = None
    """What work takes there, by which whole passes are chosen or regions; None: regions always."""

    def within(self, memory: int | None) -> DevicePolicy:
        """With a budget of ``memory`` bytes, if that is given. Raises ValueError for less than one byte."""
        if memory is None:
            return self
        if memory < 1:
            raise ValueError(f"a memory budget of {memory} bytes holds nothing; None takes a share of what is free")
        return replace(self, budget=memory)

    def items_with_graph(self, bytes_per_item: int) -> int:
        """How many inputs pass at once where the graph is kept; at least one.

        Args:
            bytes_per_item: of all outputs of one input's pass.
        """
        fitting = self.budget // max(1, bytes_per_item)
        return max(1, fitting if self.graph_items is None else min(fitting, self.graph_items))

    def items_without_graph(self, largest: int) -> int:
        """How many inputs pass at once where no graph is kept; at least one.

        Args:
            largest: bytes of the largest output of one input's pass.
        """
        return self._fitting(largest, self.output_bytes)

    def items_replayed(self, largest: int) -> int:
        """How many variants are replayed at once; at least one.

        Args:
            largest: bytes of the largest output that one of them makes.
        """
        return self._fitting(largest, self.replayed_bytes)

    def _fitting(self, largest: int, most: int | None) -> int:
        # the output, what it is made of, and room to work
        fitting = self.budget // (4 * max(1, largest))
        return max(1, fitting if most is None else min(fitting, most // max(1, largest)))


# Large batches lose more to page faults than they win, because the C library gives large blocks back to the system
# whenever they are freed. With graphs four at a time is near the best on common networks; without, as many as make no
# larger output than this: 3 to 5 pictures of 224 x 224, 8 to 16 of 112, 16 to 40 of 64. Outputs of replayed variants
# should stay in the cache; larger ones lose more than handing out work costs.
CPU = DevicePolicy(
    "cpu",
    budget=2**30,
    graph_items=4,
    output_bytes=2**24,
    replayed_bytes=2**23,
    # benchmarks/results/costs-cpu.json, by python -m benchmarks.costs
    costs=Costs(launch=8.7e-05, byte=5.6e-10, region_launch=0.00033, region_byte=9.3e-10),
)
# Costs on CUDA are derived from measurements of version 0.3.0 on an H200, until they are measured by
# python -m benchmarks.costs --device cuda. ResNet-50 at 224 x 224 has 176 operations and outputs of 151 MB. A pass of
# one took 3.3 ms, one of 169 windows 34 ms, regions 7 to 10 times as long, in 18 chunks, a recorded pass and two
# rehearsed ones. That a byte takes regions 1.7 times as long is taken from the CPU.
CUDA = DevicePolicy(
    "cuda",
    budget=2**30,
    defers=True,
    costs=Costs(launch=1.9e-05, byte=1.2e-12, region_launch=7.3e-05, region_byte=2e-12),
)
TF32_ROUNDING = 5e-2  # ResNet-50 differs by 4e-4 to 2e-2


def policy_of(device: torch.device, memory: int | None = None) -> DevicePolicy:
    """The policy of a device as it is now: of CUDA a share of the memory that is free.

    ``memory`` is the budget in bytes, if it is given. Raises ValueError for less than one byte.
    """
    if memory is None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        memory = int((free + idle) * 0.6)
    return kind_of(device).within(memory)


def kind_of(device: torch.device) -> DevicePolicy:
    """The policy of a kind of device, whatever is free there now."""
    if device.type == "cpu":
        return CPU
    if device.type != "cuda":
        return replace(CUDA, kind=device.type, defers=False)
    return replace(CUDA, rounding=TF32_ROUNDING) if "tf32" in of_cuda() else CUDA
