"""Models with blocks that were handed over, on disk: the same blocks are required again, and others are refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bmrl.errors import DTypeError, ModelFolderError
from bmrl.models import View, build_model, load_model, save_model
from tests.models.blocks import Cosine, Parsing, Pooled, cosine_view, every_block
from tests.models.conftest import make_config

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PARSING = torch.randint(0, 19, (2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(1, 50, (2, 4, 6), generator=torch.Generator().manual_seed(2))


def trained(**blocks):
    """A model whose batch norms have seen images."""
    torch.manual_seed(0)
    model = build_model(make_config(), **blocks)
    with torch.no_grad():
        model(IMAGES, PARSING, TOKENS)
    return model.eval()


def outputs(model):
    with torch.inference_mode():
        return [value for value in model(IMAGES, PARSING, TOKENS) if value is not None]


@pytest.fixture
def saved(tmp_path):
    """A folder of a model with two own blocks."""
    return save_model(trained(appearance=Pooled(), views={"cosine": cosine_view()}), tmp_path / "model")


def own():
    return {"appearance": Pooled(), "views": {"cosine": cosine_view()}}


@pytest.mark.parametrize(
    "name", ["appearance", "edge", "noise", "statistics", "parsing", "language", "head", "views", "all"]
)
def test_round_trip(tmp_path, name):
    chosen = lambda: every_block() if name == "all" else {name: every_block()[name]}  # noqa: E731
    model = trained(**chosen())
    folder = save_model(model, tmp_path / "model")
    torch.manual_seed(9)
    loaded = load_model(folder, **chosen())
    assert loaded.config == model.config
    assert not any(module.training for module in loaded.modules())
    for got, expected in zip(outputs(loaded), outputs(model), strict=True):
        assert torch.equal(got, expected)
    again = save_model(loaded, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_block_that_is_handed_over_becomes_part_of_the_model(saved):
    blocks = own()
    loaded = load_model(saved, **blocks)
    assert loaded.visual_encoder.views["appearance"].encoder is blocks["appearance"]
    assert loaded.visual_encoder.views["cosine"] is blocks["views"]["cosine"]


def test_config_json_names_no_object_to_import(saved):
    text = (saved / "config.json").read_text()
    model = json.loads(text)["model"]
    assert model["appearance"] == {"kind": "custom", "module": "tests.models.blocks.Pooled"}
    assert [view["name"] for view in model["views"]] == ["cosine"]
    (saved / "config.json").write_text(text.replace("tests.models.blocks.Pooled", "os.system"))  # for information only
    load_model(saved, **own())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"^appearance, views.cosine: expected the modules .*Pooled\), .*Cosine and .*Pooled\), got none; hand "
             r'them over as load_model\(folder, appearance=..., views={"cosine": ...}\)$'),
        ({"appearance": Pooled()}, r"^views.cosine: expected the modules that .*, got none"),
        ({**own(), "edge": Pooled(1), "head": nn.Linear(16, 3)}, r"^edge, head: expected none, .*Pooled, .*Linear$"),
        ({**own(), "views": {"cosine": cosine_view(), "more": cosine_view()}}, r"^views.more: expected none, "),
        ({**own(), "views": {"cosines": cosine_view()}}, r"^views.cosine: expected the modules .*, got none"),
    ],
)  # fmt: skip
def test_missing_and_superfluous_blocks_are_named(saved, given, message):
    with pytest.raises(ModelFolderError, match=message):
        load_model(saved, **given)


def test_what_is_no_block(saved):
    with pytest.raises(DTypeError, match=r"appearance: expected a torch.nn.Module, got the class Pooled"):
        load_model(saved, appearance=Pooled)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16)),
            r"expected .*encoder.1.bias \(16,\) as appearance has",
        ),
        (Pooled(embed_dim=8), r"expected .*encoder.last.bias \(8,\) as appearance has it, got \(16,\) \(2 tensors"),
        (nn.Sequential(Pooled()), r"as appearance has it, got absent|absent as config.json says"),
        (Pooled().to("meta"), r"^appearance: expected a module with values, got one on the meta device"),
    ],
)
def test_blocks_with_other_tensors(saved, block, message):
    with pytest.raises(ModelFolderError, match=message):
        load_model(saved, **(own() | {"appearance": block}))


class Moved(Pooled):
    """The same class under another name, as when a script became a module."""


def test_a_class_that_moved_is_saved_again(saved, tmp_path):
    loaded = load_model(saved, **(own() | {"appearance": Moved(), "views": {"cosine": View(Cosine(), Moved(1))}}))
    assert loaded.config.appearance.module == f"{__name__}.Moved"
    assert loaded.config.views[0].encoder == f"{__name__}.Moved"
    again = save_model(loaded, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_names_of_classes_may_be_absent(saved, tmp_path):
    header = json.loads((saved / "config.json").read_text())
    header["model"]["appearance"]["module"] = header["model"]["views"][0]["operator"] = ""
    header["model"]["views"][0]["encoder"] = ""
    (saved / "config.json").write_text(json.dumps(header))
    with pytest.raises(
        ModelFolderError, match=r"with, appearance \(of any class\), views.cosine \(of any class\), got"
    ):
        load_model(saved)
    save_model(load_model(saved, **own()), tmp_path / "again")


class Stateful(Pooled):
    """Answers otherwise each time, by what no tensor holds."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images) * self.calls


