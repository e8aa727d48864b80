"""Feature visualization in one call: a synthesis with its settings makes inputs for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.loans import borrows
from cnnviz.engine.thread_state import let_go
from cnnviz.engine.validation import check_finite, check_model, unwrap
from cnnviz.explanations.progress_bar import Progress, listening
from cnnviz.feature_visualization.ascent import Ascent
from cnnviz.feature_visualization.result import Synthesized
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.class_names import class_names
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.configured import ConfiguredMethod, code, name_of
from cnnviz.registry.protocols import Synthesis
from cnnviz.registry.registry import syntheses
from cnnviz.registry.resolve import resolve


@borrows
def synthesize(
    model: nn.Module | LoadedModel,
    synthesis: str | Synthesis,
    *,
    size: int | Sequence[int] | None = None,
    count: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    snapshots: int = 0,
    preprocessing: Preprocessing | Any = None,
    categories: Sequence[str] | None = None,
    **settings: Any,
) -> Synthesized:
    """Make inputs that maximize an objective of a model: what does this part of it look for?

    Args:
        model: in eval mode; it is never changed. Of :func:`cnnviz.load_model`, its preprocessing and class names are
            used too.
        synthesis: its name, or any callable of an :class:`~cnnviz.Ascent`.
        size: spatial size of the inputs: one length for all dimensions, or (*spatial). None: the size that the
            preprocessing crops to, or one that the synthesis chooses.
        count: how many are made at once.
        seed: of all randomness; the same seed gives the same draws on every device.
        progress: True shows a bar; or a function that is called after every step with how many are done and how many
            there will be.
        snapshots: inputs are kept after every so many steps; 0 for none.
        preprocessing: tells which values pictures have; without one they are from -2 to 2.
        categories: class names by index, or a file of them.
        settings: of a synthesis given by name.

    Returns:
        A :class:`~cnnviz.Synthesized`. An interruption (Ctrl-C) after the first step gives what there is by then, with
        ``finished`` False.

    Raises:
        ValueError, TypeError, LookupError: for a model in training mode, a layer, channel, class, synthesis or setting
            that does not exist, a size that is not known or does not fit, an objective that is not finite.
    """
    if isinstance(model, LoadedModel):
        preprocessing = preprocessing or model.preprocessing
        categories = categories or model.categories
        model = model.module
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    network = unwrap(model)
    check_model(network)
    if count < 1 or snapshots < 0:
        raise ValueError(f"count={count} and snapshots={snapshots} can't be; use 1 or more, and 0 or more")
    forms, configured = "a name, or a callable of an ascent", f"{synthesis!r}, which has its settings in it"
    (make,) = resolve(syntheses, [synthesis], settings, forms=forms, configured=configured).values()
    # a graph cannot keep tensors made in inference mode
    with listening(progress, "synthesizing") as listener, torch.inference_mode(False), torch.enable_grad():
        ascent = Ascent(
            network,
            count=count,
            size=size,
            seed=seed,
            preprocessing=preprocessing,
            categories=class_names(categories) if categories is not None else None,
            progress=listener,
            snapshots=snapshots,
        )
        try:
            made, finished = make(ascent), True
        except KeyboardInterrupt as interruption:
            if ascent.latest is None:
                raise
            let_go(interruption)
            made, finished = ascent.latest, False
    recipe = _recipe(make, ascent)
    expected = f"a synthesis gives (N, C, *spatial), with {ascent.rank + 2} dimensions as the model takes it"
    if not isinstance(made, Tensor):
        raise TypeError(f"{recipe} gave a {type(made).__name__}; {expected}")
    if made.ndim != ascent.rank + 2:
        raise ValueError(f"{recipe} gave {tuple(made.shape)}; {expected}")
    check_finite(made, f"what {recipe} gives")
    history = torch.stack(ascent.history) if ascent.history else made.new_zeros(0, len(made))
    return Synthesized(
        made.detach().to(ascent.dtype), history, recipe, ascent.snapshots, finished, preprocessing, dict(ascent.notes)
    )


def _recipe(synthesis: Synthesis, ascent: Ascent) -> str:
    """The call that makes the same for any network: a layer that was chosen automatically is named."""
    if not isinstance(synthesis, ConfiguredMethod):
        return name_of(synthesis)
    located = synthesis.at_layer(ascent.names[None]) if None in ascent.names else synthesis
    return located.text(lambda value: code(value, lambda module: repr(ascent.layer_name(module))))
