"""One small untrained model, its repository, and one real server for all tests of this folder."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from bmrl.export import TritonServer, write_triton_repository
from bmrl.export._runtime import sha256_of
from bmrl.export.artifact import write_entries
from bmrl.export.triton_repository import read_triton_config
from bmrl.models import Generator, build_model, presets

GENERATORS = (
    Generator(name="photographs", manipulation="none", architecture="none"),
    Generator(name="StyleGAN3", manipulation="EFS", architecture="GAN"),
    Generator(name="DiffFace", manipulation="FS", architecture="diffusion"),
    Generator(name="Diffae: näïve, v2", manipulation="AM", architecture="diffusion"),
)


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    config = presets.tiny(
        generators=GENERATORS,
        image_size=32,
        patch_size=16,
        noise_truncation=3.0,
        embed_dim=24,
        channels=(8, 16),
        convs_per_stage=(1, 1),
        visual_blocks=1,
        parsing_blocks=1,
        language_blocks=1,
        thresholds=(0.6, 0.8, 0.95),
    )
    model = build_model(config)
    with torch.no_grad():  # an untrained head hardly tells images apart; a test of row order needs it to
        model.head[-1].weight.mul_(20)
    return model.eval()


@pytest.fixture(scope="session")
def images(model):
    """Return 19 images whose probabilities and embeddings differ by far more than any tolerance below."""
    rng = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (19, 3, 4, 4), generator=rng).float()
    images = nn.functional.interpolate(coarse, size=(32, 32)).to(torch.uint8)
    with torch.no_grad():
        output = model(images)
    for rows in (output.probabilities, output.embedding):
        assert torch.pdist(rows).min() > 1e-3
    return images


@pytest.fixture(scope="session")
def eager(model, images):
    with torch.no_grad():
        output = model(images)
    return output.probabilities, output.embedding


@pytest.fixture(scope="session")
def repository(model, tmp_path_factory):
    return write_triton_repository(
        model, tmp_path_factory.mktemp("repository") / "models", max_batch_size=8, num_threads=1
    )


class Brightness(nn.Module):
    """Stands for a model whose weights have gone bad for some inputs: NaN for a white image."""

    def forward(self, images):
        share = images.float().mean((1, 2, 3)) / 255
        share = torch.where(share == 1, torch.nan, share)
        probabilities = torch.stack((share, 1 - share), 1)
        return probabilities, probabilities


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    """Serve ``bmrl``, and beside it models that run the same ``model.py`` under other configurations."""
    folder = tmp_path_factory.mktemp("served") / "models"
    shutil.copytree(repository, folder)
    graph = torch.jit.trace(Brightness(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))

    def add(name, change):
        config = read_triton_config(repository)
        config.name = name
        del config.model_warmup[:]
        config.input[0].dims[:] = [3, 8, 8]
        for output in config.output:
            output.dims[:] = [2]
            output.ClearField("label_filename")
        change(config)
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(str(config))
        shutil.copy(repository / "bmrl" / "1" / "model.py", folder / name / "1")
        shutil.copy(repository / "bmrl" / "1" / "artifact_runtime.py", folder / name / "1")
        graph.save(str(path := folder / name / "1" / "model.pt"))
        entry = {"format": "torchscript", "device": "cpu", "sha256": sha256_of(path)}
        write_entries(path.parent, {path.name: entry})

    def wait_for_four(config):
        config.dynamic_batching.preferred_batch_size.append(4)
        config.dynamic_batching.max_queue_delay_microseconds = 30_000_000

    def take_floats(config):
        config.input[0].data_type = 11  # TYPE_FP32

    def take_no_batch(config):
        config.ClearField("dynamic_batching")
        config.max_batch_size = 0

    add("waits_for_four", wait_for_four)
    add("declares_floats", take_floats)
    add("declares_no_batch", take_no_batch)
    with TritonServer(folder) as server:
        yield server
