"""Small trained networks and pictures whose evidence is known: what cnnviz is tried on, offline.

`demo` reads the shape, and so does `demo-transformer`, by self-attention. `demo-shortcut` was trained where a tag in a
corner gave the class away: it reads the tag. `demo-segmentation` tells for every pixel which shape it is of. Importing
this loads neither torch nor scikit-image.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from cnnviz.demo.shapes import OUTLINES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from cnnviz.demo.drawing import Drawn
    from cnnviz.images.preprocessing import Preprocessing

NETWORKS = ("demo", "demo-shortcut")  # which name the shape in a picture
TRANSFORMER = "demo-transformer"  # does so too, by attention
CATEGORIES = tuple(OUTLINES)
SEGMENTATION = "demo-segmentation"  # names the shape at every pixel
SEGMENTS = (*CATEGORIES, "background")
BUNDLED = (*NETWORKS, TRANSFORMER, SEGMENTATION)


def preprocessing() -> Preprocessing:
    """How a picture becomes an input of the bundled networks: (3, 96, 96), values in -1..1."""
    from cnnviz.images.preprocessing import Preprocessing

    return Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, resize=96, crop=(96, 96))


def network(name: str) -> nn.Module:
    """The trained network of that name, in eval mode, float32, on the CPU.

    Raises LookupError for a name that is not in BUNDLED.
    """
    if name not in BUNDLED:
        raise LookupError(f"there is no bundled network {name!r}; choose one of {', '.join(BUNDLED)}")
    from safetensors.torch import load

    module = untrained(name)
    weights = load((files("cnnviz.demo") / f"{name}.safetensors").read_bytes())
    module.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    return module.eval()


def categories(name: str) -> tuple[str, ...]:
    """What the outputs of that network are scores of, in their order."""
    return SEGMENTS if name == SEGMENTATION else CATEGORIES


def pictures(name: str = "demo") -> Drawn:
    """Eight held-out pictures, one of each class, always the same; for `demo-shortcut` with the tag."""
    from cnnviz.demo.drawing import draw

    return draw(len(CATEGORIES), seed=2022, tag="true" if name == "demo-shortcut" else "none", held_out=True)


def as_inputs(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, H, W, 3) in 0..255 as the networks see them: (N, 3, H, W) float32, normalized."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing().mean, preprocessing().std))
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / std


def untrained(name: str, classes: int | None = None) -> nn.Module:
    """The network of that name with random weights, for so many classes; None: as many as it knows."""
    if name == SEGMENTATION:
        from cnnviz.demo.plain import plain_trunk
        from cnnviz.models.segmentation_net import SegmentationNet

        return SegmentationNet(plain_trunk(), classes or len(SEGMENTS))
    if name == TRANSFORMER:
        from cnnviz.demo.transformer import transformer

        attending: nn.Module = transformer(classes or len(CATEGORIES))
        return attending
    from cnnviz.demo.residual import DemoNet

    return DemoNet(classes or len(CATEGORIES))
