"""Weights go into a network whole or not at all, and a file's own code does not run unasked."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cnnviz.models.file_kinds import kind_of
from cnnviz.models.weights import load_weights, read_module


def network(classes: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5, classes))


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def trained() -> dict[str, Tensor]:
    return network(seed=1).state_dict()


def refused(path: Path, message: str, module: nn.Module | None = None) -> None:
    """Loading fails with one line that says so, and the network stays what it was."""
    module = network() if module is None else module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(module, path)
    assert "\n" not in str(caught.value)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def assert_loaded(path: Path, trained: dict[str, Tensor], trust_model: bool = False) -> None:
    module = network()
    load_weights(module, path, trust_model)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, trained[name], rtol=0, atol=0)


def test_every_way_of_saving_weights_is_read(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "weights"
    save_file(trained, path)
    assert_loaded(path, trained)
    wrapped = [
        trained,
        {"state_dict": trained, "epoch": 3},
        {"model": {"state_dict": trained}, "optimizer": {"lr": 0.1}},
        {"model_state_dict": trained},
        {f"module.{name}": tensor for name, tensor in trained.items()},
        {f"_orig_mod.module.{name}": tensor for name, tensor in trained.items()},
        nn.DataParallel(network(seed=1)).state_dict(),
    ]
    for saved in wrapped:
        torch.save(saved, path)
        assert_loaded(path, trained)
    torch.save(trained, path, _use_new_zipfile_serialization=False)
    assert_loaded(path, trained)


def test_content_decides_and_not_the_suffix(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    save_file(trained, tmp_path / "a.pth")
    torch.save(trained, tmp_path / "a.safetensors")
    assert kind_of(tmp_path / "a.pth") == "safetensors"
    assert kind_of(tmp_path / "a.safetensors") == "checkpoint"
    for name in ("a.pth", "a.safetensors"):
        assert_loaded(tmp_path / name, trained)


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    whole = nn.ModuleDict({"module": network(seed=1)})
    torch.save(whole.state_dict(), tmp_path / "a.pth")
    other = nn.ModuleDict({"module": network()})
    load_weights(other, tmp_path / "a.pth")
    assert torch.equal(other["module"][0].weight, whole["module"][0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_networks_own_precision_is_kept(tmp_path: Path, trained: dict[str, Tensor], dtype: torch.dtype) -> None:
    saved = {n: t.to(dtype) if t.is_floating_point() else t for n, t in trained.items()}
    save_file(saved, tmp_path / "a.safetensors")
    module = network()
    load_weights(module, tmp_path / "a.safetensors")
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, saved["0.weight"].float())


def test_a_file_without_the_count_of_batches_is_complete(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    del trained["1.num_batches_tracked"]
    save_file(trained, tmp_path / "a.safetensors")
    module = network()
    load_weights(module, tmp_path / "a.safetensors")
    assert torch.equal(module[4].weight, trained["4.weight"])


def test_a_module_renames_what_its_older_version_wrote(tmp_path: Path) -> None:
    """The version is in the file's metadata, by module name, so it must lose the prefix with the weights."""

    class Scale(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.full((2,), 7.0 if name == "old" else 0.0)))

    class NewScale(Scale):
        _version = 2

        def _load_from_state_dict(self, found: dict[str, Any], prefix: str, metadata: Any, *rest: Any) -> None:
            if metadata.get("version", 2) < 2:
                found[f"{prefix}new"] = found.pop(f"{prefix}old")
            super()._load_from_state_dict(found, prefix, metadata, *rest)

    older = nn.Sequential(nn.Linear(1, 1), Scale("old"))
    for saved in (older, nn.DataParallel(older)):
        torch.save(saved.state_dict(), tmp_path / "a.pth")
        newer = nn.Sequential(nn.Linear(1, 1), NewScale("new"))
        load_weights(newer, tmp_path / "a.pth")
        assert newer[1].new.tolist() == [7.0, 7.0]


def test_the_old_names_of_densenet_are_understood(tmp_path: Path) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denselayer1 = nn.Module()
            self.denselayer1.norm1 = nn.BatchNorm2d(2)

    old = Dense()
    nn.init.uniform_(old.denselayer1.norm1.weight)
    torch.save({n.replace("norm1", "norm.1"): t for n, t in old.state_dict().items()}, tmp_path / "a.pth")
    new = Dense()
    load_weights(new, tmp_path / "a.pth")
    assert torch.equal(new.denselayer1.norm1.weight, old.denselayer1.norm1.weight)


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pth"
    changed: dict[str, Any] = {n: t for n, t in trained.items() if n not in ("0.bias", "4.bias")}
    changed |= {f"fc{i}.weight": torch.ones(1) for i in range(5)}
    changed["0.weight"] = torch.ones(5, 1, 3, 3)
    torch.save(changed, path)
    refused(
        path,
        r"a.pth' do not fit Sequential: 2 missing \(0.bias, 4.bias\), "
        r"5 unexpected \(fc0.weight, fc1.weight, fc2.weight, ...\), "
        r"1 of another shape \(0.weight is 5x1x3x3, not 5x3x3x3\); use weights of the same network",
    )
    torch.save({}, path)
    refused(path, r"8 missing \(0.weight, 0.bias, 1.weight, ...\)")
    torch.save(trained | {"4.bias": "a text"}, path)
    refused(path, "have 4.bias as str, not a tensor")
    torch.save([1, 2], path)
    refused(path, r"hold a list, not a state dict; save model.state_dict\(\)")


