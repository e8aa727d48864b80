"""A proof that the inputs of a batch do not change each other's outputs: the batch axis is followed through a pass.

Each tensor that descends from the inputs has its batch axis in one dimension. An operation keeps the inputs apart if it
combines no values along that axis. The proof holds where all operations are known, and where every tensor that enters
one is known too: an input, a parameter, a buffer, or the output of a known operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.batch_axis.calls import LOST, Mixing, OperationCall, Place, Places, Unproven
from cnnviz.engine.batch_axis.rules import RULES
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import reads_metadata, written_tensor

_ROWS = Place(0)


class BatchAxis:
    """Follows the batch axis through the operations of one pass.

    Args:
        model: whose parameters and buffers are the same for all inputs.
        items: the number N of inputs in the batch.
        constants: tensors of unknown origin, by how often they were written, that earlier passes of the model have
            used. A tensor is a constant if it is the same in two passes.
    """

    def __init__(self, model: nn.Module, items: int, constants: MutableMapping[Tensor, int]):
        self.items, self.constants = items, constants
        self.places: MutableMapping[Tensor, Place] = WeakIdKeyDictionary()
        """Where tensors that descend from the inputs have the batch axis."""
        self.versions: MutableMapping[Tensor, int] = WeakIdKeyDictionary()
        """Of all known tensors, as they were last seen."""
        self.unknown = False
        """True if a tensor of unknown origin was met: something acted that was not seen."""
        self.reads = False
        """True if Python read values that descend from the inputs."""
        self.verdict: bool | None = True
        """True if the inputs are proven to be apart so far, None if that is not known, False if they are not."""
        for tensor in (*model.parameters(), *model.buffers()):
            self._know(tensor)

    def begin(self, inputs: Iterable[Tensor], shared: Iterable[Tensor] = ()) -> None:
        """These tensors have one row for each input; those that are ``shared`` are the same for all."""
        for tensor in shared:
            self._know(tensor)
        for tensor in inputs:
            self.places[tensor] = _ROWS
            self._know(tensor)

    def before(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """An operation is about to be called."""
        if reads_metadata(func):
            return
        for tensor in tensors((args, kwargs)):
            if not self._is_known(tensor):
                self.unknown, self.verdict = True, self.verdict and None

    def after(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        """It was called, and this is its output."""
        if reads_metadata(func):
            return
        operands, results = list(tensors((args, kwargs))), list(tensors(output))
        places: list[Place | None] = [None] * len(results)
        carrying = {tensor: self.places[tensor] for tensor in operands if tensor in self.places}
        if carrying:
            if any(python_values(output)):  # what Python reads of a batch may decide for all of it
                self.reads, self.verdict = True, False
            places = self._followed(OperationCall(args, kwargs, output, carrying, self.items), func, len(results))
        for tensor, place in zip(results, places, strict=True):
            self._know(tensor)
            if place is not None:
                self.places[tensor] = place
        written = written_tensor(func, operands, kwargs)
        if written is not None:
            self._know(written)
            whole = written._base  # which a write into its view changes too
            if whole is not None and (whole in self.places or written not in self.places):
                self._know(whole)

    def _followed(self, call: OperationCall, func: Any, results: int) -> list[Place | None]:
        """Where the batch axis lies in each tensor of an output."""
        places: Places = LOST
        try:
            if LOST not in call.places.values():
                places = self._rule(func)(call)
        except Mixing:
            self.verdict = False
        except Exception:  # no rule, or a call that the rule does not expect
            self.verdict = self.verdict and None
        return places if isinstance(places, list) else [places] * results

    def follow(self, copy: Any, tensor: Tensor) -> None:
        """A copy that was made of a tensor while operations were not observed."""
        if isinstance(copy, Tensor):
            self._know(copy)
            if tensor in self.places:
                self.places[copy] = self.places[tensor]

    def finish(self, value: Any) -> bool | None:
        """The verdict, where scores are read from the tensors in this value, one row for each input."""
        # what does not descend from the inputs and outlives the pass is a constant, such as a grid that the model keeps
        self.constants.update((tensor, its) for tensor, its in [*self.versions.items()] if tensor not in self.places)
        for tensor in tensors(value):
            known = tensor in self.versions and self.places.get(tensor, _ROWS) == _ROWS
            if not known and self.verdict:
                self.verdict = None
        return self.verdict

    @staticmethod
    def _rule(func: Any) -> Any:
        of_property = getattr(func, "__name__", "") == "__get__"
        rule = RULES.get(getattr(func.__self__, "__name__", "") if of_property else func)
        if rule is None:
            raise Unproven
        return rule

    def _know(self, tensor: Tensor) -> None:
        self.versions[tensor] = _version(tensor)

    def _is_known(self, tensor: Tensor) -> bool:
        """True if the operations that were seen have made the tensor what it is now, or if it is a constant."""
        version = _version(tensor)
        if tensor in self.versions:
            return bool(self.versions[tensor] == version)
        if self.constants.get(tensor, _NEVER) == version:
            self._know(tensor)
            return True
        self.constants[tensor] = version
        return False


_NEVER = -1


def _version(tensor: Tensor) -> int:
    """How often the tensor was written; tensors of inference mode do not tell."""
    return 0 if tensor.is_inference() else tensor._version


def constants_of(model: nn.Module) -> MutableMapping[Tensor, int]:
    """Tensors that passes of the model use, and that none of its operations was seen to make."""
    constants: MutableMapping[Tensor, int] = facts_of(model).setdefault("constants", WeakIdKeyDictionary())
    return constants


def python_values(output: Any) -> Iterator[bool]:
    """True for each value in an operation's output that is not a tensor."""
    if isinstance(output, tuple | list):
        for item in output:
            yield from python_values(item)
    elif not isinstance(output, Tensor) and output is not None:
        yield True
