"""Layer selection: layers at even distances through the depth of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cnnviz.engine.feature_extraction import FeatureExtractor


def evenly_spaced_layers(model: nn.Module, inputs: Tensor, count: int) -> list[str]:
    """Names of at most ``count`` layers with spatial extent, at even distances from the first to the last.

    Layers are the parts of the network and those of its sequences, such as ``features.0`` or ``layer1.0``. The first of
    ``inputs`` (N, C, *spatial) is passed through the network once. Raises ValueError for a count below 1, LookupError
    where no part has spatial extent for such inputs.
    """
    if count < 1:
        raise ValueError(f"{count} layers show nothing; use 1 or more")
    names = list(_parts(model))
    seen = FeatureExtractor(model, names, graph=False)(inputs[:1])
    spatial = [name for name in names if name in seen.layers and _is_spatial(seen.layer(name), inputs)]
    if not spatial:
        raise LookupError(f"no part of {type(model).__name__} has spatial extent for inputs of {tuple(inputs.shape)}")
    last, gaps = len(spatial) - 1, max(1, count - 1)
    return list(dict.fromkeys(spatial[round(last * place / gaps)] for place in range(count)))


def _parts(model: nn.Module, above: str = "") -> Iterator[str]:
    for name, part in model.named_children():
        if isinstance(part, nn.Sequential) and len(part):
            yield from _parts(part, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _is_spatial(output: Tensor, inputs: Tensor) -> bool:
    """True for maps (N, C, *spatial) of the input's rank; where the middle sizes alone shrink, channels are last."""
    if output.ndim != inputs.ndim or output.ndim < 3 or not output.is_floating_point() or len(output) != 1:
        return False
    ratios = [whole / size for whole, size in zip(inputs.shape[2:], output.shape[2:], strict=True)]
    last = [whole / size for whole, size in zip(inputs.shape[2:], output.shape[1:-1], strict=True)]
    channels_last = output.ndim > 3 and max(last) / min(last) < 1.3 and max(ratios) / min(ratios) > 2
    return output[0, 0].numel() > 1 and not channels_last
