"""A model is found by its name and brings its preprocessing and class names, or the error says why not."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torch import nn

from cnnviz.images.preprocessing import IMAGENET, Preprocessing
from cnnviz.images.reading import read_input
from cnnviz.models.loading import LoadedModel, load_model

ASSETS = Path(os.environ.get("CNNVIZ_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
SQUEEZENET = ASSETS / "models" / "squeezenet1_0-imagenet.pth"
MOBILENET = ASSETS / "models" / "mobilenet_v2-imagenet-fp16.pth"
needs_assets = pytest.mark.skipif(not MOBILENET.exists(), reason="the trained networks are not on this machine")


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the user's module `nets_of_mine`."""
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n"
        "def grey(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout())\n"
        "def signal(): return nn.Conv1d(2, 2, 3)\n"
        "def volume(): return nn.Conv3d(3, 2, 3)\n"
        "colour = nn.Conv2d(3, 2, 3)\n"
        "class Head(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 2)\n"
        "def wrong(): return 7\n"
        "number = 7\n"
    )
    (tmp_path / "broken_nets.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets_of_mine", None)


def no_download(*_: Any, **__: Any) -> Any:
    raise URLError("no network")


@needs_assets
@pytest.mark.parametrize(("name", "file"), [("squeezenet1_0", SQUEEZENET), ("mobilenet_v2", MOBILENET)])
def test_real_networks_recognize_real_photographs(name: str, file: Path) -> None:
    loaded = load_model(name, weights=file)
    assert loaded.name == name
    assert not loaded.module.training
    assert next(loaded.module.parameters()).dtype == torch.float32  # mobilenet_v2's file has float16
    assert loaded.categories is not None
    for picture, index, category in (("snake", 56, "king snake"), ("cat_dog", 243, "bull mastiff")):
        prepared = read_input(ASSETS / "images" / "seed" / f"{picture}.png", loaded.preprocessing)
        with torch.no_grad():
            assert loaded.module(prepared[None]).argmax().item() == index
        assert loaded.categories[index] == category


@needs_assets
def test_weights_of_another_network_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"do not fit SqueezeNet: 50 missing .* 312 unexpected .* 1 of another shape"):
        load_model("squeezenet1_0", weights=MOBILENET)


def test_published_weights_come_with_their_own_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network: what torchvision would download is put in its place."""
    from torchvision import models

    torch.manual_seed(3)
    published = models.squeezenet1_1(weights=None).state_dict()
    asked: list[str] = []

    def download(url: str, **_: Any) -> Any:
        asked.append(url)
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for name in ("squeezenet1_1", "squeezenet1_1:IMAGENET1K_V1", "SqueezeNet1_1"):
        loaded = load_model(name)
        assert torch.equal(loaded.module.state_dict()["features.0.weight"], published["features.0.weight"])
        assert loaded.preprocessing == IMAGENET
        assert loaded.categories is not None
        assert (len(loaded.categories), loaded.categories[0]) == (1000, "tench")
    load_model("squeezenet1_1", weights="SqueezeNet1_1_Weights.IMAGENET1K_V1")
    assert asked == [models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url] * 4


def test_being_offline_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_download)
    with pytest.raises(
        ConnectionError,
        match=r"IMAGENET1K_V2 of resnet50 did not arrive from https://.*pth \(<urlopen error no network>\); "
        r"get that file in another way and pass it with --weights FILE",
    ) as caught:
        load_model("resnet50")
    assert "\n" not in str(caught.value)


def test_the_name_chooses_the_preprocessing_and_the_file_the_numbers(tmp_path: Path) -> None:
    from torchvision import models

    trained = models.mobilenet_v2(weights=None).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    for name, resize in (
        ("mobilenet_v2:IMAGENET1K_V1", 256),
        ("mobilenet_v2:IMAGENET1K_V2", 232),
        ("mobilenet_v2", 232),
    ):
        loaded = load_model(name, weights=tmp_path / "a.pth")
        assert loaded.preprocessing.resize == resize
        assert torch.equal(loaded.module.state_dict()["classifier.1.weight"], trained["classifier.1.weight"])
    with pytest.raises(
        FileNotFoundError,
        match=r"no weights 'gone.pth' of mobilenet_v2: neither a file nor 'random' nor one of IMAGENET1K_V1",
    ):
        load_model("mobilenet_v2", weights="gone.pth")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_change_their_input_do_so_with_a_file_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published file, with its auxiliary heads, gives the scores torchvision's own loading gives."""
    from torchvision import models

    torch.manual_seed(0)
    published = models.get_model(name, weights=None, init_weights=False, aux_logits=True).state_dict()
    torch.save(published, tmp_path / "a.pth")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    images = torch.randn(1, 3, 96, 96)
    downloaded, from_file = load_model(name).module, load_model(name, weights=tmp_path / "a.pth").module
    assert downloaded.transform_input
    assert from_file.transform_input
    assert not load_model(name, weights="random").module.transform_input
    with torch.no_grad():
        torch.testing.assert_close(from_file(images), downloaded(images))


