"""A Ray cluster of several nodes on this machine, each of them two processes of its own or more."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import descendants, kill_all, wait_until, workers_below

PORT = 6399


@dataclass
class Nodes:
    """The nodes that run, by the process that holds each."""

    address: str
    holders: list[int] = field(default_factory=list)

    def with_workers(self) -> int:
        """How many nodes have a worker of a batch run now."""
        return sum(bool(workers_below([holder])) for holder in self.holders)

    def lose(self, number: int) -> None:
        """End a node as a machine ends that loses its power."""
        holder = self.holders.pop(number)
        kill_all([holder, *descendants([holder])])


@contextmanager
def nodes(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """A head and further nodes, with so many processors each."""
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
    cluster = Nodes(f"127.0.0.1:{PORT}")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = []
    # Ray clusters ask for a token; those who connect inherit it
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = dict(os.environ)
    os.environ.update(own)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        try:
            for number in range(count):
                where = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
                where = where if number == 0 else [f"--address={cluster.address}"]
                process = subprocess.Popen([*command, *where, f"--num-cpus={cpus}"], **quiet)  # type: ignore[call-overload]
                started.append(process)
                cluster.holders.append(process.pid)
                if not wait_until(lambda: _alive(cluster.address) == number + 1, 60):  # noqa: B023  # asked at once
                    raise RuntimeError(f"node {number} of the Ray cluster does not start")
            yield cluster
        finally:
            kill_all(descendants([process.pid for process in started]))
            for process in started:
                process.kill()
                process.wait()
            for name in own:
                os.environ.pop(name)
            os.environ.update(before)


def _alive(address: str) -> int:
    """How many nodes the cluster has; asked in a process of its own, which keeps no connection."""
    code = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 and asked.stdout.split() else 0