def test_another_number_of_classes_is_recognized(tmp_path: Path) -> None:
    torch.save(network(classes=7).state_dict(), tmp_path / "a.pth")
    refused(
        tmp_path / "a.pth",
        r"have 7 outputs where Sequential has 4 \(4.weight is 7x5, not 4x5\); make the network with 7 "
        "outputs in your own code and give that as the model: package.module:factory",
    )


def test_a_module_that_refuses_half_way_stays_what_it_was(tmp_path: Path) -> None:
    class Picky(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            super()._load_from_state_dict(*args)
            raise RuntimeError("on\nmany lines")

    module = nn.Sequential(nn.Linear(2, 2), Picky(2, 2))
    torch.save({name: torch.ones_like(tensor) for name, tensor in module.state_dict().items()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "do not fit Sequential: on many lines", module)


def test_numbers_that_cannot_be_weights_are_refused(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pth"
    for broken in (float("nan"), float("inf")):
        weight = trained["4.weight"].clone()
        weight[2, 3] = broken
        torch.save(trained | {"4.weight": weight}, path)
        refused(path, "a.pth' are broken: 4.weight is NaN or infinite in 1 of 20 places")
    for odd in (trained["4.weight"].to(torch.int8), trained["4.weight"].to(torch.complex64)):
        torch.save(trained | {"4.weight": odd}, path)
        refused(path, r"have 4.weight as torch.(int8|complex64) .* save them dense and unquantized")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype of torch
        torch.save(trained | {"4.weight": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, path)
    refused(path, "1 of another shape")
    torch.save(trained | {"4.weight": trained["4.weight"].to_sparse()}, path)
    refused(path, r"have 4.weight as torch.float32 \(torch.sparse_coo\)")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, trained: dict[str, Tensor], zipped: bool) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    for saved in (Hostile(mark), {"state_dict": trained, "extra": Hostile(mark)}):
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        refused(
            path,
            r"holds code \(\w+.system\), not only numbers, .* --trust-model \(in Python trust_model=True\)",
        )
        with pytest.raises(ValueError, match="--trust-model"):
            read_module(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Hostile(mark), protocol))
        refused(path, r"a.pth'")
    path.with_suffix(".safetensors").write_bytes(path.read_bytes())
    refused(path.with_suffix(".safetensors"), "a.safetensors'")
    assert not mark.exists()
    torch.save({"state_dict": trained, "extra": Hostile(mark)}, path, _use_new_zipfile_serialization=zipped)
    assert_loaded(path, trained, trust_model=True)
    assert mark.exists()  # so the refusals above were of something that does run


def test_a_pickled_network_is_opened_on_trust_alone(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pt"
    for saved in (network(seed=1), {"model": network(seed=1)}):
        torch.save(saved, path)
        refused(path, r"holds code \(torch.nn.modules.container.Sequential\), .* pass --trust-model")
        assert_loaded(path, trained, trust_model=True)
    torch.save(network(seed=1), path)
    assert isinstance(read_module(path, trust_model=True)[0], nn.Sequential)


def test_programs_are_opened_on_trust_alone(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    module, example = network(seed=1).eval(), (torch.zeros(1, 3, 3, 3),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are about
        torch.jit.save(torch.jit.trace(module, example[0]), tmp_path / "script.pt")
    torch.export.save(torch.export.export(module, example), tmp_path / "exported.pt2")
    for name, kind in (("script.pt", "TorchScript"), ("exported.pt2", "exported program")):
        assert kind_of(tmp_path / name) == kind
        refused(
            tmp_path / name,
            rf"{name}' is a program \({kind}\), and opening it could do anything; .*--trust-model",
        )
        assert_loaded(tmp_path / name, trained, trust_model=True)
        opened, _ = read_module(tmp_path / name, trust_model=True)
        torch.testing.assert_close(opened(*example), module(*example))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_is_one_clear_line(tmp_path: Path, trained: dict[str, Tensor], kind: str) -> None:
    path = tmp_path / "a.pth"
    if kind == "safetensors":
        save_file(trained, path)
    else:
        torch.save(trained, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for part in (0, 5, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        refused(path, "a.pth'")
    for part in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        refused(path, "are damaged or cut short: ")


def test_lies_about_the_content_are_found(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    import zipfile

    path = tmp_path / "a.safetensors"
    save_file(trained, path)
    whole = path.read_bytes()
    huge = (2**62).to_bytes(8, "little") + whole[8:]
    larger = whole.replace(b"[5,3,3,3]", b"[5,3,3,9]")
    assert larger != whole
    for content in (huge, larger):
        path.write_bytes(content)
        refused(path, "a.safetensors' are damaged or cut short: ")
    path.write_bytes(b"<html>not found</html>")
    refused(path, "a.safetensors' are neither safetensors nor a file of torch.save")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10_000_000)
    refused(path, "are a zip archive, but not one that torch.save wrote")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file '.*gone.pth'"):
        load_weights(network(), tmp_path / "gone.pth")
    refused(tmp_path, "are not a file; name a .safetensors, .pth or .pt file")


def test_weights_are_not_a_network(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    torch.save(trained, tmp_path / "a.pth")
    save_file(trained, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(
            ValueError, match=rf"{name}' holds weights without a network; name the network.*--weights FILE"
        ):
            read_module(tmp_path / name, trust_model=True)
