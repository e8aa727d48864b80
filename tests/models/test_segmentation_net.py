"""A trunk is mirrored exactly, whatever its rank and sizes, and the bundled network finds drawn shapes."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models import vgg

from benchmarks import training
from cnnviz import attributions, demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.demo.drawing import draw
from cnnviz.drawing import class_overlay
from cnnviz.models import SegmentationNet, intersection_over_union
from cnnviz.models.segmentation_net import Deconvolution, Stretching, Unpooling, switches_of

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOL = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE_POOL = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
SIZES = {1: (15,), 2: (9, 12), 3: (5, 7, 6)}
SEED = 47  # neither training's nor that of the figure told at training


def net_of(rank: int) -> SegmentationNet:
    """Overlapping pools, a stride that does not divide, groups, and numbers in its batch norms as after training."""
    torch.manual_seed(rank)
    conv, norm, pool = CONV[rank - 1], NORM[rank - 1], MAX_POOL[rank - 1]
    trunk = nn.Sequential(
        nn.Sequential(conv(2, 4, 3, stride=2, padding=1), norm(4), nn.ReLU(inplace=True)),
        nn.Sequential(pool(3, stride=1, padding=1), nn.Dropout()),
        nn.Sequential(conv(4, 6, 2, groups=2), nn.GELU(), pool(2, ceil_mode=True)),
    )
    net = SegmentationNet(trunk, 3).double()
    for module in net.modules():
        if isinstance(module, NORM):
            for numbers in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                numbers.uniform_(0.2, 1.5)
    return net.eval()


def dense(convolve: Callable[[Tensor], Tensor], channels: int, size: tuple[int, ...]) -> Tensor:
    """The matrix of a linear operation on one input (channels, *size): a column for each of its numbers."""
    basis = torch.eye(channels * int(np.prod(size)), dtype=torch.float64)
    return convolve(basis.view(-1, channels, *size)).flatten(1).T


def deconvolved(stage: Deconvolution, mirrored: nn.Module, maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """The stage by the transpose of its convolution's matrix, and batch norm by its formula."""
    weight, rank = stage.transposed.weight.detach(), len(size)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    geometry: Any = (mirrored.stride, mirrored.padding, mirrored.dilation, mirrored.groups)
    channels = weight.shape[1] * mirrored.groups
    matrix = dense(lambda basis: convolve(basis, weight, None, *geometry), channels, size)
    wide = (maps.flatten(1) @ matrix).view(len(maps), channels, -1)
    norm = stage.norm
    mean, var, scale, shift = (each[:, None] for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return ((wide - mean) / (var + norm.eps).sqrt() * scale + shift).clamp(min=0).view(len(maps), channels, *size)


def unpooled(pool: Any, before: Tensor, pooled: Tensor, maps: Tensor) -> Tensor:
    """Each window looks up where its highest value came from, and puts the new one there."""
    rank = before.ndim - 2
    kernel, stride, padding, dilation = (
        (each,) * rank if isinstance(each, int) else each
        for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    result = torch.zeros(*maps.shape[:2], *before.shape[2:], dtype=maps.dtype)
    for item, channel, *cell in product(*map(range, pooled.shape)):
        best: tuple[int, ...] | None = None
        for step in product(*map(range, kernel)):
            place = tuple(
                at * move - edge + wide * each
                for at, move, edge, wide, each in zip(cell, stride, padding, dilation, step, strict=True)
            )
            if any(each < 0 or each >= length for each, length in zip(place, before.shape[2:], strict=True)):
                continue
            if best is None or before[(item, channel, *place)] > before[(item, channel, *best)]:
                best = place
        assert best is not None
        result[(item, channel, *best)] += maps[(item, channel, *cell)]
    return result


# The mirror


def test_the_network_is_what_loops_and_dense_matrices_say(rank: int) -> None:
    net = net_of(rank)
    inputs = torch.randn(2, 2, *SIZES[rank], dtype=torch.float64)
    (first, norm, relu), (overlapping, _), (second, gelu, ceiled) = net.trunk
    with torch.no_grad():
        a = relu(norm(first(inputs)))
        b = overlapping(a)
        c = gelu(second(b))
        d = ceiled(c)
        assert any(2 * cells > length for cells, length in zip(d.shape[2:], c.shape[2:], strict=True))  # beyond the map
        maps = unpooled(ceiled, c, d, d)
        maps = deconvolved(net.decoder[1], second, maps, b.shape[2:])
        maps = unpooled(overlapping, a, b, maps)
        maps = deconvolved(net.decoder[3], first, maps, inputs.shape[2:])
        weight, bias = net.scores.weight.flatten(1), net.scores.bias
        expected = torch.einsum("kc, nc... -> nk...", weight, maps) + bias.view(-1, *(1,) * rank)
        torch.testing.assert_close(net(inputs), expected)
    assert len(net.decoder) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 2, "stride": 3},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
    ],
)
def test_values_go_back_to_where_a_max_pool_took_them_from(rank: int, settings: dict[str, Any]) -> None:
    pool = MAX_POOL[rank - 1](**settings)
    before = torch.randn(2, 3, *SIZES[rank], generator=torch.Generator().manual_seed(1))
    pooled = pool(before)
    maps = torch.randn_like(pooled)
    found = Unpooling()(maps, before.shape[2:], *switches_of(pool, before))
    torch.testing.assert_close(found, unpooled(pool, before, pooled, maps))


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 3},
        {"kernel_size": 2, "dilation": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "groups": 2, "padding": 2},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": 4, "padding": "same", "groups": 2},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_deconvolution_has_the_transposed_matrix_of_its_convolution(rank: int, geometry: dict[str, Any]) -> None:
    if rank == 3 and geometry["kernel_size"] == 4:
        geometry = {**geometry, "kernel_size": (4, 3, 2)}
    torch.manual_seed(0)
    mirrored = CONV[rank - 1](4, 6, **geometry).double()
    stage = Deconvolution(mirrored, 4).double().eval()
    inputs = torch.randn(2, 4, *SIZES[rank], dtype=torch.float64)
    with torch.no_grad():
        maps = mirrored(inputs)
        found = stage(maps, inputs.shape[2:])
        torch.testing.assert_close(found, deconvolved(stage, mirrored, maps, inputs.shape[2:]))
    assert found.shape == inputs.shape


