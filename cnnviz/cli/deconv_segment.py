"""The command that names the class of every pixel, by a network that ends in deconvolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.errors import FAILED, reason, say, tell
from cnnviz.cli.options import FILES, MODEL, Pictures, Quiet, loaded, sharing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from cnnviz.drawing.montage import Cell
    from cnnviz.models.loading import LoadedModel

NAME = "deconv-segment"
_HELP = "demo-segmentation, or any that scores every pixel: package.module:factory."
_MODEL = {
    **MODEL,
    "model": (Annotated[str, typer.Option(help=_HELP, rich_help_panel="Model")], "demo-segmentation"),
}


@sharing(FILES, _MODEL)
def deconv_segment(
    pictures: Pictures,
    options: Mapping[str, Any],
    stages: Annotated[
        bool,
        typer.Option(
            "--stages", help="Also draw what the decoder's layers saw.", rich_help_panel="Question and answer"
        ),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Segment pictures: which class is each pixel of, and what did the decoder see on its way from coarse to fine?

    A row for each picture: itself, its classes in colours, their shares of the pixels, and with --stages of each layer
    of the decoder the channel most active on what was found. A .safetensors file keeps the classes and their scores.
    """
    from cnnviz.cli.batch_explain import found_pictures, status
    from cnnviz.cli.outputs import destination, file_names
    from cnnviz.cli.progress import progress
    from cnnviz.images.files import read_input, write

    found, missing = found_pictures(pictures)
    if not found:
        return FAILED
    place = destination(options["output"], found, [NAME], options["show"])
    model = loaded(options)
    names = file_names(place.path, found, [NAME]) if place.folder else {}
    together: list[_Segmented] = []
    written: list[Path] = []
    failed = 0

    def keep(path: Path, answers: Sequence[_Segmented]) -> None:
        content = _file(answers, path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
        written.append(path)
        if not quiet:
            say(f"{path}: {', '.join(each.says for each in answers)}")

    with progress("segmenting", quiet or len(found) == 1) as step:
        for number, path in enumerate(found, start=1):
            try:
                inputs = read_input(path, model.preprocessing)[None]
            except (OSError, ValueError) as error:
                if len(found) == 1:
                    raise
                tell(reason(error))
                failed += 1
                continue
            segmented = _segmented(path.stem, model, inputs, stages)
            if place.folder:
                keep(names[path, NAME], [segmented])
            else:
                together.append(segmented)
            step(number, len(found))
    if together:
        keep(place.path, together)
    if options["show"]:
        from PIL import Image

        for path in written:
            with Image.open(path) as drawn:
                drawn.show()
    return status(len(found) + missing, failed + missing)


@dataclass(frozen=True, eq=False)
class _Segmented:
    """One input (1, C, *spatial), and the scores (1, classes, *spatial) of its pixels."""

    title: str
    model: LoadedModel
    inputs: Tensor
    scores: Tensor
    activations: Mapping[str, Tensor]

    @property
    def classes(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.scores[0].argmax(0).numpy()
        return found

    @property
    def names(self) -> tuple[str, ...]:
        known = self.model.categories or ()
        return tuple(known[each] if each < len(known) else f"class {each}" for each in range(self.scores.shape[1]))

    @property
    def says(self) -> str:
        """The class with most pixels, the background aside."""
        from cnnviz.drawing.class_overlay import class_shares, is_background

        found = class_shares(self.classes)
        first = min(found, key=lambda number: is_background(self.names[number]))
        return f"{self.names[first]} {found[first]:.1%}"

    def row(self) -> list[Cell]:
        """The picture, its classes, the legend, and the stages of the decoder."""
        import numpy as np

        from cnnviz.drawing import class_overlay
        from cnnviz.drawing.input_images import draw_inputs

        if self.inputs.ndim != 4:
            shape = tuple(self.inputs.shape)
            raise ValueError(f"an input {shape} is no image; keep its classes with -o FILE.safetensors")
        picture = draw_inputs(self.inputs, self.model.preprocessing)[0]
        over = class_overlay.overlay_classes(picture, self.classes, self.names)
        told = class_overlay.class_legend(self.classes, self.names)
        named = np.array([not class_overlay.is_background(name) for name in self.names])
        seen = class_overlay.decoder_stages(self.activations, 0, named[self.classes])
        return [([self.title], picture), (["classes"], over), ([], told), *seen]


def _segmented(title: str, model: LoadedModel, inputs: Tensor, stages: bool) -> _Segmented:
    """Raises TypeError where there is no decoder to show, ValueError for a model that does not score pixels."""
    import torch

    from cnnviz.engine.forward import forward
    from cnnviz.models.segmentation_net import SegmentationNet

    module = model.module
    if stages and not isinstance(module, SegmentationNet):
        raise TypeError(
            f"--stages draws the decoder of a cnnviz.SegmentationNet, which {model.name} is not; leave it out"
        )
    parameter = next(module.parameters(), None)
    asked = inputs if parameter is None else inputs.to(parameter.device, parameter.dtype)
    output = forward(module, [asked])
    with torch.no_grad():
        seen = module.activations(asked) if stages and isinstance(module, SegmentationNet) else {}
    scores = output["out"] if isinstance(output, Mapping) and "out" in output else output  # as torchvision has it
    if not isinstance(scores, torch.Tensor) or scores.ndim != inputs.ndim or scores.shape[2:] != inputs.shape[2:]:
        gave = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"{model.name} gives {gave} for an input {tuple(inputs.shape)}, not scores of every pixel; "
            "use demo-segmentation, or a cnnviz.SegmentationNet of your own"
        )
    return _Segmented(title, model, inputs, scores.float().cpu(), {name: maps.cpu() for name, maps in seen.items()})


def _file(answers: Sequence[_Segmented], suffix: str) -> bytes:
    """A picture of a row for each; or scores (N, classes, *spatial) and classes (N, *spatial), which need one size."""
    import json

    import torch
    from safetensors.torch import save

    from cnnviz.cli.outputs import VALUES
    from cnnviz.drawing.montage import sheet
    from cnnviz.images.files import encoded

    if suffix.lower() != VALUES:
        return encoded(sheet([each.row() for each in answers]), suffix)
    if len({each.scores.shape for each in answers}) > 1:
        raise ValueError("the pictures reach the model in different sizes; give --size, or draw them with -o maps/")
    scores = torch.cat([each.scores for each in answers])
    return save({"scores": scores, "classes": scores.argmax(1)}, {"categories": json.dumps(answers[0].names)})
