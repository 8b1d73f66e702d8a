from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from bmrl.errors import MissingFileError, VerificationError
from bmrl.export import export_model, load_artifact
from bmrl.models import BMRL, build_model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return export_model(model, tmp_path_factory.mktemp("torchscript") / "model.pt").path


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 19])
def test_answers_as_the_model(path, images, eager, batch):
    outputs = load_artifact(path).run(images[:batch])
    assert len(outputs) == 3
    for output, expected in zip(outputs, eager, strict=True):
        assert output.dtype == torch.float32
        assert not output.requires_grad
        torch.testing.assert_close(output, expected[:batch], rtol=0, atol=1e-4)


def test_loads_without_bmrl(path, images, eager, tmp_path):
    torch.save(images, tmp_path / "images.pt")
    program = """
import sys
sys.modules["bmrl"] = None  # any import of it fails
import torch
folder, path = sys.argv[1:]
torch.save(torch.jit.load(path)(torch.load(folder + "/images.pt")), folder + "/outputs.pt")
"""
    subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path), str(path)], check=True, timeout=120)
    for output, expected in zip(torch.load(tmp_path / "outputs.pt"), eager, strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


def test_holds_aten_operators_only(path):
    kinds = {node.kind().split("::")[0] for node in torch.jit.load(path).inlined_graph.nodes()}
    assert kinds == {"aten", "prim"}


def test_can_be_moved_to_a_gpu(path):
    """What a move leaves on the CPU may be there: numbers without axes, and an index."""
    graph = torch.jit.load(path)
    assert len([*graph.parameters()]) > 10
    nodes = [*graph.inlined_graph.nodes()]
    constants = [node for node in nodes if node.kind() == "prim::Constant" and node.hasAttribute("value")]
    tensors = [node.t("value") for node in constants if node.kindOf("value") == "t"]
    assert tensors
    assert all(tensor.ndim == 0 for tensor in tensors)
    placed = {node.kind() for node in nodes if any(str(one.type()) == "Device" for one in node.inputs())}
    assert placed == {"aten::arange"}


def test_leaves_out_what_only_training_needs(model, path):
    inference = sum(p.numel() for part in (model.visual_encoder, model.head) for p in part.parameters())
    training = sum(p.numel() for p in model.parameters())
    assert 4 * inference < path.stat().st_size < 4 * (inference + training) / 2


def test_leaves_the_model_alone(model, tmp_path):
    model = build_model(model.config)
    model.head.eval()  # a mixture of modes must survive too
    model.visual_encoder.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    strides = [parameter.stride() for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    export_model(model, tmp_path / "model.pt")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert [parameter.stride() for parameter in model.parameters()] == strides
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_exports_the_evaluation_mode_of_a_model_in_training(model, path, images, tmp_path):
    model.train()
    try:
        trained = export_model(model, tmp_path / "model.pt").path
    finally:
        model.eval()
    found, expected = (load_artifact(file).run(images) for file in (trained, path))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class BatchDependent(BMRL):
    """Its result depends on the batch size in a way that a trace can't record."""

    def forward(self, images, parsing=None, tokens=None):
        output = super().forward(images)
        return output._replace(logits=output.logits * int(images.shape[0]))


def test_refuses_a_graph_that_does_not_follow_the_batch_and_keeps_the_old_file(model, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")
    wrong = copy.deepcopy(model)
    wrong.__class__ = BatchDependent
    with pytest.raises(
        VerificationError, match=r"^probabilities: expected the exported graph to answer as the model .*, got"
    ):
        export_model(wrong, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_model_that_answers_nan(model, tmp_path):
    broken = build_model(model.config)
    broken.head[-1].bias.data[0] = torch.nan
    with pytest.raises(VerificationError, match=r"probabilities: .*got a difference of nan"):
        export_model(broken, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_names_a_missing_folder(model, tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere/model.pt: expected an existing parent folder, got none at"):
        export_model(model, tmp_path / "nowhere" / "model.pt")
