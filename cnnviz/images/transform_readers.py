"""The settings of a Preprocessing, read out of what other libraries prepare pictures with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from cnnviz.images.preprocessing import Preprocessing

CONVERSIONS = ("ToTensor", "PILToTensor", "ToImage", "ToPILImage", "MaybeToTensor", "MaybePILToTensor", "RGB")
SCALES = ("ToTensor", "MaybeToTensor", "ConvertImageDtype")  # from 0..255 to 0..1
YOURSELF = "make the Preprocessing(mean, std, resize, crop) yourself"
DIFFERENT = 3  # levels of 255 that are no rounding of a smooth picture
Settings = dict[str, Any]


def read_transforms(given: Any) -> Settings:
    """The settings of any of the kinds below, or of a dict of settings. Raises TypeError for anything else."""
    if isinstance(given, Mapping):
        return read_timm(given) if "input_size" in given else _own(given)
    if hasattr(given, "image_mean") or hasattr(given, "image_processor"):
        return read_processor(given)
    return read_torchvision(given)


def read_torchvision(transforms: Any) -> Settings:
    """Of a preset of torchvision's weights, or of a Compose."""
    if hasattr(transforms, "transforms"):
        return _read_steps(transforms.transforms)
    if type(transforms).__name__ == "ObjectDetection":  # only scales to 0..1
        return {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    if not hasattr(transforms, "mean") or not hasattr(transforms, "std"):
        raise TypeError(
            f"{type(transforms).__name__} does not prepare one picture with mean and std; give a Preprocessing, "
            f"a torchvision preset or Compose, timm's data config or an image processor of transformers, or {YOURSELF}"
        )
    resize = getattr(transforms, "resize_size", None)
    crop = getattr(transforms, "crop_size", None)
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "resize": None if resize is None else min(resize),  # one value, or for video the two sides of a 4:3 picture
        "crop": None if crop is None else (crop[0], crop[-1]),
        "interpolation": transforms.interpolation.value,
    }


def read_timm(config: Mapping[str, Any]) -> Settings:
    """Of what ``timm.data.resolve_model_data_config(model)`` gives. Raises ValueError for a crop mode unknown here."""
    height, width = config["input_size"][-2:]
    mode, share = config.get("crop_mode") or "center", config.get("crop_pct") or 0.875
    before = math.floor(height / share), math.floor(width / share)
    settings = {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "crop": (height, width),
        "interpolation": config["interpolation"],
    }
    if mode == "center":
        return settings | ({"resize": before[0]} if before[0] == before[1] else {"resize": before, "fit": "cover"})
    if mode == "squash":
        return settings | {"resize": before, "fit": "squash"}
    if mode == "border":
        fill = tuple(round(255 * value) / 255 for value in config["mean"])
        return settings | {"resize": before, "fit": "contain", "fill": fill}
    raise ValueError(f"timm has a crop_mode {mode!r} here, which cnnviz does not know; {YOURSELF}")


def read_processor(processor: Any) -> Settings:
    """Of an image processor of transformers, or of a processor that has one."""
    processor = getattr(processor, "image_processor", processor)
    name = type(processor).__name__

    def has(flag: str, usual: bool = False) -> bool:
        value = getattr(processor, flag, None)
        return usual if value is None else bool(value)

    for flag in ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_center_pad"):
        if has(flag):
            raise ValueError(f"{name} does something else to pictures ({flag}=True); {YOURSELF}")
    factor = getattr(processor, "rescale_factor", 1 / 255)
    if not has("do_rescale", True) or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ValueError(f"{name} does not scale values to 0..1; {YOURSELF}")
    normalized = has("do_normalize", True)
    settings: Settings = {
        "mean": tuple(processor.image_mean) if normalized else (0.0,) * 3,
        "std": tuple(processor.image_std) if normalized else (1.0,) * 3,
    }
    if has("do_resize"):
        settings |= _resizing(name, dict(processor.size), getattr(processor, "crop_pct", None))
        settings["interpolation"] = _interpolation(getattr(processor, "resample", 2))
    if has("do_center_crop"):
        crop = dict(processor.crop_size)
        settings["crop"] = (crop["height"], crop["width"])
    return settings


