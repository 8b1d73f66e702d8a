"""What goes wrong under a real server, done to it on purpose: killed processes, damaged files, faulty models."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bmrl.errors import BMRLError, ServerError
from bmrl.export import Artifact, TritonClient, TritonServer, export_model, write_triton_repository
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.server import supervisor as _supervisor
from bmrl.export.triton.server.readiness import count_answers
from bmrl.models import build_model

pytestmark = [pytest.mark.slow, pytest.mark.server]


def children(pid):
    listings = [listing.read_text() for listing in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for listing in listings for child in listing.split()]


def is_running(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def free_ports():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [one.getsockname()[1] for one in sockets]
    return dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))


def server_of(program):
    """Return the process of the server that a program runs; the other one is its gateway."""
    (server,) = (child for child in children(program.pid) if "tritonserver" in Path(f"/proc/{child}/comm").read_text())
    return server


@dataclasses.dataclass
class Request:
    client: int
    start: float
    end: float
    error: str | None


class Clients:
    """Several clients that keep asking until the ``with`` block ends, each for an image of its own."""

    def __init__(self, url, images, eager, number=4):
        self.requests: list[Request] = []
        self.wrong: list[Request] = []
        self._number = number
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(index, url, images[index : index + 1], eager[0][index].numpy()))
            for index in range(number)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, index, url, image, expected):
        with TritonClient(url, timeout=10, retries=0) as client:
            while not self._stop.is_set():
                start, error = time.monotonic(), None
                try:
                    right = np.abs(client.infer(image)[0][0] - expected).max() < 1e-4
                except ServerError as caught:
                    right, error = True, str(caught)
                request = Request(index, start, time.monotonic(), error)
                (self.requests if right else self.wrong).append(request)
                self._stop.wait(0.1 if error else 0.03)

    def errors(self, since=0.0):
        return [request for request in list(self.requests) if request.error and request.end > since]

    def all_right(self, since=0.0):
        """Whether every client has got its answer to a request that it made ``since`` then."""
        return len({one.client for one in list(self.requests) if one.start > since and not one.error}) == self._number

    def check_outage(self, kill):
        """Kill something; there must be errors within 5 s, right answers to all within 20 s, and no wrong ones."""
        wait_until(self.all_right, 20)
        killed = time.monotonic()
        kill()
        wait_until(lambda: self.errors(since=killed), 5)
        wait_until(lambda: self.all_right(since=self.errors(since=killed)[0].end), killed + 20 - time.monotonic())
        errors = self.errors()
        assert max(request.end - request.start for request in errors) < 5
        assert errors[0].end > killed
        assert not self.wrong
        return [request.error for request in errors]


@contextlib.contextmanager
def served(folder, log, *more_options, environment=()):
    """Run ``bmrl serve`` as a program, its stderr in the file ``log``; yield it and its ports."""
    ports = free_ports()
    options = [part for name, port in ports.items() for part in (f"--{name.replace('_', '-')}", str(port))]
    command = [sys.executable, "-m", "bmrl", "serve", str(folder), *options, *more_options]
    environment = os.environ | {"TMPDIR": str(log.parent)} | dict(environment)
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as program,
    ):
        try:
            assert program.stdout.readline().startswith(f"ready: gRPC 127.0.0.1:{ports['grpc_port']}, ")
            yield program, ports
        finally:
            if program.poll() is None:
                program.terminate()
                assert program.wait(60) == 0


@contextlib.contextmanager
def supervised(server, **options):
    """Run a server and its supervisor, which must not give up."""
    with server, ThreadPoolExecutor(1) as pool:
        supervision = pool.submit(server.supervise, **options)
        try:
            yield
        finally:
            server.terminate()
            supervision.result(60)


def test_serve_restores_a_killed_model_and_a_killed_server(repository, images, eager, tmp_path):
    log = tmp_path / "log"
    with served(repository, log) as (program, ports), Clients(f"127.0.0.1:{ports['grpc_port']}", images, eager) as all_:
        server = server_of(program)
        (stub,) = children(server)
        all_.check_outage(lambda: os.kill(stub, signal.SIGKILL))
        assert not is_running(server)  # it has to be replaced, with model control off
        # The supervisor looks for dead processes and asks for inferences, and either may tell first.
        reason = rf"(got {stub} ended|Stub process 'bmrl_0_0' is not healthy.*); restoring, attempt 1 of 5\n"
        assert re.search(reason, log.read_text())

        server = server_of(program)
        all_.requests.clear()
        errors = all_.check_outage(lambda: os.kill(server, signal.SIGKILL))
        assert any(f"127.0.0.1:{ports['grpc_port']}: expected an answer to infer, got" in error for error in errors)
        assert "got exit code -9; restoring, attempt 2 of 5\n" in log.read_text()
        assert log.read_text().count("tritonserver: answers right again, ") == 2


def test_serve_passes_its_options_on_and_takes_the_server_with_it_when_killed(repository, tmp_path):
    options = {
        "--host": "0.0.0.0",
        "--threads": "3",
        "--log-level": "error",
        "--probe-interval": "0.1",
        "--startup-timeout": "99",
    }
    with served(repository, tmp_path / "log", *(part for pair in options.items() for part in pair)) as (program, ports):
        server = server_of(program)
        command = Path(f"/proc/{server}/cmdline").read_text().split("\0")
        assert {"--log-warning=0", "--model-control-mode=none"} < set(command)
        for port in ports.values():
            socket.create_connection(("127.0.0.2", port)).close()  # every address of this machine
        assert "BMRL_NUM_THREADS=3" in Path(f"/proc/{server}/environ").read_text().split("\0")
        wait_until(lambda: count_answers(f"127.0.0.1:{ports['grpc_port']}", 1) > 12, 12)  # probes; 6 by default
        (scratch,) = (folder.name for folder in tmp_path.glob("bmrl-server-*"))
        program.kill()
        program.wait()
        try:
            wait_until(lambda: not is_running(server), 20)
            wait_until(lambda: not list(tmp_path.glob("bmrl-server-*")), 10)
            assert not [entry for entry in Path("/dev/shm").glob("bmrl-server-*") if entry.name.startswith(scratch)]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server, signal.SIGKILL)
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()


def test_explicit_model_control_restores_without_a_restart(repository, images, eager, caplog):
    server = TritonServer(repository, model_control="explicit")
    with (
        caplog.at_level(logging.INFO, "bmrl.export.triton.server.server"),
        supervised(server),
        Clients(server.grpc_url, images, eager) as clients,
    ):
        pid = server.pid
        (stub,) = children(pid)
        clients.check_outage(lambda: os.kill(stub, signal.SIGKILL))
        wait_until(lambda: any("answers right again" in message for message in caplog.messages), 20)
        server.check_alive()  # the lost process is forgotten
        assert server.pid == pid
        assert "tritonserver: unloading and loading the models" in caplog.messages
        assert "tritonserver: restarting the server" not in caplog.messages

        clients.requests.clear()
        clients.check_outage(lambda: os.kill(pid, signal.SIGKILL))  # which no loading helps against
        assert server.pid != pid
        assert "tritonserver: restarting the server" in caplog.messages
    assert sum("; restoring, attempt" in message for message in caplog.messages) == 2


FAULTS = """
_execute = TritonPythonModel.execute


