"""The network's weights are found in what training scripts save; what was taken is told, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnviz import demo
from cnnviz.models.loading import LoadedModel, load_model
from cnnviz.models.weights import load_weights


def network(classes: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5, classes))


def weights(seed: int, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network(seed=seed).state_dict().items()}


def taken(path: Path, saved: Any, seed: int, **choice: str) -> tuple[str, ...]:
    """Loading takes the weights of that seed, all of them; the lines that tell of it."""
    torch.save(saved, path)
    module = network()
    notes = load_weights(module, path, **choice)
    for name, tensor in weights(seed).items():
        assert torch.equal(module.state_dict()[name], tensor), name
    return notes


def refused(path: Path, saved: Any, message: str, **choice: str) -> None:
    torch.save(saved, path)
    module = network()
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(module, path, **choice)
    assert "\n" not in str(caught.value)
    for name, tensor in weights(0).items():
        assert torch.equal(module.state_dict()[name], tensor), name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ckpt"


def test_nothing_is_told_where_nothing_was_chosen(path: Path) -> None:
    assert taken(path, weights(1), 1) == ()


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "backbone.", "encoder.", "student.", "module._orig_mod.", "some.thing.of.ours."]
)
def test_a_prefix_is_taken_off_where_all_weights_fit_then(path: Path, prefix: str) -> None:
    assert taken(path, weights(1, prefix), 1) == (f"weights '{path}': prefix '{prefix}' is taken",)
    assert taken(path, {"state_dict": weights(1, prefix), "epoch": 3}, 1) == (
        f"weights '{path}': key 'state_dict', prefix '{prefix}' is taken",
    )
    lacking = weights(1, prefix)
    del lacking[f"{prefix}4.bias"]
    refused(path, lacking, rf"\(prefix '{prefix}'\) do not fit Sequential: 1 missing \(4.bias\)")


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "net", "network", "params", "weights", "module", "teacher", "student", "generator"]
)
def test_weights_are_found_under_any_key(path: Path, key: str) -> None:
    saved = {key: weights(1), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "lr": 0.1}, "epoch": 3}
    assert taken(path, saved, 1) == (f"weights '{path}': key '{key}' is taken",)
    assert taken(path, {"trainer": saved}, 1) == (f"weights '{path}': key 'trainer.{key}' is taken",)


def test_entries_beside_the_network_are_left_out_and_told(path: Path) -> None:
    saved = weights(1, "model.") | {"criterion.weight": torch.ones(3), "queue": torch.ones(2)}
    assert taken(path, {"state_dict": saved}, 1) == (
        f"weights '{path}': key 'state_dict', prefix 'model.' is taken; left out beside it: 2 "
        "(criterion.weight, queue)",
    )
    refused(path, weights(1) | {"queue": torch.ones(2)}, r"1 unexpected \(queue\)")  # it could be of the network
    refused(path, weights(1, "model.") | {"model.5.weight": torch.ones(2)}, r"1 unexpected \(5.weight\)")


def test_a_network_that_is_part_of_a_larger_one_is_not_taken_for_it(path: Path) -> None:
    """A larger network's first layers have the names of the small network, and so have its layers further in."""
    larger = weights(1) | weights(2, "5.")
    refused(path, larger, "do not fit Sequential: 9 unexpected")
    assert taken(path, larger, 2, prefix="5") == (
        f"weights '{path}': prefix '5.' is taken; left out beside it: 9 (0.weight, 0.bias, 1.weight, ...)",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("ema", "model"), ("params_ema", "params")],
)
def test_averaged_weights_come_first_as_in_timm(path: Path, first: str, second: str) -> None:
    for saved in ({second: weights(2), first: weights(1)}, {first: weights(1), second: weights(2)}):
        assert taken(path, saved, 1) == (
            f"weights '{path}': key '{first}' is taken; key '{second}' would fit too (--key and --prefix choose)",
        )
        assert taken(path, saved, 2, key=second) == (f"weights '{path}': key '{second}' is taken",)


def test_weights_that_lie_open_are_as_any_others(path: Path) -> None:
    (note,) = taken(path, weights(1) | {"last": weights(2), "epoch": 3}, 1)
    assert note == (
        f"weights '{path}': the outermost set is taken; key 'last' would fit too (--key and --prefix choose)"
    )
    (note,) = taken(path, weights(2) | {"ema": weights(1)}, 1)
    assert "key 'ema' is taken" in note


def test_timm_takes_the_same_of_two(path: Path) -> None:
    helpers = pytest.importorskip("timm.models", reason="timm is not installed")
    for first, second in (("state_dict_ema", "state_dict"), ("model_ema", "model")):
        taken(path, {second: weights(2), first: weights(1)}, 1)
        module = network()
        helpers.load_checkpoint(module, str(path))
        assert torch.equal(module[4].weight, weights(1)["4.weight"])


