"""The files of docker/ and deploy/: by schema, against each other, and as far as they run without a container."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import kubernetes_validate
import numpy as np
import promql_parser
import pytest
import torch
import tritonclient.grpc
import yaml
from torch import nn
from tritonclient.utils import InferenceServerException

from bmrl.export import Artifact, TritonClient, TritonServer, write_triton_repository
from bmrl.export.triton.contract import MODEL_NAME
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.server.wheel import link_backends, server_binary, server_environment

ROOT = Path(__file__).parents[3]
DOCKER, DEPLOY = ROOT / "docker", ROOT / "deploy"
HEALTH_CHECK = "/opt/bmrl/healthcheck.py"


def load(name):
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def manifest(kind):
    (found,) = (document for document in manifests() if document["kind"] == kind)
    return found


def container():
    (only,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return only


def instructions(name):
    """Return the arguments of a Dockerfile's instructions of one name."""
    lines = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(name + " ") for line in lines if line.startswith(name + " ")]


def option(name):
    """Return the value that docker/serve gives to an option of tritonserver."""
    (value,) = re.findall(rf"^ +--{name}=(\S+)", (DOCKER / "serve").read_text(), re.MULTILINE)
    return value


def ports():
    return {name: int(option(f"{name}-port")) for name in ("http", "grpc", "metrics")}


# By schema


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


def lint(dockerfile):
    return run(Path(sys.executable).with_name("hadolint"), "--no-color", "--failure-threshold", "style", dockerfile)


def check_compose(file):
    return run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_dockerfile():
    assert lint(DOCKER / "Dockerfile").stdout == ""


def test_hadolint_sees_a_fault(tmp_path):
    (tmp_path / "Dockerfile").write_text((DOCKER / "Dockerfile").read_text().replace("COPY --chmod", "ADD --chmod"))
    assert "Use COPY instead of ADD" in lint(tmp_path / "Dockerfile").stdout


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose(name):
    result = check_compose(DEPLOY / name)
    assert result.returncode == 0, result.stdout


def test_compose_schema_sees_a_misspelt_field(tmp_path):
    (tmp_path / "compose.yaml").write_text((DEPLOY / "compose.yaml").read_text().replace("cap_drop", "cap_drops"))
    result = check_compose(tmp_path / "compose.yaml")
    assert result.returncode == 1
    assert "'cap_drops' was unexpected" in result.stdout


VERSIONS = (kubernetes_validate.utils.all_versions()[0], kubernetes_validate.utils.latest_version())


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes(version):
    kinds = ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler"]
    assert [document["kind"] for document in manifests()] == kinds
    for document in manifests():
        kubernetes_validate.validate(document, version, strict=True)


def test_kubernetes_schema_sees_a_misspelt_field():
    text = (DEPLOY / "kubernetes.yaml").read_text().replace("readOnlyRootFilesystem", "readonlyRootFilesystem")
    with pytest.raises(kubernetes_validate.ValidationError, match="'readonlyRootFilesystem' was unexpected"):
        kubernetes_validate.validate(next(yaml.safe_load_all(text)), VERSIONS[-1], strict=True)


def test_prometheus():
    """No package brings a schema: the whole file, so that no misspelt field gets by."""
    assert load("prometheus.yaml") == {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {"job_name": "bmrl", "static_configs": [{"targets": [f"server:{ports()['metrics']}"]}]},
        ],
    }
    (group,) = load("alerts.yaml")["groups"]
    assert group.keys() == {"name", "rules"}
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"].keys() == {"severity"}
        assert rule["annotations"].keys() == {"summary"}


# Against each other


def test_ports_agree():
    expected = ports()
    assert len(set(expected.values())) == 3
    offered = {name: expected[name] for name in ("grpc", "metrics")}
    assert instructions("EXPOSE") == [" ".join(map(str, offered.values()))]
    assert {port["name"]: port["containerPort"] for port in container()["ports"]} == offered
    service = manifest("Service")["spec"]["ports"]
    assert all(port["targetPort"] == port["name"] for port in service)
    assert {port["name"]: port["port"] for port in service} == {"grpc": expected["grpc"]}
    annotations = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(expected["metrics"])
    assert f'"127.0.0.1:{expected["http"]}"' in (DOCKER / "healthcheck.py").read_text()


def test_compose_publishes_on_loopback_alone():
    published = {name: service["ports"] for name, service in load("compose.yaml")["services"].items()}
    expected = [f"127.0.0.1:{ports()['grpc']}:{ports()['grpc']}"]
    assert published == {"server": expected, "prometheus": ["127.0.0.1:9090:9090"]}


