"""The command that names the class of every pixel, by a network that ends in deconvolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cnnviz.cli.errors import print_line
from cnnviz.cli.options import (
    FileOptions,
    FindOptions,
    ModelOptions,
    Pictures,
    Quiet,
    answer_option,
    model_option,
    sharing,
)

if TYPE_CHECKING:
    from cnnviz.cli.pixel_classes import PixelClasses

NAME = "deconv-segment"


class PixelModelOptions(ModelOptions):
    """Which network scores pixels, and where it runs."""

    model: Annotated[
        str,
        model_option(
            "The network: demo-segmentation, or any that scores every pixel, as package.module:factory.",
            metavar="NETWORK",
        ),
    ] = "demo-segmentation"


@sharing(FileOptions, FindOptions, PixelModelOptions)
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
    from cnnviz.cli.batch_explain import batches
    from cnnviz.cli.failures import Failures
    from cnnviz.cli.outputs import STDOUT, destination, open_in_viewer
    from cnnviz.cli.picture_files import is_file, picture_files
    from cnnviz.cli.pixel_classes import file_content, pixel_classes
    from cnnviz.cli.places import file_names, settle
    from cnnviz.cli.prepared import FILE_OPTIONS, loaded
    from cnnviz.cli.progress import progress
    from cnnviz.images.writing import source_of, write

    files = picture_files(pictures, {**options, "quiet": quiet})
    place = destination(NAME, options, len(files.paths))
    names = file_names(place.path, files.paths, [NAME], files.below) if place.folder else {}
    writes = [*names.values()] if place.folder else [place.path] if place.path != STDOUT else []
    reads = [Path(options[name]) for name in FILE_OPTIONS if is_file(options[name])]
    there = settle(
        writes, [*files.paths, *reads], options, {path: partial(source_of, of) for (of, _), path in names.items()}
    )
    wanted = [path for path in files.paths if names.get((path, NAME), place.path) not in there]
    model = loaded(options)
    together: list[PixelClasses] = []
    written: list[Path] = []
    failures = Failures(len(wanted))

    def save(path: Path, results: Sequence[PixelClasses]) -> None:
        content = file_content(results, path.suffix or ".png")
        if path == STDOUT:
            place.write(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
        written.append(path)
        if not quiet:
            print_line(f"{path}: {', '.join(result.summary for result in results)}")

    with progress("segmenting", quiet or len(wanted) == 1) as step:
        for number, ((path,), inputs, _) in enumerate(batches(wanted, model, 1, failures), start=1):
            try:
                result = pixel_classes(path.stem, model, inputs, stages)
                if place.folder:
                    save(names[path, NAME], [result])
                else:
                    together.append(result)
                failures.settled()
            except Exception as error:
                failures(path, error)
            step(number, len(wanted))
    failures.settled()
    if together:
        save(place.path, together)
    if options["show"]:
        open_in_viewer(written)
    return files.status(failures.count)
