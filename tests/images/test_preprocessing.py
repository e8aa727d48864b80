"""A picture reaches the network with the numbers it was trained on, and comes back in its own colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnviz.images.modes import in_mode
from cnnviz.images.preprocessing import IMAGENET, Preprocessing


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    return Image.fromarray(pixels).resize((401, 287), Image.Resampling.BICUBIC)


def test_the_preset_of_torchvision_gives_the_same_numbers(photo: Image.Image) -> None:
    from torchvision import models

    presets = [
        models.ResNet50_Weights.IMAGENET1K_V2,
        models.SqueezeNet1_0_Weights.IMAGENET1K_V1,
        models.EfficientNet_B0_Weights.IMAGENET1K_V1,  # bicubic
        models.EfficientNet_V2_M_Weights.IMAGENET1K_V1,  # resize and crop to the same 480
        models.segmentation.DeepLabV3_ResNet50_Weights.DEFAULT,  # no crop
        models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT,  # values in 0..1 only
    ]
    for preset in presets:
        for picture in (photo, photo.rotate(90, expand=True)):
            prepared = Preprocessing.from_torchvision(preset.transforms())(picture)
            torch.testing.assert_close(prepared, preset.transforms()(picture), rtol=0, atol=1e-6)


def test_every_classification_preset_of_torchvision_is_read() -> None:
    from torchvision import models

    names = models.list_models(module=models)
    assert len(names) > 70
    for name in names:
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        found = Preprocessing.from_torchvision(transforms)
        assert found.resize == transforms.resize_size[0]
        assert found.crop == (transforms.crop_size[0],) * 2
        assert found.interpolation == transforms.interpolation.value


def test_the_config_of_timm_gives_the_same_numbers(photo: Image.Image) -> None:
    timm_data = pytest.importorskip("timm.data", reason="timm is not installed")
    for crop_pct, interpolation in ((0.875, "bilinear"), (0.95, "bicubic"), (1.0, "bicubic")):
        config = {
            "input_size": (3, 160, 160),
            "interpolation": interpolation,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4),
            "crop_pct": crop_pct,
            "crop_mode": "center",
        }
        expected = timm_data.create_transform(**config)(photo)
        torch.testing.assert_close(Preprocessing.from_timm(config)(photo), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(160, 160), (128, 192)])
def test_every_crop_mode_of_timm_gives_the_same_numbers(photo: Image.Image, mode: str, size: tuple[int, int]) -> None:
    timm_data = pytest.importorskip("timm.data", reason="timm is not installed")
    for crop_pct in (0.9, 1.0):
        config = {"input_size": (3, *size), "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        config |= {"crop_pct": crop_pct, "crop_mode": mode}
        transforms = timm_data.create_transform(**config)
        for picture in (photo, photo.rotate(90, expand=True), photo.resize((50, 300))):
            for found in (Preprocessing.of(config), Preprocessing.of(transforms)):
                torch.testing.assert_close(found(picture), transforms(picture), rtol=0, atol=1e-6)


def test_a_way_of_timm_that_is_not_known_is_refused() -> None:
    config = {"input_size": (3, 384, 384), "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    with pytest.raises(ValueError, match="timm has a crop_mode 'fold' here, which cnnviz does not know; make the"):
        Preprocessing.from_timm(config | {"crop_mode": "fold"})


def _steps() -> dict[str, list[object]]:
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    normal = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    return {
        "squash": [v1.Resize((128, 96)), v1.ToTensor(), v1.Normalize(*normal)],
        "shorter side": [v1.Resize(160), v1.CenterCrop(128), v1.ToTensor(), v1.Normalize(*normal)],
        "filled up": [v1.CenterCrop((300, 420)), v1.ToTensor()],
        "second version": [v2.Resize(64), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)],
        "gray": [v1.Grayscale(), v1.Resize((28, 28)), v1.ToTensor(), v1.Normalize([0.1307], [0.3081])],
    }


@pytest.mark.parametrize("name", list(_steps()))
def test_a_compose_gives_the_same_numbers(photo: Image.Image, name: str) -> None:
    from torchvision.transforms import Compose

    transforms = Compose(_steps()[name])
    for picture in (photo, photo.rotate(90, expand=True)):
        prepared = Preprocessing.of(transforms)(picture)
        torch.testing.assert_close(prepared, transforms(picture), rtol=0, atol=1e-6)


def test_a_compose_that_does_something_else_is_refused_by_the_name_of_the_step() -> None:
    from torchvision import transforms as v1

    scaled = v1.ToTensor()
    for steps, message in (
        ([v1.RandomHorizontalFlip(), scaled], "step 1, RandomHorizontalFlip, is no step of a Preprocessing"),
        ([scaled, v1.Lambda(lambda x: 2 * x)], "step 2, Lambda, is no step of a Preprocessing"),
        ([v1.CenterCrop(9), v1.Resize(5), scaled], "step 2, Resize, comes after what a Preprocessing does last"),
        ([v1.PILToTensor()], r"none of these steps scales values from 0\.\.255 to 0\.\.1"),
        ([scaled, v1.Normalize((0.5,), (0.5,))], "step 2, Normalize, has one value for all channels, and does not say"),
        ([v1.Compose([scaled])], "step 1 is a Compose of its own; put its steps into one Compose"),
    ):
        with pytest.raises(ValueError, match=message):
            Preprocessing.of(v1.Compose(steps))
    with pytest.raises(TypeError, match="int does not prepare one picture with mean and std; give a Preprocessing"):
        Preprocessing.of(3)


@pytest.mark.parametrize("name", ["ViT", "CLIP", "ConvNext", "PoolFormer"])
def test_a_processor_of_transformers_gives_the_same_numbers(photo: Image.Image, name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    processor = getattr(transformers, f"{name}ImageProcessor")()
    found = Preprocessing.of(processor)
    expected = torch.as_tensor(np.asarray(processor(photo, return_tensors="np")["pixel_values"][0]))
    level = max(1 / 255 / std for std in found.std)
    torch.testing.assert_close(found(photo), expected, rtol=0, atol=3 * level)  # it resizes a tensor, not a picture
    assert float((found(photo) - expected).abs().mean()) < 0.3 * level


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Detr", r"DetrImageProcessor does something else to pictures \(do_pad=True\)"),
        ("Levit", "more than its settings"),
    ],
)
def test_a_processor_that_does_more_is_refused(name: str, message: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(ValueError, match=message):
        Preprocessing.of(getattr(transformers, f"{name}ImageProcessor")())


@pytest.mark.parametrize(
    "settings",
    [
        {"resize": 64, "crop": 56},
        {"resize": (60, 80)},
        {"resize": (70, 90), "crop": (60, 80)},
        {"resize": (64, 64), "fit": "contain", "crop": 64, "fill": (1.0,)},
        {"resize": 64, "fit": "contain"},
        {"resize": (50, 90), "fit": "cover", "crop": (50, 90)},
        {"crop": (300, 100)},
        {"crop": 31},
        {},
    ],
)
@pytest.mark.parametrize("size", [(100, 200), (230, 90), (97, 97), (40, 50)])
def test_the_crop_lies_where_its_pixels_came_from(settings: dict[str, object], size: tuple[int, int]) -> None:
    preprocessing = Preprocessing((0.0,), (1.0,), **settings)  # type: ignore[arg-type]  # of several types
    height, width = size
    down, across = np.mgrid[:height, :width].astype(np.uint8)  # a pixel's value is its own row, or its column
    seen_down, seen_across = (np.asarray(preprocessing.picture(Image.fromarray(each))) for each in (down, across))
    left, top, right, bottom = preprocessing.crop_box(height, width)
    middle_row, middle_column = (length // 2 for length in seen_down.shape)
    sides = ((seen_across[middle_row], left, right, width), (seen_down[:, middle_column], top, bottom, height))
    for found, start, stop, length in sides:
        step = (stop - start) / len(found)
        centres = start + (np.arange(len(found)) + 0.5) * step - 0.5
        inside = (centres >= step) & (centres <= length - 1 - step)  # on the border the filter is cut off
        assert inside.sum() > 10
        np.testing.assert_allclose(found[inside], centres[inside], atol=1.0)
    assert preprocessing.input_size in (None, seen_down.shape)


def test_the_whole_picture_is_at_the_scale_of_before(photo: Image.Image) -> None:
    assert IMAGENET.whole().picture(photo).size == (357, 256)  # 401 x 287
    assert IMAGENET.whole().crop_box(287, 401) == (0, 0, 401, 287)


def test_a_path_or_several_pictures_are_prepared_too(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "photo.png")
    expected = IMAGENET(photo)
    torch.testing.assert_close(IMAGENET(tmp_path / "photo.png"), expected, rtol=0, atol=0)
    batch = IMAGENET([photo, str(tmp_path / "photo.png")])
    torch.testing.assert_close(batch, torch.stack([expected] * 2), rtol=0, atol=0)
    with pytest.raises(TypeError, match="a int is no picture; give a PIL image, a path, or a list of them"):
        IMAGENET(3)  # type: ignore[arg-type]


def test_normalization_is_what_it_says_pixel_by_pixel() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 3), np.uint8)
    prepared = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))(Image.fromarray(pixels))
    assert prepared.dtype == torch.float32
    assert prepared.shape == (3, 2, 3)
    for row in range(2):
        for column in range(3):
            for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 0.125))):
                expected = (pixels[row, column, channel] / 255 - mean) / std
                assert prepared[channel, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_the_inverse_gives_the_picture_back(photo: Image.Image) -> None:
    seen = np.asarray(IMAGENET.picture(photo))
    back = IMAGENET.inverse(IMAGENET(photo)[None])
    assert seen.shape == (224, 224, 3)
    np.testing.assert_allclose(back[0].permute(1, 2, 0).numpy() * 255, seen, atol=1e-3)


@pytest.mark.parametrize("spatial", [(), (7,), (4, 5), (2, 3, 4)])
def test_the_inverse_holds_for_any_rank_and_is_cut_off_at_0_and_1(spatial: tuple[int, ...]) -> None:
    preprocessing = Preprocessing((0.2, 0.6), (0.5, 0.1))
    pictures = torch.rand(3, 2, *spatial, dtype=torch.float64)
    inputs = pictures.clone()
    inputs[:, 0] = (pictures[:, 0] - 0.2) / 0.5
    inputs[:, 1] = (pictures[:, 1] - 0.6) / 0.1
    torch.testing.assert_close(preprocessing.inverse(inputs), pictures)
    assert preprocessing.inverse(inputs * 0 + 99).unique().tolist() == [1.0]
    assert preprocessing.inverse(inputs * 0 - 99).unique().tolist() == [0.0]


def test_the_inverse_refuses_other_channels() -> None:
    with pytest.raises(ValueError, match=r"inputs are \(1, 1, 8, 8\) where \(N, 3, ...\) is needed"):
        IMAGENET.inverse(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_the_network_gets_as_many_channels_as_mean_has(photo: Image.Image, channels: int, mode: str) -> None:
    preprocessing = Preprocessing((0.0,) * channels, (1.0,) * channels)
    for given in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"):
        assert preprocessing.picture(photo.convert("RGB").convert(given)).mode == mode
        assert preprocessing(photo.convert("RGB").convert(given)).shape == (channels, 287, 401)


def test_other_numbers_of_channels_need_an_array(photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, and mean and std are of 2; give the array .*\.npy"):
        Preprocessing((0.0, 0.0), (1.0, 1.0))(photo)


def test_transparent_pixels_are_white_unless_the_network_takes_transparency() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert list(in_mode(picture, "RGB").get_flattened_data()) == [(255, 0, 0), (255, 255, 255)]
    assert list(in_mode(picture, "RGBA").get_flattened_data()) == [(255, 0, 0, 255), (0, 0, 0, 0)]
    assert list(in_mode(Image.new("LA", (1, 1), (0, 128)), "L").get_flattened_data()) == [127]


def test_16_bits_become_8_by_scaling() -> None:
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    assert list(in_mode(Image.fromarray(values), "L").get_flattened_data()) == [0, 1, 1, 128, 255]


def test_32_bit_numbers_are_refused() -> None:
    for dtype, mode in ((np.float32, "F"), (np.int32, "I")):
        with pytest.raises(ValueError, match=rf"mode {mode}\) does not say which value is white; save it"):
            in_mode(Image.fromarray(np.ones((2, 2), dtype)), "RGB")


def test_size_keeps_the_part_of_the_picture_that_is_seen() -> None:
    assert IMAGENET.changed(size=112) == Preprocessing(IMAGENET.mean, IMAGENET.std, 128, (112, 112))
    assert IMAGENET.changed(size=(112, 56)).crop == (112, 56)
    assert Preprocessing((0.5,), (0.5,)).changed(size=28) == Preprocessing((0.5,), (0.5,), 28, (28, 28))
    assert IMAGENET.changed() == IMAGENET
    squashed = Preprocessing((0.5,), (0.5,), (100, 200))
    assert squashed.changed(size=(50, 60)) == Preprocessing((0.5,), (0.5,), (50, 60), (50, 60))
    cropped = Preprocessing((0.5,), (0.5,), (110, 220), (100, 200))
    assert cropped.changed(size=(50, 100)) == Preprocessing((0.5,), (0.5,), (55, 110), (50, 100))
    grey = IMAGENET.changed([0.1], [0.2])
    assert (grey.mean, grey.std, grey.resize) == ((0.1,), (0.2,), 256)


def test_a_size_is_reached_for_pictures_of_any_form(photo: Image.Image) -> None:
    for size in ((40, 200), (200, 40), (64, 64)):
        for picture in (photo, photo.rotate(90, expand=True), photo.resize((11, 90))):
            prepared = IMAGENET.changed(size=size)(picture)
            assert prepared.shape == (3, *size)
            black = -torch.tensor(IMAGENET.mean) / torch.tensor(IMAGENET.std)
            assert not torch.isclose(prepared, black[:, None, None]).all(0).any()  # nothing was filled up


def test_settings_survive_json() -> None:
    for preprocessing in (IMAGENET, Preprocessing((0.5,), (0.25,), interpolation="bicubic")):
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.as_dict()))) == preprocessing
    assert hash(Preprocessing.from_dict(json.loads(json.dumps(IMAGENET.as_dict())))) == hash(IMAGENET)


def test_a_report_can_say_what_was_done() -> None:
    assert IMAGENET.describe() == (
        "shorter side resized to 256 (bilinear), centre 224 x 224 cropped, "
        "values in 0..1 normalized with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)"
    )
    assert Preprocessing((0,), (1,)).describe() == "values in 0..1 normalized with mean (0) and std (1)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "mean has 1 values and std has 2; both need one per channel"),
        ({"mean": (), "std": ()}, "mean has 0 values and std has 0"),
        ({"mean": (0.5,), "std": (0.0,)}, r"std \(0.0,\) has a value that is not above 0"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "must be finite numbers"),
        (
            {"mean": (0.5,), "std": (0.5,), "resize": 0},
            "resize 0 is no length; give a whole number of pixels",
        ),
        ({"mean": (0.5,), "std": (0.5,), "resize": True}, "resize True is no length"),
        ({"mean": (0.5,), "std": (0.5,), "crop": (5,)}, r"crop \(5,\) is no size; give \(height, width\)"),
        (
            {"mean": (0.5,), "std": (0.5,), "interpolation": "linear"},
            "no interpolation 'linear'; there are nearest",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(settings)


def test_wrong_calls_say_what_to_give(photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=r"size 0 is no size; give a number of pixels or \(height, width\)"):
        IMAGENET.changed(size=0)
    with pytest.raises(ValueError, match="divide mean and std by 255"):
        Preprocessing((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))(photo)
    with pytest.raises(ValueError, match="a picture of 1 x 9000 is too narrow to be resized to 256"):
        IMAGENET(Image.new("RGB", (1, 9000)))
    with pytest.raises(TypeError, match="dict does not prepare one picture with mean and std"):
        Preprocessing.from_torchvision({})
