"""The promises of a backend: every task is settled once, whoever dies, and nobody is left behind."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import cloudpickle

from cnnviz import Backend
from cnnviz.datasets import Done, Failed, Lost, Ready, Task
from cnnviz.registry.registry import Method
from cnnviz.testing.backend_subject import BackendSubject, as_soon_as, end_all, interrupted, is_running
from cnnviz.testing.drill import Drill, ask_from_stdin
from cnnviz.testing.subject import has_a_page, refuses_settings_it_does_not_have


def check_backend(method: str | Backend | Method[Any], *, processes: bool = True, **settings: Any) -> None:
    """Check a backend with a job that needs no model and does in its workers what it is told to.

    Checked is that every task is settled once, and told as it was given; that more may be submitted meanwhile and
    later; that the error of a task is told in one line, and of a full disk as fatal; that a worker that is killed at a
    task, or while it has none, is replaced, and the task told as lost; that workers which do not start, or die while
    they do, end in one line (RunError); that an interrupt in the terminal does not end workers; that they end at
    once or after their tasks, as they are asked, and also where the process that asked is killed; that the
    environment, the signal handlers and the output of this process stay what they were; and that settings it does not
    have are refused. :func:`checks` runs each of these by itself.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of a job.
        processes: whether workers are processes of this machine. False: nobody is killed.
        settings: what the method is built with; ``workers=2`` where it has that setting and it is not given.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = BackendSubject.of(method, processes=processes, **settings)
    for check in BACKEND_CHECKS:
        check(subject)


def settles_every_task_once(subject: BackendSubject) -> None:
    """Each task is done once, and told as it was given, with what its worker said."""
    situation = "of several"
    tasks = [Task(0), Task(1, {2: "it crashed a worker"}), Task(1, probe=(0, 3)), *(Task(each) for each in range(2, 6))]
    with subject.at_work(situation) as (drill, workers):
        for task in tasks:
            workers.submit(task)
        events = subject.events(workers, situation)
        subject.settled(events, tasks, situation)
        for event in events:
            if isinstance(event, Done):
                said = event.summary["shard"], event.summary["left_out"], event.summary["probe"]
                given = event.task.shard, dict(event.task.left_out), event.task.probe
                subject.demand(said == given, f"does shard {said} where {given} was asked")
            subject.demand(isinstance(event, Done | Ready), f"tells {event} of a task that has no fault")
        shards = Counter(task.shard for task in tasks)
        subject.demand(Counter(drill.begun()) == shards, f"begins {drill.begun()} where {tasks} were asked")
        names = [event.worker for event in events if isinstance(event, Ready)]
        subject.demand(0 < len(names) == len(set(names)), f"tells that workers are ready as {names}, not once each")


def takes_more_meanwhile_and_later(subject: BackendSubject) -> None:
    """A task may be submitted while others are in work, and when all are settled."""
    situation = "where more is submitted"
    with subject.at_work(situation) as (_, workers):
        tasks, events = [Task(0)], []
        workers.submit(tasks[0])
        for event in subject.answer(workers.events, situation):
            events.append(event)
            if isinstance(event, Done) and len(tasks) < 5:
                tasks.append(Task(len(tasks)))
                workers.submit(tasks[-1])
        subject.settled(events, tasks, situation)
        workers.submit(later := Task(9))
        subject.settled(subject.events(workers, situation), [later], situation)


def tells_errors_of_tasks(subject: BackendSubject) -> None:
    """A task that raises is told in one line, and others are done; a full disk is fatal."""
    situation = "where tasks fail"
    tasks = [Task(each) for each in range(5)]
    with subject.at_work(situation, {1: "raise", 3: "full"}) as (drill, workers):
        for task in tasks:
            workers.submit(task)
        events = subject.events(workers, situation)
        subject.settled(events, tasks, situation)
        failed = {event.task.shard: event for event in events if isinstance(event, Failed)}
        subject.demand(set(failed) == {1, 3}, f"tells that {sorted(failed)} failed where 1 and 3 did")
        subject.demand(failed[1].error == "shard 1 can't be done", f"tells {failed[1].error!r} of a task's error")
        subject.demand(not failed[1].fatal, "takes the error of one task for one of all")
        subject.demand(failed[3].fatal, "does not tell that a full disk is fatal")
        subject.demand(len(drill.workers()) <= 2, "starts another worker where one told an error")