def test_segmentation_networks_load_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_download)
    published = models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None).state_dict()
    torch.save(published | {"aux_classifier.0.weight": torch.zeros(1)}, tmp_path / "a.pth")
    loaded = load_model("lraspp_mobilenet_v3_large", weights=tmp_path / "a.pth")
    assert loaded.module(torch.zeros(1, 3, 64, 64))["out"].shape == (1, 21, 64, 64)
    assert (loaded.preprocessing.resize, loaded.preprocessing.crop) == (520, None)
    assert loaded.categories is not None
    assert loaded.categories[8] == "cat"
    with pytest.raises(
        ValueError, match=r"builds the detector .* in your own code and give that: package.module:factory"
    ):
        load_model("ssdlite320_mobilenet_v3_large", weights=tmp_path / "a.pth")


def test_untrained_networks_have_no_class_names() -> None:
    for weights in ("random", "none"):
        loaded = load_model("squeezenet1_1", weights=weights)
        assert loaded.categories is None
        assert loaded.preprocessing == IMAGENET
        assert not loaded.module.training


def test_a_number_of_classes_of_ones_own_is_told(tmp_path: Path) -> None:
    from torchvision import models

    torch.save(models.resnet18(weights=None, num_classes=7).state_dict(), tmp_path / "a.pth")
    loaded = load_model("resnet18", weights=tmp_path / "a.pth")
    assert (loaded.num_classes, loaded.categories, loaded.module.fc.weight.shape) == (7, None, (7, 512))
    assert loaded.notes == (
        f"weights '{tmp_path / 'a.pth'}' have 7 outputs where ResNet has 1000, so it is made with 7 classes "
        "(--categories names them)",
    )


def test_what_the_user_says_overrides_what_the_model_brings(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\n\N{LATIN SMALL LETTER E WITH ACUTE}toile \ndog\n\n", encoding="utf-8-sig")
    loaded = load_model("squeezenet1_1", weights="random", mean=[0.5] * 3, std=[0.25] * 3, size=112, categories=names)
    assert loaded.preprocessing == Preprocessing((0.5,) * 3, (0.25,) * 3, 128, (112, 112))
    assert loaded.categories == ("cat", "\N{LATIN SMALL LETTER E WITH ACUTE}toile", "dog")
    assert load_model("squeezenet1_1", weights="random", categories=["a", "b"]).categories == ("a", "b")
    with pytest.raises(ValueError, match="mean has 1 values and std has 3"):
        load_model("squeezenet1_1", weights="random", mean=[0.5])
    with pytest.raises(FileNotFoundError, match=r"no file 'gone.txt' of categories; write one name per line"):
        load_model("squeezenet1_1", weights="random", categories="gone.txt")
    for content, message in (
        (b" \n", "are empty; write one name per line"),
        (b"\xff\xfe\x00", "are not text in UTF-8"),
        (b"cat\n\ndog\n", "line 2 is blank; write one name per line, in the order of the outputs"),
    ):
        names.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_model("squeezenet1_1", weights="random", categories=names)


def test_ones_own_code_is_found_in_the_working_directory(own_code: Path) -> None:
    before = list(sys.path)
    grey = load_model("nets_of_mine:grey")
    assert isinstance(grey, LoadedModel)
    assert (grey.name, grey.categories) == ("nets_of_mine:grey", None)
    assert not any(part.training for part in grey.module.modules())
    assert grey.preprocessing == Preprocessing((0.0,), (1.0,))
    assert load_model("nets_of_mine:signal").preprocessing.mean == (0.0, 0.0)
    assert load_model("nets_of_mine:volume").preprocessing == Preprocessing((0.0,) * 3, (1.0,) * 3)
    assert load_model("nets_of_mine:colour").preprocessing == IMAGENET
    assert load_model("nets_of_mine:Head").preprocessing == IMAGENET
    assert load_model("torch.nn:Identity").module(3) == 3
    assert sys.path == before
    trained = nn.Linear(4, 2)
    torch.save(trained.state_dict(), own_code / "a.pth")
    assert torch.equal(load_model("nets_of_mine:Head", weights="a.pth").module.state_dict()["weight"], trained.weight)


def test_faults_in_naming_ones_own_code_are_told(own_code: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no module 'net_of_mine' for model 'net_of_mine:grey'; a model is"):
        load_model("net_of_mine:grey")
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_module_that_is_not_there'"):
        load_model("broken_nets:grey")  # the user's own fault keeps its own message
    with pytest.raises(LookupError, match=r"nets_of_mine has no 'gray' \(did you mean 'grey'\?\) for model 'nets_"):
        load_model("nets_of_mine:gray")
    for name in ("wrong", "number"):
        with pytest.raises(
            TypeError, match=f"model 'nets_of_mine:{name}' gives int; the factory must return a torch.nn"
        ):
            load_model(f"nets_of_mine:{name}")


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(
        LookupError, match=r"no model 'resnet5O' \(did you mean 'resnet50'\?\); a model is 'demo', a name"
    ):
        load_model("resnet5O")
    with pytest.raises(LookupError, match=r"no model 'demo-shortcuts' \(did you mean 'demo-shortcut'\?\)"):
        load_model("demo-shortcuts")
    with pytest.raises(LookupError, match=r"no model '@@@'; a model is"):
        load_model("@@@")
    with pytest.raises(LookupError, match="no weights 'V9' of resnet50; torchvision has IMAGENET1K_V1, IMAGENET1K_V2"):
        load_model("resnet50:V9")


def test_networks_that_cannot_be_explained_are_refused() -> None:
    with pytest.raises(
        ValueError, match="'quantized_resnet50' is quantized, and integers have no gradients; use 'resnet50'"
    ):
        load_model("quantized_resnet50")
    with pytest.raises(TypeError, match="OpticalFlow does not prepare one picture with mean and std"):
        load_model("raft_small", weights="random")


def test_a_file_with_a_network_needs_trust(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(module, tmp_path / "pickled.pt")
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are about
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 8, 8)), tmp_path / "script.pt")
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), tmp_path / "exported.pt2")
    for name in ("pickled.pt", "script.pt", "exported.pt2"):
        with pytest.raises(ValueError, match=rf"{name}' .*, pass --trust-model \(in Python trust_model=True\)"):
            load_model(str(tmp_path / name))
        loaded = load_model(str(tmp_path / name), trust_model=True)
        assert not any(part.training for part in loaded.module.modules())
        images = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(loaded.module(images), module(images))
    with pytest.raises(FileNotFoundError, match=r"no weights file 'gone.pt'"):
        load_model("gone.pt")
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds weights without a network; name the network, and give the file as its"):
        load_model(str(tmp_path / "weights.pth"))