def _execute_with_faults(self, requests):
    import time
    folder = Path(__file__).parent
    if (folder / "hang once").exists():
        (folder / "hang once").unlink()
        time.sleep(1000)
    if (folder / "delay").exists():
        time.sleep(float((folder / "delay").read_text()))
    if (folder / "raise once").exists():
        (folder / "raise once").unlink()
        raise RuntimeError("by chance")
    if (folder / "go wrong").exists():
        (folder / "go wrong").unlink()
        graph = self.graph
        self.graph = lambda images: graph(images.bitwise_not())
    return _execute(self, requests)


TritonPythonModel.execute = _execute_with_faults
"""


@pytest.fixture(scope="module")
def faulty(model, tmp_path_factory):
    """A supervised server of a model that has a fault for each file that is put next to it.

    It takes one image per run, and refuses requests while eight others wait.
    """
    repository = write_triton_repository(model, tmp_path_factory.mktemp("faulty") / "models", max_batch_size=1)
    folder = repository / "bmrl" / "1"
    with (folder / "model.py").open("a") as file:
        file.write(FAULTS)
    config = read_triton_config(repository)
    config.dynamic_batching.default_queue_policy.max_queue_size = 8
    (repository / "bmrl" / "config.pbtxt").write_text(str(config))
    server = TritonServer(repository, num_threads=1)
    with supervised(server, probe_interval=0.2, patience=1.5):
        yield server, folder


@pytest.fixture(autouse=True)
def no_faults(request):
    """Take the faults away after a test that failed before it did."""
    yield
    if "faulty" in request.fixturenames:
        _, folder = request.getfixturevalue("faulty")
        for name in ("hang once", "delay", "raise once", "go wrong"):
            (folder / name).unlink(missing_ok=True)


def let_probe_answer(server):
    """Wait until the supervisor has got an answer: only then does it say again that others keep the server busy."""
    answers = count_answers(server.grpc_url, 5)
    wait_until(lambda: count_answers(server.grpc_url, 5) > answers + 3, 20)


def test_a_paused_stub_is_busy_and_left_alone(faulty, images, eager):
    server, _ = faulty
    pid = server.pid
    (stub,) = children(pid)
    with Clients(server.grpc_url, images, eager) as clients:
        wait_until(clients.all_right, 20)
        os.kill(stub, signal.SIGSTOP)
        time.sleep(0.5)  # the fault itself, not a wait: after 1 s the server would give the stub up
        os.kill(stub, signal.SIGCONT)
        resumed = time.monotonic()
        wait_until(lambda: clients.all_right(since=resumed), 20)
    assert not clients.errors()
    assert not clients.wrong
    assert (server.pid, children(server.pid)) == (pid, [stub])


def test_a_slow_model_is_busy_and_left_alone(faulty, images, eager, caplog):
    """Six clients wait for 0.4 s each, which makes 2.4 s for the probe, and its patience is 1.5 s."""
    server, folder = faulty
    pid = server.pid
    let_probe_answer(server)
    (folder / "delay").write_text("0.4")
    with Clients(server.grpc_url, images, eager, 6) as clients:
        wait_until(lambda: any(message.endswith("busy with other requests") for message in caplog.messages), 20)
        noticed = time.monotonic()
        wait_until(lambda: clients.all_right(since=noticed), 20)
        (folder / "delay").unlink()
    assert not clients.errors()
    assert not clients.wrong
    server.check_answer()
    assert server.pid == pid


def test_a_full_queue_is_busy_and_left_alone(faulty, images, eager, caplog):
    """Sixteen clients fill its eight places, which are 0.1 s each: less than the patience of the probe in all."""
    server, folder = faulty
    pid = server.pid
    let_probe_answer(server)
    (folder / "delay").write_text("0.1")
    with Clients(server.grpc_url, images, eager, 16) as clients:
        wait_until(lambda: any(message.endswith("busy with other requests") for message in caplog.messages), 20)
        wait_until(lambda: any("Exceeds maximum queue size" in request.error for request in clients.errors()), 20)
        answers = count_answers(server.grpc_url, 5)
        wait_until(lambda: count_answers(server.grpc_url, 5) > answers + 20, 20)
        (folder / "delay").unlink()
    assert not clients.wrong
    server.check_answer()
    assert server.pid == pid


def test_a_single_error_is_chance(faulty, caplog):
    server, folder = faulty
    pid = server.pid
    (folder / "raise once").touch()
    wait_until(lambda: not (folder / "raise once").exists(), 20)
    let_probe_answer(server)  # the supervisor has gone on asking
    assert server.pid == pid
    assert not any("restoring" in message for message in caplog.messages)


def test_a_model_that_goes_wrong_is_restored(faulty, caplog):
    server, folder = faulty
    with caplog.at_level(logging.INFO, "bmrl.export.triton.server.server"):
        (folder / "go wrong").touch()
        wait_until(lambda: any("answers right again" in message for message in caplog.messages), 20)
    reason = r"expected the answer given at export, got numbers that differ by .*; restoring, attempt \d of 5$"
    assert any(re.search(reason, message) for message in caplog.messages)
    server.check_answer()


def test_a_model_that_answers_nobody_is_hung_and_restored(faulty, caplog):
    server, folder = faulty
    with caplog.at_level(logging.INFO, "bmrl.export.triton.server.server"):
        (folder / "hang once").touch()
        wait_until(lambda: any("answers right again" in message for message in caplog.messages), 30)
    reason = r"answer to infer, got none within 1.5 s, and no other request is answered; restoring, attempt \d of 5$"
    assert any(re.search(reason, message) for message in caplog.messages)
    assert not any("busy" in message for message in caplog.messages)  # what was answered before is no excuse
    server.check_answer()


def test_a_decoder_that_hangs_is_restored_though_the_model_answers(repository, images, eager, tmp_path, caplog):
    """Requests for ``bmrl`` go on all the time, and don't make the ensemble count as busy."""
    file = Artifact(repository / "bmrl" / "1" / "model.pt")
    folder = write_triton_repository(file, tmp_path / "models", ensemble=True, num_threads=1)
    with (folder / "bmrl_decode" / "1" / "model.py").open("a") as code:
        code.write(FAULTS)
    server = TritonServer(folder, num_threads=1)
    with (
        caplog.at_level(logging.INFO, "bmrl.export.triton.server.server"),
        supervised(server, probe_interval=0.2, patience=1.5),
        Clients(server.grpc_url, images, eager, 2) as clients,
    ):
        wait_until(clients.all_right, 20)
        (folder / "bmrl_decode" / "1" / "hang once").touch()
        wait_until(lambda: any("answers right again" in message for message in caplog.messages), 30)
        reason = "answer to attribute, got none within 1.5 s, and no other request is answered; restoring, attempt 1"
        assert any(reason in message for message in caplog.messages)
        server.check_answer()
    assert not clients.wrong


