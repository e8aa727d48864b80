"""Semantic segmentation with deconvolutions: a convolutional trunk, and its mirror image that brings the pixels back.

The decoder restores every size of the trunk exactly, in reverse order. The trunk is used as it is, never edited.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import Conv1d, Conv2d, Conv3d, _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOLS = (_MaxPoolNd, _AdaptiveMaxPoolNd)
AVERAGE_POOLS = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
)
# what leaves sizes alone has no mirror: the decoder's own batch norms and ReLUs stand in its place
PASSED = (*ACTIVATIONS, _BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LocalResponseNorm, _DropoutNd, nn.Identity)


class Deconvolution(nn.Module):
    """The transpose of a convolution's geometry, with weights of its own; batch norm and ReLU after it."""

    def __init__(self, mirrored: _ConvNd, channels: int) -> None:
        super().__init__()
        rank = len(mirrored.kernel_size)
        whole = [step * (width - 1) for step, width in zip(mirrored.dilation, mirrored.kernel_size, strict=True)]
        if isinstance(mirrored.padding, str):
            padding = [0] * rank if mirrored.padding == "valid" else [width // 2 for width in whole]
            # "same" pads an even kernel once more at the end
            self.surplus = [width % 2 if mirrored.padding == "same" else 0 for width in whole]
        else:
            padding, self.surplus = list(mirrored.padding), [0] * rank
        place: dict[str, Any] = {"device": mirrored.weight.device, "dtype": mirrored.weight.dtype}
        geometry: dict[str, Any] = {"padding": tuple(padding)}
        geometry |= {name: getattr(mirrored, name) for name in ("kernel_size", "stride", "dilation", "groups")}
        # the batch norm after it has a bias
        self.transposed = TRANSPOSED[rank - 1](mirrored.out_channels, channels, bias=False, **geometry, **place)
        self.norm = NORMS[rank - 1](channels, **place)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Maps (N, C, *spatial) of that size, which the convolution would shrink to the one of these."""
        wide: Tensor = self.transposed(maps, [length + more for length, more in zip(size, self.surplus, strict=True)])
        for axis, length in enumerate(size, start=2):
            wide = wide.narrow(axis, 0, length)
        output: Tensor = self.relu(self.norm(wide))
        return output


class Unpooling(nn.Module):
    """Puts each value back where max-pooling took it from, and zero elsewhere; values for one place add up."""

    def forward(self, maps: Tensor, size: Sequence[int], switches: Tensor) -> Tensor:
        empty = maps.new_zeros(*maps.shape[:2], math.prod(size))
        return empty.scatter_add(2, switches.flatten(2), maps.flatten(2)).view(*maps.shape[:2], *size)


class Stretching(nn.Module):
    """Gives every place the value of the cell it was averaged into: average pooling leaves no switches."""

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, tuple(size), mode="nearest-exact")


class SegmentationNet(nn.Module):
    """Scores of classes for every pixel, by a trunk and its mirror (Noh, Hong and Han, 2015, arXiv:1505.04366).

    ``trunk``: (nested) nn.Sequential of convolutions, norms, activations, pools, dropouts, for inputs (N, C, *spatial)
    of any rank. ``decoder`` mirrors it from the coarsest layer to the finest: a transposed convolution with batch norm
    and ReLU for each convolution, unpooling with the recorded switches for each max-pool; ``scores`` is a 1 x 1
    convolution.
    The trunk is shared, not copied: to train the rest alone, give an optimizer what is not in ``net.trunk``, and keep
    ``net.trunk.eval()``.

    Raises TypeError for a layer that has no mirror, ValueError for a trunk without convolutions or no classes.
    """

    def __init__(self, trunk: nn.Module, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes={classes} leaves nothing to score; say how many there are, with the background")
        resizing = [layer for _, layer in layers_of(trunk) if not isinstance(layer, PASSED)]
        convolutions = [layer for layer in resizing if isinstance(layer, _ConvNd)]
        if not convolutions:
            raise ValueError(f"the trunk {type(trunk).__name__} has no convolution to mirror; give one that has")
        first = convolutions[0]
        self.trunk = trunk
        self.decoder = nn.ModuleList(_mirror(layer, first) for layer in reversed(resizing))
        pixel = CONVOLUTIONS[len(first.kernel_size) - 1]
        # the mirror of the first convolution keeps its channels: three, as in a picture, would be a bottleneck
        self.scores = pixel(first.out_channels, classes, 1, device=first.weight.device, dtype=first.weight.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores (N, classes, *spatial) of inputs (N, C, *spatial), before any softmax."""
        for _, maps in self._stages(inputs):
            finest = maps
        scores: Tensor = self.scores(finest)
        return scores

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """What the decoder's layers give, (N, C, *spatial), by name from coarse to fine (the paper's figure 4)."""
        return dict(self._stages(inputs))

    def _stages(self, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
        rank = len(self.scores.kernel_size)
        if inputs.ndim != rank + 2:
            raise ValueError(f"the input is {tuple(inputs.shape)}; a trunk of Conv{rank}d takes N, C and {rank} sizes")
        maps, resized = inputs, []
        for _, layer in layers_of(self.trunk):
            if not isinstance(layer, PASSED):
                resized.append((maps.shape[2:], *switches_of(layer, maps)))
            maps = layer(maps)
        for number, (stage, (size, *switches)) in enumerate(zip(self.decoder, reversed(resized), strict=True)):
            maps = stage(maps, size, *switches)
            yield f"decoder.{number}", maps


def layers_of(trunk: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers in the order in which they run, as often as they do. Raises TypeError for one without a mirror."""
    if isinstance(trunk, nn.Sequential) and type(trunk).forward is nn.Sequential.forward:
        for inner, layer in zip(trunk._modules, trunk, strict=True):  # named_children skips what is used twice
            yield from layers_of(layer, f"{name}.{inner}" if name else inner)
        return
    place = f"layer {name!r} of the trunk" if name else "the trunk"
    what = f"{place} is a {type(trunk).__name__}"
    if isinstance(trunk, LazyModuleMixin):
        raise TypeError(f"{what}, whose sizes are not known yet; run the trunk once on an input first")
    if not isinstance(trunk, (*PASSED, *CONVOLUTIONS, *MAX_POOLS, *AVERAGE_POOLS)):
        raise TypeError(
            f"{what}, which has no mirror; give an nn.Sequential of convolutions, norms, activations, pools and "
            "dropouts, such as vgg16().features"
        )
    if getattr(trunk, "return_indices", False):
        raise TypeError(
            f"{what} with return_indices=True, which gives a pair; leave that out, switches are kept all the same"
        )
    yield name, trunk


def switches_of(layer: nn.Module, maps: Tensor) -> tuple[Tensor, ...]:
    """Where a max-pool takes its values from: places in the flattened maps, one for each value of its output."""
    if not isinstance(layer, MAX_POOLS):
        return ()
    # the layer itself runs beside this, as it is, so that whoever watches it sees its output
    twin = copy(layer)
    twin.return_indices = True
    with torch.no_grad():
        return (twin.forward(maps)[1],)


def intersection_over_union(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Intersection over union of each class, (classes,) in 0..1; NaN for a class that is in neither map.

    ``predicted`` and ``truth`` hold class numbers (N, *spatial), below ``classes``; the pixels of all pictures count
    together. The mean is the mean IoU.
    Raises ValueError for maps of different shapes.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the maps are {tuple(predicted.shape)} and {tuple(truth.shape)}; they must be of one shape")
    pairs = torch.bincount((truth * classes + predicted).flatten(), minlength=classes**2).view(classes, classes)
    both = pairs.diagonal().double()
    return both / (pairs.sum(0) + pairs.sum(1) - both)


def _mirror(layer: nn.Module, first: _ConvNd) -> nn.Module:
    if isinstance(layer, _ConvNd):
        return Deconvolution(layer, layer.out_channels if layer is first else layer.in_channels)
    return Stretching() if isinstance(layer, AVERAGE_POOLS) else Unpooling()
