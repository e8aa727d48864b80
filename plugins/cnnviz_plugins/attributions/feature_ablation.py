"""Feature ablation: the drop of the score when one segment of the input is replaced."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Expr, Run, attribution, procedure
from cnnviz.formulas import Baseline
from cnnviz_plugins.attributions._superpixels import AnySegments, segmented


@attribution
def feature_ablation(segments: AnySegments = "auto", pieces: int = 50, baseline: Baseline = 0.0) -> Expr:
    """Drop of the score when one segment is replaced by the baseline (Kokhlikyan et al., 2020, arXiv:2009.07896).

    Values (N, 1, *spatial), or (N, C, *spatial) for segments that differ between channels, in units of the score.
    ``segments`` is an integer tensor, (*spatial) or (1 or N, 1 or C, *spatial), with one number for each segment; or
    how to find about ``pieces`` segments: "slic" or "quickshift" (which finds its own number) for superpixels, "equal"
    for rectangular parts, "auto" for slic on images and equal parts on other inputs. Raises ValueError for inputs
    without spatial extent, and for segments that do not fit the input.
    """

    def computed(run: Run) -> Tensor:
        segmentation = segmented(run, segments, pieces)
        replacement = segmentation.replacement(run, baseline)
        numbers = torch.arange(segmentation.max_count, device=run.inputs.device)

        def draw(begin: int, end: int) -> Tensor:
            present = numbers != numbers[begin:end, None]  # (K, M)
            return segmentation.masked(run.inputs, present[:, None].expand(-1, len(run.inputs), -1), replacement)

        drops = run.score - run.scores_of(segmentation.max_count, draw)  # (M, N)
        return segmentation.spread(drops.T)

    return procedure(computed, variants=True)