def test_of_twins_the_one_that_is_evaluated_is_taken(path: Path) -> None:
    moco = weights(1, "module.encoder_q.") | weights(2, "module.encoder_k.") | {"module.queue": torch.ones(2)}
    (note,) = taken(path, {"state_dict": moco}, 1)
    assert "key 'state_dict', prefix 'module.encoder_q.' is taken; left out beside it: 10 (module.encoder_k.0" in note
    assert "key 'state_dict', prefix 'module.encoder_k.' would fit too" in note
    assert taken(path, {"state_dict": moco}, 2, prefix="module.encoder_k")
    dino = {"student": weights(2, "module.backbone."), "teacher": weights(1, "backbone.")}
    assert "key 'teacher', prefix 'backbone.' is taken" in taken(path, dino, 1)[0]
    assert taken(path, dino, 2, key="student")


def test_between_equals_the_user_decides(path: Path) -> None:
    both = {"first": weights(1), "second": weights(2)}
    refused(path, both, r"fit in 2 ways \(key 'first', key 'second'\); say which: --key or --prefix \(in Python key=")
    assert taken(path, both, 2, key="second")
    twins = weights(1, "left.") | weights(2, "right.")
    refused(path, twins, r"fit in 2 ways \(prefix 'left.', prefix 'right.'\); say which")
    assert taken(path, twins, 2, prefix="right.")
    assert taken(path, {"run": {"nets": twins}}, 1, key="run.nets", prefix="left")


def test_a_wrong_key_or_prefix_is_told_with_those_there_are(path: Path) -> None:
    saved = {"state_dict": weights(1, "model."), "epoch": 3}
    refused(path, saved, r"have no key 'state_dct'; did you mean 'state_dict'\?", key="state_dct")
    refused(path, saved, "have no key 'zzz'; there are state_dict, epoch", key="zzz")
    refused(path, saved, r"have no key 'zzz'; there are model.0.weight, model.0.bias, .*", key="state_dict.zzz")
    refused(path, saved, "have a value of type int under the key 'epoch', not a state dict", key="epoch")
    refused(path, saved, "have no names with the prefix 'net'; names begin with model.", prefix="net")
    with pytest.raises(ValueError, match=r"--prefix .* choose in a file of weights; name one"):
        load_model("demo", prefix="net")
    with pytest.raises(ValueError, match="choose in a file of weights; name one"):
        load_model("squeezenet1_1:IMAGENET1K_V1", key="net")


def test_a_file_that_holds_itself_is_read_once(path: Path) -> None:
    saved: dict[str, Any] = {"model": {}}
    saved["model"]["model"] = saved["model"]
    refused(path, saved, "8 missing")
    saved["model"]["state_dict"] = weights(1)
    taken(path, saved, 1)


