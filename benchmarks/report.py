"""How large a report is, what making it costs, and how soon it opens: `python -m benchmarks.report`.

Eight photographs by eight methods, with five classes each and the layers of the slider, by squeezenet1_0. Making it is
compared with the computing of all maps that it holds, in the same process; the verdict is left out. A browser without a
window opens it a few times: from the navigation to the moment when all controls work, and the maps that are seen are
drawn. Needs trained weights, photographs and Chromium; a minute or two on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cnnviz
from cnnviz.pages.report.depth import deeper_maps
from cnnviz.pages.report.making import answers_of
from cnnviz.targets import top

METHODS = {
    "mixed": (
        *("grad_cam", "layer_cam", "grad_cam_plus_plus", "hires_cam"),
        *("gradient", "input_x_gradient", "guided_backprop", "guided_grad_cam"),
    ),
    "fine": (
        *("gradient", "input_x_gradient", "guided_backprop", "guided_grad_cam"),
        *("deconvnet", "smoothgrad", "integrated_gradients", "deeplift"),
    ),
}
"""Each by one or two passes, so that the page itself weighs most; and those whose maps take most room."""
PICTURES, CLASSES, OPENINGS = 8, 5, 5


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what it gives."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def opening(page: Path) -> list[float]:
    """Seconds from the navigation to the moment when it can be used, each in a fresh context of one browser."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(OPENINGS):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            shown = context.new_page()
            start = time.perf_counter()
            shown.goto(page.as_uri(), wait_until="commit")
            shown.wait_for_selector("html[data-ready]", state="attached")
            times.append(time.perf_counter() - start)
            context.close()
        browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="of squeezenet1_0")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--methods", choices=METHODS, default="mixed")
    given = parser.parse_args()
    model = cnnviz.load_model("squeezenet1_0", weights=given.weights)
    pictures = sorted(given.pictures.glob("*.JPEG"))[:PICTURES]
    methods = METHODS[given.methods]

    def explained() -> Any:
        return cnnviz.explain(model, pictures, methods, target=top(CLASSES))

    cnnviz.explain(model, pictures[:1], methods, target=top(CLASSES))  # what is found out once
    explaining, explanations = seconds(explained)
    deeper, _ = seconds(lambda: deeper_maps(model, answers_of(explanations)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        making, _ = seconds(lambda: explained().report(path, model=model, verdict=False))
        size = path.stat().st_size
        times = opening(path)
    print(f"{len(pictures)} pictures, {len(methods)} methods, {CLASSES} classes")
    print(f"{'size':32} {size / 1e6:8.2f} MB")
    print(f"{'computing all maps':32} {explaining + deeper:8.2f} s (of them {deeper:.2f} s at further layers)")
    print(f"{'making the report':32} {making:8.2f} s ({making / (explaining + deeper):.2f} times)")
    print(f"{'opening, median of ' + str(len(times)):32} {statistics.median(times):8.2f} s (most {max(times):.2f} s)")


if __name__ == "__main__":
    main()