def test_what_was_averaged_is_spread_over_its_cell(rank: int) -> None:
    maps = torch.arange(2.0**rank).view(1, 1, *(2,) * rank)
    spread = Stretching()(maps, (4,) * rank)
    for place in product(range(4), repeat=rank):
        assert spread[(0, 0, *place)] == maps[(0, 0, *(each // 2 for each in place))]


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (lambda: vgg.make_layers(vgg.cfgs["A"]), [(32, 32), (47, 61)]),  # vgg11().features
        (lambda: vgg.make_layers(vgg.cfgs["A"], batch_norm=True), [(33, 50)]),
        (lambda: nn.Sequential(zoo.alexnet().features, nn.AdaptiveAvgPool2d(6)), [(63, 63), (70, 64)]),
    ],
    ids=["vgg11", "vgg11_bn", "alexnet"],
)
def test_trunks_of_torchvision_give_scores_at_the_size_of_the_input(
    build: Callable[[], nn.Module], sizes: list[tuple[int, int]]
) -> None:
    net = SegmentationNet(build(), 5).eval()
    for size in sizes:
        with torch.no_grad():
            assert net(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_every_size_comes_back(rank: int) -> None:
    conv, pool, average = CONV[rank - 1], MAX_POOL[rank - 1], AVERAGE_POOL[rank - 1]
    adaptive = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[rank - 1]
    once = pool(2)
    trunk = nn.Sequential(conv(1, 4, 5, 3), once, conv(4, 4, 3, padding="same"), average(2, 1), once, adaptive(2))
    net = SegmentationNet(trunk, 2).eval()
    assert len(net.decoder) == 6  # a pool that is used twice is undone twice
    for length in range(20, 30):
        size = (length, 24, 27)[:rank]
        assert net(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_layers_used_twice_and_under_any_name_are_met_as_they_run() -> None:
    relu = nn.ReLU()
    named = OrderedDict(stem=nn.Conv2d(1, 2, 3), act=relu, deep=nn.Sequential(nn.Conv2d(2, 3, 3), relu))
    net = SegmentationNet(nn.Sequential(named), 2).eval()
    inputs = torch.randn(2, 1, 8, 9)
    ran: list[Tensor] = []
    net.decoder[0].register_forward_pre_hook(lambda module, args: ran.append(args[0]))
    net(inputs)
    torch.testing.assert_close(ran[0], net.trunk(inputs))


# What the user keeps


def test_the_trunk_stays_as_it_was() -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)).eval()
    before = copy.deepcopy(trunk)
    net = SegmentationNet(trunk, 4)
    assert net.decoder.training
    assert not trunk.training
    net.eval()(torch.randn(1, 3, 40, 40))
    assert str(trunk) == str(before)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in trunk.modules())
    torch.testing.assert_close(trunk.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in trunk.parameters())


