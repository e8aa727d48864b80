"""Class activation maps: a layer's channels, weighted by how much the score needs them.

Every map is (N, 1, *spatial) at the layer's own size, signed unless said otherwise. ``layer`` is a dotted name, the
number of a convolution, a path of names, or a module; None is the last layer with spatial extent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Expr, Layer, activation, attribution, gradient, lift


@lift
def _mean(values: Tensor) -> Tensor:
    return values.mean(tuple(range(2, values.ndim)), keepdim=True)


def _added(values: Tensor) -> Tensor:
    return values.sum(tuple(range(2, values.ndim)), keepdim=True)


_sum = lift(_added)


@lift
def _over_channels(weighted: Tensor) -> Tensor:
    return weighted.sum(1, keepdim=True)


@attribution
def grad_cam(layer: Layer = None, relu: bool = False) -> Expr:
    """Channels weighted by their mean gradient (Selvaraju et al., 2017, arXiv:1610.02391).

    Signed: what is negative speaks against the target. ``relu`` keeps the positive part, as the paper does.
    """
    found = _over_channels(_mean(gradient(layer)) * activation(layer))
    return found.relu() if relu else found


@lift
def _averaged(grad: Tensor, maps: Tensor) -> Tensor:
    """What the score averages over space: the gradient is one number a channel, where it is not held back."""
    peak = grad.abs().amax(tuple(range(2, grad.ndim)), keepdim=True)
    rounding = max(1e-3, 4 * torch.finfo(grad.dtype).eps)
    there = grad.abs() > 1e-6 * peak
    constant = torch.isclose(grad.abs(), peak, rtol=rounding, atol=0) | ~there
    signed = (grad > 0).flatten(2).any(2) & (grad < 0).flatten(2).any(2)
    # zero where a rectifier behind the layer holds a value back, or the whole place: not where a pooling chose
    rectified = (there == (maps > 0)) | (peak == 0)
    dropped = (there == there.any(1, keepdim=True)) | (peak == 0)
    if not bool(constant.all()) or bool(signed.any()) or not bool(rectified.all() | dropped.all()):
        raise ValueError(
            "cam needs a network that averages this layer over space and classifies the averages linearly, "
            "and this one does not; use grad_cam, which needs neither"
        )
    return maps[0, 0].numel() * grad * maps


@attribution
def cam(layer: Layer = None) -> Expr:
    """Channels weighted by the classifier's own weights (Zhou et al., 2016, arXiv:1512.04150).

    The map's mean is the score, apart from the classifier's bias. For networks that end in global average pooling and
    a linear layer; raises ValueError for others.
    """
    return _over_channels(_averaged(gradient(layer), activation(layer)))


@lift
def _plus_plus_weights(grad: Tensor, maps: Tensor, epsilon: float) -> Tensor:
    share = grad**2 / (2 * grad**2 + _added(maps) * grad**3 + epsilon)
    return torch.where(grad == 0, 0, share) * grad.relu()


@attribution
def grad_cam_plus_plus(layer: Layer = None, epsilon: float = 1e-6) -> Expr:
    """Channels weighted by positive gradients, small regions' more (Chattopadhay et al., 2018, arXiv:1710.11063).

    ``epsilon`` keeps the division finite.
    """
    weights = _sum(_plus_plus_weights(gradient(layer), activation(layer), epsilon))
    return _over_channels(weights * activation(layer))


@attribution
def xgrad_cam(layer: Layer = None, epsilon: float = 1e-7) -> Expr:
    """Channels weighted by their gradients where they are active (Fu et al., 2020, arXiv:2008.02312).

    ``epsilon`` keeps the division finite.
    """
    share = _sum(activation(layer)) + epsilon
    weights = _sum(gradient(layer) * activation(layer)) / share
    return _over_channels(weights * activation(layer))


@attribution
def hires_cam(layer: Layer = None) -> Expr:
    """Each place of each channel weighted by its own gradient (Draelos & Carin, 2021, arXiv:2011.08891).

    Faithful where the layers behind are linear: there the map sums to the score, apart from biases.
    """
    return _over_channels(gradient(layer) * activation(layer))


@attribution
def layer_cam(layer: Layer = None) -> Expr:
    """Each place of each channel weighted by its positive gradient (Jiang et al., 2021, doi:10.1109/TIP.2021.3089943).

    Sharp at early layers too.
    """
    return _over_channels(gradient(layer).relu() * activation(layer))


@lift
def _first_component(maps: Tensor, centred: bool) -> Tensor:
    """Each place's share in the direction in which the channels vary most, turned so that its sum is positive."""
    places = maps.flatten(2).transpose(1, 2).double()  # (N, places, C)
    if centred:
        places = places - places.mean(1, keepdim=True)
    if places.shape[1] <= places.shape[2]:
        values, vectors = torch.linalg.eigh(places @ places.transpose(1, 2))
        shares = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(places.transpose(1, 2) @ places)
        shares = (places @ vectors[..., -1:])[..., 0]
    # centred shares sum to zero: there the side with the longer tail is the object
    tilt = (shares**3 if centred else shares).sum(1, keepdim=True)
    shares = torch.where(tilt < 0, -shares, shares)
    return shares.to(maps.dtype).view(len(maps), 1, *maps.shape[2:])


@attribution
def eigen_cam(layer: Layer = None, centred: bool = False) -> Expr:
    """The layer's first principal component, whatever the target (Muhammad & Yeasin, 2020, arXiv:2008.00299).

    ``centred`` takes each channel's mean away first. The sign, which the decomposition leaves open, is chosen so that
    the map's sum is positive (centred: the sum of its cubes).
    """
    return _first_component(activation(layer), centred)


@attribution
def eigen_grad_cam(layer: Layer = None, centred: bool = False) -> Expr:
    """The first principal component of activations times gradients (Gildenblat et al., 2021, pytorch-grad-cam).

    Eigen-CAM (Muhammad & Yeasin, 2020, arXiv:2008.00299) that knows the target; sign and ``centred`` as there.
    """
    return _first_component(gradient(layer) * activation(layer), centred)
