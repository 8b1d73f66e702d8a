"""The training task on its own: other devices, several processes."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import default_collate

from bmrl.data.manifest import Manifest
from bmrl.data.prompts import prompt_tokens
from bmrl.encoders import PretrainedConfig
from bmrl.errors import ConfigError, RangeError
from bmrl.models import build_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig
from bmrl.training.loading import load_split
from bmrl.training.task import rate_share


@pytest.fixture
def config(data, small):
    return tiny(generators=Manifest.read(data).generators("seen"), **(small | {"*.dropout": 0.0}))


def test_a_task_that_was_built_without_memory_knows_its_prompts(config, data):
    with torch.device("meta"):
        task = BMRLTask(build_model(config), TrainingConfig())
    assert torch.equal(task.tokens, prompt_tokens(config.generators))
    task.to_empty(device="cpu")
    assert torch.equal(task.tokens, prompt_tokens(config.generators))
    assert "tokens" not in task.state_dict()


def test_images_are_never_moved_further_than_their_size(config):
    with pytest.raises(ConfigError, match="shift: expected less than image_size 64, got 64"):
        BMRLTask(build_model(config), TrainingConfig(shift=64))
    BMRLTask(build_model(config), TrainingConfig(shift=63))


def test_each_image_is_paired_with_the_prompts_of_its_generator(data, config, monkeypatch):
    task = BMRLTask(build_model(config), TrainingConfig()).eval()
    samples = load_split(Manifest.read(data), config, "train")
    batch = default_collate([samples[index] for index in (20, 0, 9)])
    given = []
    monkeypatch.setattr(
        task.objective, "forward", lambda output, labels: given.append(output) or original(output, labels)
    )
    original = type(task.objective).forward.__get__(task.objective)
    task.objective_step(batch)
    for row, label in enumerate(batch["label"]):
        alone = task.model.language_encoder(prompt_tokens([config.generators[int(label)]]))
        torch.testing.assert_close(given[0].language[row], alone[0])


def scaled(parameters, rate):
    """The optimizer's learning rate of each parameter, by the parameter's identity; none twice."""
    rates = {}
    for group in parameters:
        for parameter in group["params"]:
            assert id(parameter) not in rates
            rates[id(parameter)] = group.get("lr", rate) / rate
    return rates


def test_a_module_trains_at_a_rate_of_its_own_and_what_is_frozen_not_at_all(config):
    model = build_model(config)
    encoder = model.visual_encoder.views["appearance"].encoder
    encoder.learning_rate_scale = 0.5
    encoder.backbone.learning_rate_scale = 0.1  # the innermost counts
    frozen = encoder.transformer.blocks.requires_grad_(False)
    recipe = TrainingConfig(learning_rate=0.01, objective_learning_rate_scale=10.0)
    task = BMRLTask(model, recipe)
    rates = scaled(task.parameter_groups(), 0.01)
    expected = {id(each): 1.0 for each in model.parameters()}
    expected |= {id(each): 10.0 for each in task.objective.parameters()}
    expected |= {id(each): 0.5 for each in encoder.parameters()}
    expected |= {id(each): 0.1 for each in encoder.backbone.parameters()}
    for parameter in frozen.parameters():
        del expected[id(parameter)]
    assert rates == pytest.approx(expected)
    (optimizer,), (schedule,) = task.configure_optimizers()
    optimizer.step()
    schedule["scheduler"].step()
    assert scaled(optimizer.param_groups, 0.01 * rate_share(recipe, 1, 1)) == pytest.approx(expected)


def test_the_rate_rises_and_falls_as_the_recipe_says():
    recipe = TrainingConfig(epochs=4, drop_every=2, warmup=0.25)
    assert [rate_share(recipe, step, 8) for step in range(8)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.1, 0.1])
    half = TrainingConfig(epochs=4, schedule="cosine")
    assert [rate_share(half, step, 2) for step in range(3)] == pytest.approx([1, 0.5, 0])


def test_parameters_are_in_the_order_of_the_model(config):
    model = build_model(config)
    (group,) = BMRLTask(model, TrainingConfig()).parameter_groups()[:1]
    for parameter, expected in zip(group["params"], model.parameters(), strict=True):
        assert parameter is expected


def test_a_rate_that_is_none_is_refused(config):
    model = build_model(config)
    model.head.learning_rate_scale = 0.0
    with pytest.raises(RangeError, match=r"head\.learning_rate_scale: expected > 0, got 0"):
        BMRLTask(model, TrainingConfig()).parameter_groups()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pretrained_encoder_takes_part_in_a_step(data, config, frozen):
    pytest.importorskip("timm")
    part = PretrainedConfig(name="test_efficientnet", weights=None, frozen=frozen)
    config = config.with_changes(appearance=part)
    model = build_model(config)
    encoder = model.visual_encoder.views["appearance"].encoder
    task = BMRLTask(model, TrainingConfig(learning_rate=0.01)).train()
    rates = scaled(task.parameter_groups(), 0.01)
    tower = [rates.get(id(each)) for each in encoder.tower.parameters()]
    assert tower == ([None] * len(tower) if frozen else pytest.approx([0.1] * len(tower)))
    (optimizer,), _ = task.configure_optimizers()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    samples = load_split(Manifest.read(data), config, "train")
    task.objective_step(default_collate([samples[index] for index in (0, 9, 17)]))[0].backward()
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("tower.") for name in changed) is not frozen
    assert any(name.startswith("reader.") for name in changed)


DISTRIBUTED = """
import json, os, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate
from bmrl.data.manifest import Manifest
from bmrl.models import build_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig
from bmrl.training.loading import load_split

