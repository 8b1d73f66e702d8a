from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from bmrl.errors import DTypeError, MissingFileError, RangeError, RepositoryError, ServerError
from bmrl.export import TritonClient, TritonServer, serve

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(params=["grpc", "http"])
def raw(request, server):
    """Return tritonclient's module and connection: what any other client may send."""
    module = getattr(tritonclient, request.param)
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with module.InferenceServerClient(url) as connection:
        yield module, connection


def ask(raw, images, kind="UINT8", model="bmrl", name="images", **options):
    module, connection = raw
    request = module.InferInput(name, list(images.shape), kind)
    request.set_data_from_numpy(images)
    return connection.infer(model, [request], **options)


LOGGER = TritonServer.__module__
BLACK = np.zeros((1, 3, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": BLACK[:, :, :31]}, "unexpected shape for input 'images'"),
        ({"images": BLACK[0]}, "unexpected shape for input 'images'"),
        ({"images": BLACK.repeat(9, 0)}, "batch-size must be <= 8"),
        ({"images": BLACK.astype(np.float32), "kind": "FP32"}, "data-type is 'FP32', but model 'bmrl' expects 'UINT8'"),
        ({"model": "bmrl2"}, "unknown model: 'bmrl2'"),
        ({"name": "pictures"}, "unexpected inference input 'pictures'"),
    ],
)
def test_a_wrong_request_is_refused_and_the_next_one_answered(raw, eager, images, change, message):
    with pytest.raises(InferenceServerException, match=message):
        ask(raw, **({"images": BLACK} | change))
    answer = ask(raw, images[:2].numpy())
    np.testing.assert_allclose(answer.as_numpy("probabilities"), eager[0][:2].numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("act", ["load_model", "unload_model"])
def test_nobody_may_load_or_unload_models_unless_asked_for(raw, act):
    _, connection = raw
    with pytest.raises(InferenceServerException, match="got a request for models, which is not switched on here"):
        getattr(connection, act)("bmrl")
    assert connection.is_model_ready("bmrl")


def test_classification_extension_gives_the_class_names(raw, images, eager, model):
    module, _ = raw
    outputs = [module.InferRequestedOutput("probabilities", class_count=2)]
    answer = ask(raw, images[:3].numpy(), outputs=outputs).as_numpy("probabilities")
    for row, expected in zip(answer, eager[0][:3], strict=True):
        for entry, index in zip(row, expected.argsort(descending=True)[:2].tolist(), strict=True):
            probability, got, label = entry.decode().split(":", 2)
            assert (int(got), label) == (index, model.config.generators[index].name)
            assert float(probability) == pytest.approx(expected[index].item(), abs=1e-4)


def test_metrics_count_the_answers(server, images):
    def successes():
        with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as page:
            text = page.read().decode()
        return int(re.search(r'nv_inference_request_success\{model="bmrl",version="1"\} (\d+)', text)[1])

    before = successes()
    with TritonClient(server.grpc_url) as client:
        client.infer(images[:1])
    assert successes() == before + 1


def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ends(pid):
    """Wait up to 10 s for an orphan that was killed: its new parent may take a moment to reap it."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def children(pid):
    table = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    return [int(child) for child, parent in map(str.split, table.splitlines()) if int(parent) == pid]


def log_levels(server):
    options = Path(f"/proc/{server.pid}/cmdline").read_text()
    return {name: int(re.search(rf"--log-{name}=(\d)", options)[1]) for name in ("error", "warning", "info", "verbose")}


def is_bound(address, port):
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def test_defaults_are_loopback_and_warnings(server):
    assert log_levels(server) == {"error": 1, "warning": 1, "info": 0, "verbose": 0}
    for url in (server.http_url, server.grpc_url, server.metrics_url):
        port = int(url.removeprefix("127.0.0.1:"))
        assert is_bound("127.0.0.1", port)
        assert not is_bound("127.0.0.2", port)  # the same interface by another of its addresses


def test_takes_the_options_it_is_given(repository, images, eager, caplog):
    options = {"host": "127.0.0.2", "num_threads": 3, "log_level": "info", "model_control": "explicit"}
    with (
        caplog.at_level(logging.INFO, LOGGER),
        TritonServer(repository, **options) as server,
    ):
        assert log_levels(server) == {"error": 1, "warning": 1, "info": 1, "verbose": 0}
        for url in (server.http_url, server.grpc_url, server.metrics_url):
            assert is_bound("127.0.0.2", int(url.removeprefix("127.0.0.2:")))
            assert not is_bound("127.0.0.1", int(url.removeprefix("127.0.0.2:")))
        stubs = children(server.pid)
        environment = Path(f"/proc/{stubs[0]}/environ").read_text().split("\0")
        for name in ("BMRL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            assert [line for line in environment if line.startswith(f"{name}=")] == [f"{name}=3"]
        # The second time, the files are as they were, which the server would take for a reason to do nothing.
        for _ in range(2):
            server.reload()
            stubs += children(server.pid)
        assert len(set(stubs)) == 3
        with TritonClient(server.grpc_url) as client:
            np.testing.assert_allclose(client.infer(images[:1])[0], eager[0][:1].numpy(), rtol=0, atol=1e-4)
    assert "tritonserver: anyone who can reach 127.0.0.2 may load models, and so run code" in caplog.messages
    loadings = [record for record in caplog.records if '"loading: bmrl:1"' in record.message]
    assert {(record.name, record.levelname) for record in loadings} == {(f"{LOGGER}.tritonserver", "INFO")}
    assert len(loadings) == 3


def test_takes_the_ports_it_is_given_and_stops_cleanly(repository, images, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ports = free_ports()
    with TritonServer(repository, **ports, log_level="error") as server:
        assert log_levels(server) == {"error": 1, "warning": 0, "info": 0, "verbose": 0}
        urls = (server.http_url, server.grpc_url, server.metrics_url)
        assert urls == tuple(f"127.0.0.1:{port}" for port in ports.values())
        with pytest.raises(ServerError, match="models: expected a server that is stopped, got one that runs"):
            server.start()
        processes = [server.pid, *children(server.pid)]
        assert len(processes) == 2
        with TritonClient(server.http_url, "http") as client:
            client.infer(images[:1])
        assert server.stop() == 0
        assert server.stop() is None
    assert not any(map(is_running, processes))
    assert not list(tmp_path.iterdir())
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()  # fails if someone still listens


def test_a_killed_server_is_noticed_and_cleaned_up(repository, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TritonServer(repository, log_level="verbose") as server:
        assert log_levels(server) == {"error": 1, "warning": 1, "info": 1, "verbose": 1}
        (stub,) = children(server.pid)
        (scratch,) = (entry.name for entry in tmp_path.iterdir())
        assert list(Path("/dev/shm").glob(f"{scratch}*"))
        server.check_alive()
        os.kill(stub, signal.SIGSTOP)  # or it would notice by itself that its server is gone, some time later
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(
            ServerError, match=r"^tritonserver: expected a server that answers right, got exit code -9\n"
        ):
            server.check_alive()
        assert server.stop() == -9
        with pytest.raises(ServerError, match="models: expected a running server, got one that is stopped"):
            server.check_alive()
    assert ends(stub)
    assert not list(Path("/dev/shm").glob(f"{scratch}*"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["http_port", "grpc_port", "metrics_port"])
def test_names_a_port_that_is_in_use(repository, option):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = TritonServer(repository, **{option: port})
        with pytest.raises(
            ServerError, match=rf"^{option}: expected a free port on 127.0.0.1, got {port} \(.*in use\)$"
        ):
            server.start()


def test_names_a_port_that_is_none_or_given_twice(repository):
    with pytest.raises(RangeError, match=r"^http_port: expected an integer >= 0 and <= 65535, got 70000$"):
        TritonServer(repository, http_port=70000)
    port = free_ports()["http_port"]
    expected = rf"^grpc_port: expected a free port on 127.0.0.1, got {port} \(.*in use\)$"
    with pytest.raises(ServerError, match=expected), TritonServer(repository, http_port=port, grpc_port=port):
        pass


def copy_with_change(repository, tmp_path, old, new):
    """Copy a repository, and break its ``model.py``."""
    folder = shutil.copytree(repository, tmp_path / "models")
    file = folder / "bmrl" / "1" / "model.py"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("import torch\n", "import torhc\n", {}, "got exit code 1: failed to load 'bmrl' .*No module named 'torhc'"),
        ("= self.graph(", "= self.wrong(", {}, "expected an answer to infer, got .*no attribute 'wrong'"),
        (
            "values())))",
            "values())).bitwise_not())",
            {},
            "got numbers that differ by",
        ),
        (
            "import json",
            "import json, time; time.sleep(60)",
            {"startup_timeout": 2, "exit_timeout": 1},
            "got none in time",
        ),
    ],
    ids=["fails to load", "fails to answer", "answers wrongly", "hangs"],
)
def test_a_broken_repository_is_an_error_with_its_reason(repository, tmp_path, old, new, options, message):
    folder = copy_with_change(repository, tmp_path, old, new)
    config = folder / "bmrl" / "config.pbtxt"  # the warm-up would find "fails to answer" first
    config.write_text(re.sub(r"model_warmup \{.*?\n\}\n", "", config.read_text(), flags=re.DOTALL))
    server = TritonServer(folder, **options)
    expected = f"^tritonserver: expected a server that answers right, .*{message}"
    with pytest.raises(ServerError, match=expected) as error, server:
        pass
    assert "\n" not in str(error.value)
    if old == "import torch\n":
        assert "The server's log ends with:\n" in error.value.__notes__[0]
    with pytest.raises(ServerError, match="got one that is stopped"):
        server.grpc_url  # noqa: B018


def test_names_what_is_missing_in_a_folder(repository, tmp_path):
    with (
        pytest.raises(RepositoryError, match=r"expected a Triton repository, got no bmrl/config.pbtxt"),
        TritonServer(tmp_path),
    ):
        pass
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    (tmp_path / "bmrl" / "1" / "model.pt").unlink()
    with (
        pytest.raises(MissingFileError, match=r"model.pt: expected an exported file, got nothing there"),
        TritonServer(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("startup_timeout", 0, "expected > 0, got 0"),
        ("startup_timeout", float("nan"), "expected > 0, got nan"),
        ("startup_timeout", float("inf"), "expected at most 31622400 seconds, got inf"),
        ("exit_timeout", 0, "expected an integer >= 1, got 0"),
        ("num_threads", 0, "expected an integer >= 1, got 0"),
        ("grpc_port", -1, "expected an integer >= 0 and <= 65535, got -1"),
        ("host", "::1", "expected an IPv4 address of this machine, got '::1'"),
        ("host", "localhost", "expected an IPv4 address of this machine, got 'localhost'"),
        ("log_level", "debug", "expected 'error' or 'warning' or 'info' or 'verbose', got 'debug'"),
        ("model_control", "poll", "expected 'none' or 'explicit', got 'poll'"),
    ],
)
def test_refuses_other_options(tmp_path, option, value, message):
    with pytest.raises(RangeError, match=f"^{option}: {message}$"):
        TritonServer(tmp_path, **{option: value})


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("exit_timeout", 1.5, "an integer >= 1, got 1.5"),
        ("num_threads", "2", "an integer >= 1, got '2'"),
        ("http_port", 8000.0, "an integer >= 0 and <= 65535, got 8000.0"),
        ("shared_memory", "false", "True or False, got 'false'"),
        ("startup_timeout", "60", "a number, got '60'"),
    ],
)
def test_refuses_options_of_another_type(tmp_path, option, value, expected):
    with pytest.raises(DTypeError, match=f"^{option}: expected {expected}$"):
        TritonServer(tmp_path, **{option: value})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_who_may_load_models_is_on_this_machine(tmp_path, host):
    """Loading a model runs its Python file, which the request may bring along."""
    expected = "^host: expected a loopback address such as 127.0.0.1 with model control 'explicit', because .* run code"
    with pytest.raises(RangeError, match=f"{expected}, got {re.escape(host)}$"):
        TritonServer(tmp_path, host=host, model_control="explicit")


@pytest.mark.parametrize("option", ["probe_interval", "patience", "max_restores"])
def test_refuses_to_supervise_with_numbers_that_are_not_positive(tmp_path, option):
    with pytest.raises(RangeError, match=f"^{option}: expected .*, got 0$"):
        TritonServer(tmp_path).supervise(**{option: 0})


@pytest.mark.parametrize("interval", [0, -1.0, float("nan"), 1e300])
def test_serve_refuses_an_interval_before_it_starts_anything(tmp_path, interval):
    with pytest.raises(RangeError, match=r"^probe_interval: expected .*, got"):
        serve(TritonServer(tmp_path / "no repository"), probe_interval=interval)


def test_what_needs_a_running_server_says_so(tmp_path):
    server = TritonServer(tmp_path / "models")
    for act in (server.check_alive, server.check_answer, server.reload, server.supervise, lambda: server.grpc_url):
        with pytest.raises(ServerError, match="models: expected a running server, got one that is stopped"):
            act()
    with pytest.raises(ServerError, match="models: expected a server that was started, got one that is stopped"):
        server.restart()


def test_names_an_address_that_is_not_of_this_machine(repository):
    expected = r"^http_port: expected a free port on 192\.0\.2\.1, got None \(cannot assign requested address\)$"
    with pytest.raises(ServerError, match=expected), TritonServer(repository, host="192.0.2.1"):
        pass


SERVE = """
import sys
from bmrl.export import TritonServer, serve
print("begin", flush=True)
serve(TritonServer(sys.argv[1]), probe_interval=0.1)
"""


@contextlib.contextmanager
def serving(folder):
    """Run :func:`bmrl.export.serve` as a program, and leave nothing of it behind."""
    program = subprocess.Popen([sys.executable, "-c", SERVE, str(folder)], stdout=subprocess.PIPE, text=True)
    with program:
        try:
            assert program.stdout.readline() == "begin\n"
            yield program
        finally:
            if program.poll() is None:
                for pid in (*children(program.pid), program.pid):
                    os.kill(pid, signal.SIGKILL)


SLOW_FOR_FIVE_IMAGES = """
_execute = TritonPythonModel.execute


def _execute_slowly(self, requests):
    import time
    import triton_python_backend_utils as backend
    if any(backend.get_input_tensor_by_name(request, "images").shape()[0] == 5 for request in requests):
        Path(__file__).with_name("running").touch()
        time.sleep(3)
    return _execute(self, requests)


TritonPythonModel.execute = _execute_slowly
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_serve_prints_its_urls_and_answers_what_is_in_flight_on_a_signal(number, repository, images, eager, tmp_path):
    folder = shutil.copytree(repository, tmp_path / "models") / "bmrl" / "1"
    with (folder / "model.py").open("a") as file:
        file.write(SLOW_FOR_FIVE_IMAGES)
    with serving(tmp_path / "models") as program, ThreadPoolExecutor(1) as pool:
        line = program.stdout.readline()
        url = re.fullmatch(r"ready: gRPC (127\.0\.0\.1:\d+), HTTP \S+:\d+, metrics \S+:\d+\n", line)[1]
        processes = children(program.pid)
        with TritonClient(url) as client:
            answer = pool.submit(client.infer, images[:5])
            while not (folder / "running").exists():
                assert program.poll() is None
            program.send_signal(number)
            np.testing.assert_allclose(answer.result(20)[0], eager[0][:5].numpy(), rtol=0, atol=1e-4)
        assert program.wait(60) == 0
    assert len(processes) == 2  # the server and its gateway
    assert not any(map(is_running, processes))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_serve_stops_on_a_signal_while_it_starts(repository, tmp_path, number, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    with serving(
        copy_with_change(repository, tmp_path, "import json", "import json, time; time.sleep(600)")
    ) as program:
        while len(processes := children(program.pid)) < 2:
            assert program.poll() is None
        program.send_signal(number)
        assert program.wait(50) == 0  # less than the 60 s after which it would give up
        assert program.stdout.read() == ""
    assert not any(map(is_running, processes))
    assert not list((tmp_path / "scratch").iterdir())


def test_names_the_command_that_installs_the_server(repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytriton", None)
    expected = r"^nvidia-pytriton: not installed; run: pip install --no-deps nvidia-pytriton==0\.7\.0$"
    with pytest.raises(ServerError, match=expected), TritonServer(repository):
        pass
