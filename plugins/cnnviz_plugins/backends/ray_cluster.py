"""Ray: workers on all machines of a cluster, each of them an actor that is given one shard after the other."""

from __future__ import annotations

import importlib
import os
import pickle
import platform
import re
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from cnnviz import backend
from cnnviz.datasets import Done, Event, Failed, Job, Lost, Ready, RunError, Task, error_line

if TYPE_CHECKING:
    from cnnviz import Backend  # beside tensors, which a backend has nothing to do with

SETTLED = 5.0
"""Seconds in which what another run gave back is known to be free."""
PATIENCE = 120.0
"""Seconds until a pool of which nothing is heard has no machine to run on."""
DEATHS = 3
"""So many workers may die one after the other while they load the model; then no further one is started."""
SAME = ("cnnviz", "torch")
"""Packages whose versions belong to what is computed: workers have those of the process that asks."""


@backend
def ray(
    workers: Annotated[int | None, "how many; by default as many as the cluster has room for"] = None,
    address: Annotated[str | None, "of the cluster: auto or host:port; by default Ray is started here"] = None,
    cpus: Annotated[float | None, "processors of a worker; by default as many as it has threads"] = None,
    gpus: Annotated[float | None, "GPUs of a worker; by default one where the run is computed on GPUs"] = None,
) -> Backend:
    """Workers on a Ray cluster, each an actor of its own (Moritz et al., 2018, arXiv:1712.05889).

    Where this process has a Ray session already, that is used and left as it is. The cluster is asked first: a pool
    that it has no room for is refused, for Ray would wait for it forever. All machines need cnnviz and torch in the
    versions of this process, and the folder of the run at the same path. A worker that dies is replaced, also where
    its machine is lost. Raises ValueError for numbers that can't be, for a cluster that does not answer or has no room,
    and ImportError without Ray (``pip install 'cnnviz[ray]'``).
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} can't be; say 1 or more")
    for name, count in (("cpus", cpus), ("gpus", gpus)):
        if count is not None and not count >= 0:
            raise ValueError(f"{name}={count} can't be; say 0 or more")

    def started(job: Job) -> _Actors:
        share = {
            "CPU": float(job.threads if cpus is None else cpus),
            "GPU": float((job.device == "cuda") if gpus is None else gpus),
        }
        if job.device == "cuda" and not share["GPU"]:
            raise ValueError("gpus=0 can't be where the run is computed on GPUs; say a share of a GPU, such as 0.5")
        library = _library()
        session = _Session(library, address)
        try:
            room = _room(library, share, workers, patient=session.joined)
            return _Actors(library, session, job, share, room)
        except BaseException:
            session.end()
            raise

    return started


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(f"Ray can't be imported ({error}); install it: pip install 'cnnviz[ray]'") from error


class _Session:
    """This process's connection to Ray: its own, or one that was there and stays."""

    def __init__(self, library: Any, address: str | None):
        self._library = library
        self._own = not library.is_initialized()
        self.joined = True
        """Whether others may use the cluster too."""
        if self._own:
            self._begin(address or os.environ.get("RAY_ADDRESS") or "local")
        else:
            _check_same_cluster(library, address)
        self._print = self._silenced()

    def _begin(self, address: str) -> None:
        self.joined = address != "local"
        if address not in ("local", "auto"):
            _check_answers(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            with _as_it_was():
                self._library.init(address=address, **quiet, **({} if self.joined else {"include_dashboard": False}))
        except Exception as error:  # of many kinds, as ConnectionError and RuntimeError
            self._library.shutdown()
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"Ray at {address!r} can't be used ({reason}); start it with 'ray start --head', or leave address out; "
                "where a cluster asks for a token, set RAY_AUTH_MODE=token"
            ) from error

    def _silenced(self) -> Any:
        """The function by which Ray prints what its scheduler says, which does nothing until the end.

        It says ten lines of each worker that died, to stdout, whatever ``log_to_driver`` is. Losses are events here.
        """
        inside: Any = getattr(getattr(self._library, "_private", None), "worker", None)
        said = getattr(inside, "print_to_stdstream", None)
        if said is not None:
            inside.print_to_stdstream = lambda *args, **settings: None
        return said

    def end(self) -> None:
        """Leave the cluster, and end what was started here."""
        if self._own:
            self._own = False
            self._library.shutdown()
        if self._print is not None:
            self._library._private.worker.print_to_stdstream = self._print
            self._print = None


