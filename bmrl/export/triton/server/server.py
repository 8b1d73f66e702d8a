"""A real Triton Inference Server: as a context manager, supervised, and in the foreground."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any, Literal

from bmrl._checks import check_integer
from bmrl._values import check_choice, check_path, check_switch
from bmrl.errors import RangeError, ServerError
from bmrl.export.triton.contract import import_tritonclient
from bmrl.export.triton.server.ports import LOOPBACK, check_host, choose_ports, is_loopback, reachable
from bmrl.export.triton.server.process import LOG_LEVELS, MODEL_CONTROLS, ServerProcess
from bmrl.export.triton.server.readiness import (
    NoAnswerError,
    Probe,
    max_request_bytes,
    open_connection,
    wait_until_open,
)
from bmrl.export.triton.server.supervisor import Supervisor, check_duration

if TYPE_CHECKING:
    import os
    from types import FrameType, TracebackType

__all__ = ["TritonServer", "serve"]

logger = logging.getLogger(__name__)


class TritonServer:
    """Runs ``tritonserver`` on a repository for the length of a ``with`` block.

    Entering the block returns when the server has answered a real inference as the repository's own graph answers it:
    Triton's own health checks stay green when a model answers wrongly or not at all.

    What the server writes goes, as INFO, to the logger ``bmrl.export.triton.server.server.tritonserver``.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.
        host: IPv4 address to listen on. Anyone who can reach it can use the model and read its metrics: the server
            has neither passwords nor encryption. ``"0.0.0.0"`` is every interface of the machine.
        http_port: port for HTTP; None takes any free one, here and below.
        grpc_port: port for gRPC.
        metrics_port: port for Prometheus metrics.
        num_threads: CPU threads for each run of a model, passed on as the environment variables ``BMRL_NUM_THREADS``,
            ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS``; None leaves it to the repository.
        log_level: what the server writes: ``"error"``, ``"warning"``, ``"info"`` or ``"verbose"``.
        model_control: ``"none"`` serves the models that the repository holds at the start. With ``"explicit"`` anyone
            who reaches a port can also unload them, load them again from the repository, and load them **with their
            own files, which means: run code as this user**. So it is only for a loopback address.
        shared_memory: whether programs on this machine may pass tensors through system shared memory. One that does can
            end the server, by cutting a region short that it reads.
        startup_timeout: seconds until the server must have answered right. Every few of them a message on the logger
            ``bmrl.export.triton.server.server`` says what it waits for.
        exit_timeout: whole seconds that requests in flight get when it is stopped.

    The ports belong to a gateway, which passes on what a model can be asked. It refuses what would harm the server:
    compressed requests, shapes that a request has no data for, requests larger than the largest batch (or file for the
    ensemble) plus 8 MiB, more than 8 MiB of JSON, streams, and Triton's interfaces for its log and traces.

    Raises:
        RangeError: ``host`` is not an IPv4 address, or not a loopback address though ``model_control`` is
            ``"explicit"``; a number is not positive, or a choice is unknown.
        DTypeError: an argument is of another type.
        ServerError: (on entering) the wheel with the server is missing, a port is in use, or the server does not
            become ready. The message gives the reason; the end of the server's log is attached as a note.
        RepositoryError: (on entering) ``folder`` is not such a repository.
        MissingExtraError: (on entering) tritonclient is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = LOOPBACK,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        num_threads: int | None = None,
        log_level: Literal["error", "warning", "info", "verbose"] = "warning",
        model_control: Literal["none", "explicit"] = "none",
        shared_memory: bool = False,
        startup_timeout: float = 120.0,
        exit_timeout: int = 15,
    ) -> None:
        check_host(host)
        for name, port in (("http", http_port), ("grpc", grpc_port), ("metrics", metrics_port)):
            if port is not None:
                check_integer(f"{name}_port", port, least=0, most=65535)
        if num_threads is not None:
            check_integer("num_threads", num_threads, least=1)
        check_choice("log_level", log_level, LOG_LEVELS)
        check_choice("model_control", model_control, MODEL_CONTROLS)
        if model_control == "explicit" and not is_loopback(host):
            raise RangeError(
                f"host: expected a loopback address such as {LOOPBACK} with model control 'explicit', because "
                f"anyone who may load models may run code, got {host}"
            )
        check_switch("shared_memory", shared_memory)
        check_duration("startup_timeout", startup_timeout)
        check_integer("exit_timeout", exit_timeout, least=1)
        self.folder = check_path("folder", folder)
        self.model_control = model_control
        self._wanted_ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._startup_timeout = startup_timeout
        self._options: dict[str, Any] = {
            "host": host,
            "num_threads": num_threads,
            "log_level": log_level,
            "model_control": model_control,
            "shared_memory": shared_memory,
            "exit_timeout": exit_timeout,
        }
        self._host = host
        self._ports: dict[str, int] = {}
        self._process: ServerProcess | None = None
        self._probe: Probe | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the server and return when it is ready.

        Raises:
            ServerError: it runs already, or one of the errors that the class lists.
        """
        if self._process is not None:
            raise ServerError(f"{self.folder}: expected a server that is stopped, got one that runs")
        self._stopping = False
        if not is_loopback(self._host):
            logger.warning("tritonserver: anyone who can reach %s can ask its models, without a password", self._host)
        if self.model_control == "explicit":
            logger.warning("tritonserver: anyone who can reach %s may load models, and so run code", self._host)
        self._launch(self._wanted_ports)

    def restart(self) -> None:
        """Kill the server, even while it answers, and start it again on the same ports.

        Nothing is waited for: a server that needs this has hung or lost its model, and would not end in order.

        Raises:
            ServerError: it was not started, or one of the errors that the class lists.
        """
        if self._stopping or not self._ports:
            raise ServerError(f"{self.folder}: expected a server that was started, got one that is stopped")
        self._kill()
        self._launch(dict(self._ports))

    def reload(self) -> None:
        """Unload and load all models of the repository, and return when the server answers right again.

        Requests in between are refused. Only with model control ``"explicit"``.

        Raises:
            ServerError: the server does not run or refuses, or a model fails to load or answers wrongly.
            RepositoryError, MissingFileError: the repository has been damaged.
        """
        process, deadline = self._running(), time.monotonic() + self._startup_timeout
        process.check_alive()
        probe = Probe(self.folder)
        failure = import_tritonclient("utils").InferenceServerException
        with open_connection(self.grpc_url) as connection:
            try:
                for act in (connection.unload_model, connection.load_model):
                    for name in process.models:
                        act(name, client_timeout=max(deadline - time.monotonic(), 1.0))
            except failure as error:
                raise process.failure(" ".join(str(error).split())) from error
        process.forget_children()
        probe.wait(process, self.grpc_url, deadline)
        self._probe = probe

    def terminate(self) -> None:
        """Ask the server to stop, and return at once; safe in a signal handler, also while the server is launched.

        Ends :meth:`supervise` too, in any thread.
        """
        self._stopping = True
        process = self._process  # another thread may be taking it away
        if process is not None:
            process.terminate()

    def stop(self) -> int | None:
        """Stop the server after it has answered what is in flight, and return its exit code; None if none runs.

        The code is 0 after an orderly stop, and something else if the server had died, or had to be killed because a
        request was not answered within ``exit_timeout`` seconds.
        """
        self._stopping = True
        process, self._process = self._process, None
        return None if process is None else process.stop()

    def check_alive(self) -> None:
        """Raise ServerError if the server does not run (any more), or has lost the process of a model."""
        process = self._running()
        process.check_alive()
        process.check_children()

    def check_answer(self, timeout: float = 30.0) -> None:
        """Ask for a real inference and compare the answer as on entering.

        An error or a wrong answer counts when a second inference confirms it, for which the repository is read again:
        one may fail by chance, and another process may have replaced the repository and loaded the new model.

        Args:
            timeout: seconds to wait for each answer.

        Raises:
            ServerError: the server does not run, does not answer in time, or answers with an error or wrongly.
            RepositoryError, MissingFileError: the repository has been damaged.
        """
        self._running()
        assert self._probe is not None
        try:
            self._probe.check(self.grpc_url, timeout)
        except NoAnswerError:
            raise
        except ServerError:
            self._probe = Probe(self.folder)
            self._probe.check(self.grpc_url, timeout)

    def supervise(self, *, probe_interval: float = 2.0, patience: float = 30.0, max_restores: int = 5) -> None:
        """Watch the running server and restore what dies, until :meth:`terminate` or :meth:`stop` is called.

        The model is *dead*, and restored, when the server's process or a model's process has ended, or when a real
        inference is answered with an error or wrongly, twice in a row (see :meth:`check_answer`). It is *busy*, and
        left alone, when the inference is not answered in time or refused by a full queue while other requests are
        answered: by the ensemble, if that is what did not answer. Only if no request is answered for ``patience``
        seconds does it count as hung, and is restored.

        With model control ``"explicit"`` all models are unloaded and loaded; otherwise, or if that does not help, the
        server is killed and started again on the same ports. Each step is logged with its reason.

        Args:
            probe_interval: seconds between two inferences.
            patience: seconds to wait for one; more than any run of the model takes.
            max_restores: maximum number of attempts in a row, without a healthy minute in between. Each waits
                twice as long as the one before; the first does not wait.

        Raises:
            RangeError: a number is not positive.
            ServerError: the server does not run at the start, or ``max_restores`` attempts did not help; the message
                gives the last reason.
        """
        supervisor = Supervisor(self, probe_interval=probe_interval, patience=patience, max_restores=max_restores)
        self._running()
        supervisor.run()

    @property
    def stopping(self) -> bool:
        """Whether the server has been told to stop."""
        return self._stopping

    @property
    def http_url(self) -> str:
        """``"address:port"`` for HTTP, as tritonclient takes it, for use on this machine."""
        return self._url("http")

    @property
    def grpc_url(self) -> str:
        """``"address:port"`` for gRPC, as tritonclient takes it, for use on this machine."""
        return self._url("grpc")

    @property
    def metrics_url(self) -> str:
        """``"address:port"`` for Prometheus metrics, at the path ``/metrics``."""
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

    def _launch(self, wanted_ports: dict[str, int | None]) -> None:
        """Start the process and wait until it answers right; no process is left where that fails."""
        deadline = time.monotonic() + self._startup_timeout
        try:
            self._probe = Probe(self.folder)
            self._ports = choose_ports(wanted_ports, self._host)
            self._process = process = ServerProcess(
                self.folder, self._ports, max_request_bytes=max_request_bytes(self.folder), **self._options
            )
            if self._stopping:
                process.terminate()
            wait_until_open(process, reachable(self._host), self._ports, deadline)
            self._probe.wait(process, self.grpc_url, deadline)
            process.note_ready()
        except BaseException:
            self._kill()
            raise

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _running(self) -> ServerProcess:
        process = self._process  # another thread may be taking it away
        if process is None:
            raise ServerError(f"{self.folder}: expected a running server, got one that is stopped")
        return process

    def _url(self, name: str) -> str:
        self._running()
        return f"{reachable(self._host)}:{self._ports[name]}"


def serve(server: TritonServer, *, probe_interval: float = 2.0) -> None:
    """Start a server, and supervise it in the foreground until SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    Prints one line with the URLs when the server is ready. When a signal comes, requests in flight are answered
    before it returns, for as long as the server's ``exit_timeout``. For the main thread of a program only, as signals
    are.

    Args:
        server: a server that is not started yet.
        probe_interval: seconds between two inferences that test the server, see :meth:`TritonServer.supervise`.

    Raises:
        RangeError: ``probe_interval`` is not positive.
        ServerError: the server did not become ready, or could not be restored; see :class:`TritonServer` for the rest.
    """
    check_duration("probe_interval", probe_interval)
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        server.terminate()  # not an exception, which could strike between the birth of the process and its name

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        server.start()
        if not stopping:
            print(f"ready: gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}", flush=True)
            server.supervise(probe_interval=probe_interval)
    except ServerError:
        if not stopping:  # a server that ends because it was told to is not an error
            raise
    finally:
        if server.stop():
            logger.warning("tritonserver: did not stop cleanly; a request outlasted its timeout")
        for number, handler in previous.items():
            signal.signal(number, handler)
