"""The call for a whole data set."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cnnviz.datasets.asking import asked, backend_of
from cnnviz.datasets.plan import (
    BatchPlan,
)
from cnnviz.datasets.prepared_run import READERS, check_given_up, prepare_run, shard_of_launcher
from cnnviz.datasets.question import BatchQuestion, TrueClass
from cnnviz.datasets.shards.kept_maps import MapStorage
from cnnviz.datasets.sources.source_kinds import source_from_described, source_of
from cnnviz.datasets.stored.batch_view import Batch, open_batch
from cnnviz.datasets.stored.rows import write_table
from cnnviz.datasets.workers.work import Done, Event
from cnnviz.engine.speed.autocast import Precision
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.progress_bar import Progress, listening
from cnnviz.images.told import InputWarning
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution, Backend, Metric
from cnnviz.run.targets import Target


def batch(
    model: nn.Module | LoadedModel | Callable[..., Any],
    source: Any,
    methods: str | Attribution | Sequence[str | Attribution] = "grad_cam",
    out: str | Path = "cnnviz-batch",
    *,
    target: Target | TrueClass = None,
    metrics: str | Metric | Sequence[str | Metric] = (),
    labels: Any = "auto",
    annotations: str | Path | None = None,
    root: str | Path | None = None,
    preprocessing: Any = None,
    categories: Sequence[str] | None = None,
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    before_sigmoid: bool = False,
    precision: Precision | None = None,
    fold: bool = False,
    compile: bool | str = False,
    storage: MapStorage | None = None,
    batch_size: int | None = None,
    shard_size: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    backend: str | Backend = "local",
    workers: int | None = None,
    readers: int = READERS,
    add: bool = False,
    shard_of: tuple[int, int] | None = None,
    progress: Progress = False,
    **settings: Any,
) -> Batch:
    """Explain a data set, in worker processes, so that a run that was interrupted goes on where it ended.

    The items are planned once and cut into shards. A shard is one file, put in place when it is whole. The same call
    again computes what is missing. Every map is what :func:`cnnviz.explain` gives for its picture, up to rounding.

    Args:
        model: as for :func:`cnnviz.explain`. It is sent to the workers.
        source: a folder of pictures, with folders inside; a list of files; a ``.txt``, ``.csv``, ``.tsv`` or
            ``.parquet`` of paths; WebDataset tars; a map-style ``Dataset``; or a :class:`~cnnviz.datasets.Source`.
        methods: as for ``explain``: a method's name, a formula, or several, which share the reading of each picture
            and its forward pass.
        out: the folder of the run, which is made.
        target: what is explained of every item, as for ``explain``; None is the predicted class, and
            ``cnnviz.datasets.true_class`` the class that the item's label tells.
        metrics: as for :func:`cnnviz.evaluate`; they are measured for each method and item.
        labels: the true classes: "folder" (the name of the first folder of each path), a table of files and labels,
            None, or "auto": the folders where all of them are names of classes.
        annotations: a folder of masks of the annotated evidence, for metrics that need them.
        root: the folder that the paths of a list or table are relative to; None: the one that it lies in.
        preprocessing, categories, seed, before_softmax, before_sigmoid, precision, fold, compile: as for ``explain``.
        memory: bytes that inputs evaluated together may take. It is fixed when the run is planned.
        storage: what of each map is kept, see :class:`~cnnviz.datasets.MapStorage`; None: all of it.
        batch_size: how many items pass through the model together; None: 8 on a CPU, 64 on CUDA.
        shard_size: how many items a shard has; None: at most 256, 32 MB, and 16,384 passes.
        threads: how many threads a worker computes with; None: 1.
        device: "cpu" or "cuda"; None: where the model is.
        backend: where workers are, by name or configured: ``cnnviz.backends["local"](workers=4)``.
        workers: how many, for a backend given by name; 0 computes in this process.
        readers: how many threads of a worker read pictures ahead.
        add: take in what the source has beyond the items of the plan.
        shard_of: ``(rank, count)`` for one of several processes that share the folder, as a scheduler starts them. It
            begins with every ``count``-th shard, then helps with those of others. Under torchrun it is known.
        progress: True shows a bar, or a function of (done, total) items, as for ``explain``.
        settings: of methods and metrics given by name.

    Returns:
        A :class:`~cnnviz.datasets.Batch`, read lazily. Items that could not be read or explained are in its table with
        their errors.

    Raises:
        ValueError: for a source without items, labels that are no classes, a folder that holds another run.
        cnnviz.datasets.RunError: where the disk is full, no worker can start, none of the first items can be
            explained, or shards were given up, because their workers died again and again.
        TypeError, LookupError: as ``explain`` does.
    """
    check_main()
    options = ExplainOptions(seed, memory, before_softmax, before_sigmoid, precision, fold, compile)
    where = backend_of(backend, workers)
    folder = Path(out)

    def tell(note: str) -> None:
        warnings.warn(note, InputWarning, stacklevel=2)

    def question(there: BatchPlan | None) -> BatchQuestion:
        return asked(
            model,
            methods,
            metrics,
            options,
            storage or MapStorage(),
            target,
            settings,
            preprocessing=preprocessing,
            categories=categories,
            batch_size=batch_size,
            threads=threads,
            device=device,
            there=there,
        )

    given = source_of(source, labels=labels, masks=annotations, root=root)
    run = prepare_run(folder, given, question, shard_size, add, readers, tell)
    with listening(progress, "explaining") as listener:
        told = _counting(listener, run.plan)
        given_up = run.compute(where, shard_of or shard_of_launcher(), told)
    check_given_up(run.plan, given_up)
    if not run.missing():  # who shares the work, and ends first, leaves the table to the others
        write_table(folder)
    # what can't be opened again by what the plan tells of it, as a Dataset, is at hand here
    return open_batch(folder, None if source_from_described(run.plan.source) else given)


def check_main() -> None:
    """Raises RuntimeError in a worker that imports the script it was started from, which calls for a run again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a worker imports this script, which asks for a batch run again; put the call under "
            "if __name__ == '__main__':, or give workers=0"
        )


def _counting(listener: Callable[[int, int], object] | None, plan: BatchPlan) -> Callable[[Event], None]:
    """Tells how many items are done."""
    done = sum(map(plan.size_of, plan.committed()))

    def hear(event: Event) -> None:
        nonlocal done
        if isinstance(event, Done) and event.task.probe is None:
            done += event.summary["items"]
            if listener is not None:
                listener(done, len(plan))

    return hear
