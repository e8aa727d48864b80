"""What happens to a picture before the network sees it, and the way back to draw it in its own colours.

The numbers are those of torchvision's presets: what a network was trained on, it is explained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for pictures of so many channels
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, scale to 0..1, subtract the mean, divide by the standard deviation.

    ``mean`` and ``std`` have a value per channel, on values in 0..1, so they say how many channels the network
    takes. ``resize`` is the length of the shorter side in pixels before cropping and ``crop`` the (height, width)
    kept of the centre; None leaves a picture as it is. A crop beyond the picture is filled up with black.
    Raises ValueError for settings that cannot be meant.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # lists, as JSON and torchvision have them, become hashable
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if self.crop is not None:
            if not isinstance(self.crop, Iterable):
                raise ValueError(f"crop {self.crop!r} is no size; give (height, width) in pixels, or None")
            object.__setattr__(self, "crop", tuple(self.crop))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std has {len(self.std)}; both need one per channel")
        if not all(math.isfinite(value) for value in self.mean + self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must be finite numbers")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} has a value that is not above 0; channels are divided by it")
        if self.resize is not None and not _is_length(self.resize):
            raise ValueError(f"resize {self.resize!r} is no length; give a whole number of pixels, or None")
        if self.crop is not None and (len(self.crop) != 2 or not all(map(_is_length, self.crop))):
            raise ValueError(f"crop {self.crop!r} is no size; give (height, width) in pixels, or None")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"no interpolation {self.interpolation!r}; there are {known}")

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Preprocessing:
        """The same settings as the preset that torchvision's ``Weights.X.transforms()`` gives."""
        if type(transforms).__name__ == "ObjectDetection":  # only scales to 0..1
            return cls((0.0,) * 3, (1.0,) * 3)
        if not hasattr(transforms, "mean") or not hasattr(transforms, "std"):
            raise TypeError(
                f"{type(transforms).__name__} does not prepare one picture with mean and std; make the "
                "Preprocessing(mean, std, resize, crop) yourself"
            )
        resize = getattr(transforms, "resize_size", None)
        crop = getattr(transforms, "crop_size", None)
        return cls(
            tuple(transforms.mean),
            tuple(transforms.std),
            None if resize is None else min(resize),  # one value, or for video the two sides of a 4:3 picture
            None if crop is None else (crop[0], crop[-1]),
            transforms.interpolation.value,
        )

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """The same settings as timm makes of its ``resolve_model_data_config(model)``."""
        height, width = config["input_size"][-2:]
        if config.get("crop_mode", "center") != "center" or height != width:
            raise ValueError(
                f"timm prepares {height} x {width} pictures for this model with crop_mode "
                f"{config.get('crop_mode', 'center')!r}, which cnnviz cannot; give size={min(height, width)} "
                "for a square cropped from the centre"
            )
        resize = math.floor(height / config.get("crop_pct", 1.0))
        return cls(config["mean"], config["std"], resize, (height, width), config["interpolation"])

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing whose ``as_dict()`` this is. Raises ValueError for what is no such dict."""
        if not isinstance(settings, Mapping):
            raise ValueError(f"a preprocessing is a dict of its settings, not a {type(settings).__name__}")
        try:
            return cls(**settings)
        except TypeError as error:
            reason = str(error).removeprefix("Preprocessing.__init__() ")
            raise ValueError(f"these settings are of no preprocessing: {reason}") from error

    def as_dict(self) -> dict[str, Any]:
        """Settings by name, of types that JSON has."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def changed(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Preprocessing:
        """Another mean, std or input size, (height, width) or a square's side; what is None stays.

        The shorter side before cropping grows with the size, so that the same part of a picture is seen.
        """
        overrides = {"mean": mean, "std": std}
        changes: dict[str, Any] = {name: tuple(values) for name, values in overrides.items() if values is not None}
        if size is not None:
            crop = (size, size) if isinstance(size, int) else tuple(size)
            if len(crop) != 2 or not all(map(_is_length, crop)):
                raise ValueError(f"size {size!r} is no size; give a number of pixels or (height, width)")
            margin = self.resize / max(self.crop) if self.resize and self.crop else 1.0
            changes |= {"crop": crop, "resize": max(round(max(crop) * margin), *crop)}
        return replace(self, **changes)

    def describe(self) -> str:
        """One line for a report."""
        numbers = [", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        steps = [
            f"shorter side resized to {self.resize} ({self.interpolation})" if self.resize else "",
            f"centre {self.crop[0]} x {self.crop[1]} cropped" if self.crop else "",
            f"values in 0..1 normalized with mean ({numbers[0]}) and std ({numbers[1]})",
        ]
        return ", ".join(step for step in steps if step)

    def picture(self, picture: Image.Image) -> Image.Image:
        """What the network sees of the picture, still a picture of 8 bits: resized and cropped."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        if len(self.mean) not in MODES:
            raise ValueError(
                f"a picture becomes 1, 3 or 4 channels, and mean and std are of {len(self.mean)}; "
                "give the array the network takes as .npy"
            )
        picture = in_mode(picture, MODES[len(self.mean)])
        if self.resize is not None:
            short, long = sorted(picture.size)
            if self.resize * long // short > 2**16:
                raise ValueError(
                    f"a picture of {picture.size[0]} x {picture.size[1]} is too narrow to be resized to "
                    f"{self.resize} on its shorter side; crop it first"
                )
            picture = F.resize(picture, [self.resize], InterpolationMode(self.interpolation))
        if self.crop is not None:
            picture = F.center_crop(picture, list(self.crop))
        return picture

    def __call__(self, picture: Image.Image) -> Tensor:
        """The picture as the network takes it: (C, H, W), float32, normalized."""
        from torchvision.transforms.v2 import functional as F

        if max(self.mean) > 1:
            raise ValueError(f"mean {self.mean} is not of pictures in 0..1; divide mean and std by 255")
        pixels = F.to_dtype(F.pil_to_tensor(self.picture(picture)), torch.float32, scale=True)
        normalized: Tensor = F.normalize(pixels, list(self.mean), list(self.std))
        return normalized

    def inverse(self, inputs: Tensor) -> Tensor:
        """Inputs (N, C, *spatial) of any spatial rank as pictures in 0..1, cut off outside."""
        if inputs.ndim < 2 or inputs.shape[1] != len(self.mean):
            raise ValueError(
                f"inputs are {tuple(inputs.shape)} where (N, {len(self.mean)}, ...) is needed: mean and std "
                f"have {len(self.mean)} values; give a preprocessing with one per channel"
            )
        per_channel = (1, -1) + (1,) * (inputs.ndim - 2)
        mean, std = (inputs.new_tensor(values).reshape(per_channel) for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture as "L", "RGB" or "RGBA": transparency over white unless kept, 16 bits scaled to 8."""
    if picture.mode.startswith("I;16"):
        import numpy as np

        values = np.asarray(picture).astype(np.float64) / 257  # Pillow's own conversion would cut off at 255
        picture = Image.fromarray(values.round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"a picture of 32-bit numbers (mode {picture.mode}) does not say which value is white; "
            "save it with 8 or 16 bits, or as .npy"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if mode != "RGBA":
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode == "LAB":
        raise ValueError("a picture in LAB colours cannot be read; save it in RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {values!r} is not a number for each channel, such as (0.5, 0.5, 0.5)") from None


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, (224, 224))
