"""``bmrl attribute --server`` as a person meets it: the same table as without a server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

from bmrl.cli.main import main
from bmrl.export.triton.remote import connect
from bmrl.models import save_model


@pytest.fixture(scope="module")
def folders(model, images, tmp_path_factory):
    """Save the served model, and image files of several kinds and sizes with one that is broken among them."""
    folder = tmp_path_factory.mktemp("attribute")
    save_model(model, folder / "model")
    faces = folder / "faces"
    faces.mkdir()
    for index, suffix in enumerate(("jpg", "png", "webp") * 4):
        side = 40 + index
        pixels = images[index].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((side, side + 7)).save(faces / f"face_{index:02}.{suffix}")
    (faces / "face_05.webp").write_bytes(b"no image")
    return folder / "model", faces


def attribute(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bmrl", "attribute", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


@pytest.mark.server
def test_the_table_is_the_local_one(server, folders):
    model, faces = folders
    local = attribute(model, faces, "--threshold", 0.8)
    assert local.returncode == 1  # the broken file
    assert len(local.stdout.splitlines()) == 1 + 11
    assert {line.split()[3] for line in local.stdout.splitlines()[1:]} == {"seen", "unseen"}
    for url in (f"grpc://{server.grpc_url}", f"http://{server.http_url}"):
        remote = attribute("--server", url, faces, "--threshold", 0.8)
        assert remote.stdout == local.stdout
        assert remote.stderr == local.stderr
        assert remote.returncode == 1


@pytest.mark.server
@pytest.mark.parametrize("url", ["{grpc}", "http://{http}/"])
def test_the_json_says_more(server, folders, capsys, url):
    _, faces = folders
    url = url.format(grpc=server.grpc_url, http=server.http_url)
    assert main(["attribute", "--server", url, "--json", "--threshold", "0.99", str(faces / "face_00.jpg")]) == 0
    answer = capsys.readouterr().out
    assert '"threshold": 0.99' in answer
    assert '"DiffFace"' in answer


@pytest.mark.parametrize(
    "url",
    ["https://h:1", "ftp://h:1", "h", "http://h", "grpc://", "h:port", "://h:1", "http://h:1/base", "a@h:1", "h:1\n"],
)
def test_other_addresses_are_an_error(url, capsys):
    message = f"server: expected host:port, grpc://host:port or http://host:port, got {url!r}"
    assert main(["attribute", "--server", url, "face.png"]) == 1
    assert capsys.readouterr().err == f"bmrl: error: {message}\n"


@pytest.mark.parametrize(
    ("url", "client"),
    [
        ("localhost:8001", "TritonClient('localhost:8001', 'grpc')"),
        ("grpc://localhost:8001", "TritonClient('localhost:8001', 'grpc')"),
        ("http://10.0.0.1:8000/", "TritonClient('10.0.0.1:8000', 'http')"),
        ("[::1]:8001", "TritonClient('[::1]:8001', 'grpc')"),
        ("http://[::1]:8000", "TritonClient('[::1]:8000', 'http')"),
    ],
)
def test_connects_by_the_protocol_that_is_named(url, client):
    with connect(url) as made:
        assert repr(made) == client


def test_a_server_that_is_not_there_is_one_line(folders, capsys):
    _, faces = folders
    assert main(["attribute", "--server", "http://127.0.0.1:1", str(faces)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "bmrl: error: 127.0.0.1:1: expected an answer to get_model_config, got Cannot connect to host"
    )
