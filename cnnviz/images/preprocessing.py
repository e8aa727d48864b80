"""What happens to a picture before the network sees it, and the way back to draw it in its own colours.

The numbers are those of torchvision's presets: what a network was trained on, it is explained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from cnnviz.images.geometry import FITS, Box, Fit, Size, crop_start, resized_size, shown_box
from cnnviz.images.modes import in_mode

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for pictures of so many channels
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, scale to 0..1, subtract the mean, divide by the standard deviation.

    ``mean`` and ``std`` have a value per channel, on values in 0..1, so they say how many channels the network
    takes. ``resize`` is the length of the shorter side in pixels before cropping, or the (height, width) that every
    picture is squashed to. ``crop`` is the (height, width) kept of the centre, or the side of a square. None leaves a
    picture as it is. ``fit`` says what a resize does to the form of a picture: "cover" keeps it, so that the picture
    covers ``resize``; "contain" keeps it, so that ``resize`` contains the picture; "squash" does not keep it. None is
    "cover" for a number and "squash" for (height, width). A crop beyond the picture is filled up with ``fill``, a value
    in 0..1 for each channel; None is black. Raises ValueError for settings that cannot be meant.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | Size | None = None
    crop: Size | int | None = None
    interpolation: str = "bilinear"
    fit: Fit | None = None
    fill: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # lists, as JSON and torchvision have them, become hashable
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std has {len(self.std)}; both need one per channel")
        if not all(math.isfinite(value) for value in self.mean + self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must be finite numbers")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} has a value that is not above 0; channels are divided by it")
        if self.resize is not None and not _is_length(self.resize):
            size = _size(self.resize)
            if size is None:
                raise ValueError(
                    f"resize {self.resize!r} is no length; give a whole number of pixels, (height, width), or None"
                )
            object.__setattr__(self, "resize", size)
        if self.crop is not None:
            size = _size(self.crop)
            if size is None:
                raise ValueError(f"crop {self.crop!r} is no size; give (height, width) or a side in pixels, or None")
            object.__setattr__(self, "crop", size)
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"no interpolation {self.interpolation!r}; there are {known}")
        if self.fit not in (None, *FITS):
            raise ValueError(f"there is no fit {self.fit!r}; use {', '.join(FITS)}")
        if self.fill is not None:
            object.__setattr__(self, "fill", _numbers("fill", self.fill))
            if len(self.fill) != len(self.mean) or not all(0 <= value <= 1 for value in self.fill):
                raise ValueError(
                    f"fill {self.fill} is no colour; give a value in 0..1 for each of {len(self.mean)} channels"
                )

    @classmethod
    def of(cls, given: Any) -> Preprocessing:
        """The preprocessing of whatever prepares pictures.

        A Preprocessing, a preset or Compose of torchvision, the data config of timm, an image processor of
        transformers, or a dict that :meth:`as_dict` gave. Raises TypeError or ValueError for anything else.
        """
        from cnnviz.images.transform_readers import check_same, read_transforms

        if isinstance(given, cls):
            return given
        found = cls(**read_transforms(given))
        check_same(found, given)
        return found

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Preprocessing:
        """The same settings as the preset that torchvision's ``Weights.X.transforms()`` gives, or as a ``Compose``.

        A Compose may hold Resize, CenterCrop, Grayscale, conversions to tensors and Normalize; of timm's transforms
        also ResizeKeepRatio and CenterCropOrPad. Raises TypeError or ValueError for other steps, by their names.
        """
        from cnnviz.images.transform_readers import check_same, read_torchvision

        found = cls(**read_torchvision(transforms))
        check_same(found, transforms)
        return found

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """The same settings as timm makes of its ``resolve_model_data_config(model)``."""
        from cnnviz.images.transform_readers import read_timm

        return cls(**read_timm(config))

    @classmethod
    def from_transformers(cls, processor: Any) -> Preprocessing:
        """The same settings as an image processor of Hugging Face's transformers, such as ``ViTImageProcessor``.

        Raises TypeError or ValueError for a processor that does something else to pictures, by its name.
        """
        from cnnviz.images.transform_readers import check_same, read_processor

        found = cls(**read_processor(processor))
        check_same(found, processor)
        return found

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
            crop = _size(size)
            if crop is None:
                raise ValueError(f"size {size!r} is no size; give a number of pixels or (height, width)")
            before = self.input_size
            if isinstance(self.resize, tuple):
                margins = [old / part for old, part in zip(self.resize, before or self.resize, strict=True)]
                resize: Any = tuple(max(round(new * margin), new) for new, margin in zip(crop, margins, strict=True))
            else:
                margin = self.resize / max(before) if self.resize and before else 1.0
                resize = max(round(max(crop) * margin), *crop)
            changes |= {"crop": crop, "resize": resize}
        return replace(self, **changes)

    @property
    def input_size(self) -> Size | None:
        """The (height, width) of every input; None where it depends on the picture."""
        if self.crop is not None:
            return cast(Size, self.crop)
        resized = resized_size((1, 2), self.resize, self._fit), resized_size((2, 1), self.resize, self._fit)
        return resized[0] if self.resize is not None and resized[0] == resized[1] else None

    def whole(self) -> Preprocessing:
        """The same without the crop: the input shows the whole picture, at the scale of before."""
        return replace(self, crop=None)

    def crop_box(self, height: int, width: int) -> Box:
        """Where the input lies in a picture of that size: left, top, right, bottom in the picture's pixels.

        Parts of a pixel count. The box reaches beyond the picture where that is filled up.
        """
        return shown_box((height, width), self.resize, self._fit, cast("Size | None", self.crop))

    @property
    def _fit(self) -> Fit:
        return self.fit or ("squash" if isinstance(self.resize, tuple) else "cover")

    def describe(self) -> str:
        """One line for a report."""
        numbers = [", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        fits = {"cover": "shorter side resized to", "contain": "longer side resized to", "squash": "squashed to"}
        resized = f"{fits[self._fit]} {_written(self.resize)} ({self.interpolation})"
        if self._fit != "squash" and isinstance(self.resize, tuple):
            resized = f"resized to {self._fit} {_written(self.resize)} ({self.interpolation})"
        steps = [
            resized if self.resize else "",
            f"centre {_written(self.crop)} cropped" if self.crop else "",
            f"values in 0..1 normalized with mean ({numbers[0]}) and std ({numbers[1]})",
        ]
        return ", ".join(step for step in steps if step)

    def picture(self, picture: Image.Image) -> Image.Image:
        """What the network sees of the picture, still a picture of 8 bits: resized and cropped."""
        return self._placed(picture, deep=False)

    def _placed(self, picture: Image.Image, deep: bool) -> Image.Image:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        if len(self.mean) not in MODES:
            raise ValueError(
                f"a picture becomes 1, 3 or 4 channels, and mean and std are of {len(self.mean)}; "
                "give the array the network takes as .npy"
            )
        picture = in_mode(picture, MODES[len(self.mean)], deep)
        size = picture.height, picture.width
        resized = resized_size(size, self.resize, self._fit)
        if max(resized) > 2**16:
            raise ValueError(
                f"a picture of {picture.width} x {picture.height} is too narrow to be resized to "
                f"{_written(self.resize)}; crop it first"
            )
        if resized != size:
            picture = F.resize(picture, list(resized), InterpolationMode(self.interpolation))
        kept = cast(Size, self.crop) if self.crop is not None else resized
        if kept == resized:
            return picture
        top, left = (crop_start(length, part) for length, part in zip(resized, kept, strict=True))
        if min(top, left) >= 0 or self.fill is None:  # Pillow fills up with black
            return picture.crop((left, top, left + kept[1], top + kept[0]))
        white = 65535 if picture.mode == "I;16" else 255
        colors = tuple(round(white * value) for value in self.fill)
        canvas = Image.new(picture.mode, (kept[1], kept[0]), colors if len(colors) > 1 else colors[0])
        canvas.paste(picture, (-left, -top))
        return canvas

    def __call__(self, picture: Image.Image | str | Path | Sequence[Image.Image | str | Path]) -> Tensor:
        """A picture or its file as the network takes it: (C, H, W), float32, normalized; of several (N, C, H, W)."""
        if isinstance(picture, str | Path):
            from cnnviz.images.reading import read_input

            return read_input(picture, self)
        if isinstance(picture, list | tuple):
            return torch.stack([self(each) for each in picture])
        if not isinstance(picture, Image.Image):
            raise TypeError(f"a {type(picture).__name__} is no picture; give a PIL image, a path, or a list of them")
        from torchvision.transforms.v2 import functional as F

        if max(self.mean) > 1:
            raise ValueError(f"mean {self.mean} is not of pictures in 0..1; divide mean and std by 255")
        pixels = F.to_dtype(F.pil_to_tensor(self._placed(picture, deep=True)), torch.float32, scale=True)
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


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {values!r} is not a number for each channel, such as (0.5, 0.5, 0.5)") from None


def _size(value: object) -> Size | None:
    """The (height, width) that is meant; None where no size is."""
    if isinstance(value, int):
        return (value, value) if _is_length(value) else None
    sides = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 and all(map(_is_length, sides)) else None


def _written(size: object) -> str:
    return " x ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, (224, 224))
