"""The page of what maps can be trusted for, made of what was kept: docs/sanity.md, and a sheet of every method's maps.

``python -m benchmarks.sanity_page`` reads benchmarks/results/sanity.json and writes the page; nothing is measured.
``--sheet`` also asks every method for its maps of a few pictures, and draws docs/pictures/sanity.jpg: minutes on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.blind import BLIND
from benchmarks.results import DOCS, where
from benchmarks.sanity_records import FILE, Records, error_of_mean, mean, read
from benchmarks.verdicts import RULES, verdict

PLACES = ("roc_auc", "mass_inside", "pointing_game", "mask_iou", "on_tag")
WEIGHTS = ("output", "quarter", "all", "single", "labels")
PHOTOGRAPHS = ("insertion", "deletion", "road", "max_sensitivity")
TITLES = {
    "roc_auc": "ROC area",
    "mass_inside": "on the shape",
    "pointing_game": "peak on it",
    "mask_iou": "IoU",
    "on_tag": "on the tag",
    "output": "output layer",
    "quarter": "upper quarter",
    "all": "all layers",
    "single": "single layers",
    "labels": "labels",
    "insertion": "insertion",
    "deletion": "deletion",
    "road": "ROAD",
    "max_sensitivity": "max-sensitivity",
}
INTRODUCTION = """# Which maps can be trusted for what

Every attribution is held against maps that know nothing of the network: chance, a blob in the centre, and an edge
detector, in brackets. No one figure tells that a map is right; each shows a way of being wrong.

- **Drawn pictures**, whose every pixel of evidence is known. The network `demo` reads the shape: does the map lie on
  it? `demo-shortcut` reads a tag in a corner, which is 2 % of the picture: does the map say so?
