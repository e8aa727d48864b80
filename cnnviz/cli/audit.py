"""The command that looks at all maps of a batch run together: what the data set says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnviz.cli.completion import attribution_names
from cnnviz.cli.method_names import method_name
from cnnviz.cli.options import OverwriteOptions, Quiet, Show, answer_option, sharing

Place = typer.Argument(metavar="OUT", help="The folder of a batch run.", show_default=False)


@sharing(OverwriteOptions)
def audit(
    out: Annotated[str, Place],
    options: Mapping[str, Any],
    method: Annotated[
        str | None,
        answer_option(
            "Of several methods, the one whose maps are looked at.",
            "--method",
            "-m",
            metavar="NAME",
            autocompletion=attribution_names,
        ),
    ] = None,
    by: Annotated[
        Literal["auto", "label", "predicted"],
        answer_option("Which class is meant: the true one of the label, or the predicted one. auto: labels if known."),
    ] = "auto",
    masks: Annotated[
        str | None,
        answer_option(
            "Where the evidence is, in masks named as the pictures or a table of boxes: how much heat lies inside.",
            "--annotations",
            metavar="FOLDER|FILE.csv",
        ),
    ] = None,
    sign: Annotated[
        Literal["auto", "positive", "magnitude"],
        answer_option("How values become heat. auto: the positive part of coarse maps, the magnitude of gradients."),
    ] = "auto",
    source: Annotated[
        str | None, answer_option("Where the pictures are now, if they were moved.", metavar="SOURCE")
    ] = None,
    output: Annotated[
        Path | None,
        answer_option(
            "Also write the report: .html, a page with all pictures in it, or .png.", "--output", "-o", metavar="FILE"
        ),
    ] = None,
    json: Annotated[bool, answer_option("Print one JSON document instead of lines for reading.", "--json")] = False,
    show: Show = False,
    quiet: Quiet = False,
) -> int:
    """Tell what the maps of a batch run say together: where heat lies, and which pictures are unlike the others.

    A sentence for each finding: corners and edges that have more heat than their size, maps that form a cluster of
    their own, places that are hot in one class again and again, heat outside of the masks. It needs scikit-learn.
    """
    from cnnviz.cli.documents import print_document
    from cnnviz.cli.errors import PARTLY, print_line, print_note
    from cnnviz.cli.outputs import check_folder, open_in_viewer
    from cnnviz.cli.places import settle
    from cnnviz.datasets.findings.audit_report import check_report
    from cnnviz.datasets.findings.auditing import audit as audited
    from cnnviz.datasets.stored.batch_view import open_batch

    if show and output is None:
        raise ValueError("--show opens the report, and none is written; name it with -o report.html")
    if output is not None:
        check_report(output)
        check_folder(output)
        settle([output], [Path(masks)] if masks is not None else [], options)
    batch = open_batch(out, source)
    found = audited(batch, None if method is None else method_name(method), by=by, masks=masks, sign=sign)
    if output is not None:
        found.report(output)
    if json:
        print_document(found.document())
    elif not quiet:
        for sentence in found.verdict:
            print_line(sentence)
        if output is not None:
            print_line(f"{output}: the report")
    left_out = len(batch) - found.of
    if left_out and not quiet:
        print_note(f"{left_out:,} of {len(batch):,} items have no maps, because they failed or are not computed yet")
    if show and output is not None:
        open_in_viewer([output])
    return PARTLY if left_out else 0
