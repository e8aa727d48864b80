"""How many pictures a method explains in a second, beside how many the network classifies; what a call hands out.

``python -m benchmarks.speed --device cuda`` measures this too. ``python -m benchmarks.speed.rates`` measures it alone
and writes benchmarks/results/rates-cpu.json, ``--device cuda`` rates-cuda.json. A call's launches are what it hands to
the GPU, or the operations that it calls on a CPU. Its synchronizations are how often Python waits for the GPU.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import cnnviz
from benchmarks.command import Options, begun_by, one_line_errors, parsed, parser_of
from benchmarks.networks import LAYERS, network, pictures
from benchmarks.speed.comparing import Failed, answered, explained, forward
from benchmarks.speed.peers import Question
from benchmarks.speed.rows import RATES, LeftOut, Rate, rate_of
from benchmarks.speed.timing import in_turns

METHODS = ("grad_cam", "gradient", "guided_backprop")
BATCHES = {"cpu": (1, 8), "cuda": (1, 32, 256)}
PREPARED, PLAIN = "prepared", "plain"
WAYS = {
    "cpu": (PLAIN, PREPARED, "bfloat16"),
    "cuda": (PLAIN, PREPARED, "tf32", "float32", "bfloat16", "float16"),
}
"""Plain calls, prepared ones, and precisions; what a version does not have is left out, and said."""
HANDED_OUT = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
"""How the calls begin that hand work to a GPU."""
WAITS = "called a synchronizing CUDA operation"

Ask = Callable[[Question], Tensor]


class RateOptions(Options):
    methods: list[str]
    networks: list[str]
    batches: list[int]
    size: int
    repeats: int


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("speed.rates", __doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--batches", nargs="+", type=int, help="1, 32 and 256 on a GPU, 1 and 8 on a CPU")
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--repeats", type=int, default=7)
    options = parsed(parser, arguments, RateOptions(), "rates-{}.json")
    options.batches = options.batches or list(BATCHES[kind(options)])
    if min(*options.batches, options.repeats, options.threads) < 1 or options.size < 32:
        parser.error("batches, repeats and threads are 1 or more, the size 32 or more")
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    begun_by(options, RATES).collect(measured(options), options.out, line_of)
    return 0


def kind(options: RateOptions) -> str:
    return "cuda" if options.device.startswith("cuda") else "cpu"


def line_of(rate: Rate | LeftOut) -> str:
    """A line for the terminal."""
    subject = f"{rate.method}, {rate.network} x {rate.batch}"
    if isinstance(rate, LeftOut):
        return f"{subject}: left out: {rate.reason}"
    figures = [f"{rate_of(rate.seconds, rate.batch):.4g}/s", f"{rate.share:.2f} of the forward pass's rate"]
    figures.append(f"{rate.launches} launches")
    if rate.synchronizations is not None:
        figures.append(f"{rate.synchronizations} synchronizations")
    return f"{subject}, {rate.how}: {', '.join(figures)}"


def measured(options: RateOptions) -> Iterator[Rate | LeftOut]:
    """Every method in every way, on every network and batch."""
    device = torch.device(options.device)
    for name in options.networks:
        net = network(name, device)
        for batch in options.batches:
            inputs = pictures(1, options.size).expand(batch, -1, -1, -1).contiguous().to(device)
            with torch.inference_mode():
                target = net.module(inputs[:1]).argmax(1).expand(batch).contiguous()
            question = Question(net, inputs, target)
            for method in options.methods:
                for how in WAYS[kind(options)]:
                    try:
                        yield rate(method, how, question, options.repeats)
                    except Failed as error:
                        yield LeftOut(f"{method}, {how}", "", name, batch, str(error))


def rate(method: str, how: str, question: Question, repeats: int) -> Rate:
    """One row. Raises Failed where it can't be answered."""
    ask, device = asked(method, how, question), question.inputs.device
    ours = partial(answered, "cnnviz", ask, question)
    times = in_turns({"ours": ours, "forward": partial(forward, question)}, repeats, device)
    return Rate(
        method,
        how,
        question.network.name,
        len(question.inputs),
        question.inputs.shape[-1],
        times["ours"].seconds,
        times["forward"].seconds,
        launches(ours, device),
        synchronizations(ours) if device.type == "cuda" else None,
    )


def asked(method: str, how: str, question: Question) -> Ask:
    """What answers a question in that way. Raises Failed where this version has no such way."""
    if how == PREPARED:
        return prepared(method, question)
    return partial(explained, method, {} if how == PLAIN else {"precision": how})


def prepared(method: str, question: Question) -> Ask:
    """What ``cnnviz.prepare`` gives for inputs of this shape: the one place that calls it."""
    prepare: Any = getattr(cnnviz, "prepare", None)
    if prepare is None:
        raise Failed("this version has no cnnviz.prepare")
    layered = "layer" in cnnviz.attributions[method].settings
    options = {"layer": question.network.layer} if layered else {}
    try:
        ready = prepare(question.network.module, method, like=question.inputs, target=question.target, **options)
    except Exception as error:
        raise Failed(f"cnnviz.prepare failed: {type(error).__name__}: {error}".splitlines()[0]) from error
    return lambda question: ready(question.inputs).values


def launches(work: Callable[[], object], device: torch.device) -> int:
    """How many pieces of work one call hands to a GPU, or how many operations it calls on a CPU."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        work()
        if cuda:
            torch.cuda.synchronize(device)
    events: Iterable[Any] = profiler.events() or ()
    if cuda:
        return handed_out(event.name for event in events)
    return sum(event.name.startswith("aten::") and event.cpu_parent is None for event in events)


def handed_out(names: Iterable[str]) -> int:
    """How many of these calls hand work to a GPU."""
    return sum(name.startswith(HANDED_OUT) for name in names)


def synchronizations(work: Callable[[], object]) -> int:
    """How often one call waits for the GPU, as torch tells it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(WAITS in str(warning.message) for warning in told)


if __name__ == "__main__":
    sys.exit(main())
