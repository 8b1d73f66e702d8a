"""A real Triton Inference Server on the loopback interface, as a context manager and in the foreground."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._checks import check_positive
from bmrl.errors import ServerError
from bmrl.export._ports import LOOPBACK, choose_ports
from bmrl.export._readiness import Probe, wait_until_open
from bmrl.export._server_process import ServerProcess

if TYPE_CHECKING:
    import os
    from types import FrameType, TracebackType

__all__ = ["TritonServer", "serve"]


class TritonServer:
    """Runs ``tritonserver`` on a repository for the length of a ``with`` block.

    Entering the block returns when the server has answered a real inference as the repository's TorchScript file
    answers it in this process: Triton's own health checks stay green when a model answers wrongly or not at all.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.
        http_port: port for HTTP; None takes any free one, here and below.
        grpc_port: port for gRPC.
        metrics_port: port for Prometheus metrics.
        startup_timeout: seconds until the server must have answered right.
        exit_timeout: whole seconds that requests in flight, and open HTTP connections, get when it is stopped.

    Raises:
        RangeError: a timeout is not positive.
        ServerError: (on entering) the wheel with the server is missing, a port is in use, or the server does not
            become ready. The message gives the reason; the end of the server's log is attached as a note.
        ModelFolderError: (on entering) ``folder`` is no such repository.
        MissingExtraError: (on entering) tritonclient is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        startup_timeout: float = 60.0,
        exit_timeout: int = 15,
    ) -> None:
        check_positive("startup_timeout", startup_timeout)
        check_positive("exit_timeout", exit_timeout)
        self.folder = Path(folder)
        self._wanted_ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._ports: dict[str, int] = {}
        self._process: ServerProcess | None = None
        self._unwanted = False
        self._startup_timeout = startup_timeout
        self._exit_timeout = exit_timeout

    def start(self) -> None:
        """Start the server and return when it is ready; the class lists the errors."""
        if self._process is not None:
            raise ServerError(f"{self.folder}: expected a server that is stopped, got one that runs")
        deadline = time.monotonic() + self._startup_timeout
        probe = Probe(self.folder)
        self._ports = choose_ports(self._wanted_ports)
        try:
            self._process = ServerProcess(self.folder, self._ports, self._exit_timeout)
            if self._unwanted:
                self._process.terminate()
            wait_until_open(self._process, self._ports, deadline)
            probe.check(self._process, self.grpc_url, deadline)
        except BaseException:
            self.stop()
            raise

    def terminate(self) -> None:
        """Ask the server to stop, and return at once; safe in a signal handler, also while the server is launched."""
        self._unwanted = True
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> int | None:
        """Stop the server after it has answered what is in flight, and return its exit code; None if none runs.

        The code is 0 after an orderly stop, 1 if an HTTP connection stayed open for ``exit_timeout`` seconds, and
        negative if the server had died or had to be killed.
        """
        process, self._process, self._unwanted = self._process, None, False
        return None if process is None else process.stop()

    def check_alive(self) -> None:
        """Raise ServerError if the server does not run (any more)."""
        self._running().check_alive()

    @property
    def http_url(self) -> str:
        """``"127.0.0.1:port"`` for HTTP, as tritonclient takes it."""
        return self._url("http")

    @property
    def grpc_url(self) -> str:
        """``"127.0.0.1:port"`` for gRPC, as tritonclient takes it."""
        return self._url("grpc")

    @property
    def metrics_url(self) -> str:
        """``"127.0.0.1:port"`` for Prometheus metrics, at the path ``/metrics``."""
        return self._url("metrics")

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().pid

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError(f"{self.folder}: expected a running server, got one that is stopped")
        return self._process

    def _url(self, name: str) -> str:
        self._running()
        return f"{LOOPBACK}:{self._ports[name]}"


def serve(
    folder: str | os.PathLike[str],
    *,
    http_port: int | None = 8000,
    grpc_port: int | None = 8001,
    metrics_port: int | None = 8002,
    startup_timeout: float = 60.0,
) -> None:
    """Serve a repository in the foreground until SIGINT (Ctrl-C) or SIGTERM, then stop in order and return.

    Prints one line with the URLs when the server is ready. For the main thread of a program only, as signals are.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.
        http_port: port for HTTP; None takes any free one, here and below.
        grpc_port: port for gRPC.
        metrics_port: port for Prometheus metrics.
        startup_timeout: seconds until the server must have answered right.

    Raises:
        ServerError: the server did not become ready, or ended by itself; see :class:`TritonServer` for the rest.
    """
    server = TritonServer(
        folder,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        startup_timeout=startup_timeout,
    )
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        server.terminate()  # not an exception, which could strike between the birth of the process and its name

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.start()
        if not stopping:
            print(f"ready: gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}", flush=True)
        while not stopping:
            server.check_alive()
            time.sleep(0.1)
    except ServerError:
        if not stopping:  # a server that ends because it was told to is no error
            raise
    finally:
        server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
