"""The source of a run that is read: where it was, or where it is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnviz.datasets.items import Source
from cnnviz.datasets.plan import BatchPlan
from cnnviz.datasets.sources.source_kinds import source_from_described, source_of


def given_source(source: Any) -> Source:
    """What :func:`cnnviz.batch` takes as a source, as one. Raises as it does."""
    return source if isinstance(source, Source) else source_of(source)


def source_again(plan: BatchPlan) -> Source:
    """The source as it told of itself. Raises ValueError where it can't be made again, as of a Dataset in memory."""
    told = plan.source if isinstance(plan.source, Mapping) else {}
    source = source_from_described(told)
    if source is None:
        kind = str(told.get("kind", "unknown"))[:40]
        raise ValueError(
            f"the run in '{plan.folder}' is over a source of the kind {kind!r}, which can't be opened again by itself; "
            "give it: open_batch(..., source=...)"
        )
    return source