- **Random weights and labels** ([Adebayo et al., 2018](https://arxiv.org/abs/1810.03292)): how alike is the map where
  the network has forgotten its output layer, the quarter of its layers next to the output, all of them, or single
  ones; and beside that of a network which learned random labels by heart? 1 is the same map.
- **Photographs**: does the score rise early as places come by the map's order (insertion, high is good), fall early
  as they go (deletion, low), or as they go and are filled in from around, beside the reverse order (ROAD, high)? How
  far does the map move, relative to its size, when each value moves by up to 2 % of the range (max-sensitivity, low)?

All of these are [metrics](methods.md#metrics): `cnnviz evaluate` measures your own network and folder by them.
"""
SHEET = """![For every method its maps, with random weights too, of the tag, and of a photograph](pictures/sanity.jpg)

Each row is a method, with cheap settings where it is expensive. Its maps are of a drawn picture; of that picture with
the quarter of layers next to the output random, and with all of them random; of the tag; and of a photograph.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanity_page", description=__doc__)
    parser.add_argument("--results", type=Path, default=FILE, help="what benchmarks.sanity wrote")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder that sanity.md and pictures/ go to")
    parser.add_argument("--sheet", action="store_true", help="also draw the sheet of maps")
    options = parser.parse_args(arguments)
    try:
        records = read(options.results)
        (options.docs / "pictures").mkdir(parents=True, exist_ok=True)
        if options.sheet:
            from benchmarks.sanity_sheet import sheet
            from cnnviz.images.files import encoded, write

            write(options.docs / "pictures" / "sanity.jpg", encoded(sheet(methods(records)), ".jpg"))
        drawn = (options.docs / "pictures" / "sanity.jpg").is_file()
        (options.docs / "sanity.md").write_text(page(records, drawn))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.docs / 'sanity.md'} is made of {len(records.rows)} rows")
    return 0


def methods(records: Records) -> list[str]:
    """Those with at least one row, blind ones first."""
    found = dict.fromkeys(row.method for row in records.rows)
    return [*(each for each in BLIND if each in found), *sorted(each for each in found if each not in BLIND)]


def page(records: Records, drawn: bool = False) -> str:
    """The whole page, in Markdown."""
    lines = [INTRODUCTION, "## Verdicts", "", *verdicts(records), "", "By these rules:", ""]
    lines += [f"- {rule}" for rule in RULES]
    lines += ["", "## Maps", "", SHEET] if drawn else [""]
    lines += [
        "## Figures",
        "",
        "Means over pictures, and of several networks the mean of their means. Figures of random ",
    ]
    lines[-1] += "weights and labels are Spearman's correlations of maps."
    lines += ["", *table(records), ""]
    lines += ["## Network by network", "", *by_network(records), "", "## Settings, pictures and time", ""]
    lines += ["Expensive methods have cheap settings, and see fewer pictures where their time was up.", ""]
    lines += [*settings(records), "", "## Left out", "", *left_out(records), "", f"Measured on {where(records)}.", ""]
    return "\n".join(lines)


def verdicts(records: Records) -> Iterator[str]:
    yield from ("| map | verdict |", "|---|---|")
    for method in methods(records):
        yield f"| {shown(method)} | {', '.join(verdict(records, method)) or 'nothing'} |"


def table(records: Records) -> Iterator[str]:
    """One row for each method, one column for each figure."""
    figures = [each for each in (*PLACES, *WEIGHTS, *PHOTOGRAPHS) if any(each in row.figures for row in records.rows)]
    yield f"| map | {' | '.join(TITLES[each] for each in figures)} |"
    yield f"|---|{'--:|' * len(figures)}"
    for method in methods(records):
        yield f"| {shown(method)} | {' | '.join(cell(records, method, each) for each in figures)} |"


def by_network(records: Records) -> Iterator[str]:
    """Of the parts with several networks, each alone, with standard errors."""
    for title, figures in (("Random weights", WEIGHTS[:4]), ("Photographs", PHOTOGRAPHS)):
        rows = [row for row in records.rows if any(each in row.figures for each in figures)]
        names = list(dict.fromkeys(row.network for row in rows))
        yield from (f"### {title}", "")
        columns = [(name, each) for name in names for each in figures if _measured(records, name, each)]
        yield f"| map | {' | '.join(f'{name}: {TITLES[each]}' for name, each in columns)} |"
        yield f"|---|{'--:|' * len(columns)}"
        for method in methods(records):
            cells = [_with_error(records.values(method, each, name)) for name, each in columns]
            if any(cells):
                yield f"| {shown(method)} | {' | '.join(cells)} |"
        yield ""


def settings(records: Records) -> Iterator[str]:
    parts = list(dict.fromkeys((row.part, row.network) for row in records.rows))
    yield f"| map | {' | '.join(f'{part}, {network}' for part, network in parts)} |"
    yield f"|---|{'---|' * len(parts)}"
    for method in methods(records):
        rows = {(row.part, row.network): row for row in records.rows if row.method == method}
        written = dict.fromkeys(row.written for row in rows.values())
        told = " or ".join(f"`{each}`" for each in written)
        cells = []
        for part in parts:
            row = rows.get(part)
            count = len(next(iter(row.figures.values()))) if row is not None else 0
            cells.append("" if row is None else f"{count} of {row.size} px, {row.seconds:.0f} s")
        yield f"| {told} | {' | '.join(cells)} |"


def left_out(records: Records) -> Iterator[str]:
    """What is not there, by reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in records.left_out:
        reasons.setdefault((each.method, each.reason.partition(";")[0]), []).append(f"{each.part} of {each.network}")
    yield from (f"- {method}, {', '.join(places)}: {reason}" for (method, reason), places in reasons.items())
    remarks = dict.fromkeys(row.remark for row in records.rows if row.remark)
    yield from (f"- {remark[0].upper()}{remark[1:]}." for remark in remarks)
    if not reasons and not remarks:
        yield "Nothing."


def shown(method: str) -> str:
    return f"({method})" if method in BLIND else method


def cell(records: Records, method: str, figure: str) -> str:
    names = dict.fromkeys(row.network for row in records.rows if row.method == method and figure in row.figures)
    means = [found for name in names if (found := mean(records.values(method, figure, name))) is not None]
    found = mean(means)
    return "" if found is None else f"{found:.2f}"


def _with_error(values: list[float]) -> str:
    found = mean(values)
    if found is None:
        return ""
    return f"{found:.2f} ± {error_of_mean(values):.2f}" if len(values) > 1 else f"{found:.2f}"


def _measured(records: Records, network: str, figure: str) -> bool:
    return any(row.network == network and figure in row.figures for row in records.rows)


if __name__ == "__main__":
    sys.exit(main())
