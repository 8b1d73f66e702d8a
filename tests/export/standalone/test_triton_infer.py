"""``model.py`` under the real server: who gets which answer, and who an error (see the fixture ``server``)."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import tritonclient.grpc
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.server.wheel import link_backends

pytestmark = pytest.mark.server


@pytest.fixture
def connection(server):
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as connection:
        yield connection


def ask(connection, model, array, kind="UINT8"):
    request = tritonclient.grpc.InferInput("images", list(array.shape), kind)
    request.set_data_from_numpy(array)
    return connection.infer(model, [request], client_timeout=60)


def gray(*levels):
    return np.stack([np.full((3, 8, 8), level, np.uint8) for level in levels])


def test_requests_of_one_batch_get_their_own_rows_and_errors(connection):
    """The server waits for four images, so these requests of 2, 1 and 1 are one run; 255 makes the model answer NaN."""
    requests = [gray(51, 102), gray(255), gray(204)]

    def answer(request):
        try:
            return ask(connection, "waits_for_four", request).as_numpy("probabilities")
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        first, second, third = pool.map(answer, requests)
    np.testing.assert_allclose(first, [[0.2, 0.8], [0.4, 0.6]], atol=1e-6)
    np.testing.assert_allclose(third, [[0.8, 0.2]], atol=1e-6)
    assert second.message() == "probabilities: expected finite numbers from the model, got NaN or infinity"
    assert second.status() == "StatusCode.INTERNAL"
    (statistics,) = connection.get_inference_statistics("waits_for_four").model_stats
    assert [(batch.batch_size, batch.compute_infer.count) for batch in statistics.batch_stats] == [(4, 1)]


def test_refuses_a_dtype_that_a_wrong_configuration_let_through(connection):
    with pytest.raises(InferenceServerException, match=r"images: expected torch.uint8, got torch.float32") as error:
        ask(connection, "declares_floats", gray(1).astype(np.float32), "FP32")
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_refuses_a_shape_that_a_wrong_configuration_let_through(connection):
    expected = r"images: expected shape \(batch >= 1, 3, 8, 8\), got \(3, 8, 8\)"
    with pytest.raises(InferenceServerException, match=expected) as error:
        ask(connection, "declares_no_batch", gray(1)[0])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_takes_its_threads_from_the_configuration(repository, tmp_path, monkeypatch):
    """Needs no server: the backend's Python part imports outside of it too."""
    backend = link_backends(tmp_path) / "python"
    monkeypatch.syspath_prepend(str(backend))
    spec = importlib.util.spec_from_file_location("served_model_file", repository / "bmrl" / "1" / "model.py")
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    config = json_format.MessageToDict(read_triton_config(repository), preserving_proto_field_name=True)
    before = torch.get_num_threads()
    try:
        for threads in (before + 1, before + 2):
            config["parameters"]["num_threads"]["string_value"] = str(threads)
            file.TritonPythonModel().initialize({"model_config": json.dumps(config)})
            assert torch.get_num_threads() == threads
        del config["parameters"]["num_threads"]
        file.TritonPythonModel().initialize({"model_config": json.dumps(config)})
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


KEEPS = """
import sys, torch
from pathlib import Path
from bmrl.export.standalone.artifact_runtime import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
torch.ones(64 * 2**20, dtype=torch.uint8)
print(resident() - before)
"""


@pytest.mark.parametrize(("way", "kept"), [("keep", True), ("by default", False)])
def test_a_served_model_keeps_the_memory_that_it_needs_again(way, kept):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    ended = subprocess.run([sys.executable, "-c", KEEPS, way], capture_output=True, text=True, timeout=120, check=True)
    assert (int(ended.stdout) > 60 * 2**20) == kept
