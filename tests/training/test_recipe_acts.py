"""Each field of the recipe acts as it says: trainings compared with the same steps in plain PyTorch."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from bmrl.data.manifest import Manifest
from bmrl.losses import BMRLObjective
from bmrl.models import build_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig
from bmrl.training.baselines.resnet18 import ResNet18, ResNet18Task
from bmrl.training.fitting import fit
from bmrl.training.loading import load_split

FIELDS = {field.name for field in dataclasses.fields(TrainingConfig)}
BASE = {"epochs": 2, "batch_size": 12, "learning_rate": 3e-3, "weight_decay": 0.0, "drop_every": 9, "keep": "last"}


class Recorded:
    """A training in this process, the batches that its objective got, and its start.

    Plain PyTorch repeats it from there.
    """

    def __init__(self, config, train_set, monkeypatch, **changes):
        self.recipe = TrainingConfig(**(BASE | changes))
        torch.manual_seed(0)
        self.task = BMRLTask(build_model(config), self.recipe)
        self.start = copy.deepcopy((self.task.model, self.task.objective))
        self.batches, self.autocast, self.totals = [], [], []
        step = BMRLTask.objective_step

        def recording(task, batch):
            self.batches.append({name: tensor.clone() for name, tensor in batch.items()})
            self.autocast.append(torch.is_autocast_enabled("cpu"))
            result = step(task, batch)
            self.totals.append(float(result[0].detach()))
            return result

        with monkeypatch.context() as recorded:
            recorded.setattr(BMRLTask, "objective_step", recording)
            fit(self.task, train_set, None, device="cpu", progress=False)

    def repeat(self, optimizer, *, rates, objective_rates, weight_decay=0.0, ema_decay=0.0):
        """Repeat the steps at a rate each, and return the weights to keep."""
        model, objective = copy.deepcopy(self.start)
        groups = [
            {"params": list(model.parameters()), "weight_decay": weight_decay},
            {"params": list(objective.parameters()), "weight_decay": 0.0},
        ]
        # As bmrl does: Adam turns the last bit of a gradient that should be zero into a whole step.
        updates = optimizer(groups, lr=1.0, fused=True)
        average = None
        for batch, *step_rates in zip(self.batches, rates, objective_rates, strict=True):
            for group, rate in zip(updates.param_groups, step_rates, strict=True):
                group["lr"] = rate
            updates.zero_grad()
            objective(model(batch["image"]), batch["label"]).total.backward()
            updates.step()
            weights = copy.deepcopy([model.state_dict(), objective.state_dict()])
            average = weights if average is None else _averaged(average, weights, ema_decay)
        return average

    def check(self, *, optimizer=torch.optim.Adam, rates=(3e-3,) * 4, objective_rates=None, **options):
        """Check that the training arrived at the weights of plain PyTorch."""
        rates = list(rates)
        objective_rates = objective_rates or [50 * rate for rate in rates]
        expected = self.repeat(optimizer, rates=rates, objective_rates=objective_rates, **options)
        for module, weights in zip((self.task.model, self.task.objective), expected, strict=True):
            for name, value in module.state_dict().items():
                if value.is_floating_point():
                    torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5, msg=name)


def _averaged(average, weights, decay):
    return [
        {
            name: decay * old[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in new.items()
        }
        for old, new in zip(average, weights, strict=True)
    ]


@pytest.fixture(scope="module")
def config(data, runs):
    changes = runs.plain | {"image_size": 32, "*.dropout": 0.0}
    return tiny(generators=Manifest.read(data).generators("seen"), **changes)


@pytest.fixture(scope="module")
def train_set(data, config):
    return load_split(Manifest.read(data), config, "train")


@pytest.fixture
def record(config, train_set, monkeypatch):
    return lambda samples=train_set, **changes: Recorded(config, samples, monkeypatch, **changes)


def epochs(record, train_set):
    assert len(record(epochs=3).batches) == 3 * 2
    assert len(record(epochs=1).batches) == 1 * 2


def batch_size(record, train_set):
    assert [len(batch["label"]) for batch in record(batch_size=8).batches] == [8] * 6


def optimizer(record, train_set):
    for name, reference in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        recorded = record(optimizer=name, weight_decay=0.3)
        recorded.check(optimizer=reference, weight_decay=0.3)
        other = torch.optim.AdamW if name == "adam" else torch.optim.Adam
        with pytest.raises(AssertionError):
            recorded.check(optimizer=other, weight_decay=0.3)


def learning_rate(record, train_set):
    record(learning_rate=1e-2).check(rates=[1e-2] * 4)


def weight_decay(record, train_set):
    """Of the model; the centers and temperatures of the objective are never drawn to zero."""
    for decay in (0.0, 0.5):
        record(weight_decay=decay).check(weight_decay=decay)


def objective_learning_rate_scale(record, train_set):
    record(objective_learning_rate_scale=7.0).check(objective_rates=[7 * 3e-3] * 4)


def drop_every(record, train_set):
    record(drop_every=1).check(rates=[3e-3] * 2 + [3e-3 * 0.1] * 2)
    record(drop_every=2, epochs=3).check(rates=[3e-3] * 4 + [3e-3 * 0.1] * 2)


def schedule(record, train_set):
    shares = [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]
    record(schedule="cosine").check(rates=[3e-3 * share for share in shares])
    record(schedule="cosine", warmup=0.5).check(rates=[1e-3, 2e-3, 3e-3, 1.5e-3])


def warmup(record, train_set):
    record(warmup=0.5).check(rates=[1e-3, 2e-3, 3e-3, 3e-3])
    record(warmup=0.5, drop_every=1).check(rates=[1e-3, 2e-3, 3e-4, 3e-4])


class FewOfOne(Dataset):
    """The samples of a data set, all but three of the first of two classes."""

    def __init__(self, samples):
        first, second = ([i for i, label in enumerate(samples.labels) if label == kind] for kind in (0, 1))
        self.samples, self.places = samples, first[:3] + second
        self.labels = [samples.labels[place] for place in self.places]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        return self.samples[self.places[index]]


def balance(record, train_set):
    few = FewOfOne(train_set)
    size = len(few)
    for strength, least, most in ((0.0, 3, 3), (0.5, 4, size // 2 - 1), (1.0, size // 2, size // 2 + size % 2)):
        batches = record(few, balance=strength, epochs=1, batch_size=size).batches
        drawn = torch.cat([batch["label"] for batch in batches])
        assert least <= int((drawn == 0).sum()) <= most
        assert len(drawn) == size


def ema_decay(record, train_set):
    record(ema_decay=0.7).check(ema_decay=0.7)
    record(ema_decay=0.0).check(ema_decay=0.0)


def _originals(batch, train_set):
    return torch.stack([train_set[int(index)]["image"] for index in batch["index"]])


def flip(record, train_set):
    found = {"as it is": 0, "mirrored": 0}
    for batch in record(flip=True).batches:
        for image, original in zip(batch["image"], _originals(batch, train_set), strict=True):
            mirrored, same = torch.equal(image, original.flip(-1)), torch.equal(image, original)
            assert mirrored or same
            if mirrored != same:  # plain pictures are their own mirror images
                found["mirrored" if mirrored else "as it is"] += 1
    assert min(found.values()) > 4
    for batch in record(flip=False).batches:
        assert torch.equal(batch["image"], _originals(batch, train_set))


def shift(record, train_set):
    moved = []
    for batch in record(shift=2, epochs=4).batches:
        originals = F.pad(_originals(batch, train_set).float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
        windows = [(y, x) for y in range(5) for x in range(5)]
        (place,) = [
            w for w in windows if torch.equal(originals[..., w[0] : w[0] + 32, w[1] : w[1] + 32], batch["image"])
        ]
        moved.append(place)
    assert len(set(moved)) > 2
    for batch in record(shift=0).batches:
        assert torch.equal(batch["image"], _originals(batch, train_set))


def precision(record, train_set):
    assert record(precision="bf16-mixed").autocast == [True] * 4
    assert record(precision="32-true").autocast == [False] * 4


def keep(record, train_set):
    """Which checkpoint becomes the model: see test_checkpoints.py for "best"; without validation there is the last."""
    record(keep="best").check()


def seed(record, train_set):
    first, again, other = (record(seed=value, flip=True) for value in (3, 3, 4))
    for one, two in zip(first.batches, again.batches, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(a["index"], b["index"]) for a, b in zip(first.batches, other.batches, strict=True))
    assert {int(i) for batch in first.batches[:2] for i in batch["index"]} == set(range(24))
    assert not torch.equal(first.batches[0]["index"], first.batches[2]["index"])


def augmentation(record, train_set):
    for batch in record(augmentation={"noise": 1}).batches:
        for image, index in zip(batch["image"], batch["index"], strict=True):
            difference = (image.int() - train_set[int(index)]["image"].int()).abs()
            assert 0 < difference.float().mean() < 6


def objective(record, train_set):
    settings = {"weights": {"dfacc": 0.25}, "margin": 0.1, "label_smoothing": 0.2}
    recorded = record(objective=settings)
    model, _ = copy.deepcopy(recorded.start)
    torch.manual_seed(0)
    expected = BMRLObjective(model.config, **settings)
    expected.load_state_dict(recorded.start[1].state_dict())
    batch = recorded.batches[0]
    assert recorded.totals[0] == pytest.approx(float(expected(model(batch["image"]), batch["label"]).total), rel=1e-5)
    assert recorded.totals[0] != pytest.approx(record().totals[0], rel=1e-2)


ACTS = {
    act.__name__: act
    for act in (
        epochs,
        batch_size,
        optimizer,
        learning_rate,
        weight_decay,
        objective_learning_rate_scale,
        drop_every,
        schedule,
        warmup,
        balance,
        ema_decay,
        flip,
        shift,
        augmentation,
        precision,
        keep,
        seed,
        objective,
    )
}


def test_every_field_is_shown_to_act():
    assert ACTS.keys() == FIELDS


@pytest.mark.parametrize("name", sorted(ACTS))
def test_acts(name, record, train_set):
    ACTS[name](record, train_set)


def test_the_baseline_takes_the_same_steps(config, train_set, monkeypatch):
    """Cross-entropy of ResNet-18 with AdamW, in plain PyTorch."""
    recipe = TrainingConfig(**(BASE | {"epochs": 1, "optimizer": "adamw", "weight_decay": 0.2, "flip": True}))
    torch.manual_seed(0)
    task = ResNet18Task(ResNet18(config), recipe)
    model, batches = copy.deepcopy(task.model), []
    step = ResNet18Task.objective_step
    monkeypatch.setattr(
        ResNet18Task, "objective_step", lambda self, batch: (batches.append(batch), step(self, batch))[1]
    )
    fit(task, train_set, None, device="cpu", progress=False)
    assert not any(module.training for module in task.modules())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.2, fused=True)
    for batch in batches:
        optimizer.zero_grad()
        features = model.network(batch["image"].float() / 255)
        F.cross_entropy(model.head(features), batch["label"]).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(task.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
