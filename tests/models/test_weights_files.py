"""Weights in several files and folders are read whole; files that are something else are named as what they are."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cnnviz.models.loading import load_model
from cnnviz.models.weights import load_weights


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def trained() -> dict[str, Tensor]:
    return network(1).state_dict()


def assert_loaded(path: Path, trained: dict[str, Tensor]) -> None:
    module = network()
    load_weights(module, path)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, trained[name]), name


def refused(path: Path, message: str, error: type[Exception] = ValueError) -> None:
    module = network()
    with pytest.raises(error, match=message) as caught:
        load_weights(module, path)
    assert "\n" not in str(caught.value)
    assert torch.equal(module[0].weight, network()[0].weight)


def sharded(folder: Path, trained: dict[str, Tensor], suffix: str = "safetensors") -> dict[str, str]:
    """Writes the weights into three files; where each of them is."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{number}-of-00003.{suffix}" for number in (1, 2, 3)]
    places = {name: names[number % 3] for number, name in enumerate(trained)}
    for file in names:
        part = {name: tensor.clone() for name, tensor in trained.items() if places[name] == file}
        if suffix == "safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_are_read_by_their_index_or_folder(
    tmp_path: Path, trained: dict[str, Tensor], suffix: str
) -> None:
    sharded(tmp_path, trained, suffix)
    (index,) = tmp_path.glob("*.json")
    assert_loaded(index, trained)
    (tmp_path / "config.json").write_text("{}")
    assert_loaded(tmp_path, trained)


def test_a_folder_of_hugging_face_is_its_weights(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "blobs").mkdir()
    save_file(trained, tmp_path / "blobs" / "4b1c")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "4b1c")  # as in the hub's cache
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert_loaded(tmp_path, trained)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").unlink()
    refused(tmp_path, "are not a file; name a .safetensors, .pth or .pt file, or a folder with model.safetensors")
    save_file(trained, tmp_path / "a.safetensors")
    assert_loaded(tmp_path, trained)
    save_file(trained, tmp_path / "b.safetensors")
    refused(tmp_path, r"are a folder with 2 files \(a.safetensors, b.safetensors\); name one of them")


def test_a_folder_is_weights_for_models_by_name_too(tmp_path: Path) -> None:
    from torchvision import models

    trained = models.squeezenet1_1().state_dict()
    sharded(tmp_path, trained)
    loaded = load_model("squeezenet1_1", weights=tmp_path)
    assert torch.equal(loaded.module.state_dict()["classifier.1.weight"], trained["classifier.1.weight"])


def test_a_file_that_is_missing_is_named(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    places = sharded(tmp_path, trained)
    gone = places["0.weight"]
    (tmp_path / gone).rename(tmp_path / "kept")
    refused(tmp_path, f"list the file '{gone}', which is not beside it; get it too", FileNotFoundError)
    save_file({"other": torch.ones(1)}, tmp_path / gone)
    refused(tmp_path, f"list 0.weight in the file '{gone}', which does not have it; get all files of one download")
    (tmp_path / gone).write_bytes((tmp_path / "kept").read_bytes()[:-3])
    refused(tmp_path, f"{gone}' are damaged or cut short")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "c:\\x", ".", "a\0b"])
def test_an_index_leads_to_no_other_folder(tmp_path: Path, trained: dict[str, Tensor], name: str) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(trained, tmp_path / "secret")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(trained, name)}))
    refused(index, "only files beside the index are read")


def test_an_index_that_is_none_is_told(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    wrong: list[Any] = [{}, {"weight_map": [1]}, {"weight_map": {"a": 3}}, {"architectures": ["ResNet"]}]
    for content in [*map(json.dumps, wrong), "{not json", "{" * 100_000, '{"a":' * 50_000]:
        index.write_text(content)
        refused(
            index, "neither safetensors nor a file of torch.save: the file is JSON; of JSON an index with a weight_map"
        )
    with index.open("wb") as file:
        file.write(b'{"weight_map": {')
        file.truncate(10**9)  # on disk it is nothing
    refused(index, "the file is JSON; of JSON an index with a weight_map is read")
    index.write_text(json.dumps({"weight_map": {"0.weight": index.name}}))
    refused(index, "which is an index itself")


def test_files_of_another_kind_are_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    np.save(tmp_path / "a.npy", np.ones(2))
    files = {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n": "a pointer of git-lfs; .*pull",
        b"<!DOCTYPE html>\n<html><head>": "a web page; get the file that the page leads to",
        b"\n\n<html lang=en>": "a web page",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>': "a web page",
        b"\x89HDF\r\n\x1a\n\0\0\0": "of HDF5",
        (tmp_path / "a.npz").read_bytes(): "of NumPy; ",
        (tmp_path / "a.npy").read_bytes(): "of NumPy; ",
        b"GGUF\x03\0\0\0": "of GGUF",
        b"\x1f\x8b\x08\0": "compressed; unpack it first",
        b"": "empty; get it again",
        b'{"weights": 3}': "JSON; ",
        b"something else": "save a state dict as either",
        b"\x08": "save a state dict as either",
    }
    for content, what in files.items():
        path.write_bytes(content)
        refused(path, f"are neither safetensors nor a file of torch.save: .*{what}")


def test_an_onnx_file_as_weights_is_the_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    for producer in ("pytorch", ""):
        onnx.save(onnx.helper.make_model(graph, producer_name=producer), tmp_path / "a.onnx")
        refused(
            tmp_path / "a.onnx", "the file is of ONNX, with a network in it; give it as the model: --model FILE.onnx"
        )


def test_a_program_says_first_what_can_explain_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are about
        torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 2)), tmp_path / "script.pt")
    with pytest.raises(
        ValueError,
        match=r"script.pt' is a program \(TorchScript\), which only methods that need scores "
        r"alone can explain, such as occlusion, and opening it could do anything; for all methods give the network as "
        r"it was before torch.jit: package.module:factory, or, if you trust .* pass --trust-model",
    ):
        load_model(str(tmp_path / "script.pt"))


def test_a_header_that_claims_much_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for length in (2**40, 100_000_000, 10**8 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b'{"a":{}}')
        refused(path, "are damaged or cut short")
    claims = json.dumps(
        {"0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    ).encode()
    path.write_bytes(len(claims).to_bytes(8, "little") + claims + b"\0" * 24)
    refused(path, "are damaged or cut short")


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "a.pth", "are a zip archive, but not one that torch.save wrote")
