"""Which model and recipe names generators best? Trainings on four fifths of the groups, tested on the last fifth.

python -m benchmarks.fold_study --data DIR --out FILE.json [--variants NAME ...] [--folds 0] [--seeds 0]

Only seen images of the training and the validation split are used, so that choices made here leave the test split
alone. Folds keep groups together. Each finished training is written at once; started again, the study goes on after the
last one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from bmrl._files import write_text
from bmrl.data import ALTERATIONS, Manifest
from bmrl.data.alterations import read_versions
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.inference import infer
from bmrl.models import build_model
from bmrl.training.fitting import fit
from bmrl.training.loading import load_split
from bmrl.training.settings import PRESETS
from bmrl.training.task import BMRLTask

if TYPE_CHECKING:
    from bmrl.models import BMRL

FOLDS = 5
TESTED = ("jpeg75", "half", "crop")
NO_STATISTICS = {"statistics": None}

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "recommended": ({}, {}),
    "without statistics, small classes less often": (NO_STATISTICS, {"balance": 0.5, "augmentation.crop": 0.25}),
    "DFACC, stronger changes, 10 epochs": (
        {},
        {
            "epochs": 10,
            "learning_rate": 3e-4,
            "balance": 0.5,
            "objective": {"label_smoothing": 0.1},
            "augmentation.compress": 0.7,
            "augmentation.rescale": 0.4,
            "augmentation.crop": 0.25,
            "augmentation.blur": 0.1,
            "augmentation.noise": 0.1,
        },
    ),
}
"""Changes of the model and of the recipe of the preset ``recommended``."""


def fold_of(manifest: Manifest, fold: int) -> Manifest:
    """Return the seen images of the training and the validation split, those of one fold as the test split."""
    rows = [row for row in manifest.rows if row.role == "seen" and row.split != "test"]
    names, groups = [row.generator for row in rows], [row.group for row in rows]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(rows, names, groups)
    tested = set(list(folds)[fold][1].tolist())
    return Manifest(
        manifest.root,
        tuple(dataclasses.replace(row, split="test" if place in tested else "train") for place, row in enumerate(rows)),
    )


def trained(manifest: Manifest, variant: str, seed: int) -> tuple[BMRL, float]:
    """Return a model and the seconds that its training took."""
    model_changes, recipe_changes = VARIANTS[variant]
    make_config, make_recipe = PRESETS["recommended"]
    recipe = make_recipe(**recipe_changes | {"seed": seed})
    config = make_config(generators=manifest.generators("seen"), **model_changes | {"decision.score": None})
    torch.manual_seed(seed)
    task = BMRLTask(build_model(config), recipe)
    began = time.monotonic()
    fit(task, load_split(manifest, config, "train"), None, progress=False)
    return task.model.eval(), time.monotonic() - began


def tested(model: BMRL, manifest: Manifest) -> dict[str, Any]:
    """Return accuracy and balanced accuracy of the test split as it is and altered, and the recall of each class."""
    rows = manifest.select(split="test")
    names = [generator.name for generator in model.config.generators]
    labels = torch.tensor([names.index(row.generator) for row in rows])
    altered = [None, *(ALTERATIONS[name] for name in TESTED)]
    size = model.config.image_size
    images = (read_versions(manifest.image_path(row), size, altered) for row in rows)
    named = torch.stack([infer(model, versions).logits.argmax(dim=1) for versions in images], dim=1)
    versions = {
        version: {
            "accuracy": float((found == labels).double().mean()),
            "balanced_accuracy": float(balanced_accuracy_score(labels, found)),
        }
        for version, found in zip(("as it is", *TESTED), named, strict=True)
    }
    recall = {name: float((named[0][labels == place] == place).double().mean()) for place, name in enumerate(names)}
    return {"images": len(rows), "versions": versions, "recall": recall}


def study(data: Path, out: Path, *, variants: list[str], folds: list[int], seeds: list[int]) -> None:
    """Train and test what is not in the file yet."""
    content = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"runs": []}
    done = {(run["variant"], run["fold"], run["seed"]) for run in content["runs"]}
    for variant in variants:
        for fold in folds:
            for seed in seeds:
                if (variant, fold, seed) in done:
                    continue
                manifest = fold_of(Manifest.read(data), fold)
                model, seconds = trained(manifest, variant, seed)
                run: dict[str, Any] = {"variant": variant, "fold": fold, "seed": seed, "seconds": round(seconds)}
                run |= tested(model, manifest)
                content["runs"].append(run)
                write_text(out, json.dumps(content, indent=2) + "\n")
                print(variant, fold, seed, json.dumps(run["versions"]), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    keep_freed_memory()
    study(**vars(options))


if __name__ == "__main__":
    main()