def replaces_a_worker_that_is_killed(subject: BackendSubject) -> None:
    """A worker that dies at a task loses it, once; another takes its place, as often as it happens."""
    if not subject.processes:
        return
    situation = "where workers are killed"
    tasks = [Task(each) for each in range(7)]
    with subject.at_work(situation, {1: "kill", 3: "kill once", 4: "kill once"}) as (drill, workers):
        for task in tasks:
            workers.submit(task)
        events = []
        for event in subject.answer(workers.events, situation):
            events.append(event)
            if isinstance(event, Lost) and event.task.shard != 1:
                workers.submit(event.task)
        lost = [event for event in events if isinstance(event, Lost)]
        at = sorted(event.task.shard for event in lost)
        subject.demand(at == [1, 3, 4], f"tells that workers were lost at {at} where they were killed at 1, 3 and 4")
        for event in lost:
            subject.demand(bool(event.reason) and "\n" not in event.reason, f"gives {event.reason!r} as the reason")
        done = sorted(event.task.shard for event in events if isinstance(event, Done))
        subject.demand(done == [0, 2, 3, 4, 5, 6], f"does {done} where all but 1 can be done")
        settled = [event for event in events if not isinstance(event, Ready)]
        subject.demand(len(settled) == len(lost) + len(done), f"tells {events} {situation}")
        most = subject.settings.get("workers", math.inf) + len(lost)
        subject.demand(len(drill.workers()) <= most, f"starts {len(drill.workers())} workers where {most} are enough")
        subject.demand(sorted(drill.finished()) == done, f"does tasks again that were done: {drill.finished()}")


def replaces_a_worker_that_dies_idle(subject: BackendSubject) -> None:
    """Workers that die while they have no task are replaced; a task that was on its way to one may be lost, once."""
    if not subject.processes:
        return
    situation = "where idle workers are killed"
    with subject.at_work(situation) as (drill, workers):
        workers.submit(Task(0))
        subject.events(workers, situation)
        for process in drill.workers():
            os.kill(process, signal.SIGKILL)
        subject.wait_for(lambda: not any(map(is_running, drill.workers()[:1])), "has workers that no signal ends")
        tasks = [Task(each) for each in range(1, 5)]
        for task in tasks:
            workers.submit(task)
        events = subject.events(workers, situation)
        subject.settled(events, tasks, situation)
        lost = [event.task for event in events if isinstance(event, Lost)]
        for task in lost:
            workers.submit(task)
        again = subject.events(workers, situation) if lost else []
        done = [event.task.shard for event in (*events, *again) if isinstance(event, Done)]
        subject.demand(sorted(done) == [1, 2, 3, 4], f"does {sorted(done)} where all can be done, {situation}")


def says_why_workers_do_not_start(subject: BackendSubject) -> None:
    """A job that does not open ends in one line that has its reason."""
    words = subject.refusal("the model is another", "where the job does not open")
    subject.demand("the model is another" in words, f"does not say why the job does not open: {words!r}")


def gives_up_on_workers_that_die_starting(subject: BackendSubject) -> None:
    """Workers that are killed while they start are not started forever."""
    if subject.processes:
        subject.refusal("kill", "where workers die while they start")


def goes_on_after_an_interrupt(subject: BackendSubject) -> None:
    """Ctrl-C reaches all processes of a terminal; what it means is said by the process that asks."""
    if not subject.processes:
        return
    situation = "where a worker is interrupted"

    def interrupt() -> None:
        for process in drill.workers():
            os.kill(process, signal.SIGINT)
        time.sleep(0.05)
        drill.let_go()

    with subject.at_work(situation, {0: "wait"}) as (drill, workers):
        workers.submit(Task(0))
        with as_soon_as(drill.begun, interrupt):
            events = subject.events(workers, situation)
        done = [event.task for event in events if isinstance(event, Done)]
        subject.demand(done == [Task(0)], f"does not finish the task in work {situation}")