torch.set_num_threads(1)
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method={store!r}, rank=rank, world_size=2)
manifest = Manifest.read({data!r})
config = tiny(generators=manifest.generators("seen"), **{small!r})
torch.manual_seed(0)
task = BMRLTask(build_model(config), TrainingConfig(objective=dict(gather={gather})))
samples = load_split(manifest, config, "train")

class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.task = task
    def forward(self, batch):
        return self.task.objective_step(batch)[0]

step = DistributedDataParallel(Step())
optimizer = torch.optim.SGD(step.parameters(), lr=0.01)
for has_parsing in ([True, False], [True, True], [False, False]):
    batch = default_collate([samples[(8 * index + rank) % 24] for index in range(6)])
    batch["has_parsing"][:] = has_parsing[rank]
    optimizer.zero_grad()
    step(batch).backward()
    assert all(parameter.grad is not None for parameter in step.parameters())
    optimizer.step()
total = sum(float(parameter.detach().double().sum()) for parameter in task.parameters())
print(json.dumps(total))
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("gather", [False, True])
def test_several_processes_train_with_maps_on_part_of_the_images(data, small, run_code, tmp_path, gather):
    code = DISTRIBUTED.format(store=f"file://{tmp_path}/store", data=str(data), small=small, gather=gather)
    processes = [run_code(code, RANK=str(rank)) for rank in (0, 1)]
    for process in processes:
        assert process.wait() == 0, process.output
    totals = [json.loads(process.output.splitlines()[-1]) for process in processes]
    assert totals[0] == totals[1]  # the same weights everywhere


def test_a_step_without_a_map_is_a_step_without_cpc(data, config):
    torch.manual_seed(0)
    task = BMRLTask(build_model(config), TrainingConfig())
    samples = load_split(Manifest.read(data), config, "train")
    batch = default_collate([samples[index] for index in (0, 9, 17)])
    batch["has_parsing"][:] = False
    total, parts, _ = task.objective_step(batch)
    assert parts["cpc"] == 0
    others = sum(float(part.detach()) for name, part in parts.items() if name != "cpc")
    assert float(total.detach()) == pytest.approx(others, rel=1e-6)