def check_same(preprocessing: Preprocessing, given: Any) -> None:
    """Raises ValueError if what the settings were read out of prepares a picture otherwise.

    A processor of transformers may do more than its settings say. A level of 255 may differ: some libraries resize
    tensors, others pictures.
    """
    processor = getattr(given, "image_processor", given)
    transforms = hasattr(given, "transforms") or hasattr(processor, "image_mean")
    if not transforms or len(preprocessing.mean) not in (1, 3):
        return
    rows, columns = np.mgrid[:200, :300]
    waves = [np.sin(rows / slow + columns / 20) for slow in (9, 14, 23)]
    levels = (127.5 * (1 + np.stack(waves, -1))).round().astype(np.uint8)
    picture = Image.fromarray(levels) if len(preprocessing.mean) == 3 else Image.fromarray(levels[..., 0])
    if hasattr(processor, "image_mean"):
        theirs = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
    else:
        theirs = given(picture)
    ours = preprocessing(picture)
    std = torch.tensor(preprocessing.std).view(-1, 1, 1)
    if theirs.shape != ours.shape or float(((theirs - ours) * std).abs().max()) > DIFFERENT / 255:
        raise ValueError(f"{type(processor).__name__} does more than its settings say; {YOURSELF}")


def _resizing(name: str, size: Mapping[str, Any], crop_pct: float | None) -> Settings:
    size = {key: value for key, value in size.items() if value is not None}
    if set(size) == {"height", "width"}:
        return {"resize": (size["height"], size["width"])}
    if set(size) != {"shortest_edge"}:
        raise ValueError(f"{name} resizes to {size}, for which there is no setting; {YOURSELF}")
    side = size["shortest_edge"]
    if crop_pct is None:
        return {"resize": side}
    if side >= 384:  # ConvNeXT's processor squashes large inputs, and crops others
        return {"resize": (side, side)}
    return {"resize": int(side / crop_pct), "crop": (side, side)}


def _read_steps(steps: Sequence[Any]) -> Settings:
    settings: Settings = {}
    scaled = gray = False
    for number, step in enumerate(steps, 1):
        name = type(step).__name__
        if name in ("Compose", "Sequential"):
            raise ValueError(f"step {number} is a {name} of its own; put its steps into one Compose, or {YOURSELF}")
        scaled = scaled or name in SCALES or (name == "ToDtype" and bool(step.scale))
        if name in (*CONVERSIONS, "ConvertImageDtype", "ToDtype", "Identity", "ToPureTensor"):
            continue
        if "mean" in settings or ("crop" in settings and name in ("Resize", "ResizeKeepRatio")):
            raise ValueError(f"step {number}, {name}, comes after what a Preprocessing does last; {YOURSELF}")
        if name == "Resize" and getattr(step, "max_size", None) is None:
            sides = [step.size] if isinstance(step.size, int) else list(step.size)
            settings["resize"] = sides[0] if len(sides) == 1 else (sides[0], sides[1])
            settings["interpolation"] = _interpolation(step.interpolation)
        elif name == "ResizeKeepRatio" and step.longest in (0, 1):
            sides = [step.size] * 2 if isinstance(step.size, int) else list(step.size)
            settings |= {"resize": (sides[0], sides[1]), "fit": "contain" if step.longest else "cover"}
            settings["interpolation"] = _interpolation(step.interpolation)
        elif name in ("CenterCrop", "CenterCropOrPad"):
            sides = [step.size] * 2 if isinstance(step.size, int) else list(step.size)
            settings["crop"] = (sides[0], sides[-1])
            fill = getattr(step, "fill", 0) or 0
            if fill != 0:
                settings["fill"] = tuple(value / 255 for value in (fill if isinstance(fill, Sequence) else [fill]))
        elif name == "Grayscale" and step.num_output_channels == 1:
            gray = True
        elif name == "Normalize" and len(_floats(step.mean)) == 1 and not gray:
            raise ValueError(
                f"step {number}, Normalize, has one value for all channels, and does not say how many there are; "
                "repeat it for each channel, or put Grayscale() before it"
            )
        elif name == "Normalize":
            settings |= {"mean": _floats(step.mean), "std": _floats(step.std)}
        else:
            raise ValueError(f"step {number}, {name}, is no step of a Preprocessing; leave it out, or {YOURSELF}")
    if not scaled:
        raise ValueError(f"none of these steps scales values from 0..255 to 0..1, as ToTensor() does; {YOURSELF}")
    channels = 1 if gray else 3
    return {"mean": (0.0,) * channels, "std": (1.0,) * channels} | settings


def _interpolation(mode: Any) -> str:
    """The name of torchvision's enumeration, timm's text, Pillow's number, or of several the first."""
    if isinstance(mode, tuple | list):  # timm chooses one at random while it trains
        mode = mode[0]
    if isinstance(mode, (int, Image.Resampling)):
        return str(Image.Resampling(mode).name.lower())
    return str(getattr(mode, "value", mode))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in (values.flatten() if hasattr(values, "flatten") else values))


def _own(settings: Mapping[str, Any]) -> Settings:
    if "mean" not in settings or "std" not in settings:
        raise ValueError(f"these settings are of no preprocessing: mean and std are missing; {YOURSELF}")
    return dict(settings)
