"""Which is faster for variants of a batch: regions, or whole passes of all inputs; decided by counts, never by clocks.

The same question is so answered the same way each time. It is asked twice: before anything is recorded, with the least
that regions can take, and after the rehearsal, which tells how much a variant computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnviz.engine.costs import Costs, Work
from cnnviz.engine.pass_size import PassSize


@dataclass(frozen=True)
class Choice:
    """Between regions and whole passes.

    Args:
        costs: of the device.
        size: of a pass of one input.
        items: how many inputs the batch has; each is recorded by itself.
        count: how many variants each input has.
        passes: how many whole passes answer for all variants of all inputs.
        groups: how many groups the boxes form; each is a chunk at the least.
    """

    costs: Costs
    size: PassSize
    items: int
    count: int
    passes: int
    groups: int = 1

    @property
    def whole(self) -> Work:
        """By whole passes."""
        return Work(self.passes * self.size.operations, self.items * self.count * self.size.total)

    @property
    def recording(self) -> Work:
        """Recording one input's pass."""
        return Work(bytes=self.size.total, region_operations=self.size.operations)

    def least(self) -> Work:
        """The least by regions: of each input a recorded pass and its chunks, of the first a rehearsed variant too.

        That one is replayed and passed whole.
        """
        operations = self.size.operations
        rehearsal = Work(operations, self.size.total, operations)
        return rehearsal + (self.recording + Work(region_operations=self.groups * operations)) * self.items

    def rest(self, operations: int, chunks: int, bytes_of_variant: int) -> Work:
        """By regions after the rehearsal, which told how many operations and bytes are replayed."""
        replaying = Work(region_operations=chunks * operations, region_bytes=self.count * bytes_of_variant)
        return replaying * self.items + self.recording * (self.items - 1)

    def may_pay(self) -> bool:
        """False if regions are slower, whatever they leave out."""
        return self._is_faster(self.least())

    def pays(self, operations: int, chunks: int, bytes_of_variant: int) -> bool:
        """Whether it is faster to go on with regions; see ``rest``."""
        return self._is_faster(self.rest(operations, chunks, bytes_of_variant))

    def _is_faster(self, regions: Work) -> bool:
        return self.costs.seconds(regions) < self.costs.seconds(self.whole)
