"""The one call most users make: a model, inputs, methods; answers that can be read, drawn and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor, nn
from torch.utils.data import DataLoader

from cnnviz.engine.deferred import settled
from cnnviz.engine.device_policy import kind_of
from cnnviz.engine.loans import borrows
from cnnviz.engine.meter import metered
from cnnviz.engine.speed.autocast import Precision
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.explanation_set import ExplanationList, Explanations
from cnnviz.explanations.inputs import Arguments, Explained, InputKey
from cnnviz.explanations.joining import explained_in_batches
from cnnviz.explanations.joint import JointExplanation
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.progress_bar import Progress, listening
from cnnviz.explanations.request import device_of, requested
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution
from cnnviz.run.resolve_target import several, top
from cnnviz.run.targets import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    Picture = str | Path | Image.Image | NDArray[Any]
    Inputs = DataLoader[Any] | Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Picture | Sequence[Picture]


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: str | Attribution = ...,
    *,
    target: Target = ...,
    of: InputKey = ...,
    arguments: Arguments = ...,
    preprocessing: Preprocessing | Any = ...,
    preprocess: Literal["crop", "whole"] = ...,
    categories: Sequence[str] | None = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    before_sigmoid: bool = ...,
    precision: Precision | None = ...,
    fold: bool = ...,
    compile: bool | str = ...,
    progress: Progress = ...,
    **settings: Any,
) -> Explanation: ...


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: Sequence[str | Attribution],
    *,
    target: Target = ...,
    of: InputKey = ...,
    arguments: Arguments = ...,
    preprocessing: Preprocessing | Any = ...,
    preprocess: Literal["crop", "whole"] = ...,
    categories: Sequence[str] | None = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    before_sigmoid: bool = ...,
    precision: Precision | None = ...,
    fold: bool = ...,
    compile: bool | str = ...,
    progress: Progress = ...,
    **settings: Any,
) -> Explanations[Explanation]: ...


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: str | Attribution = ...,
    *,
    target: top | several,
    **more: Any,
) -> ExplanationList: ...


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: str | Attribution = ...,
    *,
    target: Target = ...,
    of: Explained,
    arguments: Arguments = ...,
    preprocessing: Preprocessing | Any = ...,
    preprocess: Literal["crop", "whole"] = ...,
    categories: Sequence[str] | None = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    before_sigmoid: bool = ...,
    precision: Precision | None = ...,
    fold: bool = ...,
    compile: bool | str = ...,
    progress: Progress = ...,
    **settings: Any,
) -> JointExplanation: ...


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: Sequence[str | Attribution],
    *,
    target: top | several,
    **more: Any,
) -> Explanations[ExplanationList]: ...


@overload
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: Sequence[str | Attribution],
    *,
    target: Target = ...,
    of: Explained,
    arguments: Arguments = ...,
    preprocessing: Preprocessing | Any = ...,
    preprocess: Literal["crop", "whole"] = ...,
    categories: Sequence[str] | None = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    before_sigmoid: bool = ...,
    precision: Precision | None = ...,
    fold: bool = ...,
    compile: bool | str = ...,
    progress: Progress = ...,
    **settings: Any,
) -> Explanations[JointExplanation]: ...


@borrows
def explain(
    model: nn.Module | LoadedModel | Callable[..., Any],
    inputs: Inputs,
    attribution: str | Attribution | Sequence[str | Attribution] = "grad_cam",
    *,
    target: Target | top | several = None,
    of: Explained | Any = 0,
    arguments: Arguments = (),
    preprocessing: Preprocessing | Any = None,
    preprocess: Literal["crop", "whole"] = "crop",
    categories: Sequence[str] | None = None,
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    before_sigmoid: bool = False,
    precision: Precision | None = None,
    fold: bool = False,
    compile: bool | str = False,
    progress: Progress = False,
    **settings: Any,
) -> (
    Explanation
    | JointExplanation
    | ExplanationList
    | Explanations[Explanation]
    | Explanations[JointExplanation]
    | Explanations[ExplanationList]
):
    """Why does the model give these inputs their scores?

    Args:
        model: in eval mode; it is never changed. Of :func:`cnnviz.load_model`, its preprocessing and class names are
            used too. Methods that need only scores also take any callable, TorchScript, exported programs and ONNX
            sessions, see :func:`cnnviz.black_box`.
        inputs: (N, C, *spatial), normalized as the model expects; a list of tensors (C, *spatial) or (1, C, *spatial)
            is one batch. Several inputs of the model are a tuple, or a mapping from the names of its arguments. Where
            the preprocessing is known also pictures: paths, folders, PIL images or uint8 arrays (H, W, 3), one or a
            list. Or a ``DataLoader``, whose batches are explained one after the other.
        attribution: a method's name, a formula, or any callable of a :class:`~cnnviz.Run`; or a sequence of them, which
            share their forward and backward passes.
        target: what is explained. None: what the model says, the predicted class; of a single score (N, 1) the class
            where it is positive (or a probability of a half or more), and what speaks against it where it is negative:
            class -1, or the first of two category names. An output (N,) is a value, explained as it is. A class by
            number or name, or (N,) classes. A tuple: one place of a dense output, ``(class, *place)``. A function from
            the model's output to one score for each input, (N,), which is called with outputs of whole batches. An
            objective, such as ``channel("features.3", 5)``, or one of :mod:`cnnviz.targets`, such as ``box(0)``. A list
            with one of these for each input, whose functions read the output of that input alone. Or ``top(k)`` or
            ``several(a, b)``, for a list of explanations.
        of: which of several inputs is explained, by its number or name. ``"all"``, or several of them, are explained
            together: a path leads all of them from their baselines, subsets take segments of all, and values of all
            add up. ``baseline``, ``baselines`` and ``segments`` are then a tuple with one for each input, or one for
            all. A method's name or a formula is the setting ``of`` of methods such as SmoothGrad.
        arguments: further arguments of the model, explained by nobody: a mapping from names or positions to values, or
            a sequence of those that follow the inputs. A tensor whose first dimension is N, in lists and dicts too, has
            one row for each input; other values are handed on as they are. ``cnnviz.explanations.shared(value)`` says
            of a tensor with N rows that all inputs share it.
        preprocessing: prepares pictures, and turns inputs back into pictures when they are drawn. Whatever
            :meth:`cnnviz.Preprocessing.of` reads: a Preprocessing, a torchvision Compose, timm's data config, an image
            processor of transformers.
        preprocess: "whole" prepares pictures without the crop, so that all of each is explained, at the scale that the
            network knows. For networks that take inputs of any size.
        categories: class names by index, or a file of them (see :func:`cnnviz.load_model`).
        seed: of all randomness; the same seed gives the same draws on every device.
        memory: bytes that inputs evaluated together may take; None for a share of what is free. The batch itself passes
            through the model as a whole, whatever the budget: to bound that, give fewer inputs.
        before_softmax: explain what goes into the softmax that the model ends in, where probabilities hide what
            speaks for a class by itself.
        before_sigmoid: the same for a model that ends in a sigmoid, for one class or several.
        precision: "bfloat16" or "float16" compute convolutions and matrix products in half of float32, faster where
            the hardware has it; maps, sums over steps and samples, and what is returned stay float32. Class
            activation maps and occlusion keep a cosine of 0.99 to float32; gradients at the input, which rounding
            sends through other rectifiers, do not. On CUDA "float32" is exact, and "tf32" lets GPUs that have it
            multiply with ten bits; elsewhere both are float32. torch's flags say so to all threads: those of others
            compute so too until the question is answered, and questions in another precision wait. None: as torch's
            flags are, on CUDA TF32 in convolutions unless the user chose otherwise.
            :attr:`Explanation.computed_in` tells what it was.
        fold: put batch norms into the convolutions before them, on a private copy: equal to rounding, and sooner where
            one question is many passes.
        compile: hand passes that need no gradient (of occlusion, RISE, Score-CAM) to ``torch.compile``; True, or the
            name of a backend. Pays for many questions about one network.
        progress: True shows a bar on the error stream, in notebooks too; or a function that is called with how many
            inputs were passed through the model and how many there will be, as far as that is known by then. Methods of
            one pass tell nothing but their end.
        settings: for methods given by name. With several names each takes those it knows.

    Returns:
        An :class:`~cnnviz.Explanation`; for a sequence a :class:`~cnnviz.explanations.Explanations`, a dict of them by
        the names given (the recipe, for formulas). With ``top`` or ``several`` as target, a list of them in place of
        each, an :class:`~cnnviz.explanations.ExplanationList`.
        Where several inputs are explained together, a :class:`~cnnviz.explanations.JointExplanation`, a tuple with one
        for each.

    Raises:
        ValueError, TypeError, LookupError: for a model in training mode, inputs that are not finite or do not fit,
            a class, layer, method or setting that does not exist, a rule that met none of its operations.
    """
    options = ExplainOptions(seed, memory, before_softmax, before_sigmoid, precision, fold, compile)
    request = requested(
        model,
        attribution,
        options,
        settings,
        inputs=inputs,
        of=of,
        arguments=arguments,
        preprocessing=preprocessing,
        preprocess=preprocess,
        categories=categories,
    )

    def answered(inputs: Any, target: Any) -> Any:
        def answer() -> Any:
            asked = request.asked(inputs, target)
            request.tell_odd_values(asked)
            return request.result(request.answers(asked, *request.prepared_for(asked)), asked, target)

        return settled(answer, defers=kind_of(device_of(request, inputs)).defers)

    with listening(progress, "explaining") as listener, metered(listener):
        if isinstance(inputs, DataLoader):
            found: Any = explained_in_batches(answered, inputs, target)
        else:
            found = answered(inputs, target)
    return found  # type: ignore[no-any-return]  # of which type, the overloads tell
