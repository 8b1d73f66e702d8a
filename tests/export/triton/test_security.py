"""What SECURITY.md promises of the library as a whole and of the server on this machine."""

from __future__ import annotations

import ast
import pickle
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bmrl.errors import ModelFolderError
from bmrl.models import load_model, save_model

ROOT = Path(__file__).parents[3]
SOURCES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in (ROOT / "bmrl").rglob("*.py")}

RUNS_WHAT_IT_READS = {
    *("eval", "exec", "compile", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("np.load", "numpy.load", "torch.hub.load", "joblib.load"),
    "torch._inductor.aoti_load_package",  # compiles test programs, too
}
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNPACKS = {"extract", "extractall", "unpack_archive"}
LOADS_PROGRAMS = {
    *("torch.jit.load", "torch.export.load", "torch._C._aoti.AOTIModelPackageLoader"),
    *("onnxruntime.InferenceSession", "openvino.Core().compile_model"),
}


def calls():
    """Yield file, function and keyword arguments of every call in the library, as they are written there."""
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                yield f"{file}:{node.lineno}", ast.unparse(node.func), keywords


def test_nothing_runs_what_it_reads():
    assert len(SOURCES) > 100
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {name.split(".")[0] for name in names} & PICKLES, f"{file}:{node.lineno}"
    for place, function, keywords in calls():
        assert function not in RUNS_WHAT_IT_READS, place
        assert function.split(".")[-1] not in UNPACKS, place
        assert "shell" not in keywords, place
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", place
        if "ckpt_path" in keywords:
            assert keywords.get("weights_only") == f"True if {keywords['ckpt_path']} else None", place


def test_exported_graphs_are_loaded_where_their_hash_is_compared():
    found = {function: place.split(":")[0] for place, function, _ in calls() if function in LOADS_PROGRAMS}
    assert found.keys() == LOADS_PROGRAMS
    places = {place.split(":")[0] for place, function, _ in calls() if function in LOADS_PROGRAMS}
    assert places == {"bmrl/export/standalone/artifact_runtime.py"}


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_place_of_weights_is_not_run(model, tmp_path):
    weights = save_model(model, tmp_path / "model") / "model.safetensors"
    weights.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(ModelFolderError, match=r"expected safetensors weights, got a damaged file"):
        load_model(tmp_path / "model")
    assert not (tmp_path / "ran").exists()
    pickle.loads(weights.read_bytes())  # it would have
    assert (tmp_path / "ran").exists()


def listening():
    """Yield address and port, as the kernel writes them, of all TCP sockets that listen."""
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                yield address, int(port, 16)


@pytest.mark.server
def test_the_server_listens_on_loopback_alone(server):
    ports = {int(url.split(":")[1]) for url in (server.http_url, server.grpc_url, server.metrics_url)}
    found = [(address, port) for address, port in listening() if port in ports]
    assert {port for _, port in found} == ports
    assert {address for address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1


@pytest.mark.server
@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("repository/models/bmrl/load", "{}", 403, "got a request for models, which is not switched on"),
        ("repository/models/bmrl/unload", "{}", 403, "got a request for models, which is not switched on"),
        ("repository/index", "{}", 403, "got a request for models, which is not switched on"),
        ("repository/models/..%2F..%2Fetc/load", "{}", 404, "got a request for another page"),
        ("logging", '{"log_file": "FILE"}', 404, "got a request for another page"),
        ("trace/setting", '{"trace_file": "FILE"}', 404, "got a request for another page"),
        ("models/bmrl/trace/setting", '{"trace_file": "FILE"}', 404, "got a request for another page"),
        ("models/bmrl/generate", "{}", 404, "got a request for another page"),
        (
            "systemsharedmemory/region/x/register",
            '{"key": "../..FILE", "offset": 0, "byte_size": 1}',
            403,
            "got a request for shared memory, which is not switched on",
        ),
    ],
)
def test_the_server_takes_no_models_and_no_paths_from_requests(server, tmp_path, path, body, status, message):
    target = tmp_path / "file"
    if "key" in body:
        target.write_bytes(b"secret")
    request = urllib.request.Request(f"http://{server.http_url}/v2/{path}", body.replace("FILE", str(target)).encode())
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    assert error.value.code == status
    assert message in error.value.read().decode()
    assert target.exists() == ("key" in body)


def test_every_place_that_the_promises_name_exists():
    text = (ROOT / "SECURITY.md").read_text()
    places = re.findall(r"`((?:bmrl|tests|docker|deploy)/[\w./]+)(?:::(\w+))?`", text)
    assert len(places) > 20
    for file, name in places:
        assert (ROOT / file).is_file(), file
        if name:
            assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"
