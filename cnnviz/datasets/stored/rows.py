"""What is said of each item, in rows: for people, for pandas, and in a file for other programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnviz.datasets.shards.commit import temporary_in
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.datasets.shards.shard_file import NO_CLASS
from cnnviz.datasets.stored.run_folder import RunFolder
from cnnviz.explanations.tables import Table

PARQUET, LINES = "table.parquet", "table.jsonl"
CHUNK = 64
"""How many shards' rows are in memory while a table is written."""
_NUMBERS = ("target", "score", "probability", "predicted", "predicted_probability")


def item_rows(folder: RunFolder, numbers: range | NDArray[np.int64], methods: Sequence[str]) -> Table:
    """As :meth:`cnnviz.datasets.Batch.table`."""
    columns = _metric_columns(folder, methods)
    rows: list[dict[str, Any]] = [{}] * len(numbers)
    for shard, slots, places in folder.by_shard(numbers):
        values = {} if shard is None else _values(shard, columns)
        for slot, place in zip(slots.tolist(), places.tolist(), strict=True):
            rows[place] = _row(folder, int(numbers[place]), shard, slot, values, columns)
    return Table(rows)


def failed_rows(folder: RunFolder, numbers: range | NDArray[np.int64]) -> Table:
    """As :attr:`cnnviz.datasets.Batch.failed`."""
    found = []
    for shard, slots, places in folder.by_shard(numbers):
        if shard is None:
            continue
        failed = shard.numbers("status").numpy()[slots] != 0
        for slot, place in zip(slots[failed].tolist(), places[failed].tolist(), strict=True):
            row = folder.checked(shard, slot, int(numbers[place]))[1]
            found.append({"item": place, "id": row["id"], "error": row.get("error")})
    return Table(sorted(found, key=lambda row: int(row["item"])))


def unmeasured_rows(folder: RunFolder, numbers: range | NDArray[np.int64]) -> Table:
    """As :attr:`cnnviz.datasets.Batch.unmeasured`."""
    found = []
    columns = _metric_columns(folder, folder.methods)
    for shard, slots, places in folder.by_shard(numbers) if columns else ():
        if shard is None:
            continue
        lacking = np.zeros(shard.items, bool)
        for method, metric in columns.values():
            if metric in shard.told(method, "metrics"):
                lacking |= np.isnan(shard.metric(method, metric).numpy())
        lacking &= shard.numbers("status").numpy() == 0
        for slot, place in zip(slots[lacking[slots]].tolist(), places[lacking[slots]].tolist(), strict=True):
            row = folder.checked(shard, slot, int(numbers[place]))[1]
            found.append({"item": place, "id": row["id"], "error": row.get("unmeasured")})
    return Table(sorted(found, key=lambda row: int(row["item"])))


def to_arrow(folder: RunFolder, numbers: range | NDArray[np.int64], methods: Sequence[str]) -> Any:
    """As :meth:`cnnviz.datasets.Batch.to_arrow`."""
    try:
        arrow = import_module("pyarrow")
    except ImportError as error:
        raise ImportError("an Arrow table needs pyarrow; pip install 'cnnviz[batch]', or use table()") from error
    rows = item_rows(folder, numbers, methods)
    whole = all(isinstance(row["label"], int | None) for row in rows)
    return arrow.Table.from_pylist(_told(rows, whole), _schema(arrow, _metric_columns(folder, methods), whole))


def write_table(out: str | Path) -> Path:
    """Write the rows of all items of a run into its folder: ``table.parquet``, or ``table.jsonl`` without pyarrow.

    They are made from the shards, and nothing reads them back: the file may be lost, and made again. Returns it.
    Raises OSError where it can't be written; then what was there is left.
    """
    folder = RunFolder(out)
    try:
        arrow = import_module("pyarrow")
    except ImportError:
        arrow = None
    path, other = (folder.out / name for name in ((PARQUET, LINES) if arrow else (LINES, PARQUET)))
    temporary = temporary_in(folder.out)
    try:
        if arrow is None:
            _write_lines(folder, temporary)
        else:
            _write_parquet(folder, temporary, arrow)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    other.unlink(missing_ok=True)  # two tables of one run, one of them older, would only mislead
    return path


def _write_lines(folder: RunFolder, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for rows in _chunks(folder):
            file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _write_parquet(folder: RunFolder, path: Path, arrow: Any) -> None:
    parquet = import_module("pyarrow.parquet")
    whole = all(isinstance(folder.item(number).label, int | None) for number in range(len(folder.plan)))
    schema = _schema(arrow, _metric_columns(folder, folder.methods), whole)
    with parquet.ParquetWriter(path, schema.with_metadata({"cnnviz": folder.plan.digest})) as writer:
        for rows in _chunks(folder):
            writer.write_table(arrow.Table.from_pylist(_told(rows, whole), schema))


def _chunks(folder: RunFolder) -> Iterator[Table]:
    step = CHUNK * folder.plan.shard_size
    for start in range(0, len(folder.plan), step):
        yield item_rows(folder, range(start, min(start + step, len(folder.plan))), folder.methods)


def _told(rows: Table, whole: bool) -> list[dict[str, Any]]:
    """Rows whose labels are of one type, as Arrow needs: numbers, or else text."""
    return [row | {"label": _text(row["label"])} for row in rows] if not whole else list(rows)


def _text(label: int | str | None) -> str | None:
    return None if label is None else str(label)


def _schema(arrow: Any, metrics: Mapping[str, Any], whole: bool) -> Any:
    text, real, number = arrow.string(), arrow.float64(), arrow.int64()
    kinds = {"id": text, "label": number if whole else text, "class": text, "target": number, "score": real}
    kinds |= {"probability": real, "predicted": number, "predicted_probability": real}
    return arrow.schema(kinds | dict.fromkeys(metrics, real) | {"status": text, "error": text})


def _metric_columns(folder: RunFolder, methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The names of the columns of metrics, with the method and the metric."""
    several = len(methods) > 1
    return {
        f"{method}.{metric}" if several else metric: (method, metric) for method in methods for metric in folder.metrics
    }


def _values(shard: OpenShard, columns: Mapping[str, tuple[str, str]]) -> dict[str, list[Any]]:
    """The numbers of a shard's items by column, None where they are not known."""
    found: dict[str, list[Any]] = {name: shard.numbers(name).tolist() for name in _NUMBERS}
    for name, (method, metric) in columns.items():
        told = metric in shard.told(method, "metrics")  # of a shard of which all items failed, no
        found[name] = shard.metric(method, metric).tolist() if told else [None] * shard.items
    return {name: [_known(value) for value in values] for name, values in found.items()}


def _known(value: float | int | None) -> float | int | None:
    nothing = value == NO_CLASS if isinstance(value, int) else value is None or math.isnan(value)
    return None if nothing else value


def _row(
    folder: RunFolder,
    number: int,
    shard: OpenShard | None,
    slot: int,
    values: Mapping[str, Sequence[Any]],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if shard is None:
        item = folder.item(number)
    else:
        item, told = folder.checked(shard, slot, number)
    row: dict[str, Any] = {"id": item.id, "label": item.label, "class": told.get("class", told.get("objective"))}
    row |= {name: values[name][slot] if values else None for name in (*_NUMBERS, *metrics)}
    return row | {"status": told.get("status", "missing"), "error": told.get("error", told.get("unmeasured"))}