def test_the_mirror_learns_while_the_trunk_rests_and_the_whole_learns_together() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    net = SegmentationNet(trunk, 2)
    inputs = torch.randn(8, 1, 10, 11)
    truth = (inputs[:, 0] > 0).long()
    kept = copy.deepcopy(trunk.state_dict())
    net.trunk.eval()

    def fit(parameters: list[nn.Parameter], steps: int) -> list[float]:
        optimizer, losses = torch.optim.Adam(parameters, lr=0.05), []
        for _ in range(steps):
            loss = F.cross_entropy(net(inputs), truth)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        return losses

    losses = fit([*net.decoder.parameters(), *net.scores.parameters()], 30)
    assert losses[-1] < 0.75 * losses[0]
    torch.testing.assert_close(trunk.state_dict(), kept, rtol=0, atol=0)
    net.train()
    assert fit(list(net.parameters()), 30)[-1] < 0.9 * losses[-1]
    assert not torch.equal(trunk[0].weight, kept["0.weight"])


def test_weights_go_into_a_new_network_and_copies_are_apart(tmp_path: Path) -> None:
    net, inputs = net_of(2), torch.randn(1, 2, 9, 12, dtype=torch.float64)
    other = SegmentationNet(copy.deepcopy(net.trunk), 3).double().eval()
    assert not torch.equal(other(inputs), net(inputs))
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(inputs), net(inputs), rtol=0, atol=0)
    twin = copy.deepcopy(net)
    twin.trunk[0][0].weight.data.zero_()
    torch.testing.assert_close(net(inputs), other(inputs), rtol=0, atol=0)
    assert not torch.equal(twin(inputs), net(inputs))


def test_the_mirror_is_made_where_the_trunk_is() -> None:
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3, device="meta", dtype=torch.bfloat16), nn.MaxPool2d(2))
    net = SegmentationNet(trunk, 2)
    assert {(each.device.type, each.dtype) for each in net.parameters()} == {("meta", torch.bfloat16)}


