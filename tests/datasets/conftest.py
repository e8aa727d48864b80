"""A small batch run for the tests that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from batch_runs import BROKEN, METHODS, Run, draw_pictures

import cnnviz
from cnnviz.datasets import Batch


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