def stops_at_once(subject: BackendSubject) -> None:
    """``stop(now=True)`` ends workers in the middle of a task, and no process is left."""
    if not subject.processes:
        return
    situation = "after stop(now=True)"
    with subject.at_work(situation, {0: "wait"}) as (drill, workers):
        workers.submit(Task(0))
        interrupted(workers, drill)
        workers.stop(now=True)
        subject.gone(drill, situation)
        subject.demand(not drill.finished(), f"finishes the task in work {situation}")
        workers.stop(now=True)  # again does nothing


def stops_after_the_tasks_in_work(subject: BackendSubject) -> None:
    """After ``stop()`` the tasks in work are finished and told, no other is begun, and then processes end."""
    situation, many = "after stop()", 40
    with subject.at_work(situation, dict.fromkeys(range(many), "wait")) as (drill, workers):
        for each in range(many):
            workers.submit(Task(each))
        interrupted(workers, drill)
        begun = set(drill.begun())
        workers.stop()
        workers.submit(Task(many))  # comes too late
        drill.let_go()
        events = subject.events(workers, situation)
        done = {event.task.shard for event in events if isinstance(event, Done)}
        subject.demand(begun <= done, f"does not finish the tasks in work {situation}")
        subject.demand(done == set(drill.begun()), f"tells that {sorted(done)} are done of {sorted(drill.begun())}")
        subject.demand(len(done) < many, f"begins further tasks {situation}")
        workers.stop()
        if subject.processes:
            subject.gone(drill, situation)


def leaves_nobody_where_it_is_killed(subject: BackendSubject) -> None:
    """Workers end where the process that asked is killed, and could not end them."""
    if not subject.processes:
        return
    situation = "where the process that asked is killed"
    with tempfile.TemporaryDirectory() as folder, subject.in_time(situation):
        drill = Drill(folder, {0: "wait"})
        asked = cloudpickle.dumps((subject.method, drill))
        paths = os.pathsep.join(path for path in sys.path if path)
        code = f"from {ask_from_stdin.__module__} import ask_from_stdin; ask_from_stdin()"
        parent = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}
        )
        try:
            assert parent.stdin is not None
            parent.stdin.write(asked)
            parent.stdin.close()
            subject.wait_for(lambda: bool(drill.begun()), f"does not begin a task in a process of its own, {situation}")
        finally:
            parent.kill()
            parent.wait()
        try:
            subject.gone(drill, situation)
        finally:
            end_all(drill)


def leaves_this_process_as_it_was(subject: BackendSubject) -> None:
    """The environment, the handlers of signals and the standard output are those of before."""
    situation = "in the process that asks"
    handled = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGCHLD") if hasattr(signal, name)]
    orders = {1: "kill once"} if subject.processes else {}

    def state() -> dict[str, Any]:
        return {"environment": dict(os.environ), "signals": [signal.getsignal(each) for each in handled]}

    before, printed = state(), io.StringIO()
    with redirect_stdout(printed):
        with subject.at_work(situation, orders) as (_, workers):
            workers.submit(Task(0))
            workers.submit(Task(1))
            subject.events(workers, situation)
            meanwhile = state()
            workers.stop()
        time.sleep(0.1)  # what is printed by another thread comes a moment later
    for name, value in before.items():
        subject.demand(meanwhile[name] == value, f"changes the {name} of the process that asks")
    subject.demand(not printed.getvalue(), f"prints to the standard output: {printed.getvalue()[:200]!r}")


BACKEND_CHECKS: tuple[Callable[[Any], None], ...] = (
    settles_every_task_once,
    takes_more_meanwhile_and_later,
    tells_errors_of_tasks,
    replaces_a_worker_that_is_killed,
    replaces_a_worker_that_dies_idle,
    says_why_workers_do_not_start,
    gives_up_on_workers_that_die_starting,
    goes_on_after_an_interrupt,
    stops_at_once,
    stops_after_the_tasks_in_work,
    leaves_nobody_where_it_is_killed,
    leaves_this_process_as_it_was,
    has_a_page,
    refuses_settings_it_does_not_have,
)
