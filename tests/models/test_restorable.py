"""What save_model unwraps, and what it refuses because load_model could not give it back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from bmrl.errors import ModelFolderError
from bmrl.models import BMRL, load_model, save_model

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)


def compiled(module):
    return torch.compile(module, backend="eager")


def compile_parts(model):
    view = model.visual_encoder.views["appearance"]
    view.encoder = compiled(view.encoder)
    model.visual_encoder = compiled(model.visual_encoder)
    model.parsing_encoder = compiled(model.parsing_encoder)
    return model


def compile_in_place(model):
    model.compile(backend="eager")
    return model


def compile_forward(model):
    model.forward = compiled(model.forward)
    return model


def view_of_a_vector(model):
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), model.parameters())
    return model


WRAPPERS = {
    "compile": compiled,
    "compiled parts": compile_parts,
    "compiled in place": compile_in_place,
    "compiled forward": compile_forward,
    "DataParallel": nn.DataParallel,
    "DataParallel of compiled": lambda model: nn.DataParallel(compiled(model)),
    "AveragedModel": AveragedModel,
    "SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm,
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
    "views of one vector": view_of_a_vector,
    "shared memory": lambda model: model.share_memory(),
    "without gradients": lambda model: model.requires_grad_(False),
    "training": lambda model: model.train(),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("fusion", ["sum", "cross_attention"])
def test_wrappers_that_change_no_answer(make_model, tmp_path, wrapper, fusion):
    with torch.inference_mode():
        expected = make_model(**{"fusion.kind": fusion})(IMAGES).logits
    save_model(WRAPPERS[wrapper](make_model(**{"fusion.kind": fusion})), tmp_path)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(IMAGES).logits, expected)


def test_distributed_data_parallel(make_model, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        save_model(nn.parallel.DistributedDataParallel(make_model()), tmp_path / "model")
    finally:
        torch.distributed.destroy_process_group()
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "model")(IMAGES).logits, make_model()(IMAGES).logits)


def test_a_model_of_inference_mode(make_model, tmp_path):
    with torch.inference_mode():
        model = make_model()
        expected = model(IMAGES).logits
    save_model(model, tmp_path)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path)(IMAGES).logits, expected)


class Mine(BMRL):
    """Could compute anything."""


APPEARANCE, EDGE = (f"visual_encoder.views.{view}.encoder.transformer" for view in ("appearance", "edge"))


def replace_layer(model):
    model.head[2] = nn.Sequential(nn.Linear(16, 3))


def leave_a_block_out(model):
    model.get_submodule(EDGE).blocks[0] = nn.Identity()


def change_activation(model):
    model.get_submodule(EDGE).blocks[0].mlp[1] = nn.ReLU()


def approximate_activation(model):
    model.get_submodule(EDGE).blocks[0].mlp[1] = nn.GELU(approximate="tanh")


def change_epsilon(model):
    model.visual_encoder.views["edge"].encoder.backbone.layers[1].eps = 0.1


def change_heads(model):
    model.get_submodule(EDGE).blocks[0].attention.num_heads = 2


def change_truncation(model):
    model.visual_encoder.views["noise"].operator.truncation = 1.0


def change_configuration(model):
    model.config = model.config.with_changes({"edge.num_heads": 2})


def spoil_configuration(model):
    model.config = {}


def remove_branch(model):
    model.parsing_encoder = None


def add_layer(model):
    model.more = nn.Linear(1, 1)


def add_buffer(model):
    model.register_buffer("more", torch.zeros(1))


def replace_function(model):
    model.head.forward = torch.sin


def change_palette(model):
    model.parsing_encoder.palette = model.parsing_encoder.palette / 2


def change_class(model):
    model.__class__ = Mine


def change_class_of_a_part(model):
    model.head[2].__class__ = type("FSDPLinear", (nn.Linear,), {})


def tie_modules(model):
    model.get_submodule(EDGE).blocks = model.get_submodule(APPEARANCE).blocks


def tie_parameters(model):
    model.get_submodule(EDGE).class_token = model.get_submodule(APPEARANCE).class_token


def store_in_float8(model):
    model.head[2].weight.data = model.head[2].weight.data.to(torch.float8_e5m2)


def change_shape(model):
    model.head[2].bias.data = torch.zeros(4)


CHANGES = {
    replace_layer: r"head.2: expected .*Linear, which is all that load_model gives back, got .*Sequential",
    leave_a_block_out: rf"{EDGE}.blocks.0: expected .*TransformerBlock, .*, got .*Identity",
    change_activation: rf"{EDGE}.blocks.0.mlp.1: expected .*GELU, .*, got .*ReLU",
    approximate_activation: r"mlp.1.approximate: expected 'none', as the configuration says, got 'tanh'",
    change_epsilon: r"layers.1.eps: expected 1e-05, .* got 0.1",
    change_heads: r"attention.num_heads: expected 4, .* got 2",
    change_truncation: r"views.noise.operator.truncation: expected 0.04, .* got 1.0",
    change_configuration: r"num_heads: expected 2, as the configuration says, got 4",
    spoil_configuration: r"model.config: expected a BMRLConfig, got dict",
    remove_branch: r"parsing_encoder: expected .*ParsingEncoder, .*, got nothing",
    add_layer: r"more: expected nothing, .*, got .*Linear",
    add_buffer: r"more: expected no such tensor, as the configuration says, got one",
    replace_function: r"head.forward: expected that of .*Sequential, got one that was put in its place",
    change_palette: r"parsing_encoder.palette: expected the library's constant, got other values",
    change_class: r"model: expected a bmrl.models.BMRL, which load_model gives back, got .*Mine",
    change_class_of_a_part: r"head.2: expected .*Linear, .*, got .*FSDPLinear",
    tie_modules: rf"{EDGE}.blocks: expected its own module, got that of {APPEARANCE}.blocks",
    tie_parameters: rf"{EDGE}.class_token: expected its own values, got those of {APPEARANCE}.class_token",
    store_in_float8: r"head.2.weight: expected torch.float16 or .*, got torch.float8_e5m2",
    change_shape: r"head.2.bias: expected the shape \(3,\), got \(4,\)",
    lambda model: parametrizations.weight_norm(model.head[2]): r"head.2: expected .*, got .*ParametrizedLinear",
    lambda model: nn.utils.spectral_norm(model.head[2]): r"head.2.weight: expected a tensor, .* got none",
    lambda model: prune.l1_unstructured(model.head[2], "weight", 0.5): r"head.2.weight: expected a tensor, .* got none",
    lambda model: model.to("meta"): r"layers.0.weight: expected a tensor that holds all of its .* on the meta device",
    lambda model: model.head[2].weight.data[1, 2:3].fill_(torch.nan): r"head.2.weight: expected finite values, got NaN",
    lambda model: model.double().head[2].bias.data.fill_(1e300): r"head.2.bias: expected finite values, got NaN or inf",
}


@pytest.mark.parametrize(("change", "message"), CHANGES.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_what_could_not_be_given_back_is_not_written(make_model, tmp_path, change, message):
    model = make_model()
    change(model)
    with pytest.raises(ModelFolderError, match=message) as error:
        save_model(model, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("model", [3, None, nn.Linear(1, 1), {}])
def test_what_is_no_model(tmp_path, model):
    with pytest.raises(ModelFolderError, match=r"^model: expected a bmrl.models.BMRL, which load_model gives"):
        save_model(model, tmp_path / "model")


def test_hooks_are_told(make_model, tmp_path, caplog):
    model = make_model()
    model.head.register_forward_hook(lambda *_: None)
    save_model(model, tmp_path)
    assert "head: has forward hooks, which are not saved; what they change is lost" in caplog.text