def test_names_of_any_length_and_on_any_lines_make_one_short_line(path: Path) -> None:
    odd = {"a\nb" * 500: torch.ones(1), **{".".join("x" * 3000): torch.ones(1)}}
    torch.save(odd, path)
    with pytest.raises(ValueError, match=r"8 missing .* 2 unexpected") as caught:
        load_weights(network(), path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_few_numbers_that_stand_for_many_take_no_memory(path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system does not tell how much memory was taken")
    one = torch.zeros(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for shape in ((1500, 1000, 1000), (100_000, 100_000, 100)):
        refused(path, {"0.weight": one.expand(shape)}, rf"0.weight is {'x'.join(map(str, shape))}, not 5x3x3x3")
    head = weights(1) | {"4.weight": one.expand(10**9, 5), "4.bias": one.expand(10**9)}
    refused(path, head, "have 1000000000 outputs where Sequential has 4")
    torch.save(
        demo.untrained("demo").state_dict() | {"fc.weight": one.expand(10**9, 96), "fc.bias": one.expand(10**9)}, path
    )
    with pytest.raises(ValueError, match="have 1000000000 outputs where DemoNet has 8"):
        load_model("demo", weights=path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_the_heads_size_is_read_off_the_file(path: Path) -> None:
    torch.manual_seed(3)
    trained = demo.untrained("demo", 5).state_dict()
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in trained.items()}}, path)
    loaded = load_model("demo", weights=path)
    assert (loaded.num_classes, loaded.categories) == (5, None)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in loaded.module.state_dict().items())
    assert loaded.module(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
    assert loaded.notes == (
        f"weights '{path}': key 'state_dict', prefix 'model.' is taken",
        f"weights '{path}' have 5 outputs where DemoNet has 8, so it is made with 5 classes (--categories names them)",
    )
    names = load_model("demo", weights=path, categories=list("abcde"))
    assert (names.num_classes, names.categories) == (5, ("a", "b", "c", "d", "e"))
    asked = load_model("demo", weights=path, num_classes=5)
    assert (asked.num_classes, asked.categories, len(asked.notes)) == (5, None, 1)
    with pytest.raises(ValueError, match="have 5 outputs, and num_classes is 6; leave num_classes out"):
        load_model("demo", weights=path, num_classes=6)


def test_networks_of_every_kind_are_made_with_the_files_head(path: Path) -> None:
    from torchvision import models

    timm = pytest.importorskip("timm", reason="timm is not installed")
    for name, trained in (
        ("squeezenet1_1", models.squeezenet1_1(num_classes=7)),
        ("demo-segmentation", demo.untrained("demo-segmentation", 7)),
        ("timm:resnet10t", timm.create_model("resnet10t", num_classes=7)),
    ):
        torch.save(trained.state_dict(), path)
        loaded = load_model(name, weights=path)
        assert (loaded.num_classes, loaded.categories) == (7, None)
        for key, tensor in loaded.module.state_dict().items():
            assert torch.equal(tensor, trained.state_dict()[key])


def test_a_head_that_cannot_be_made_is_left_to_the_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "heads_of_mine.py").write_text(
        "from torch import nn\n"
        "def fixed(): return nn.Sequential(nn.Linear(2, 3))\n"
        "def free(num_classes=3): return nn.Sequential(nn.Linear(2, num_classes))\n"
    )
    monkeypatch.chdir(path.parent)
    torch.save(nn.Sequential(nn.Linear(2, 6)).state_dict(), path)
    with pytest.raises(ValueError, match=r"have 6 outputs where Sequential has 3 .* in your own code"):
        load_model("heads_of_mine:fixed", weights=path)
    with pytest.raises(ValueError, match="'heads_of_mine:fixed' takes no num_classes; give its factory"):
        load_model("heads_of_mine:fixed", num_classes=6)
    assert load_model("heads_of_mine:free", weights=path).num_classes == 6
    assert load_model("heads_of_mine:free", num_classes=9).module[0].out_features == 9
    assert load_model("heads_of_mine:fixed").num_classes == 3
    middle = network().state_dict() | {"0.weight": torch.ones(6, 3, 3, 3)}
    refused(path, middle, "1 of another shape")


def test_published_weights_keep_their_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was downloaded")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match="model 'resnet18' has 1000 outputs, and num_classes is 10; give weights"):
        load_model("resnet18", num_classes=10)
    with pytest.raises(ValueError, match="model 'demo' has 8 outputs, and num_classes is 10"):
        load_model("demo", num_classes=10)
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match="is no number of classes; give a whole number of 1 or more"):
            load_model("demo", num_classes=wrong)  # type: ignore[arg-type]
    untrained = load_model("squeezenet1_1", weights="random", num_classes=10)
    assert (untrained.num_classes, untrained.categories) == (10, None)
    assert untrained.module(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def test_an_untrained_demo_network_is_untrained() -> None:
    loaded = load_model("demo", weights="random")
    assert loaded.categories is None
    assert not torch.equal(loaded.module.fc.weight, demo.network("demo").fc.weight)


def test_a_loaded_model_is_shown_in_short(path: Path) -> None:
    loaded = load_model("demo")
    assert repr(loaded) == (
        "LoadedModel('demo': DemoNet; 8 classes; shorter side resized to 96 (bilinear), centre 96 x 96 cropped, values "
        "in 0..1 normalized with mean (0.5, 0.5, 0.5) and std (0.5, 0.5, 0.5); on cpu)"
    )
    assert (loaded.num_classes, loaded.notes) == (8, ())
    named = LoadedModel("mine", nn.ReLU(), loaded.preprocessing, None)
    assert repr(named).startswith("LoadedModel('mine': ReLU; number of classes unknown; shorter side")


def test_a_network_in_a_dict_is_found(path: Path) -> None:
    nets = {"model": network(4, 1), "ema": network(5, 2), "epoch": 3, "optimizer": None}
    torch.save(nets, path)
    loaded = load_model(str(path), trust_model=True)
    assert (loaded.num_classes, loaded.module[4].weight.shape) == (5, (5, 5))
    assert loaded.notes == (f"model '{path}': key 'ema' is taken; key 'model' is there too (--key chooses)",)
    assert load_model(str(path), trust_model=True, key="model").num_classes == 4
    torch.save({"a": network(4), "b": network(5)}, path)
    with pytest.raises(ValueError, match=r"holds 2 networks \(key 'a', key 'b'\); say which: --key"):
        load_model(str(path), trust_model=True)
