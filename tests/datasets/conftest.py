"""A small batch run of drawn pictures, of which one is damaged, as several tests read it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.datasets import Batch

SIZES = ((40, 56), (48, 48), (64, 50), (48, 48), (72, 48), (48, 60), (50, 50))
BROKEN = 3
"""The number of the item that is no picture."""
METHODS = ("grad_cam", "gradient")


@dataclass(frozen=True)
class Run:
    """A folder of pictures, and the batch run over them."""

    pictures: Path
    out: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.pictures.rglob("*.png"))


def draw_pictures(folder: Path) -> None:
    noise = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        file = folder / f"{'ab'[number % 2]}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8)).save(file)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Read only: seven pictures by two methods with a metric, in shards of three."""
    folder = tmp_path_factory.mktemp("batch")
    draw_pictures(folder / "pictures")
    run = Run(folder / "pictures", folder / "out")
    run.files[BROKEN].write_bytes(b"no picture")
    cnnviz.batch(
        cnnviz.load_model("demo"),
        run.pictures,
        METHODS,
        run.out,
        metrics="sparseness",
        labels=None,
        shard_size=3,
        batch_size=3,
        backend="local",
        workers=0,
    )
    return run


@pytest.fixture
def run(whole_run: Run, tmp_path: Path) -> Run:
    """A copy that a test may damage; the plan still names the first pictures' place."""
    shutil.copytree(whole_run.out, tmp_path / "out")
    shutil.copytree(whole_run.pictures, tmp_path / "pictures")
    return Run(tmp_path / "pictures", tmp_path / "out")


@pytest.fixture
def batch(whole_run: Run) -> Batch:
    return cnnviz.open_batch(whole_run.out)