def test_metrics_are_for_the_monitoring_alone():
    policy = manifest("NetworkPolicy")["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    allowed = {rule["port"]: list(source["from"][0]) for source in policy["ingress"] for rule in source["ports"]}
    expected = ports()
    assert allowed == {
        expected["grpc"]: ["podSelector"],
        expected["metrics"]: ["namespaceSelector"],
    }


def test_everything_in_kubernetes_selects_the_same_pods():
    labels = {"app.kubernetes.io/name": "bmrl"}
    deployment = manifest("Deployment")
    assert deployment["spec"]["template"]["metadata"]["labels"] == labels
    assert deployment["spec"]["selector"] == {"matchLabels": labels}
    assert manifest("PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": labels}
    assert manifest("NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": labels}
    assert manifest("Service")["spec"]["selector"] == labels
    scaled = manifest("HorizontalPodAutoscaler")["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    minimum = manifest("PodDisruptionBudget")["spec"]["minAvailable"]
    assert minimum < scaled["minReplicas"] == deployment["spec"]["replicas"]


def test_the_health_check_is_in_the_image_and_asked_everywhere():
    copied = [shlex.split(arguments) for arguments in instructions("COPY")]
    (with_check,) = (words for words in copied if "healthcheck.py" in words)
    assert (with_check[0], with_check[-1]) == ("--chmod=755", "/opt/bmrl/")
    ignored, *let_through = (DOCKER / ".dockerignore").read_text().split()
    assert ignored == "*"
    names = {word for words in copied for word in words[:-1] if not word.startswith("--")}
    assert {name.removeprefix("!") for name in let_through} == names
    assert all((DOCKER / name).is_file() for name in names)

    command = ["python3", HEALTH_CHECK]
    (check,) = instructions("HEALTHCHECK")
    options, image_command = check.split(" CMD ")
    assert json.loads(image_command) == command
    compose = load("compose.yaml")["services"]["server"]["healthcheck"]
    assert compose.pop("test") == ["CMD", *command]
    assert {f"--{name.replace('_', '-')}={value}" for name, value in compose.items()} == set(options.split())
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    assert [container()[kind]["exec"]["command"] for kind in kinds] == [command] * 3


def test_the_health_check_gives_up_before_it_is_given_up():
    text = (DOCKER / "healthcheck.py").read_text()
    (seconds,) = re.findall(r'"--timeout", type=float, default=(\S+),', text)
    limits = [container()[kind]["timeoutSeconds"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
    limits.append(int(load("compose.yaml")["services"]["server"]["healthcheck"]["timeout"].removesuffix("s")))
    assert all(3 * float(seconds) < limit for limit in limits)


def test_the_server_gets_the_time_that_it_takes_to_stop():
    seconds = int(option("exit-timeout-secs"))
    assert seconds < int(load("compose.yaml")["services"]["server"]["stop_grace_period"].removesuffix("s"))
    command, pause = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert seconds + int(pause) < manifest("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_as_many_threads_as_cpus():
    server = load("compose.yaml")["services"]["server"]
    cpus = server["deploy"]["resources"]["limits"]["cpus"]
    assert server["environment"] == {"BMRL_NUM_THREADS": cpus, "OMP_NUM_THREADS": cpus}
    cpu = container()["resources"]["limits"]["cpu"]
    assert container()["env"] == [{"name": name, "value": cpu} for name in ("BMRL_NUM_THREADS", "OMP_NUM_THREADS")]


def test_the_image_has_the_versions_that_were_tested():
    def pins(path):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.split("==") for line in lines)

    image, tested = pins(DOCKER / "requirements.txt"), pins(ROOT / "constraints.txt")
    assert image.keys() == {"torch", "pillow", "onnxruntime"}
    assert {name: image[name] for name in image.keys() & tested.keys()}.keys() >= {"torch", "pillow"}
    assert all(tested[name] == version for name, version in image.items() if name in tested)


def test_nothing_runs_as_root_or_writes_where_it_need_not():
    assert instructions("USER") == ["1000:1000"]
    for service in load("compose.yaml")["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    (models,) = load("compose.yaml")["services"]["server"]["volumes"]
    assert models["read_only"]
    assert json.loads(instructions("CMD")[0]) == ["/opt/bmrl/serve", models["target"]]

    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 1000
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount.pop("mountPath"): mount for mount in container()["volumeMounts"]}
    assert mounts == {
        models["target"]: {"name": "models", "readOnly": True},
        "/tmp": {"name": "tmp"},
        "/dev/shm": {"name": "shm"},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in mounts.values()}
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"]
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_no_model_control_and_no_response_cache():
    assert option("model-control-mode") == "none"
    assert not re.search(r"^ +--cache-", (DOCKER / "serve").read_text(), re.MULTILINE)


def test_says_that_it_never_ran():
    for file in (DOCKER / "Dockerfile", *DEPLOY.iterdir()):
        assert re.search(r"never (built|run)", file.read_text().lower()), file.name


def test_http_is_for_the_health_check_alone():
    """One request over HTTP can end a server, or fill its memory."""
    assert [option(f"{name}-address") for name in ("http", "grpc", "metrics")] == ["127.0.0.1", "0.0.0.0", "0.0.0.0"]
    assert option("grpc-infer-allocation-pool-size") == "0"


# As far as it runs


def selectors(expression):
    """Yield the names and label matchers of all series that a PromQL expression selects."""
    if isinstance(expression, promql_parser.VectorSelector):
        assert not expression.matchers.or_matchers
        yield expression.name, expression.matchers.matchers
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from selectors(part)
    for argument in getattr(expression, "args", ()):
        yield from selectors(argument)


def matches(matcher, labels):
    equal = labels.get(matcher.name) == matcher.value
    assert matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual)
    return matcher.name in labels and equal == (matcher.op == promql_parser.MatchOp.Equal)


def read_metrics(url):
    """Return the series of a server: name, labels and value of each."""
    with urllib.request.urlopen(f"http://{url}/metrics", timeout=10) as page:
        text = page.read().decode()
    series = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for name, labels, value in series]


@pytest.mark.server
def test_alerts_select_what_the_server_exports(server):
    series = read_metrics(server.metrics_url)
    series.append(("up", {"job": load("prometheus.yaml")["scrape_configs"][0]["job_name"]}, 1.0))  # Prometheus' own
    rules = load("alerts.yaml")["groups"][0]["rules"]
    assert len(rules) == 4
    for rule in rules:
        wanted = list(selectors(promql_parser.parse(rule["expr"])))
        assert wanted, rule["alert"]
        for name, matchers in wanted:
            assert [m.value for m in matchers if m.name == "model"] in ([], [MODEL_NAME])
            found = [labels for key, labels, _ in series if key == name and all(matches(m, labels) for m in matchers)]
            assert found, f"{rule['alert']}: no series {name} {matchers}"


def free_ports(names):
    with contextlib.ExitStack() as sockets:
        held = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return dict(zip(names, (one.getsockname()[1] for one in held), strict=True))


def check_health(*options):
    return run(sys.executable, "-I", DOCKER / "healthcheck.py", *options)


@pytest.mark.server
def test_health_check_of_a_good_server(server):
    result = check_health("--address", server.http_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{server.http_url}: bmrl answers\n"


def test_health_check_where_nothing_listens():
    address = f"127.0.0.1:{free_ports(['http'])['http']}"
    result = check_health("--address", address)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{address}: expected an answer of bmrl, got ConnectionRefusedError: ")


@pytest.mark.server
def test_health_check_asks_the_ensemble_too(repository, tmp_path):
    file = Artifact(repository / "bmrl" / "1" / "model.pt")
    folder = write_triton_repository(file, tmp_path / "models", ensemble=True, num_threads=1)
    with TritonServer(folder) as server:
        result = check_health("--address", server.http_url)
        assert (result.returncode, result.stdout) == (0, f"{server.http_url}: bmrl and bmrl_attribute answer\n")
        for path in Path(f"/proc/{server.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                if b"bmrl_decode" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
        result = check_health("--address", server.http_url)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(
            f"{server.http_url}: expected an answer of bmrl_attribute, got HTTPException: 500"
        )


@pytest.mark.server
def test_health_check_of_another_name(server):
    result = check_health("--address", server.http_url, "--model", "bmrl2")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{server.http_url}: expected an answer of bmrl2, got HTTPException: 404 ")
    assert "unknown model: 'bmrl2'" in result.stderr


@contextlib.contextmanager
def image_server(repository, tmp_path):
    """Run what the image runs, docker/serve, with a server of the wheel; yield the process and its addresses."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prefix = f"bmrl-deploy-{os.getpid()}-{tmp_path.name}"
    chosen = free_ports(ports())
    environment = server_environment()
    environment["PATH"] = f"{environment['PATH']}:{server_binary().parent}"
    command = [
        *("sh", DOCKER / "serve", repository),
        f"--backend-directory={link_backends(scratch / 'backends')}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--allow-gpu-metrics=false",
        *(f"--{name}-address=127.0.0.1" for name in chosen),
        *(f"--{name}-port={port}" for name, port in chosen.items()),
    ]
    with (scratch / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process, {name: f"127.0.0.1:{port}" for name, port in chosen.items()}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for leftover in Path("/dev/shm").glob(f"{prefix}*"):
                leftover.unlink(missing_ok=True)


def become_healthy(process, addresses):
    deadline = time.monotonic() + 120
    while (result := check_health("--address", addresses["http"])).returncode:
        assert process.poll() is None
        assert time.monotonic() < deadline, result.stderr
        time.sleep(0.1)


class Unsure(nn.Module):
    """Stands for a model that answers with something other than probabilities."""

    def forward(self, images):
        share = images.float().mean((1, 2, 3)) + 0.7
        return torch.stack((share, share), 1), torch.stack((share, share), 1), share[:, None]


def ask(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", data), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.server
def test_what_the_image_runs(repository, images, eager, tmp_path, stand_in):
    folder = shutil.copytree(repository, tmp_path / "models")
    config = read_triton_config(repository)
    config.name = "unsure"
    del config.model_warmup[:]
    for output in config.output:
        output.dims[:] = [1 if output.name == "score" else 2]
        output.ClearField("label_filename")
    shutil.copytree(folder / "bmrl", folder / "unsure")
    (folder / "unsure" / "config.pbtxt").write_text(str(config))
    path = folder / "unsure" / "1" / "model.pt"
    graph = torch.jit.trace(Unsure(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    stand_in(graph, path, format="torchscript", device="cpu")

    with image_server(folder, tmp_path) as (process, addresses):
        become_healthy(process, addresses)
        with TritonClient(addresses["grpc"]) as client:  # which needs none of what is closed
            answer = client.infer(images[:2])
        np.testing.assert_allclose(answer.probabilities, eager[0][:2].numpy(), rtol=0, atol=1e-4)
        result = check_health("--address", addresses["http"], "--model", "unsure")
        assert (result.returncode, result.stdout) == (1, "")
        numbers = re.search(r"expected probabilities with a sum of 1, got \[(.*), (.*)\]\n", result.stderr).groups()
        np.testing.assert_allclose(np.array(numbers, float), [0.7, 0.7], atol=1e-6)

        closed = {
            "/v2/repository/index": {},
            "/v2/repository/models/bmrl/unload": {},
            "/v2/repository/models/bmrl/load": {},
            "/v2/systemsharedmemory/region/mine/register": {"key": "/mine", "offset": 0, "byte_size": 1},
            "/v2/systemsharedmemory/status": None,
            "/v2/cudasharedmemory/status": None,
            "/v2/logging": {"log_verbose_level": 1},
            "/v2/trace/setting": {"trace_level": ["TIMESTAMPS"]},
        }
        for path, body in closed.items():
            assert ask(addresses["http"], path, body)[0] == 403, path
        with tritonclient.grpc.InferenceServerClient(addresses["grpc"]) as client:
            for call in (
                client.get_model_repository_index,
                client.get_system_shared_memory_status,
                client.get_log_settings,
                client.get_trace_settings,
                lambda: client.unload_model("bmrl"),
            ):
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    call()
            assert client.is_model_ready("bmrl")

        time.sleep(1)  # stopped while it makes ready for the next call, its gRPC front end may abort (-6)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "scratch" / "log").read_text()


@pytest.mark.server
def test_health_check_of_a_model_that_hangs_and_one_that_is_dead(repository, tmp_path):
    with image_server(repository, tmp_path) as (process, addresses):
        become_healthy(process, addresses)
        expected = f"{addresses['http']}: expected an answer of bmrl, got"
        (stub,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(stub, signal.SIGSTOP)
        result = check_health("--address", addresses["http"], "--timeout", "0.5")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"{expected} TimeoutError: timed out\n"
        os.kill(stub, signal.SIGCONT)
        become_healthy(process, addresses)

        os.kill(stub, signal.SIGKILL)
        result = check_health("--address", addresses["http"])
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"{expected} HTTPException: 500 ")
        assert "Stub process 'bmrl_0_0' is not healthy" in result.stderr
        assert ask(addresses["http"], "/v2/health/ready")[0] == 200  # which is why there is a health check of our own
        failures = {
            labels["reason"]: value
            for name, labels, value in read_metrics(addresses["metrics"])
            if name == "nv_inference_request_failure"
        }
        assert failures["BACKEND"] == 1  # BmrlModelFails sees it
