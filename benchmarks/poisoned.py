"""A batch run with a picture that kills whatever process opens it, as a decoder that crashes does.

python -m benchmarks.poisoned PICTURES OUT --backend local --poison 00700.png
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cnnviz
from cnnviz.datasets import Item


@dataclass(frozen=True)
class Poisoned:
    """The pictures of a folder. See :class:`cnnviz.datasets.Source`."""

    folder: str
    poison: str

    def items(self) -> Iterator[Item]:
        for path in sorted(Path(self.folder).iterdir()):
            yield Item(path.name)

    def open(self, item: Item) -> Path:
        if item.id == self.poison:
            os.kill(os.getpid(), signal.SIGSEGV)
        return Path(self.folder, item.id)

    def described(self) -> dict[str, Any]:
        return {"kind": "folder", "root": self.folder}


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures")
    parser.add_argument("out")
    parser.add_argument("--backend", default="local")
    parser.add_argument("--poison", required=True)
    parser.add_argument("--methods", default="grad_cam,gradient,smoothgrad")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--shard-size", type=int)
    asked = parser.parse_args(args)
    stored = cnnviz.batch(
        cnnviz.load_model("demo"),
        Poisoned(str(Path(asked.pictures).absolute()), asked.poison),
        asked.methods.split(","),
        asked.out,
        shard_size=asked.shard_size,
        backend=asked.backend,
        workers=2,
        samples=asked.samples,
    )
    print(f"{len(stored)} items, {len(stored.failed)} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
