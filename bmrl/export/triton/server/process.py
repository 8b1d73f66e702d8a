"""The ``tritonserver`` process: start, log, lost child processes, and a reliable end."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bmrl.errors import ServerError
from bmrl.export.triton.server.folder import Scratch, remove_abandoned
from bmrl.export.triton.server.wheel import link_backends, link_models, server_binary, server_environment

__all__ = ["LOG_LEVELS", "MODEL_CONTROLS", "ServerProcess"]

LOG_LEVELS = ("error", "warning", "info", "verbose")
MODEL_CONTROLS = ("none", "explicit")
THREAD_VARIABLES = ("BMRL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
KEPT_LINES, NOTED_LINES = 1000, 40
NOISE = (
    *("CudaDriverHelper", "CUDA driver version is insufficient", "no pinned memory pool"),  # there is no GPU
    "NODELAY NOT SUPPORTED",  # by Unix sockets
    "Signal (15) received",  # sent by us: a stop is expected
)

logger = logging.getLogger("bmrl.export.triton.server.server.tritonserver")


class ServerProcess:
    """A running ``tritonserver`` behind a gateway, in their own scratch folder. What they write is logged as INFO.

    The server runs in its folder and knows nothing but paths relative to it: the shell that starts the processes of
    its models would interpret spaces and quotes in them.

    Args:
        repository: the model repository; served are its folders with a ``config.pbtxt``, and nothing else in it.
        ports: port numbers of ``http``, ``grpc`` and ``metrics``.
        host: IPv4 address to bind them to.
        num_threads: CPU threads for each model; None says nothing about it.
        log_level: one of ``LOG_LEVELS``.
        model_control: one of ``MODEL_CONTROLS``.
        shared_memory: whether clients may register shared memory.
        max_request_bytes: largest request.
        exit_timeout: seconds that the server gives requests in flight when it is stopped.

    Raises:
        ServerError: the wheel with the server is missing or does not fit this Python; there is no place for its files.
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
        shared_memory: bool,
        max_request_bytes: int,
        exit_timeout: int,
    ) -> None:
        binary = server_binary()
        verbosity = LOG_LEVELS.index(log_level)
        self._exit_timeout = exit_timeout
        self._known_lost: set[str] = set()
        self._log: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        remove_abandoned()
        self._scratch = Scratch()
        try:
            link_backends(self._scratch.path / "backends")
            self.models = link_models(repository, self._scratch.path / "models")
            command = [
                str(binary),
                "--model-repository=models",
                "--backend-directory=backends",
                f"--backend-config=python,shm-region-prefix-name={self._scratch.name}",  # a killed one leaves regions
                "--disable-auto-complete-config",
                "--allow-gpu-metrics=false",
                "--grpc-infer-allocation-pool-size=0",  # or the largest requests stay in memory
                f"--exit-timeout-secs={exit_timeout}",
                f"--model-control-mode={model_control}",
                *(["--load-model=*"] if model_control == "explicit" else []),
                *(f"--log-{level}={int(index <= verbosity)}" for index, level in enumerate(LOG_LEVELS)),
                *(f"--{name}-address=unix:{name}" for name in ports),
                *(f"--{name}-port=0" for name in ports),
            ]
            setpriv = shutil.which("setpriv")
            if setpriv and threading.current_thread() is threading.main_thread():
                # Or the server would outlive a program that is killed. The kernel means the thread that starts it.
                command[:0] = [setpriv, "--pdeathsig", "TERM"]
            environment = server_environment() | {"TMPDIR": str(self._scratch.path)}
            if num_threads is not None:
                environment |= dict.fromkeys(THREAD_VARIABLES, str(num_threads))
            gateway_options = {
                "host": host,
                "ports": ports,
                "shared_memory": shared_memory,
                "model_control": model_control == "explicit",
                "max_bytes": max_request_bytes,
                "exit_timeout": exit_timeout,
            }
            self._start(command, environment, gateway_options)
        except BaseException:
            self._scratch.remove()
            raise

    def _start(self, command: list[str], environment: dict[str, str], gateway_options: dict[str, Any]) -> None:
        """Start both processes, or none."""
        reading, writing = os.pipe()
        self._reader = threading.Thread(
            target=self._read_log, args=(reading,), name=f"log of {self._scratch.name}", daemon=True
        )
        self._reader.start()
        common: dict[str, Any] = {
            "cwd": self._scratch.path,
            "stdout": writing,
            "stderr": writing,
            "pass_fds": [self._scratch.lock],
            "start_new_session": True,  # Ctrl-C in a terminal goes to us; and kill() can end the whole session
        }
        try:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **common)
            options = json.dumps(gateway_options | {"server": self._process.pid})
            try:
                self._gateway = subprocess.Popen(
                    [sys.executable, "-I", str(Path(__file__).with_name("gateway.py")), options],
                    stdin=subprocess.PIPE,  # its end tells the gateway that we are dead
                    **common,
                )
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise
        finally:
            os.close(writing)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and process group."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise ServerError if the process has ended by itself."""
        for process, name in ((self._process, ""), (self._gateway, " of the gateway")):
            code = process.poll()
            if code is not None:
                raise self.failure(f"exit code {code}{name}")

    def check_children(self) -> None:
        """Raise ServerError if a model's process has been killed since :meth:`forget_children`.

        The server never notices, and stays "ready": it does not reap a process that it has not ended itself, which
        therefore stays a zombie. One that it has ended is a zombie only for a moment, so this looks twice.
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
        self._gateway.terminate()

    def stop(self) -> int:
        """End the process in order, or else by force; return its exit code (negative: killed)."""
        self.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._exit_timeout + 5)
                self._gateway.wait(5)
        finally:
            code = self.kill()
        return code

    def kill(self) -> int:
        """End the process and everything it started at once, and remove what it leaves behind; return its exit code."""
        self._gateway.kill()
        self._gateway.wait()
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # stubs that a killed server leaves behind
        self._reader.join(1.0)
        if self._gateway.stdin is not None:
            self._gateway.stdin.close()
        self._scratch.remove()
        return code

    def note_ready(self) -> None:
        """Note what the server would leave behind, now that it has made all of it."""
        self._scratch.note_leftovers()

    def _read_log(self, pipe: int) -> None:
        with open(pipe, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not any(words in line for words in NOISE):
                    self._log.append(line.rstrip("\n"))
                    logger.info("tritonserver: %s", self._log[-1])

    def _lost(self) -> set[str]:
        """Return the ids of child processes that have ended and were not reaped."""
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
