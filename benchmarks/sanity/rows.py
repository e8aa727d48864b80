"""The file that the rows of the sanity benchmark are kept in."""

from __future__ import annotations

from typing import TypeAlias

from benchmarks.records import HOME, Format
from benchmarks.records import Records as AnyRecords
from cnnviz.testing.sanity.rows import LeftOut, Row

FILE = HOME / "sanity-cpu.json"
Records: TypeAlias = AnyRecords[Row, LeftOut]
SANITY = Format(Row, LeftOut, "python -m benchmarks.sanity", same_machine=False)
