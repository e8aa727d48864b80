"""One run over the same pictures in every kind of source, and over data that has moved."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz import demo
from cnnviz.datasets import true_class

NAMES = ("star/1", "ring/2", "star/3")


@pytest.fixture(scope="module")
def model() -> Any:
    return cnnviz.load_model("demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    drawn = demo.pictures().pictures
    for name, picture in zip(NAMES, drawn, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / f"{name}.png")
    return root


def run(model: Any, source: Any, out: Path, **settings: Any) -> Any:
    return cnnviz.batch(model, source, "grad_cam", out, target=true_class, workers=0, **settings)


def test_the_same_pictures_have_the_same_maps_whatever_they_lie_in(model: Any, folder: Path, tmp_path: Path) -> None:
    files = [folder / f"{name}.png" for name in NAMES]
    labels = [model.categories.index(name.partition("/")[0]) for name in NAMES]
    table = folder.parent / "table.csv"
    table.write_text("path,label\n" + "".join(f"photos/{name}.png,{name.split('/')[0]}\n" for name in NAMES))
    with tarfile.open(folder.parent / "t.tar", "w") as tar:
        for name, file, label in zip(NAMES, files, labels, strict=True):
            for suffix, content in ((".png", file.read_bytes()), (".cls", b"%d" % label)):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    pictures = [(Image.open(file), label) for file, label in zip(files, labels, strict=True)]
    inputs = torch.stack([model.preprocessing(picture) for picture, _ in pictures])
    tensors = torch.utils.data.TensorDataset(inputs, torch.tensor(labels))
    expected = cnnviz.explain(model, inputs, "grad_cam", target=labels).values
    for number, source in enumerate((table, folder.parent / "t.tar", pictures, tensors)):
        batch = run(model, source, tmp_path / str(number))
        assert torch.allclose(batch.maps("grad_cam"), expected, atol=1e-6)
    batch = run(model, folder, tmp_path / "folder")
    order = [NAMES.index(Path(id).with_suffix("").as_posix()) for id in batch.ids]
    assert order == [1, 0, 2]
    assert torch.allclose(batch.maps("grad_cam"), expected[order], atol=1e-6)


def test_a_run_goes_on_and_is_read_where_its_data_has_moved(model: Any, folder: Path, tmp_path: Path) -> None:
    here = folder.parent / "moved"
    out = tmp_path / "out"
    run(model, folder, out, labels="folder", shard_size=2)
    shard = next((out / "shards").glob("*000000.safetensors"))
    before = shard.read_bytes()
    shard.unlink()
    folder.rename(here)
    try:
        batch = run(model, here, out, labels="folder")
        assert shard.read_bytes() == before
        assert batch.ids == ["ring/2.png", "star/1.png", "star/3.png"]
        with Image.open(here / "star/3.png") as picture:
            expected = model.preprocessing(picture)
        again = cnnviz.open_batch(out, source=here)
        assert np.allclose(again[2]["grad_cam"].inputs[0], expected)
    finally:
        here.rename(folder)