def _check_same_cluster(library: Any, address: str | None) -> None:
    here = str(library.get_runtime_context().gcs_address)
    if address not in (None, "auto", here):
        raise ValueError(
            f"this process is connected to Ray at {here} already, not to {address}; leave address out, "
            "or call ray.shutdown() first"
        )


def _check_answers(address: str) -> None:
    """Raises ValueError where nothing listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ValueError(f"address={address!r} is none; say 'auto' or host:port, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"nothing answers at {address} ({error}); start Ray there with 'ray start --head', or give another address"
        ) from error


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Ray sets a handler of SIGTERM and variables of the environment for whoever starts it."""
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _room(library: Any, share: dict[str, float], workers: int | None, patient: bool) -> int:
    """For how many workers there is room, or ``workers``. Raises ValueError where the cluster has not so much."""
    asked = {name: amount for name, amount in share.items() if amount}
    nodes = [node["Resources"] for node in library.nodes() if node["Alive"]]
    most = sum(_fits(node, asked) for node in nodes)
    each = " and ".join(f"{amount:g} {name}" for name, amount in asked.items()) or "nothing"
    has = _told_of({name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")})
    where = f"the cluster has {has} on {len(nodes)} machine{'s' * (len(nodes) != 1)}"
    if most < (workers or 1):
        way_out = f"ask for at most {most} workers" if most else "give each less (cpus, gpus)"
        raise ValueError(
            f"there is no room for {workers or 1} workers with {each} each: {where}; {way_out}, or add machines"
        )
    until = time.monotonic() + (SETTLED if patient else 0)
    while True:
        free = library.available_resources()
        now = most if not asked else min(most, _fits(free, asked))
        if now >= (workers or most) or time.monotonic() >= until:
            break
        time.sleep(0.1)
    if now < (workers or 1):
        raise ValueError(
            f"there is no room for {workers or 1} workers with {each} each now: {where}, of which {_told_of(free)} are "
            "free; wait for other work on it, or ask for fewer workers"
        )
    return workers or (now if asked else len(nodes))


def _told_of(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _fits(resources: dict[str, float], asked: dict[str, float]) -> int:
    return min((int(resources.get(name, 0) / amount + 1e-6) for name, amount in asked.items()), default=2**31)


@dataclass(eq=False)
class _Actor:
    """A worker, and what it was asked last."""

    handle: Any
    since: float
    name: str = ""
    """Its machine and process; empty until it says them."""
    doing: Task | str = "start"
    is_open: bool = False
    """True once it has loaded the model."""


class _Actors:
    """The workers of a run."""

    def __init__(self, library: Any, session: _Session, job: Job, share: dict[str, float], count: int):
        self._ray, self._session = library, session
        self._job = library.put(library.cloudpickle.dumps(job))
        self._device = "cuda:0" if job.device == "cuda" else job.device  # of the GPUs that Ray lets the worker see
        self._kind = library.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], scheduling_strategy="SPREAD")(_kind())
        self._queue: deque[Task] = deque()
        self._actors: list[_Actor] = []
        self._asked: dict[Any, _Actor] = {}
        """Who answers which reference; all others are idle."""
        self._stopping = False
        self._deaths = 0
        for _ in range(count):
            self._start()

    def submit(self, task: Task) -> None:
        if not self._stopping:
            self._queue.append(task)

    def events(self) -> Iterator[Event]:
        try:
            while self._queue or self._in_work():
                self._hand_out()
                ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=1)
                for reference in ready:
                    yield from self._answer(self._asked.pop(reference), reference)
                self._check_someone_started()
        except RunError:
            self.stop(now=True)
            raise

    def stop(self, now: bool = False) -> None:
        self._stopping = True
        self._queue.clear()
        if self._in_work() and not now:
            return
        for actor in self._actors:
            self._ray.kill(actor.handle, no_restart=True)
        ended = [actor.handle.about.remote() for actor in self._actors]  # fails as soon as its worker is gone
        if ended:
            self._ray.wait(ended, num_returns=len(ended), timeout=10)
        self._actors, self._asked = [], {}
        self._session.end()

    def _in_work(self) -> list[Any]:
        return [reference for reference, actor in self._asked.items() if isinstance(actor.doing, Task)]

    def _hand_out(self) -> None:
        busy = set(map(id, self._asked.values()))
        for actor in self._actors:
            if self._queue and id(actor) not in busy:
                task = self._queue.popleft()
                self._ask(actor, task, actor.handle.do.remote(task))

    def _start(self) -> None:
        actor = _Actor(self._kind.remote(), time.monotonic())
        self._actors.append(actor)
        self._ask(actor, "start", actor.handle.about.remote(SAME))

    def _ask(self, actor: _Actor, doing: Task | str, reference: Any) -> None:
        actor.doing = doing
        self._asked[reference] = actor

    def _answer(self, actor: _Actor, reference: Any) -> Iterator[Event]:
        """What the answer of a worker means."""
        doing = actor.doing
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # it lives, and its answer can't be sent
            cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
            answer = error_line(cause)
        except self._ray.exceptions.RayError as error:
            yield from self._bury(actor, error)
            return
        if doing == "start":
            self._check_packages(actor, answer)
            self._ask(actor, "open", actor.handle.open.remote(self._job, self._device))
            return
        if isinstance(doing, Task):
            yield answer if isinstance(answer, Done | Failed) else Failed(doing, str(answer))
        elif answer is None:
            self._deaths, actor.is_open = 0, True
            yield Ready(actor.name)
        else:
            raise RunError(f"the worker on {actor.name} can't start: {answer}")

    def _check_packages(self, actor: _Actor, about: Any) -> None:
        if isinstance(about, str):
            raise RunError(f"a worker can't start: {about}")
        actor.name = f"{about['machine']}, process {about['process']}"
        for package in SAME:
            here, there = version(package), about["versions"][package]
            if there is None:
                raise RunError(
                    f"the worker on {actor.name} has no package {package}; install {package} {here} for its Python "
                    f"there ({about['python']})"
                )
            if there.partition("+")[0] != here.partition("+")[0]:  # behind it stands what it was built for
                raise RunError(
                    f"the worker on {actor.name} has {package} {there}, and this process has {here}; install one "
                    "version everywhere"
                )

    def _bury(self, actor: _Actor, error: Exception) -> Iterator[Event]:
        """Another worker takes the place of one that died or does not answer."""
        self._ray.kill(actor.handle, no_restart=True)
        self._actors.remove(actor)
        reason = _reason(actor, error)
        self._deaths += not isinstance(actor.doing, Task)
        if self._deaths < DEATHS:
            if not self._stopping:
                self._start()
        elif not any(each.is_open for each in self._actors):
            raise RunError(f"workers die while they start, {DEATHS} one after the other; the last: {reason}")
        if isinstance(actor.doing, Task):
            yield Lost(actor.doing, reason)

    def _check_someone_started(self) -> None:
        starting = [actor.since for actor in self._asked.values() if actor.doing == "start"]
        if len(starting) == len(self._actors) and starting and time.monotonic() - min(starting) > PATIENCE:
            left = _told_of(self._ray.available_resources())
            raise RunError(
                f"no worker has started for {PATIENCE:.0f} s; the cluster has {left} free, see 'ray status', and run "
                "the same again when there is room"
            )