def test_a_block_that_no_folder_could_give_back(tmp_path):
    with pytest.raises(ModelFolderError, match=r"^appearance: expected the same answers .*, got others the second"):
        save_model(trained(appearance=Stateful()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_default_device(saved):
    blocks = own()
    with torch.device("meta"):  # stands for a GPU: nothing on it can be compared with the CPU
        loaded = load_model(saved, **blocks)
    for got, expected in zip(outputs(loaded), outputs(load_model(saved, **own())), strict=True):
        assert torch.equal(got, expected)


def test_lazy_layers(tmp_path):
    def lazy():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(16))

    model = trained(appearance=lazy())
    loaded = load_model(save_model(model, tmp_path / "model"), appearance=lazy())
    for got, expected in zip(outputs(loaded), outputs(model), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(ModelFolderError, match=r"^appearance: expected a module that maps .*, got \(2, 8\)"):
        load_model(tmp_path / "model", appearance=nn.Sequential(nn.Flatten(), nn.LazyLinear(8)))


class Negated(Pooled):
    """Has the same tensors, and computes something else."""

    def forward(self, images):
        return -super().forward(images)


@pytest.mark.parametrize(
    "blocks",
    [
        {"appearance": Pooled(activation=nn.ReLU)},
        {"appearance": Negated()},
        {"views": {"cosine": View(Cosine(), Pooled(1, activation=nn.SiLU))}},
        {"views": {"cosine": View(nn.AvgPool3d((3, 1, 1)), Pooled(1))}},
    ],
)
def test_the_same_tensors_in_another_function(saved, blocks):
    with pytest.raises(ModelFolderError, match=r"^(appearance|views.cosine): expected the answers of the module that"):
        load_model(saved, **(own() | blocks))


def test_a_block_that_no_longer_works(saved):
    class Broken(Pooled):
        def forward(self, images):
            raise ValueError("gone")

    with pytest.raises(ModelFolderError, match=r"^appearance: expected a module .*, got ValueError: gone"):
        load_model(saved, **(own() | {"appearance": Broken()}))


def test_a_module_put_in_by_hand_is_not_saved(tmp_path):
    model = trained()
    model.visual_encoder.views["edge"].encoder = Pooled(1)
    with pytest.raises(ModelFolderError, match=r"views.edge.encoder: expected .*ConvTransformer, .*, got .*Pooled"):
        save_model(model, tmp_path / "a")
    model = trained(edge=Pooled(1))
    model.visual_encoder.views["edge"].encoder = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 16))
    with pytest.raises(ModelFolderError, match=r"views.edge.encoder: expected .*Pooled, as .*, got .*Sequential"):
        save_model(model, tmp_path / "a")
    model = trained()
    model.visual_encoder.views["mine"] = cosine_view()
    with pytest.raises(ModelFolderError, match=r"views.mine: expected nothing, .*, got bmrl.models.views.View"):
        save_model(model, tmp_path / "a")
    model = trained(views={"mine": cosine_view()})
    del model.visual_encoder.views["mine"]
    with pytest.raises(ModelFolderError, match=r"views.mine: expected .*Cosine and .*Pooled, got nothing"):
        save_model(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


class Tied(nn.Module):
    """Two layers with one weight, a counter, and values in the extra state's place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(48, 48), nn.Linear(48, 48)
        self.second.weight = self.first.weight
        self.last = nn.Linear(48, 16)
        self.register_buffer("seen", torch.tensor(7))

    def forward(self, images):
        pooled = nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return self.last(self.second(self.first(pooled).relu()))


def test_what_a_block_ties_stays_tied(tmp_path):
    model = trained(appearance=Tied())
    folder = save_model(model, tmp_path / "model")
    block = Tied()
    loaded = load_model(folder, appearance=block)
    assert block.first.weight is block.second.weight
    assert block.seen.item() == 7
    assert torch.equal(outputs(loaded)[0], outputs(model)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision(tmp_path, dtype):
    model = trained(**own()).to(dtype)
    folder = save_model(model, tmp_path / "model")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.get_tensor("visual_encoder.views.appearance.encoder.last.bias").dtype == dtype
    blocks = own()
    blocks["appearance"].to(dtype)
    loaded = load_model(folder, **blocks)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.float() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("wrap", [AveragedModel, nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models(tmp_path, wrap):
    model = trained(**own())
    folder = save_model(wrap(model), tmp_path / "model")
    assert torch.equal(outputs(load_model(folder, **own()))[0], outputs(model)[0])


def test_a_compiled_block(tmp_path):
    compiled = torch.compile(Pooled(), backend="eager")
    model = trained(appearance=compiled)
    folder = save_model(model, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["model"]["appearance"]["module"].endswith(".Pooled")
    for block in (Pooled(), torch.compile(Pooled(), backend="eager")):
        assert torch.equal(outputs(load_model(folder, appearance=block))[0], outputs(model)[0])


def test_answers_that_are_not_finite(tmp_path):
    model = trained(appearance=Pooled())
    model.visual_encoder.views["appearance"].encoder.norm.running_var.fill_(-1)
    with pytest.raises(ModelFolderError, match=r"^appearance: expected finite answers, got NaN"):
        save_model(model, tmp_path / "model")


def test_a_forged_folder_needs_its_blocks_too(saved):
    """A folder cannot be made to load without what it was saved with."""
    path = saved / "config.json"
    content = json.loads(path.read_text())
    content["model"]["appearance"] = content["model"]["edge"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=r"appearance.kind: expected 'custom', .*, got 'conv_transformer'"):
        load_model(saved, views={"cosine": cosine_view()})


def test_saving_and_loading_leave_a_block_as_it_is(saved):
    model = trained(parsing=Parsing(), appearance=Pooled()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    save_model(model, saved)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    blocks = {"parsing": Parsing(), "appearance": Pooled()}
    state = torch.get_rng_state()
    load_model(saved, **blocks)
    assert torch.equal(torch.get_rng_state(), state)
