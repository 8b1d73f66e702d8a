"""The family of an unseen picture, by the classes and by prompts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrl.data.prompts import prompt_tokens
from bmrl.data.row import Row
from bmrl.evaluation import Predictions, evaluate
from bmrl.evaluation.families import families_of_unseen
from bmrl.generators import Generator
from bmrl.models import build_model, presets
from tests.evaluation.conftest import CLASSES

FAMILIES = {"swap": ("FS", "diffusion"), "whole": ("EFS", "flow"), "snap": ("none", "none"), "red": ("EFS", "GAN")}


def predictions(*images, embeddings=None):
    rows = [
        Row(f"{place}.png", name, *FAMILIES[name], "seen" if name == "red" else "unseen", "test", f"{place}")
        for place, (name, _) in enumerate(images)
    ]
    answers = torch.tensor([row for _, row in images], dtype=torch.float64)
    return Predictions(CLASSES, tuple(rows), answers, torch.zeros(len(rows), 2) if embeddings is None else embeddings)


def test_by_classes_by_hand():
    found = predictions(  # classes: EFS GAN, FS diffusion, none none
        ("red", [1.0, 0.0, 0.0]),  # seen: does not count
        ("swap", [0.2, 0.7, 0.1]),  # both right
        ("swap", [0.7, 0.2, 0.1]),  # both wrong
        ("whole", [0.7, 0.2, 0.1]),  # manipulation right, architecture not among the classes
        ("snap", [0.2, 0.2, 0.6]),  # both right
    )
    training = [Row(f"t{i}", "red", "EFS", "GAN", "seen", "train", f"t{i}") for i in range(3)]
    training.append(Row("u", "photo", "none", "none", "seen", "train", "u"))
    told = families_of_unseen(found, None, training)
    assert told["reason"] is None
    assert told["manipulation"] == {
        "num_images": 4, "by_classes": 0.75, "by_prompts": None, "chance": pytest.approx(1 / 3),
        "chance_by_prompts": 0.2, "majority": 0.25,
    }  # fmt: skip
    assert told["architecture"] == {
        "num_images": 4, "by_classes": 0.5, "by_prompts": None, "chance": pytest.approx(1 / 3),
        "chance_by_prompts": 0.125, "majority": 0.0,
    }  # fmt: skip


class Languages(nn.Module):
    """A random embedding of each sequence of tokens."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(49408, 32)

    def forward(self, tokens):
        places = torch.arange(1, tokens.shape[-1] + 1).sin()
        return (self.words(tokens) * places[:, None]).sum(dim=(1, 2))


def test_by_prompts_finds_the_family_whose_prompts_are_nearest():
    torch.manual_seed(0)
    model = nn.Module()
    model.language_encoder = Languages().train()
    families = [
        Generator(name="unknown", manipulation=manipulation, architecture=architecture)
        for manipulation, architecture in (FAMILIES["swap"], FAMILIES["whole"], FAMILIES["snap"])
    ]
    with torch.no_grad():
        near = model.language_encoder(prompt_tokens(families)) * torch.tensor([[3.0], [0.5], [-1.0]])
    answers = [("swap", [1.0, 0.0, 0.0]), ("whole", [1.0, 0.0, 0.0]), ("snap", [1.0, 0.0, 0.0])]
    told = families_of_unseen(predictions(*answers, embeddings=near), model, [])
    assert told["manipulation"]["by_prompts"] >= 2 / 3  # the third is the opposite of its family
    assert told["architecture"]["by_prompts"] == pytest.approx(2 / 3)
    assert told["manipulation"]["majority"] is None
    assert model.language_encoder.training


def test_no_unseen_image():
    told = families_of_unseen(predictions(("red", [1.0, 0.0, 0.0])), None, [])
    assert told == {
        "reason": "no image of an unseen generator was tested", "manipulation": None, "architecture": None
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"language.context_length": 6}, {"language.vocab_size": 50}])
def test_a_language_of_its_own_is_not_asked(changes):
    model = build_model(presets.tiny(generators=CLASSES, image_size=32, **{"language.num_blocks": 1} | changes))
    given = predictions(("swap", [0.2, 0.7, 0.1]), embeddings=torch.zeros(1, 128))
    assert families_of_unseen(given, model, [])["manipulation"]["by_prompts"] is None


def test_an_evaluation_tells_it(model, manifest, tmp_path):
    told = evaluate(model, manifest, tmp_path / "out", yardsticks=[], alterations=[])
    assert told.to_dict()["families"]["manipulation"]["num_images"] == 3
    assert "always the most frequent" in (tmp_path / "out" / "report.html").read_text()
