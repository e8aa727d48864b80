"""Pictures that fail: each is told and counted, and the others go on."""

from __future__ import annotations

from cnnviz.cli.errors import print_failure, reason
from cnnviz.images.batches import Picture

ENOUGH = 3  # first pictures that fail alike: the others would fail, too


class Unreadable:
    """Prints why pictures cannot be read, and keeps it; or raises the error, as for a command's only picture."""

    def __init__(self, raising: bool) -> None:
        self.reasons: dict[str, str] = {}
        """By picture."""
        self._raising = raising

    @property
    def count(self) -> int:
        return len(self.reasons)

    def __call__(self, picture: Picture, error: Exception) -> None:
        if self._raising:
            raise error
        print_failure(reason(error))
        self.reasons[str(picture)] = reason(error)


class Failures:
    """Prints why pictures fail, and counts them.

    The error of a command's only picture is raised. So is one that the first few pictures have in common, for it would
    be that of all others; until that is known, what failed is kept.
    """

    def __init__(self, pictures: int) -> None:
        self.count = 0
        self.reasons: dict[str, str] = {}
        """By picture."""
        self._pictures = pictures
        self._kept: list[tuple[Picture, str]] | None = []

    def __call__(self, picture: Picture, error: Exception) -> None:
        if self._pictures == 1:
            raise error
        self.count += 1
        self.reasons[str(picture)] = reason(error)
        if self._kept is None:
            _tell(picture, reason(error))
            return
        self._kept.append((picture, reason(error)))
        if len({told for _, told in self._kept}) > 1:
            self.settled()
        elif len(self._kept) == min(ENOUGH, self._pictures):
            raise error

    def settled(self) -> None:
        """A picture has worked, or all are done: what failed has failed by itself, and is told."""
        for picture, told in self._kept or ():
            _tell(picture, told)
        self._kept = None


def _tell(picture: Picture, told: str) -> None:
    print_failure(told if str(picture) in told else f"{picture}: {told}")
