"""A batch run that is planned in a folder, from its plan to the last shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.plan import (
    PLAN,
    SHARDS,
    BatchPlan,
    added,
    check_identity,
    check_items,
    make_plan,
    read_plan,
)
from cnnviz.datasets.question import BatchQuestion, TrueClass
from cnnviz.datasets.shards.commit import clean
from cnnviz.datasets.shards.shard_size import enough_shards, usual_shard_size
from cnnviz.datasets.shards.shard_work import ShardJob
from cnnviz.datasets.sources.label_classes import class_of_labels
from cnnviz.datasets.workers.driver import Driver
from cnnviz.datasets.workers.pickling import Sent
from cnnviz.datasets.workers.work import Event, RunError
from cnnviz.registry.protocols import Backend

READERS = 2
"""How many threads of a worker read pictures ahead, if nobody says it."""


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A question about the items of a source, planned in a folder."""

    plan: BatchPlan
    job: ShardJob

    def missing(self) -> list[int]:
        """The shards that are not committed yet."""
        there = set(self.plan.committed())
        return [shard for shard in range(self.plan.shards) if shard not in there]

    def compute(
        self,
        backend: Backend,
        shard_of: tuple[int, int] | None = None,
        listener: Callable[[Event], None] = lambda event: None,
        interrupted: Callable[[], None] = lambda: None,
    ) -> dict[int, str]:
        """Have all shards committed. Returns those that were given up, with the reason.

        Raises RunError where nothing more can be computed: the disk is full, no worker starts, none of the items can
        be explained.
        """
        for folder in (self.plan.folder, self.plan.folder / SHARDS):
            clean(folder)
        shards = in_order(self.missing(), shard_of)
        if not shards:
            return {}
        driver = Driver(
            backend(self.job),
            self.plan.size_of,
            listener,
            interrupted,
            lambda shard: self.plan.shard_path(shard).exists(),
        )
        driver.answered = len(shards) < self.plan.shards
        driver.run(shards)
        return driver.given_up


def in_order(shards: Sequence[int], shard_of: tuple[int, int] | None) -> list[int]:
    """The shards as one of several processes takes them: its own, then those of others, their last ones first."""
    if shard_of is None:
        return [*shards]
    rank, count = shard_of
    own = [shard for shard in shards if shard % count == rank]
    others = [shard for shard in reversed(shards) if shard % count != rank]
    turn = len(others) * rank // count
    return own + others[turn:] + others[:turn]


def prepare_run(
    folder: Path,
    source: Source,
    make_question: Callable[[BatchPlan | None], BatchQuestion],
    shard_size: int | None = None,
    add: bool = False,
    readers: int = READERS,
    tell: Callable[[str], object] = lambda note: None,
    remake: Callable[[], BatchQuestion] | None = None,
) -> PreparedRun:
    """Plan a run, or go on with one that is there.

    ``make_question`` is handed the plan that is there, whose fixed values it takes. ``remake`` makes the question in
    a worker, where its model can't be sent. ``tell`` is called with what was decided of the labels. Raises ValueError
    for another question or other items than there.
    """
    there = read_plan(folder) if (folder / PLAN).exists() else None
    question = make_question(there)
    identity = question.identity()
    if there is not None:
        check_identity(there, identity, shard_size or there.shard_size)
    items = list(source.items())
    classes = _classes(items, source, question, tell)
    if there is not None:
        plan = there
        while new := check_items(plan, items, add):  # another process may have added the same ones, or others
            plan = added(plan, new)
    else:
        size = shard_size or enough_shards(usual_shard_size(question), len(items), question.fixed.batch)
        plan, is_others = make_plan(folder, identity, size, items, source.described(), question.model.categories)
        if is_others:  # who was first may have asked something else
            check_identity(plan, identity, shard_size or plan.shard_size)
            check_items(plan, items, add=False)
    sent = Sent((question, source, classes), None if remake is None else (remake, source, classes))
    fixed = question.fixed
    job = ShardJob(str(folder.absolute()), plan.digest, fixed.device, fixed.threads, readers, sent)
    return PreparedRun(plan, job)


def _classes(
    items: Sequence[Item], source: Source, question: BatchQuestion, tell: Callable[[str], object]
) -> Mapping[int | str, int]:
    """The class of each label. Raises LookupError for a label that is no class, ValueError for no labels at all."""
    model = question.model
    found = class_of_labels(source, items, model.categories, model.num_classes)
    for note in found.notes:
        tell(note)
    if isinstance(question.target, TrueClass) and not found.numbers:
        raise ValueError("true classes are explained, and no item has a label; give labels=... (--labels)")
    return found.numbers


def shard_of_launcher() -> tuple[int, int] | None:
    """Which process of how many this one is, where torchrun started it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def check_given_up(plan: BatchPlan, given_up: Mapping[int, str]) -> None:
    """Raises RunError with the first of the shards that were given up."""
    if not given_up:
        return
    shard, reason = next(iter(given_up.items()))
    first, last = (plan.items_of(shard)[place].id for place in (0, -1))
    more = f", and {len(given_up) - 1} more" if len(given_up) > 1 else ""
    raise RunError(
        f"shard {shard} ({first!r} to {last!r}){more} was given up: {reason}; a smaller batch_size (--batch) in a new "
        "folder may help, or the same again"
    )