# Bad input


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(OrderedDict(head=nn.Linear(4, 2)))),
            r"layer '1.head' of the trunk is a Linear, which has no mirror; give an nn.Sequential of convolutions, .*"
            r"such as vgg16\(\).features",
        ),
        (lambda: zoo.resnet18(), r"the trunk is a ResNet, which has no mirror; give an nn.Sequential"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Upsample(scale_factor=2)),
            "layer '1' of the trunk is a Upsample, which has no mirror",
        ),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
            "layer '0' of the trunk is a LazyConv2d, whose sizes are not known yet; run the trunk once on an input",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, return_indices=True)),
            "layer '1' of the trunk is a MaxPool2d with return_indices=True, which gives a pair; leave that out",
        ),
    ],
)
def test_a_layer_without_a_mirror_is_refused_by_name(trunk: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SegmentationNet(trunk(), 2)


def test_a_block_with_a_way_around_is_no_row_of_layers() -> None:
    class Around(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    with pytest.raises(TypeError, match="layer '1' of the trunk is a Around, which has no mirror"):
        SegmentationNet(nn.Sequential(nn.Conv2d(1, 2, 3), Around(nn.Conv2d(2, 2, 1))), 2)


def test_nothing_to_mirror_no_classes_and_inputs_of_another_rank_are_told() -> None:
    with pytest.raises(ValueError, match="the trunk Sequential has no convolution to mirror; give one that has"):
        SegmentationNet(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 2)
    with pytest.raises(ValueError, match="classes=0 leaves nothing to score; say how many there are"):
        SegmentationNet(nn.Conv2d(1, 1, 1), 0)
    with pytest.raises(ValueError, match=r"the input is \(1, 8, 8\); a trunk of Conv2d takes N, C and 2 sizes"):
        SegmentationNet(nn.Conv2d(1, 1, 1), 2)(torch.zeros(1, 8, 8))


# Intersection over union


def test_intersection_over_union_is_that_of_the_sets_of_pixels() -> None:
    generator = torch.Generator().manual_seed(2)
    predicted, truth = torch.randint(0, 4, (2, 3, 6, 5), generator=generator)
    found = intersection_over_union(predicted, truth, 5)
    for each in range(4):
        one, other = (set(map(tuple, (maps == each).nonzero().tolist())) for maps in (predicted, truth))
        assert found[each] == len(one & other) / len(one | other)
    assert found[4].isnan()
    with pytest.raises(ValueError, match=r"the maps are \(3, 6, 5\) and \(2, 6, 5\); they must be of one shape"):
        intersection_over_union(predicted, truth[:2], 5)


# The bundled network


def bundled() -> SegmentationNet:
    net = demo.network(demo.SEGMENTATION)
    assert isinstance(net, SegmentationNet)
    return net


def test_the_bundled_network_finds_held_out_shapes() -> None:
    shares = training.class_overlaps(bundled(), draw(104, SEED, held_out=True))
    assert shares.shape == (9,)
    assert shares.mean() >= 0.85
    assert shares.min() >= 0.75


def test_the_bundled_network_is_small_and_tells_its_classes() -> None:
    stored = files("cnnviz.demo") / f"{demo.SEGMENTATION}.safetensors"
    assert len(stored.read_bytes()) <= 3_000_000
    with safe_open(stored, framework="pt") as weights:
        metadata = weights.metadata()
    assert metadata["classes"].split() == [*demo.CATEGORIES, "background"]
    assert metadata["seed"] == "0"
    assert float(metadata["iou"]) >= 0.85
    loaded = load_model("demo-segmentation")
    assert loaded.categories == (*demo.CATEGORIES, "background")
    assert not loaded.module.training
    with pytest.raises(LookupError, match=r"no model 'demo-segmentatoin' \(did you mean 'demo-segmentation'\?\)"):
        load_model("demo-segmentatoin")


def test_a_shape_of_one_class_is_explained_by_its_pixels() -> None:
    drawn, model = demo.pictures(), load_model("demo-segmentation")
    inputs, star = demo.as_inputs(drawn.pictures[3:4]), torch.from_numpy(drawn.masks[3])
    found = explain(model, inputs, "gradient", target=lambda scores: scores[:, 3].mean((1, 2)))
    strength = found.values.abs().sum(1)[0]
    assert strength[star].mean() > 2 * strength[~star].mean()


def test_activations_of_the_decoder_go_from_coarse_to_fine_under_the_names_of_its_layers() -> None:
    net, inputs = bundled(), demo.as_inputs(demo.pictures().pictures[:2])
    with torch.no_grad():
        seen = net.activations(inputs)
        torch.testing.assert_close(net.scores([*seen.values()][-1]), net(inputs))
    assert list(seen) == [f"decoder.{number}" for number in range(10)]
    assert [maps.shape[-1] for maps in seen.values()] == [6, 12, 12, 12, 24, 24, 24, 48, 48, 96]
    for name in ("decoder.0", "decoder.1", "decoder.9"):
        layer = explain(
            net,
            inputs,
            attributions["activation"](layer=name, layout="channels_first"),
            target=lambda scores: scores[:, 0, 0, 0],
        )
        torch.testing.assert_close(layer.values, seen[name])


# Drawn


def test_a_class_map_is_coloured_where_a_thing_is_and_the_legend_tells_its_share() -> None:
    names = ("cat", "dog", "background")
    classes = np.full((10, 20), 2)
    classes[:5, :4] = 1
    picture = np.full((10, 20, 3), 100, np.uint8)
    over = class_overlay.overlay_classes(picture, classes, names)
    away = over[5:].reshape(-1, 3)
    assert (away == away[0, 0]).all()
    assert 100 < away[0, 0] < 255  # gray and paler
    on = over[:5, :4].reshape(-1, 3)
    assert (on == on[0]).all()
    colour = class_overlay.class_colors(names)[1].astype(float)
    np.testing.assert_allclose(on[0], 0.7 * colour + 0.3 * away[0], atol=1)
    assert class_overlay.class_shares(classes) == {2: 0.9, 1: 0.1}
    shown = class_overlay.class_legend(classes, names)
    swatches = shown[:, : class_overlay.SWATCH]
    cat, dog, background = ((swatches == each).all(2).any(1).nonzero()[0] for each in class_overlay.class_colors(names))
    assert cat.size == 0
    assert 0 < background.max() < 19 < dog.min() < 38  # rows of pixels, 19 to a line
    assert [class_overlay.is_background(name) for name in ("__background__", "Background", "back")] == [
        True,
        True,
        False,
    ]


def test_colours_of_many_classes_differ() -> None:
    table = class_overlay.class_colors([f"class {number}" for number in range(21)])
    assert len({tuple(colour) for colour in table.tolist()}) == 21


def test_the_legend_of_many_classes_says_how_many_are_left() -> None:
    classes = np.arange(400).reshape(20, 20) % 20
    names = [f"a class with a long name, number {number}" for number in range(20)]
    longer = class_overlay.class_legend(classes, names)
    assert longer.shape[1] == class_overlay.WIDTH
    assert longer.shape[0] > 19 * (class_overlay.ROWS + 1)  # wrapped
    shorter = class_overlay.class_legend(classes, [str(number) for number in range(20)])
    assert shorter.shape[0] == 19 * (class_overlay.ROWS + 1)


def test_a_stage_shows_the_channel_most_active_on_what_was_found() -> None:
    things = np.zeros((8, 10), np.bool_)
    things[2:4, 2:4] = True  # one place of the map below
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 0] = 3  # everywhere
    maps[0, 2, 1, 1] = 2
    maps[1, 1, 3, 4] = 2  # elsewhere
    maps[1, 2, 1, 1] = 0.1
    for item, channel in ((0, 2), (1, 2)):
        ((caption, picture),) = class_overlay.decoder_stages({"decoder.0": maps}, item, things)
        assert caption == ["decoder.0", f"4 x 5, channel {channel}"]
        assert picture.shape == (8, 10, 3)
        bright = picture.sum(2)
        assert bright[things].min() > bright[~things].max()
    for nothing in (things & False, things | True):
        ((caption, _),) = class_overlay.decoder_stages({"decoder.0": maps}, 0, nothing)
        assert caption[1].endswith("channel 0")
    ((_, silent),) = class_overlay.decoder_stages({"decoder.0": torch.zeros(1, 2, 3, 3)}, 0, things)
    assert (silent == silent[0, 0]).all()


# The command


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two drawn pictures: circle.png and star.png."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn = demo.pictures().pictures
    for number in (0, 3):
        Image.fromarray(drawn[number]).save(folder / f"{demo.CATEGORIES[number]}.png")
    return folder


def works(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[str]:
    assert main(["deconv-segment", *map(str, args)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 2) -> str:
    assert main(["deconv-segment", *map(str, args)]) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("cnnviz: ")


def test_the_command_draws_a_file_for_each_picture_or_one_for_all(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    said = works(capsys, pictures, "-o", tmp_path / "maps/")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "circle_deconv-segment.png",
        "star_deconv-segment.png",
    ]
    for line, name in zip(said, ("circle", "star"), strict=True):
        assert line.startswith(f"{tmp_path / 'maps' / name}_deconv-segment.png: {name} ")
    (line,) = works(capsys, pictures, "-o", tmp_path / "both.png", "--stages")
    assert line.startswith(f"{tmp_path / 'both.png'}: circle ")
    with Image.open(tmp_path / "maps" / "star_deconv-segment.png") as one, Image.open(tmp_path / "both.png") as both:
        assert both.height > 1.8 * one.height
        assert both.width > 3 * one.width


def test_the_command_keeps_classes_and_scores(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    works(capsys, pictures, "-o", tmp_path / "all.safetensors", "--quiet")
    kept = load_file(tmp_path / "all.safetensors")
    inputs = demo.as_inputs(demo.pictures().pictures[[0, 3]])
    with torch.no_grad():
        torch.testing.assert_close(kept["scores"], bundled()(inputs))
    torch.testing.assert_close(kept["classes"], kept["scores"].argmax(1))
    with safe_open(tmp_path / "all.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["categories"]) == [*demo.CATEGORIES, "background"]


def test_weights_of_ones_own_are_taken(capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path) -> None:
    net = bundled()
    torch.nn.init.zeros_(net.scores.weight)
    net.scores.bias.data[:] = torch.eye(9)[5]
    torch.save(net.state_dict(), tmp_path / "rings.pth")
    (line,) = works(capsys, pictures / "star.png", "--weights", tmp_path / "rings.pth", "-o", tmp_path / "rings.png")
    assert line.endswith("rings.png: ring 100.0%")


def test_what_cannot_be_segmented_is_told_in_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert fails(capsys, pictures, "--model", "demo", "-o", out) == (
        "demo gives (1, 8) for an input (1, 3, 96, 96), not scores of every pixel; "
        "use demo-segmentation, or a cnnviz.models.SegmentationNet of your own"
    )
    assert fails(capsys, pictures, "--model", "demo", "--stages", "-o", out) == (
        "--stages draws the decoder of a cnnviz.models.SegmentationNet, which demo is not; leave it out"
    )
    assert "no file or folder" in fails(capsys, tmp_path / "none.png", "-o", out)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert "is not a picture that can be read" in fails(capsys, broken, "-o", out)
    assert "do not fit SegmentationNet" in fails(
        capsys, pictures, "--weights", str(files("cnnviz.demo") / "demo.safetensors"), "-o", out
    )
    assert not out.exists()


def test_classes_of_signals_are_kept_and_not_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_signals.py").write_text(
        "from torch import nn\nfrom cnnviz.models import SegmentationNet\n"
        "def net():\n    return SegmentationNet(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2)), 3)\n"
    )
    np.save(tmp_path / "beat.npy", np.random.default_rng(0).standard_normal((2, 31), np.float32))
    works(capsys, "beat.npy", "--model", "own_signals:net", "-o", "beat.safetensors")
    kept = load_file(tmp_path / "beat.safetensors")
    assert (kept["scores"].shape, kept["classes"].shape) == ((1, 3, 31), (1, 31))
    line = fails(capsys, "beat.npy", "--model", "own_signals:net", "-o", "beat.png")
    assert line == "an input (1, 2, 31) is no image; keep its classes with -o FILE.safetensors"
    assert not (tmp_path / "beat.png").exists()


def test_a_picture_that_cannot_be_read_costs_only_itself(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    line = fails(capsys, broken, pictures / "star.png", "-o", tmp_path / "out", status=1)
    assert "is not a picture that can be read" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["star_deconv-segment.png"]
