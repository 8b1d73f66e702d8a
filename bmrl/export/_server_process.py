"""The ``tritonserver`` process: starting it, what it wrote, and ending it for certain."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from bmrl.errors import ServerError
from bmrl.export._ports import LOOPBACK
from bmrl.export._triton_wheel import link_backends, server_binary, server_environment

__all__ = ["ServerProcess"]

LOG_LINES = 40
SHARED_MEMORY = Path("/dev/shm")


class ServerProcess:
    """A running ``tritonserver`` with a scratch folder of its own.

    Args:
        repository: the model repository.
        ports: port numbers of ``http``, ``grpc`` and ``metrics``.
        exit_timeout: seconds that the server gives requests in flight when it is stopped.

    Raises:
        ServerError: the wheel with the server is missing or does not fit this Python.
    """

    def __init__(self, repository: Path, ports: dict[str, int], exit_timeout: int) -> None:
        binary = server_binary()
        self._exit_timeout = exit_timeout
        self._scratch = tempfile.TemporaryDirectory(prefix="bmrl-server-")
        scratch = Path(self._scratch.name)
        self._name = scratch.name
        self._log = scratch / "log"
        try:
            command = [
                str(binary),
                f"--model-repository={repository.absolute()}",
                f"--backend-directory={link_backends(scratch / 'backends')}",
                f"--backend-config=python,shm-region-prefix-name={self._name}",  # a killed server leaves its regions
                "--disable-auto-complete-config",
                "--allow-gpu-metrics=false",
                f"--exit-timeout-secs={exit_timeout}",
            ]
            for name, port in ports.items():
                command += [f"--{name}-address={LOOPBACK}", f"--{name}-port={port}"]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    env=server_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a terminal goes to us; and stop() can end the whole session
                )
        except BaseException:
            self._scratch.cleanup()
            raise

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and process group."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise ServerError if the process has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise self.failure(f"exit code {code}")

    def failure(self, got: str) -> ServerError:
        """Return an error of one line with the log's main complaint; the log's end is attached as a note."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        error = ServerError(f"tritonserver: expected a server that answers right, got {got}{_complaint(lines)}")
        error.add_note("\n".join(["The server's log ends with:", *lines[-LOG_LINES:]]))
        return error

    def terminate(self) -> None:
        """Ask the process to end in order, and return at once."""
        self._process.terminate()

    def stop(self) -> int:
        """End the process and everything it started; return its exit code (negative: killed)."""
        self.terminate()
        try:
            code = self._process.wait(self._exit_timeout + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # stubs that a killed server leaves behind
            for leftover in SHARED_MEMORY.glob(f"{self._name}*"):
                leftover.unlink(missing_ok=True)
            self._scratch.cleanup()
        return code


def _complaint(lines: list[str]) -> str:
    """Return why a model failed to load, or else the first error of a log, led in by a colon; empty if none."""
    errors = [match[1].strip('"') for line in lines if (match := re.match(r"E\d{4} [^\]]*\] (.*)", line))]
    errors = [error.split(r"\n")[0] for error in errors if "CudaDriverHelper" not in error]  # said without a GPU
    errors.sort(key=lambda error: not error.startswith("failed to load"))
    return f": {errors[0]}" if errors else ""