def test_restores_that_fail_in_a_row_are_counted_until_a_healthy_minute(faulty, caplog, monkeypatch):
    server, folder = faulty
    answers = count_answers(server.grpc_url, 5)
    monkeypatch.setattr(_supervisor, "HEALTHY", 0.01)
    wait_until(lambda: count_answers(server.grpc_url, 5) > answers + 2, 20)  # probes, answered right
    (folder / "go wrong").touch()
    wait_until(lambda: any("restoring, attempt 1 of 5" in message for message in caplog.messages), 20)


def test_gives_up_when_the_repository_is_damaged_and_serves_none_of_it(repository, tmp_path, caplog):
    folder = shutil.copytree(repository, tmp_path / "models")
    with TritonServer(folder) as server, ThreadPoolExecutor(1) as pool:
        supervision = pool.submit(server.supervise, max_restores=2)
        truncate(folder / "bmrl" / "1" / "model.pt", None)
        url = server.grpc_url
        os.kill(server.pid, signal.SIGKILL)
        expected = (
            r"^tritonserver: expected a model that stays alive, got 2 restores without a healthy minute, and then: "
            r".*model\.pt: expected .*"
        )
        with pytest.raises(ServerError, match=expected) as error:
            supervision.result(30)
        assert "\n" not in str(error.value)
        with TritonClient(url, timeout=1) as client, pytest.raises(ServerError, match="expected an answer to"):
            client.labels()
    first, second = (record for record in caplog.records if "; restoring, attempt" in record.message)
    assert first.message.endswith("got exit code -9; restoring, attempt 1 of 2")
    assert second.message.endswith("; restoring, attempt 2 of 2")
    assert second.created - first.created >= 1  # it backs off


