"""Weakly supervised segmentation: the object that a map points at, cut out of its picture by its colours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.explanations.evidence_maps import Sign, evidence, input_pictures
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.on_original import OnOriginal, pasted
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.originals import At, check_at
from cnnviz.images.writing import write_pictures


@dataclass(frozen=True, eq=False)
class Segmentation(InNotebooks):
    """The object that the map points at, for each of N inputs."""

    masks: Tensor
    """(N, H, W) bool: the pixels of the object; none where the map is blank."""
    boxes: Tensor
    """(N, 4) int64: left, top, right, bottom in pixels, right and bottom just outside; zeros for no object."""
    explanation: Explanation
    """What was segmented."""

    def __len__(self) -> int:
        return len(self.masks)

    def __repr__(self) -> str:
        height, width = self.masks.shape[1:]
        objects = int(self.masks.flatten(1).any(1).sum())
        return f"Segmentation({self.explanation.recipe}; {objects} objects in {len(self)} inputs of {width} x {height})"

    def __getitem__(self, item: int) -> Segmentation:
        """The segmentation of one input, still a batch (of one)."""
        return Segmentation(self.masks[item][None], self.boxes[item][None], self.explanation[item])

    def at_original(self) -> list[Segmentation]:
        """For each input its segmentation on the whole picture that the input was cut out of.

        Masks are (1, H, W) of the picture's own size, boxes are in its pixels. An input that was given as a tensor is
        its own original.
        """
        originals = self.explanation.originals or (None,) * len(self)
        placed = []
        for item, original in enumerate(originals):
            part = self[item]
            if original is not None:
                left, top, right, bottom = original.region
                mask = resized_masks(part.masks, (bottom - top, right - left))[0].cpu().numpy()
                whole = torch.from_numpy(pasted(np.zeros(original.size, np.bool_), mask, original))[None]
                whole = whole.to(part.masks.device)
                part = Segmentation(whole, boxes_around(whole), part.explanation)
            placed.append(part)
        return placed

    def save(self, path: str | Path, at: At = "input") -> list[Path]:
        """Write the masks as gray .png pictures, 255 on the object and 0 elsewhere; of several, ``name-0.png`` and on.

        They have the size of the input, or of the picture that it was cut out of: ``at="original"``. Returns the files
        written. Raises ValueError for another suffix.
        """
        check_at(at)
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path} is no .png; masks are written so, for others would blur their edges")
        masks = list(self.masks) if at == "input" else [part.masks[0] for part in self.at_original()]
        return write_pictures(path, [mask.cpu().numpy().astype(np.uint8) * 255 for mask in masks])


def segment(
    explanation: Explanation,
    foreground: float = 95.0,
    background: float = 30.0,
    iterations: int = 1,
    sign: Sign = "auto",
    seed: int = 0,
) -> Segmentation:
    """Segment what the map points at: weakly supervised segmentation (Simonyan et al., 2014, arXiv:1312.6034, 3.2).

    The strongest places of the map tell the colours of the object, the weakest those of what is behind it; each is
    learned as a mixture of five Gaussians. A graph cut gives every pixel to one of them, neighbours of like colour to
    the same, and the largest connected part is the object (colours and cut by OpenCV's GrabCut: Rother et al., 2004).
    The map only gives examples: pixels may change sides.

    Args:
        explanation: of images. Coarse maps are brought to the size of the input, see
            :func:`cnnviz.explanations.evidence`; the paper takes the strongest channel of a gradient where this adds
            them up.
        foreground: percentile of the map above which places are examples of the object.
        background: percentile up to which places are examples of the rest.
        iterations: 1 is the paper's single cut; more learn the colours of each side again from the last cut.
        sign: how values become evidence, as for :func:`cnnviz.explanations.evidence`.
        seed: of the mixtures' first guess.

    Returns:
        A :class:`Segmentation`. A map without contrast points at nothing: its mask is empty. In a picture of one colour
        the examples themselves are the object's places, for no cut can be told from another.

    Raises:
        ValueError: for inputs that are no images, and for percentiles that do not leave two sides.
    """
    if explanation.inputs.ndim != 4:
        raise ValueError(
            f"inputs {tuple(explanation.inputs.shape)} are no images, and only these are cut by their colours; "
            "for others take a threshold: cnnviz.explanations.evidence(explanation) > limit"
        )
    if not 0 <= background < foreground <= 100:
        raise ValueError(
            f"background={background:g} and foreground={foreground:g} are no percentiles of two sides; "
            "they are 0 to 100, the foreground's above the background's"
        )
    if iterations < 1:
        raise ValueError(f"iterations={iterations} cuts nothing; use 1 or more")
    if isinstance(explanation, OnOriginal) and explanation.at_input is not None:  # an object is cut out once
        found = segment(explanation.at_input, foreground, background, iterations, sign, seed)
        masks = resized_masks(found.masks, explanation.inputs.shape[2:])
        return Segmentation(masks, boxes_around(masks), explanation)
    maps = evidence(explanation, sign).cpu().numpy()
    pictures = (input_pictures(explanation) * 255).round().byte().movedim(1, -1).contiguous().cpu().numpy()

    def cut(item: int) -> NDArray[np.bool_]:
        object_, rest = example_pixels(maps[item], foreground, background)
        if not object_.any() or not rest.any():
            return np.zeros_like(object_)
        return _largest_part(_cut(pictures[item], object_, rest, iterations, seed))

    with ThreadPoolExecutor(1) as thread:  # OpenCV's random numbers belong to a thread; the caller's stay as they were
        masks = torch.from_numpy(np.stack(list(thread.map(cut, range(len(maps))))))
    masks = masks.to(explanation.values.device)
    return Segmentation(masks, boxes_around(masks), explanation)


def boxes_around(masks: Tensor) -> Tensor:
    """The boxes (N, 4) int64 of masks (N, H, W): left, top, right, bottom, just outside; zeros if empty."""
    from torchvision.ops import masks_to_boxes

    boxes = torch.zeros(len(masks), 4, dtype=torch.int64, device=masks.device)
    filled = masks.flatten(1).any(1)
    boxes[filled] = masks_to_boxes(masks[filled]).long() + boxes.new_tensor([0, 0, 1, 1])
    return boxes


def resized_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (N, h, w) at another size; each pixel has the value of the nearest."""
    return F.interpolate(masks[:, None].to(torch.uint8), tuple(size), mode="nearest-exact")[:, 0].bool()


def example_pixels(
    strengths: NDArray[np.floating[Any]], foreground: float, background: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pixels (H, W) of a map (H, W) from which the colours of the object and of the rest are learned.

    ``foreground`` and ``background`` are percentiles of the map. A map without contrast has no pixels for the rest.
    """
    high, low = np.percentile(strengths, (foreground, background))
    # where more places than asked for share the highest value, they are the examples
    strong = strengths > high if high < strengths.max() else strengths == high
    return strong, (strengths <= low) & ~strong


def _cut(
    picture: NDArray[np.uint8], object_: NDArray[np.bool_], rest: NDArray[np.bool_], iterations: int, seed: int
) -> NDArray[np.bool_]:
    """The object's pixels (H, W), by colours that are learned from the examples alone; no pixel is fixed to a side."""
    import cv2

    if (picture == picture[0, 0]).all():
        return object_
    cv2.setRNGSeed(seed)
    no_rectangle = (0, 0, 0, 0)
    mixtures = np.zeros((1, 65)), np.zeros((1, 65))  # of the background and the foreground; OpenCV fills them
    examples = object_ | rest
    sides = np.where(object_, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    # the examples as a picture of one row
    cv2.grabCut(picture[examples][None], sides[examples][None], no_rectangle, *mixtures, 0, cv2.GC_INIT_WITH_MASK)
    labels = np.full(picture.shape[:2], cv2.GC_PR_BGD, np.uint8)
    cv2.grabCut(picture, labels, no_rectangle, *mixtures, 1, cv2.GC_EVAL_FREEZE_MODEL)
    if iterations > 1:
        cv2.grabCut(picture, labels, no_rectangle, *mixtures, iterations - 1, cv2.GC_EVAL)
    return np.equal(labels, cv2.GC_PR_FGD)


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.measure import label

    parts: NDArray[np.int64] = label(mask, connectivity=mask.ndim)  # type: ignore[no-untyped-call]  # skimage has none
    sizes = np.bincount(parts.ravel())[1:]
    return parts == sizes.argmax() + 1 if len(sizes) else mask
