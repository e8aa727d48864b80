"""Which items of a shard kill the workers that read or explain them."""

from __future__ import annotations

from collections.abc import Sequence


class Bisection:
    """Finds them by probes of halves. What a probe is, and who does it, is not known here."""

    def __init__(self, items: Sequence[int]):
        self.probes: list[tuple[int, ...]] = []
        """What is to be tried next."""
        self.found: dict[int, str] = {}
        """The items that killed a worker by themselves, twice, and how."""
        self._waiting = 0
        self._suspected: set[int] = set()
        self._split(tuple(items))

    @property
    def is_settled(self) -> bool:
        """True if nothing is left to try."""
        return not self.probes and not self._waiting

    def take(self) -> list[tuple[int, ...]]:
        """The probes that are to be made now."""
        probes, self.probes = self.probes, []
        self._waiting += len(probes)
        return probes

    def survived(self, probe: tuple[int, ...]) -> None:
        """None of these items killed the worker."""
        self._waiting -= 1

    def killed(self, probe: tuple[int, ...], reason: str) -> None:
        """The worker died of these items; one of them alone is tried twice, for workers die of other causes too."""
        self._waiting -= 1
        if len(probe) > 1:
            self._split(probe)
        elif probe[0] in self._suspected:
            self.found[probe[0]] = reason
        else:
            self._suspected.add(probe[0])
            self.probes.append(probe)

    def _split(self, items: tuple[int, ...]) -> None:
        middle = len(items) // 2
        self.probes += [half for half in (items[:middle], items[middle:]) if half]