def _reason(actor: _Actor, error: Exception) -> str:
    """What Ray tells in ten lines, in one."""
    lines = str(error).splitlines() or [type(error).__name__]
    because = re.search(r"because ([^.]+)", " ".join(lines))
    reason = (
        because[1] if because else next(line.strip() for line in reversed(lines) if line.strip() or len(lines) == 1)
    )
    return f"the worker on {actor.name or 'a machine that it did not name'} was lost: {reason[:200]}"


def _kind() -> type:
    """The class of workers. It is sent by value, so that it can say of a machine that it has no cnnviz."""

    class CnnvizWorker:
        def about(self, packages: Sequence[str] = ()) -> dict[str, Any]:
            import importlib.metadata
            import signal
            import sys

            def installed(package: str) -> str | None:
                try:
                    return importlib.metadata.version(package)
                except importlib.metadata.PackageNotFoundError:
                    return None

            signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that asks
            return {
                "machine": platform.node(),
                "process": os.getpid(),
                "python": sys.executable,
                "versions": {package: installed(package) for package in packages},
            }

        def open(self, job: bytes, device: str | None) -> str | None:
            """The error in one line; None where there is none."""
            from cnnviz.datasets import attempt, error_line

            try:
                self.work = pickle.loads(job).open(device)
            except Exception as error:
                return error_line(error)
            self.attempt = attempt
            return None

        def do(self, task: Any) -> Any:
            return self.attempt(self.work, task)

    return CnnvizWorker
