from __future__ import annotations

import inspect
import io
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

import bmrl
from bmrl.errors import BMRLError, DTypeError, ImageError, MissingFileError, RangeError
from bmrl.inference import Attribution, Attributor
from bmrl.models import build_model, load_model, save_model


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_kind_of_source(model, tmp_path, judge_color):
    path = tmp_path / "red.png"
    path.write_bytes(png((255, 0, 0)))
    with path.open("rb") as file:
        sources = [path, str(path), png((0, 255, 0)), Image.new("RGB", (9, 50), (0, 0, 255)), file,
                   io.BytesIO(png((0, 120, 0)))]  # fmt: skip
        answers = Attributor(model)(sources)
    colors = [(255, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 0), (0, 120, 0)]
    assert [answer.source for answer in answers] == [str(path), str(path), "image 2", "image 3", str(path), "image 5"]
    for answer, color in zip(answers, colors, strict=True):
        assert list(answer.probabilities) == ["red", "green", "photo"]
        assert list(answer.probabilities.values()) == pytest.approx(judge_color(color), abs=1e-6)
    assert [answer.generator for answer in answers] == ["red", "red", "green", "photo", "red", "green"]
    assert Attributor(model)(path) == answers[:1]
    assert Attributor(model)(str(path)) == answers[:1]
    assert Attributor(model)([]) == []


def test_threshold(model):
    image = [Image.new("RGB", (32, 32), (0, 130, 0))]  # green at 0.79
    assert Attributor(model)(image)[0].threshold == 0.7
    assert Attributor(model)(image)[0].seen
    strict = Attributor(model, threshold=0.9)(image)[0]
    assert (strict.seen, strict.generator, strict.manipulation, strict.architecture) == (False, None, "FS", "diffusion")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_bad_images_stand_in_their_places(model, tmp_path, batch_size):
    good, empty, text = tmp_path / "good.png", tmp_path / "empty.png", tmp_path / "text.png"
    good.write_bytes(png((255, 0, 0)))
    empty.touch()
    text.write_text("no picture")
    missing = tmp_path / "missing.png"
    sources = [good, empty, missing, b"rubbish", good, text, good]
    answers = list(Attributor(model, batch_size=batch_size).attribute_each(iter(sources)))
    kinds = [Attribution, ImageError, MissingFileError, ImageError, Attribution, ImageError, Attribution]
    assert [type(answer) for answer in answers] == kinds
    for answer, name in zip(answers, [good, empty, missing, "image 3", good, text, good], strict=True):
        if isinstance(answer, BMRLError):
            assert str(answer).startswith(f"{name}: expected ")
            assert "\n" not in str(answer)
        else:
            assert answer.source == str(name)
    with pytest.raises(ImageError, match=r"empty.png: expected"):
        Attributor(model, batch_size=batch_size)(sources)


def test_batch_size_does_not_change_answers(small_config):
    torch.manual_seed(1)
    network = build_model(small_config()).eval()
    rng = torch.Generator().manual_seed(2)
    images = [
        Image.fromarray(torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=rng).numpy()) for _ in range(7)
    ]
    whole = Attributor(network, batch_size=7)(images)
    with torch.no_grad():
        pixels = torch.stack([torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8) for i in images])
        expected = network(pixels.view(7, 32, 32, 3).permute(0, 3, 1, 2)).probabilities
    for size in (1, 3, 32):
        for answer, same, row in zip(whole, Attributor(network, batch_size=size)(images), expected, strict=True):
            assert list(answer.probabilities.values()) == pytest.approx(list(same.probabilities.values()), abs=1e-5)
            assert list(answer.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)


def test_streams(model):
    taken = 0

    def sources():
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield Image.new("RGB", (2, 2))

    stream = Attributor(model, batch_size=4).attribute_each(sources())
    assert next(stream).source == "image 0"
    assert taken == 8
    assert not torch.is_inference_mode_enabled()
    stream.close()


def test_load_and_public_names(tmp_path, small_config):
    network = build_model(small_config())
    save_model(network, tmp_path)
    assert bmrl.Attributor is Attributor
    assert bmrl.Attribution is Attribution
    attributor = bmrl.Attributor(tmp_path, threshold=0.0, batch_size=2, device="cpu")
    (answer,) = attributor([Image.new("RGB", (64, 48), (1, 2, 3))])
    assert answer.seen
    assert answer.generator in {"red", "green", "photo"}
    assert not attributor.model.training
    with pytest.raises(MissingFileError, match="nowhere"):
        bmrl.Attributor(tmp_path / "nowhere")


def test_a_folder_stands_for_its_model(tmp_path, small_config):
    folder = save_model(build_model(small_config()), tmp_path)
    image = [Image.new("RGB", (64, 48), (1, 2, 3))]
    expected = Attributor(load_model(folder))(image)
    for source in (folder, str(folder)):
        assert Attributor(source, device="cpu")(image) == expected
        assert Attributor(source, device=torch.device("cpu"), threshold=1)(image)[0].threshold == 1.0
    with pytest.raises(MissingFileError, match="nowhere"):
        Attributor("nowhere")


def test_mode_of_the_model_is_put_back(model):
    model.train()
    Attributor(model)([Image.new("RGB", (4, 4))])
    assert model.training


def test_rejects(model):
    with pytest.raises(RangeError, match=r"threshold: expected 0 .. 1, got 7"):
        Attributor(model, threshold=7)
    with pytest.raises(RangeError, match=r"batch_size: expected an integer >= 1, got 0"):
        Attributor(model, batch_size=0)
    for source, kind in ((b"abc", "bytes"), (Image.new("RGB", (2, 2)), "Image"), (io.BytesIO(), "BytesIO")):
        for attribute in (Attributor(model), partial(bmrl.attribute, model)):  # which call the argument the same
            with pytest.raises(DTypeError, match=rf"^images: expected .*, got {kind}"):
                attribute(source)
            assert "images" in inspect.signature(attribute).parameters


def test_needs_base_dependencies_only(tmp_path, small_config):
    save_model(build_model(small_config()), tmp_path / "m")
    (tmp_path / "a.png").write_bytes(png((3, 3, 3)))
    extras = ["matplotlib", "sklearn", "jinja2", "torchvision", "lightning", "torchmetrics", "open_clip", "yaml",
              "tritonclient", "scipy", "onnx"]  # fmt: skip
    program = f"""
import sys
for name in {extras!r}:
    sys.modules[name] = None
import bmrl
print(bmrl.Attributor({str(tmp_path / "m")!r})([{str(tmp_path / "a.png")!r}])[0].seen)
"""
    root = Path(bmrl.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout in ("True\n", "False\n")
