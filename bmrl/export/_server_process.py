"""The ``tritonserver`` process: starting it, what it writes, whom it has lost, and ending it for certain."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from bmrl.errors import ServerError
from bmrl.export._triton_wheel import link_backends, server_binary, server_environment

__all__ = ["LOG_LEVELS", "MODEL_CONTROLS", "ServerProcess"]

LOG_LEVELS = ("error", "warning", "info", "verbose")
MODEL_CONTROLS = ("none", "explicit")
THREAD_VARIABLES = ("BMRL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
KEPT_LINES, NOTED_LINES = 1000, 40
NO_GPU = ("CudaDriverHelper", "CUDA driver version is insufficient", "no pinned memory pool")  # errors to the server
SHARED_MEMORY = Path("/dev/shm")

logger = logging.getLogger("bmrl.export.server.tritonserver")


class ServerProcess:
    """A running ``tritonserver`` with a scratch folder of its own. What it writes goes to the logger, as INFO.

    Args:
        repository: the model repository.
        ports: port numbers of ``http``, ``grpc`` and ``metrics``.
        host: IPv4 address to bind them to.
        num_threads: CPU threads for each model; None says nothing about it.
        log_level: one of ``LOG_LEVELS``.
        model_control: one of ``MODEL_CONTROLS``.
        exit_timeout: seconds that the server gives requests in flight when it is stopped.

    Raises:
        ServerError: the wheel with the server is missing or does not fit this Python.
    """

    def __init__(
        self,
        repository: Path,
        ports: dict[str, int],
        *,
        host: str,
        num_threads: int | None,
        log_level: str,
        model_control: str,
        exit_timeout: int,
    ) -> None:
        binary = server_binary()
        verbosity = LOG_LEVELS.index(log_level)
        self._exit_timeout = exit_timeout
        self._known_lost: set[str] = set()
        self._scratch = tempfile.TemporaryDirectory(prefix="bmrl-server-")
        scratch = Path(self._scratch.name)
        self._name = scratch.name
        try:
            command = [
                str(binary),
                f"--model-repository={repository.absolute()}",
                f"--backend-directory={link_backends(scratch / 'backends')}",
                f"--backend-config=python,shm-region-prefix-name={self._name}",  # a killed server leaves its regions
                "--disable-auto-complete-config",
                "--allow-gpu-metrics=false",
                f"--exit-timeout-secs={exit_timeout}",
                f"--model-control-mode={model_control}",
                *(["--load-model=*"] if model_control == "explicit" else []),
                *(f"--log-{level}={int(index <= verbosity)}" for index, level in enumerate(LOG_LEVELS)),
            ]
            for name, port in ports.items():
                command += [f"--{name}-address={host}", f"--{name}-port={port}"]
            setpriv = shutil.which("setpriv")
            if setpriv and threading.current_thread() is threading.main_thread():
                # Or the server would outlive a program that is killed. The kernel means the thread that starts it.
                command[:0] = [setpriv, "--pdeathsig", "TERM"]
            environment = server_environment()
            if num_threads is not None:
                environment |= dict.fromkeys(THREAD_VARIABLES, str(num_threads))
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C in a terminal goes to us; and kill() can end the whole session
            )
        except BaseException:
            self._scratch.cleanup()
            raise
        self._log: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read_log, name=f"log of {self._name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and process group."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise ServerError if the process has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise self.failure(f"exit code {code}")

    def check_children(self) -> None:
        """Raise ServerError if a model's process has been killed since :meth:`forget_children`.

        The server never notices, and stays "ready": it does not bury a process that it has not ended itself, which
        therefore stays a zombie. One that it has ended is a zombie for a moment only; hence the second look.
        """
        if self._lost() - self._known_lost:
            time.sleep(0.1)
            if lost := self._lost() - self._known_lost:
                raise ServerError(f"tritonserver: expected its models' processes to run, got {', '.join(lost)} ended")

    def forget_children(self) -> None:
        """Forget the processes that were lost so far: other ones do their work now."""
        self._known_lost = self._lost()

    def failure(self, got: str) -> ServerError:
        """Return an error of one line with the log's main complaint; the log's end, if any, is attached as a note."""
        if self._process.poll() is not None:
            self._reader.join(1.0)  # all that it wrote; a child of it may hold the pipe open
        lines = list(self._log)
        error = ServerError(f"tritonserver: expected a server that answers right, got {got}{_complaint(lines)}")
        if lines:
            error.add_note("\n".join(["The server's log ends with:", *lines[-NOTED_LINES:]]))
        return error

    def terminate(self) -> None:
        """Ask the process to answer what is in flight and end, and return at once."""
        self._process.terminate()

    def stop(self) -> int:
        """End the process in order, or else by force; return its exit code (negative: killed)."""
        self.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._exit_timeout + 5)
        finally:
            code = self.kill()
        return code

    def kill(self) -> int:
        """End the process and everything it started at once, and remove what it leaves behind; return its exit code."""
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # stubs that a killed server leaves behind
        self._reader.join(1.0)
        for leftover in SHARED_MEMORY.glob(f"{self._name}*"):
            leftover.unlink(missing_ok=True)
        self._scratch.cleanup()
        return code

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                if not any(words in line for words in NO_GPU):
                    self._log.append(line.rstrip("\n"))
                    logger.info("tritonserver: %s", self._log[-1])

    def _lost(self) -> set[str]:
        """Return the ids of child processes that have ended and were not buried."""
        lost = set()
        for listing in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread or the child is just gone
                for child in listing.read_text().split():
                    if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                        lost.add(child)
        return lost


def _complaint(lines: list[str]) -> str:
    """Return why a model failed to load, or else the first error of a log, led in by a colon; empty if none."""
    errors = [match[1].strip('"') for line in lines if (match := re.match(r"E\d{4} [^\]]*\] (.*)", line))]
    errors = [error.split(r"\n")[0] for error in errors]
    errors.sort(key=lambda error: not error.startswith("failed to load"))
    return f": {errors[0]}" if errors else ""
