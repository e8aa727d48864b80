"""Class activation maps: the channels of a layer, weighted by their importance for the score and added up.

Every map is (N, 1, *spatial) at the layer's own size, signed unless its method says otherwise. ``layer`` is a dotted
name, the number of a convolution, a path of names as a tuple, a module, or a list of several layers; None is the last
layer that is a place for a map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Expr, Layer, activation, attribution, gradient, lift
from cnnviz.formulas import require
from cnnviz_plugins.attributions._layer_settings import of_layers


@lift
def _mean(values: Tensor) -> Tensor:
    return values.mean(tuple(range(2, values.ndim)), keepdim=True)


@lift
def _sum(values: Tensor) -> Tensor:
    return values.sum(tuple(range(2, values.ndim)), keepdim=True)


@lift
def _over_channels(weighted: Tensor) -> Tensor:
    return weighted.sum(1, keepdim=True)


@attribution
@of_layers
def grad_cam(layer: Layer = None, relu: bool = False) -> Expr:
    """Channels weighted by their mean gradient (Selvaraju et al., 2017, arXiv:1610.02391).

    Map (N, 1, *spatial) at the layer's size; negative where the layer speaks against the target. ``relu`` keeps the
    positive part, as the paper does. Raises LookupError for a layer that does not exist or did not run, ValueError for
    one without spatial extent, as every class activation map.
    """
    cam = _over_channels(_mean(gradient(layer)) * activation(layer))
    return cam.relu() if relu else cam


@lift
def _class_weighted(grad: Tensor, maps: Tensor) -> Tensor:
    """Channels times classifier weights; a weight is a constant gradient, times the number of places."""
    peak = grad.abs().amax(tuple(range(2, grad.ndim)), keepdim=True)
    rounding = max(1e-3, 4 * torch.finfo(grad.dtype).eps)
    nonzero = grad.abs() > 1e-6 * peak
    constant = torch.isclose(grad.abs(), peak, rtol=rounding, atol=0) | ~nonzero
    signed = (grad > 0).flatten(2).any(2) & (grad < 0).flatten(2).any(2)
    # zeros are legal where a rectifier behind the layer is off, or at a whole place, but not where a pooling selects
    rectified = (nonzero == (maps > 0)) | (peak == 0)
    dropped = (nonzero == nonzero.any(1, keepdim=True)) | (peak == 0)
    require(constant.all() & ~signed.any() & (rectified.all() | dropped.all()), _refuse)
    return maps[0, 0].numel() * grad * maps


def _refuse() -> None:
    raise ValueError(
        "cam needs a network that averages this layer over space and classifies the averages linearly, "
        "and this one does not; use grad_cam, which needs neither"
    )


@attribution
@of_layers
def cam(layer: Layer = None) -> Expr:
    """Channels weighted by the classifier's weights for the target (Zhou et al., 2016, arXiv:1512.04150).

    Map (N, 1, *spatial) at the layer's size, in units of the score; its mean is the score without the classifier's
    bias. Raises ValueError for networks that do not end in global average pooling and a linear layer.
    """
    return _over_channels(_class_weighted(gradient(layer), activation(layer)))


@lift
def _plus_plus_weights(grad: Tensor, summed: Tensor, epsilon: float) -> Tensor:
    share = grad**2 / (2 * grad**2 + summed * grad**3 + epsilon)
    return torch.where(grad == 0, 0, share) * grad.relu()


@attribution
@of_layers
def grad_cam_plus_plus(layer: Layer = None, epsilon: float = 1e-6) -> Expr:
    """Channels weighted by positive gradients, regardless of region size (Chattopadhay et al., 2018, arXiv:1710.11063).

    Map (N, 1, *spatial) at the layer's size. ``epsilon`` keeps the division finite.
    """
    weights = _sum(_plus_plus_weights(gradient(layer), _sum(activation(layer)), epsilon))
    return _over_channels(weights * activation(layer))


@attribution
@of_layers
def xgrad_cam(layer: Layer = None, epsilon: float = 1e-7) -> Expr:
    """Channels weighted by their activation-weighted mean gradient (Fu et al., 2020, arXiv:2008.02312).

    Map (N, 1, *spatial) at the layer's size. ``epsilon`` keeps the division finite.
    """
    weights = _sum(gradient(layer) * activation(layer)) / (_sum(activation(layer)) + epsilon)
    return _over_channels(weights * activation(layer))


@attribution
@of_layers
def hires_cam(layer: Layer = None) -> Expr:
    """Activation times gradient at each place, added up over channels (Draelos & Carin, 2021, arXiv:2011.08891).

    Map (N, 1, *spatial) at the layer's size, in units of the score. It sums to the score, apart from biases, if all
    layers behind are linear.
    """
    return _over_channels(gradient(layer) * activation(layer))


@attribution
@of_layers
def layer_cam(layer: Layer = None) -> Expr:
    """Activation times positive gradient at each place, added up (Jiang et al., 2021, doi:10.1109/TIP.2021.3089943).

    Map (N, 1, *spatial) at the layer's size, in units of the score; detailed at early layers too.
    """
    return _over_channels(gradient(layer).relu() * activation(layer))


@lift
def _first_component(maps: Tensor, centred: bool) -> Tensor:
    """Projection of each place's channels on their first principal component, its sign chosen by the map's sum."""
    places = maps.flatten(2).transpose(1, 2).double()  # (N, places, C)
    if centred:
        places = places - places.mean(1, keepdim=True)
    if places.shape[1] <= places.shape[2]:
        values, vectors = torch.linalg.eigh(places @ places.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(places.transpose(1, 2) @ places)
        projection = (places @ vectors[..., -1:])[..., 0]
    # centred projections sum to zero: there the side with the longer tail is the object
    skew = (projection**3 if centred else projection).sum(1, keepdim=True)
    projection = torch.where(skew < 0, -projection, projection)
    return projection.to(maps.dtype).view(len(maps), 1, *maps.shape[2:])


@attribution
@of_layers
def eigen_cam(layer: Layer = None, centred: bool = False) -> Expr:
    """First principal component of the activation, whatever the target (Muhammad & Yeasin, 2020, arXiv:2008.00299).

    Map (N, 1, *spatial) at the layer's size, in units of the activation. ``centred`` subtracts each channel's mean
    first. The sign, which the decomposition leaves open, makes the map's sum positive (centred: the sum of its cubes).
    """
    return _first_component(activation(layer), centred)


@attribution
@of_layers
def eigen_grad_cam(layer: Layer = None, centred: bool = False) -> Expr:
    """First principal component of activation times gradient (Gildenblat et al., 2021, pytorch-grad-cam).

    Map (N, 1, *spatial) at the layer's size, in units of the score: an ``eigen_cam`` (Muhammad & Yeasin, 2020,
    arXiv:2008.00299) that depends on the target. As there, ``centred`` subtracts each channel's mean first, and the
    sign is chosen so that the sum of the map is positive.
    """
    return _first_component(gradient(layer) * activation(layer), centred)
