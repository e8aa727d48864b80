"""A picture in, a picture out: everything between is chosen, and can be chosen otherwise."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from cnnviz.explanations.explain import explain
from cnnviz.explanations.on_original import FigureError
from cnnviz.images.originals import At
from cnnviz.images.preprocessing import IMAGENET
from cnnviz.images.writing import encoded, picture_suffix, write
from cnnviz.models.loading import LoadedModel, load_model
from cnnviz.registry.protocols import Attribution
from cnnviz.registry.registry import attributions, renderers
from cnnviz.run.targets import Target

if TYPE_CHECKING:
    from PIL import Image

    from cnnviz.registry.protocols import Renderer


def draw(
    picture: str | Path | Image.Image,
    path: str | Path | None = None,
    method: str | Attribution = "grad_cam",
    *,
    model: str | LoadedModel | nn.Module = "resnet50",
    target: Target = None,
    renderer: str | Renderer | None = None,
    at: At | None = None,
    seed: int = 0,
    **settings: Any,
) -> Image.Image:
    """Why does a network see what it sees in this picture? The answer as a picture, written where a path is given.

        cnnviz.draw("dog.jpg", "dog-gcam.jpg")
        cnnviz.draw("dog.jpg", "dog-gprop.jpg", "guided_backprop", renderer="color", style="std")
        cnnviz.draw("dog.jpg", model="vgg19", target="dalmatian").show()

    Args:
        picture: a file, or a PIL image.
        path: of the picture to write, as .png, .jpg, .webp or .tif; None writes nothing.
        method: an attribution's name, a formula, or any callable of a run.
        model: "demo", which needs no download; a name as :func:`cnnviz.load_model` takes it; what that loaded; or a
            network in eval mode, whose pictures are prepared as ImageNet's.
        target: a class by number or name; None is the predicted one.
        renderer: how it is drawn; None is what suits the method.
        at: "original" draws over the whole picture at its own size, "input" over what the network saw of it. None is
            "original", except for renderers that draw a figure.
        seed: of all randomness.
        settings: of the method and of the renderer, each taking those it knows.

    Returns:
        The picture, RGB.

    Raises:
        TypeError for a setting that neither has; ValueError for a path that is no picture's, or that is the picture
        itself, which would be replaced; and what
        :func:`cnnviz.explain` and :func:`cnnviz.load_model` raise. Then nothing is written.
    """
    from PIL import Image

    suffix = None if path is None else picture_suffix(path)
    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f"the folder {Path(path).parent} does not exist; make it first")
    if path is not None and isinstance(picture, str | Path) and Path(path).exists() and os.path.samefile(path, picture):
        raise ValueError(f"{path} is the picture to explain, and would be replaced; choose another name")
    known = attributions[method].settings if isinstance(method, str) else {}
    explained = {name: value for name, value in settings.items() if name in known}
    loaded = _loaded(model) if isinstance(model, str) else model
    preprocessing = IMAGENET if isinstance(loaded, nn.Module) else None
    answer = explain(loaded, picture, method, target=target, preprocessing=preprocessing, seed=seed, **explained)
    name = renderer or answer.usual_renderer
    drawn = renderers[name].settings if isinstance(name, str) else {}
    rest = {name: value for name, value in settings.items() if name in drawn or name not in known}
    try:
        drawn_picture = answer.render(name, at or "original", **rest)[0]
    except FigureError:
        if at is not None:
            raise
        drawn_picture = answer.render(name, **rest)[0]
    if path is not None and suffix is not None:
        write(Path(path), encoded(drawn_picture, suffix))
    return Image.fromarray(drawn_picture)


@lru_cache(maxsize=2)
def _loaded(name: str) -> LoadedModel:
    return load_model(name)  # a network is read once for many pictures
