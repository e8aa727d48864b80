"""The command that names the class of every pixel, by a network that ends in deconvolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cnnviz.cli.errors import print_line
from cnnviz.cli.options import FileOptions, ModelOptions, Pictures, Quiet, answer_option, model_option, sharing

if TYPE_CHECKING:
    from cnnviz.cli.pixel_classes import PixelClasses

NAME = "deconv-segment"


class PixelModelOptions(ModelOptions):
    """Which network scores pixels, and where it runs."""

    model: Annotated[
        str, model_option("demo-segmentation, or any that scores every pixel: package.module:factory.")
    ] = "demo-segmentation"


@sharing(FileOptions, PixelModelOptions)
def deconv_segment(
    pictures: Pictures,
    options: Mapping[str, Any],
    stages: Annotated[bool, answer_option("Also draw what the decoder's layers saw.", "--stages")] = False,
    quiet: Quiet = False,
) -> int:
    """Segment pictures: which class is each pixel of, and what did the decoder see on its way from coarse to fine?

    A row for each picture: itself, its classes in colours, their shares of the pixels, and with --stages of each layer
    of the decoder the channel most active on what was found. A .safetensors file keeps the classes and their scores.
    """
    from cnnviz.cli.batch_explain import Unreadable, batches
    from cnnviz.cli.outputs import destination, file_names, open_in_viewer
    from cnnviz.cli.pixel_classes import file_content, pixel_classes
    from cnnviz.cli.prepared import loaded, picture_files
    from cnnviz.cli.progress import progress
    from cnnviz.images.writing import write

    files = picture_files(pictures)
    place = destination(options["output"], files.paths, [NAME], options["show"])
    model = loaded(options)
    names = file_names(place.path, files.paths, [NAME]) if place.folder else {}
    together: list[PixelClasses] = []
    written: list[Path] = []
    unreadable = Unreadable(raising=len(files.paths) == 1)

    def save(path: Path, results: Sequence[PixelClasses]) -> None:
        content = file_content(results, path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
        written.append(path)
        if not quiet:
            print_line(f"{path}: {', '.join(result.summary for result in results)}")

    with progress("segmenting", quiet or len(files.paths) == 1) as step:
        for number, ((path,), inputs, _) in enumerate(batches(files.paths, model, 1, unreadable), start=1):
            result = pixel_classes(path.stem, model, inputs, stages)
            if place.folder:
                save(names[path, NAME], [result])
            else:
                together.append(result)
            step(number + unreadable.count, len(files.paths))
    if together:
        save(place.path, together)
    if options["show"]:
        open_in_viewer(written)
    return files.status(unreadable.count)