def test_timm_brings_its_own_preprocessing() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from timm.data import create_transform, resolve_model_data_config

    loaded = load_model("timm:resnet10t", weights="random")
    assert not loaded.module.training
    picture = Image.effect_noise((260, 230), 60).convert("RGB")
    config = resolve_model_data_config(timm.create_model("resnet10t"))
    torch.testing.assert_close(loaded.preprocessing(picture), create_transform(**config)(picture), rtol=0, atol=1e-6)
    assert load_model("resnet10t", weights="random").preprocessing == loaded.preprocessing  # the bare name will do
    with pytest.raises(LookupError, match=r"timm has no model 'resnet5O' \(did you mean 'resnet50'\?\)"):
        load_model("timm:resnet5O")


def test_timm_takes_weights_from_a_file_and_a_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(5)
    trained = timm.create_model("resnet10t").state_dict()
    torch.save(trained, tmp_path / "a.pth")
    loaded = load_model("timm:resnet10t", weights=tmp_path / "a.pth", size=96)
    assert torch.equal(loaded.module.state_dict()["fc.weight"], trained["fc.weight"])
    assert loaded.preprocessing.crop == (96, 96)
    assert loaded.categories is not None
    assert loaded.categories[56] == "king snake"


def test_timm_being_offline_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    monkeypatch.setattr(timm, "create_model", no_download)
    with pytest.raises(ConnectionError, match=r"timm could not load 'resnet10t' .*no network.* pass --weights FILE"):
        load_model("timm:resnet10t")


def test_timm_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match="'timm:resnet50' needs timm, which is not installed: pip install timm"
    ):
        load_model("timm:resnet50")
    with pytest.raises(LookupError, match="no model 'tf_efficientnet_b0'"):
        load_model("tf_efficientnet_b0")


def test_the_bundled_networks_are_models_too() -> None:
    from cnnviz import demo

    for name in demo.NETWORKS:
        loaded = load_model(name)
        assert loaded.categories == tuple(demo.CATEGORIES)
        assert loaded.preprocessing.as_dict()["mean"] == list(demo.preprocessing().mean)
        assert not loaded.module.training


def test_importing_the_loader_imports_no_zoo() -> None:
    code = (
        "import sys, cnnviz.models.loading, cnnviz.images.reading; print(*{'torchvision', 'timm'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
