"""Listening on this machine, and ending at once."""

from __future__ import annotations

import errno
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from cnnviz.pages.explorer.app import explorer
from cnnviz.pages.explorer.guard import HOST, Keys
from cnnviz.pages.explorer.jobs import Jobs, warnings_by_thread
from cnnviz.pages.explorer.offered import Subject


def bound(port: int) -> socket.socket:
    """A socket of this machine alone; port 0 is any that is free. Raises OSError for one that can't be had."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(64)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use; choose another with --port, or 0 for one that is free") from None
        raise OSError(f"port {port} can't be had ({error.strerror}); --port 0 takes one that is free") from None
    return found


class Server(uvicorn.Server):
    """uvicorn's, whose end begins with the jobs: a long one may need a moment to notice."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs):
        super().__init__(config)
        self.jobs = jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal such as Ctrl-C."""
        self.jobs.end()
        super().handle_exit(sig, frame)


def server_of(subjects: Sequence[Subject], keys: Keys, jobs: Jobs) -> Server:
    """The server, not yet running."""
    app = explorer(subjects, keys, jobs)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=1,
    )
    return Server(config, jobs)


def serve(subjects: Sequence[Subject], listening: socket.socket, open_page: bool, told: Callable[[str], None]) -> None:
    """Answer on this socket until Ctrl-C. ``told`` is called with the address of the page."""
    with listening:
        keys, jobs = Keys(listening.getsockname()[1]), Jobs()
        server = server_of(subjects, keys, jobs)
        told(keys.address)
        if open_page:
            # a browser of the terminal returns at its end only; the page waits in the socket's queue
            threading.Thread(target=webbrowser.open, args=(keys.address,), daemon=True).start()
        try:
            with warnings_by_thread():
                server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # how it is meant to end
        finally:
            jobs.close()
