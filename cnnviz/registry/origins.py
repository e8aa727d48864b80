"""Which installed package offers an entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint


def dist_of(entry: EntryPoint) -> str:
    """The name of the distribution."""
    return entry.dist.name if entry.dist is not None else "unknown"


def origin_of(entry: EntryPoint) -> str:
    """The distribution with its version: ``cnnviz 0.4.0``."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "unknown"
