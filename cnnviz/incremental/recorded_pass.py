"""One input's pass, recorded for replays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.agreement import special_or_plain
from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.forward import ForwardHook, forward, layer_tensor, never_ran
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.nested import tensors
from cnnviz.engine.speed.memory_format import ORDINARY
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.region_cache import RegionCache
from cnnviz.incremental.regions import channels_last, full
from cnnviz.incremental.tape import Recorder


class RecordedPass:
    """One input's pass. Raises LookupError for a layer that never ran."""

    def __init__(self, query: Query, change: Change, inputs: ModelInputs, ordinary: bool):
        self.device, self.times = inputs[0].device, 0
        self.input = self.output = inputs[0]
        """The input or the layer's output, as recorded, (1, C, *spatial)."""
        copies = inputs.each(Tensor.clone)  # the model may write into its input
        recorder = Recorder(query.model, copies.tensors, ORDINARY if ordinary else torch.channels_last)
        if isinstance(change.site, InputPlace):
            recorder.begin(copies[0])
        layers: dict[str, Tensor] = {}

        site = change.site

        def begin(module: nn.Module, args: Any, output: Any) -> None:
            assert isinstance(site, Site)
            self.times += 1
            if site.call not in (0, self.times):
                return
            recorder.begin(layer_tensor(site.name, output))
            with recorder.unseen.aside():
                self.output = output.clone()

        hooks = [] if isinstance(site, InputPlace) else [(site.name, begin)]
        output = forward(
            query.model,
            copies,
            hooks=[*hooks, *((name, keeps_output(layers, name, recorder)) for name in query.score_layers)],
            modes=[recorder.unseen, recorder],
            before=query.before,
            copy=False,
        )
        if hooks and not self.times:
            raise never_ran(hooks[0][0])
        recorder.finish([output, layers])
        self.score = query.read(output, layers, 1, lambda: inputs[0]).detach()
        """Of the input itself, (1,)."""
        self.layout_read = recorder.layout_reads.finish()
        """True if the model may compute something else in another memory format."""
        del output, copies  # what is held now, the model holds
        recorder.forget()
        self.repeatable, self.forks, self.ops = recorder.repeatable, recorder.forks, recorder.ops
        self.apart, self.unknown = recorder.apart, recorder.axis.unknown
        self.largest = recorder.largest
        self.cache = RegionCache({op: number for number, op in enumerate(self.ops)}, ordinary)
        self.path = [(op.operation, [tensor.shape for tensor in tensors(op.result)]) for op in self.ops]

    @property
    def stride(self) -> int:
        """Total stride of the deepest spatial feature map, relative to the site."""
        size, stride = self.output.shape[2:], 1
        for op in self.ops:
            for tensor in tensors(op.result) if op.carries else ():
                if tensor.ndim == len(size) + 2 and min(tensor.shape[2:], default=1) > 1:
                    stride = max(stride, *(round(a / b) for a, b in zip(size, tensor.shape[2:], strict=True)))
        return stride


def recorded(query: Query, change: Change) -> RecordedPass | None:
    """The pass in the fastest memory format that the model takes; None where the model can't be recorded."""
    if isinstance(query.model, BlackBox):
        return None
    inputs = ModelInputs.of(query.inputs)

    def passed(first: Tensor, ordinary: bool) -> RecordedPass | None:
        record: RecordedPass | None
        record, _ = special_or_plain(
            lambda: RecordedPass(query, change, inputs.with_first(first), ordinary), lambda: None
        )
        return record

    record = None
    if change.boxes is not None:  # cutting regions is faster there
        record = passed(channels_last(inputs.first), False)
    if record is None or record.layout_read:
        record = passed(inputs.first.contiguous(), True)
    if record is not None and record.unknown:  # unless it uses the same tensors again, which are constants then
        record = passed(record.input, record.cache.ordinary)
    return record


def keeps_output(layers: dict[str, Tensor], name: str, recorder: Recorder | None = None) -> ForwardHook:
    """A forward hook that copies a layer's output."""

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if recorder is not None:
            recorder.need(output)
        with torch._C.DisableTorchFunction() if recorder is None else recorder.unseen.aside():
            layers[name] = full(layer_tensor(name, output)).clone()

    return keep
