"""The answers of a batch run, read from its folder: a set of explanations; nothing is loaded before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.datasets.sources.annotated import mask_file
from cnnviz.datasets.sources.source_again import given_source
from cnnviz.datasets.stored.map_reading import maps_of
from cnnviz.datasets.stored.rows import failed_rows, item_rows, to_arrow, unmeasured_rows
from cnnviz.datasets.stored.run_folder import NoAnswer, RunFolder
from cnnviz.datasets.stored.stored_explanation import StoredExplanation, stored_explanation
from cnnviz.explanations.explanation_set import Explanations
from cnnviz.explanations.tables import Table
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.originals import At

if TYPE_CHECKING:
    from PIL import Image

    from cnnviz.explanations.evidence_maps import Sign
    from cnnviz.registry.protocols import Renderer

Chosen: TypeAlias = slice | Sequence[int] | Sequence[bool] | NDArray[Any] | Tensor
GRID = 64
"""How many items a grid shows at most."""


def open_batch(out: str | Path, source: Any = None) -> Batch:
    """The answers that a batch run wrote into the folder ``out``, also while it goes on.

        batch = cnnviz.open_batch("out")
        batch[5]["grad_cam"].save("cat.png")
        batch["grad_cam"][:100].maps(size=(16, 16))

    Args:
        out: the folder.
        source: where the pictures are now, as :func:`cnnviz.batch` takes it; None: where they were.

    Returns:
        A :class:`~cnnviz.datasets.Batch`. Opening it reads the plan, and no shard.

    Raises:
        FileNotFoundError: for a folder without a batch run.
        ValueError: for a plan that is damaged, or of a newer cnnviz.
    """
    return Batch(RunFolder(out, None if source is None else given_source(source)))


class Batch(InNotebooks):
    """Explanations of a data set, one for each item and method, in the order of the items.

    ``batch[5]`` are the :class:`~cnnviz.explanations.Explanations` of item 5 by the names of the methods;
    ``batch["grad_cam"]`` is the same set with one method, whose ``[5]`` is an :class:`~cnnviz.Explanation`. A slice,
    a list of numbers, or a mask of True and False gives a set of fewer items. No map is loaded before it is used, and
    a picture is read again from the source only where it is needed.
    """

    def __init__(
        self, folder: RunFolder, numbers: range | NDArray[np.int64] | None = None, method: str | None = None
    ) -> None:
        self._folder, self._method = folder, method
        self._numbers = range(len(folder.plan)) if numbers is None else numbers

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return self._folder.out

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the bytes of the run."""
        return dict(self._folder.plan.identity)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        if self._method is not None:
            return (self._method,)
        return self._folder.methods

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that were asked."""
        return self._folder.metrics

    @property
    def ids(self) -> list[str]:
        """The ids of the items."""
        return [self._folder.item(int(number)).id for number in self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, chosen: str | SupportsIndex | Chosen) -> Any:
        """The explanations of one item, or a set of fewer methods or items.

        Raises LookupError for a method that there is not, and for an item that failed or is not computed yet, with the
        reason; IndexError for an item that there is not; TypeError for what chooses nothing.
        """
        if isinstance(chosen, str):
            if chosen not in self.methods:
                raise LookupError(f"there is no method {chosen!r} in {self.out}; there are {', '.join(self.methods)}")
            return Batch(self._folder, self._numbers, chosen)
        if isinstance(chosen, slice):
            return Batch(self._folder, self._numbers[chosen], self._method)
        if isinstance(chosen, Sequence | np.ndarray) or (isinstance(chosen, Tensor) and chosen.ndim):
            return Batch(self._folder, self._several(chosen), self._method)
        try:
            number = index(chosen)
        except TypeError:
            raise TypeError(f"an item is chosen by its number, not by a {type(chosen).__name__}") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"there is no item {number}; there are {len(self)}")
        return _answers(self._folder, int(self._numbers[number]), self._method)

    def _several(self, chosen: Any) -> NDArray[np.int64]:
        array = np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
            raise TypeError(
                f"items are chosen by their numbers or by True and False, not by {array.dtype} {array.shape}"
            )
        if array.dtype.kind == "b":
            if len(array) != len(self):
                raise IndexError(f"a mask of {len(array)} chooses from {len(self)} items; give one value for each")
            array = np.flatnonzero(array)
        array = array.astype(np.int64)
        if array.size and not (-len(self) <= array.min() and array.max() < len(self)):
            raise IndexError(f"there is no item {int(array.max())} or {int(array.min())}; there are {len(self)}")
        every = np.asarray(self._numbers, np.int64)
        return np.asarray(every[array], np.int64)

    @property
    def missing(self) -> Batch:
        """The items whose shard is not there yet."""
        return Batch(self._folder, self._several(self._folder.is_missing(self._numbers)), self._method)

    @property
    def answered(self) -> Batch:
        """The items that have maps."""
        kept = np.zeros(len(self), bool)
        for shard, slots, places in self._folder.by_shard(self._numbers):
            if shard is not None:
                kept[places] = shard.numbers("status").numpy()[slots] == 0
        return Batch(self._folder, self._several(kept), self._method)

    @property
    def failed(self) -> Table:
        """A row for each item that failed: its number, id and error."""
        return failed_rows(self._folder, self._numbers)

    @property
    def unmeasured(self) -> Table:
        """A row for each item that has maps, but not all of its metrics: its number, id, and why, as ``error``."""
        return unmeasured_rows(self._folder, self._numbers)

    def mask_file(self, number: SupportsIndex) -> Path | None:
        """The file of an item's annotated evidence; None where it has none.

        Raises ValueError where the source can't be opened again, IndexError for an item that there is not.
        """
        item = self._folder.item(int(self._numbers[index(number)]))
        return None if item.mask is None else mask_file(self._folder.source, item)

    def maps(self, method: str | None = None, size: Sequence[int] | None = None, sign: Sign | None = None) -> Tensor:
        """The maps of all items, (n, C, *spatial), read shard by shard.

        Args:
            method: its name; None where there is one.
            size: of all maps, such as (16, 16): areas are averaged, and what is coarser is interpolated linearly.
            sign: how values become evidence, (n, 1, *spatial), as for :func:`cnnviz.explanations.evidence`, before they
                are resized; None: values as they are.

        Raises:
            LookupError: for items without maps; ``batch.answered`` are those with.
            ValueError: for maps that differ in shape where no size is given.
        """
        chosen = method if method is not None else self._only_method()
        return maps_of(self._folder, self._numbers, self[chosen]._only_method(), size, sign)

    def _only_method(self) -> str:
        if len(self.methods) != 1:
            raise ValueError(f"there are the methods {', '.join(self.methods)}; name one")
        return self.methods[0]

    def table(self) -> Table:
        """A row for each item: what it is, what was explained and found, and whether it failed.

        A metric is a column ``road``, or ``grad_cam.road`` where there are several methods. The status is "ok",
        "error", or "missing" for an item that is not computed yet.
        """
        return item_rows(self._folder, self._numbers, self.methods)

    def to_dataframe(self) -> Any:
        """The table as pandas' DataFrame. Raises ImportError where pandas is not installed."""
        return self.table().to_dataframe()

    def to_arrow(self) -> Any:
        """The table as pyarrow's Table. Raises ImportError where pyarrow is not installed."""
        return to_arrow(self._folder, self._numbers, self.methods)

    def grid(
        self, renderer: str | Renderer | None = None, columns: int | None = None, at: At = "input", **settings: Any
    ) -> Image.Image:
        """The picture of :func:`cnnviz.grid` of the items that were answered.

        Raises ValueError for more than 64 items, and for inputs of different sizes.
        """
        from cnnviz.datasets.stored.export import together

        shown = self if len(self) > GRID else self.answered
        if not 0 < len(shown) <= GRID:
            raise ValueError(
                f"a grid shows 1 to {GRID} items, and these are {len(shown)}; choose some: batch[:8].grid()"
            )
        return together(shown, self.methods).grid(renderer, columns, at, **settings)

    def export(
        self,
        folder: str | Path,
        renderer: str | Renderer | None = None,
        at: At = "input",
        suffix: str = ".png",
        overwrite: bool = False,
        **settings: Any,
    ) -> int:
        """Write a picture of each answered item into a folder, which is made; one after the other.

        The name is the item's id, with its folders, and the suffix: ``birds/wren.jpg`` becomes ``birds/wren.jpg.png``.
        Of several methods each has a folder. What an id has that no file name should, as ``..`` or a colon, is written
        as ``%2E%2E``, and no file lies outside of the folder.

        Args:
            folder: where to.
            renderer, at, settings: how they are drawn, as for :meth:`cnnviz.Explanation.render`.
            suffix: of a picture.
            overwrite: replace files that are there.

        Returns:
            How many files were written.

        Raises:
            FileExistsError: for a file that is there; those before it are written.
        """
        from cnnviz.datasets.stored.export import export

        return export(self, Path(folder), renderer, at, suffix, overwrite, settings)

    def verify(self) -> list[str]:
        """What is wrong in the folder, one line each: every byte is read again and compared with its sha256.

        A shard that is not computed yet is nothing wrong. The table is not looked at: it can be written again.
        """
        from cnnviz.datasets.stored.verify import faults

        return faults(self._folder)

    def report(self, path: str | Path, **settings: Any) -> Any:
        """Write what the data set says: where the heat lies, and what is unlike its class.

        ``settings`` are those of :func:`cnnviz.datasets.audit`; :meth:`cnnviz.datasets.Audit.report` tells which files
        there are. Returns the path.
        """
        from cnnviz.datasets.findings.audit_report import report

        return report(self, path, **settings)

    def __repr__(self) -> str:
        missing = len(self.missing)
        gone = f", {missing:,} of them not computed yet" if missing else ""
        return f"Batch({str(self.out)!r}: {len(self):,} items by {', '.join(self.methods) or 'no methods'}{gone})"


def _answers(folder: RunFolder, number: int, method: str | None) -> Explanations[StoredExplanation] | StoredExplanation:
    item = folder.item(number)
    try:
        shard, slot, row = folder.row(number)
    except NoAnswer as reason:
        raise NoAnswer(f"{item.id!r} has no explanation: {reason}") from None
    if row["status"] != "ok":
        raise NoAnswer(f"{item.id!r} has no explanation: {row.get('error', 'it failed')}")
    if method is not None:
        return stored_explanation(folder, number, shard, slot, method)
    every = {name: stored_explanation(folder, number, shard, slot, name) for name in shard.methods}
    return Explanations(every)
