"""The training task on its own: other devices, several processes."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import default_collate

from bmrl.data.manifest import Manifest
from bmrl.data.prompts import prompt_tokens
from bmrl.errors import ConfigError
from bmrl.models import build_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig
from bmrl.training.loading import load_split


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