def truncate(path, model):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage(path, model):
    path.write_bytes(bytes(byte ^ 64 * (index % 499 == 0) for index, byte in enumerate(path.read_bytes())))


def damage_weights(path, model):
    """Blank 1000 bytes in the middle: PyTorch's reader does not look at checksums."""
    data = path.read_bytes()
    start = len(data) // 3
    path.write_bytes(data[:start] + bytes(1000) + data[start + 1000 :])


def swap_width(path, model):
    generators = model.config.generators[:3]
    swap_for(build_model(dataclasses.replace(model.config, generators=generators)), path)


def swap(path, model):
    swap_for(build_model(model.config), path)


def swap_for(other, path):
    """Put another model's good file in the place, and leave the description of the first one."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(export_model(other, Path(folder) / "model.pt").path, path)


def empty(path, model):
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [empty, truncate, damage, damage_weights, swap_width, swap])
def test_refuses_a_model_file_that_is_not_what_was_exported(repository, model, tmp_path, change):
    folder = shutil.copytree(repository, tmp_path / "models")
    change(folder / "bmrl" / "1" / "model.pt", model)
    server = TritonServer(folder)
    try:
        with pytest.raises(BMRLError, match=r"model.pt: expected the content with SHA-256") as error:
            server.start()
        assert "\n" not in str(error.value)
    finally:
        server.stop()


ODD = "re \"po\" $(touch ran) `touch ran` 'it''s'; ä😀 %s &"


def test_serves_from_any_path_through_no_proxy_and_leaves_out_what_is_no_model(repository, images, eager, tmp_path):
    folder = shutil.copytree(repository, tmp_path / ODD)
    for name in ("lost+found", ".snapshot", "bmrl/lost+found", "bmrl/.snapshot", "notes"):
        (folder / name).mkdir()
    shutil.copytree(folder / "bmrl", folder / ".snapshot" / "bmrl")
    (folder / "README").write_text("a file")
    temporary = tmp_path / ODD.encode("ascii", "ignore").decode()
    temporary.mkdir()
    unreachable = "http://127.0.0.1:9"
    proxies = dict.fromkeys(
        ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"), unreachable
    )
    environment = {"TMPDIR": str(temporary), "NO_PROXY": "", "no_proxy": ""} | proxies
    with served(folder, temporary / "log", environment=environment) as (_, ports):
        assert list(temporary.glob("bmrl-server-*"))
        with TritonClient(f"127.0.0.1:{ports['http_port']}", "http") as client:
            np.testing.assert_allclose(client.infer(images[:2])[0], eager[0][:2].numpy(), rtol=0, atol=1e-4)
    assert [entry.name for entry in temporary.iterdir()] == ["log"]
    assert not list(tmp_path.rglob("ran"))


def test_says_what_it_waits_for_and_for_how_long(repository, tmp_path, caplog):
    folder = shutil.copytree(repository, tmp_path / "models")
    model = folder / "bmrl" / "1" / "model.py"
    model.write_text(model.read_text().replace("import json\n", "import json, time; time.sleep(600)\n"))
    expected = (
        r"^tritonserver: expected a server that answers right, got none in time \([789] s; a longer startup timeout"
    )
    with pytest.raises(ServerError, match=expected), TritonServer(folder, startup_timeout=7, exit_timeout=1):
        pass
    assert [message for message in caplog.messages if "waiting" in message] == [
        "tritonserver: waiting until bmrl is loaded (5 s so far, 2 s left)"
    ]


DIES_WHEN_IT_IS_LOADED_AGAIN = """
_file = Path(__file__).with_name("loaded")
if _file.exists():
    raise RuntimeError("no second time")
_file.touch()
"""


def test_restarts_of_a_model_that_dies_as_it_loads_are_ever_further_apart(repository, tmp_path, caplog):
    folder = shutil.copytree(repository, tmp_path / "models")
    with (folder / "bmrl" / "1" / "model.py").open("a") as code:
        code.write(DIES_WHEN_IT_IS_LOADED_AGAIN)
    with TritonServer(folder) as server, ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO):
        supervision = pool.submit(server.supervise, max_restores=3)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"got 3 restores without a healthy minute, and then: .*no second time"):
            supervision.result(60)
    begun = [record.created for record in caplog.records if record.message == "tritonserver: restarting the server"]
    failed = [record.created for record in caplog.records if "; restoring, attempt" in record.message]
    assert len(begun) == len(failed) == 3
    assert failed[1] - begun[0] >= 1
    assert failed[2] - begun[1] >= 2
