"""What a preset achieves on a test split: trainings with several seeds by one setting.

python -m benchmarks.preset_study --data DIR --out FILE.json --work DIR [--preset recommended] [--seeds 0 1 2]
                                  [--others DIR] [--why TEXT]

Trains as `bmrl train` does, tests as `bmrl evaluate` does. ``--others`` names a second data folder with generators that
the model does not know: it is tested on all pictures there (``others`` in the file), and these generators are enrolled
from few of them (``enrolled``). The file holds a list of all looks at the test split, each with its reason: settings
are chosen by `fold_study` and `score_study`, which do not look at it. A finished training in ``--work`` is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bmrl._files import write_text
from bmrl.data import Manifest
from bmrl.data.alterations import read_versions
from bmrl.evaluation import evaluate
from bmrl.evaluation.outcomes import outcomes
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.inference import enroll, infer, limits_of
from bmrl.models import load_model
from bmrl.training import train

if TYPE_CHECKING:
    from torch import Tensor

    from bmrl.data import Row
    from bmrl.evaluation import Evaluation
    from bmrl.models import BMRL

ENROLLED_WITH = (5, 10, 20, 50)
DRAWS = 4
ASKED = (0.02, 0.05, 0.1)


def study(data: Path, others: Path | None, work: Path, out: Path, *, preset: str, seeds: list[int], why: str) -> None:
    """Train and test what is not in the file yet."""
    for seed in seeds:
        if any((run["preset"], run["seed"]) == (preset, seed) for run in _read(out)["runs"]):
            continue
        folder = work / f"{preset}-{seed}"
        began = time.monotonic()
        resume = folder.is_dir()
        chosen = {} if resume else {"preset": preset, "recipe_changes": {"seed": seed}}
        train(data, folder, resume=resume, progress=False, **chosen)
        seconds = time.monotonic() - began
        evaluation = evaluate(folder, data, folder / "report")
        run = {"preset": preset, "seed": seed, "seconds": None if resume else round(seconds), **told(evaluation)}
        model = load_model(folder)
        run["asked"] = [asked(model, evaluation, max_error) for max_error in ASKED]
        if others is not None:
            run["others"] = tested_on_others(folder, others)
            run["enrolled"] = enrolled(model, Manifest.read(data), Manifest.read(others))
        content = _read(out)  # again: another process may have added a seed
        content["runs"].append(run)
        content["looks"].append({"at": evaluation.created, "preset": preset, "seed": seed, "why": why})
        write_text(out, json.dumps(content, indent=1) + "\n")
        print(preset, seed, json.dumps(run["outcomes"]), flush=True)


def _read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"runs": [], "looks": []}
    return found


def enrolled(model: BMRL, manifest: Manifest, other: Manifest) -> list[dict[str, Any]]:
    """Enroll each generator of ``other`` that the model does not know, and test it on the pictures that are left."""
    known = {generator.name for generator in model.config.generators}
    own = manifest.select(split="test", role="seen")
    names = [generator.name for generator in model.config.generators]
    labels = torch.tensor([names.index(row.generator) for row in own])
    size = model.config.image_size

    def embedded(manifest: Manifest, rows: list[Row]) -> Tensor:
        images = torch.cat([read_versions(manifest.image_path(row), size, [None]) for row in rows])
        return torch.cat([infer(model, batch).embedding for batch in images.split(32)])

    found = []
    seen = embedded(manifest, own)
    for name in sorted({row.generator for row in other.rows if row.manipulation != "none"} - known):
        rows = [row for row in other.rows if row.generator == name]
        new = embedded(other, rows)
        for count in ENROLLED_WITH:
            for draw in range(DRAWS if count < len(rows) else 0):
                order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(draw)).tolist()
                paths = [other.image_path(rows[place]) for place in order[:count]]
                more, _ = enroll(model, name, paths, manipulation=rows[0].manipulation)
                with torch.inference_mode():  # the embedding is that of the model
                    left, named = (more.head(each).argmax(dim=1) for each in (new[order[count:]], seen))
                found.append(
                    {
                        "generator": name,
                        "pictures": count,
                        "draw": draw,
                        "recall": float((left == len(names)).double().mean()),
                        "accuracy": float((named == labels).double().mean()),
                        "taken": float((named == len(names)).double().mean()),
                    }
                )
    return found


def told(evaluation: Evaluation) -> dict[str, Any]:
    """Return what of an evaluation the pages of results are made of."""
    content = evaluation.to_dict()
    shares = [{key: entry[key] for key in entry if key != "risk_coverage"} for entry in content["outcomes"]]
    recall = {entry["generator"]: entry["recall"] for entry in content["seen"]["per_generator"]}
    by_generator = {entry["generator"]: entry["auroc"] for entry in (content["unseen"] or {}).get("per_generator", [])}
    kept = ("limits", "sources", "families", "best_yardsticks")
    return {key: content[key] for key in kept} | {"outcomes": shares, "recall": recall, "auroc": by_generator}


def asked(model: BMRL, evaluation: Evaluation, max_error: float) -> dict[str, Any]:
    """Return what becomes of the test pictures, as they are, if another share of wrong names is asked for."""
    limits = limits_of(model, max_error=max_error)
    (entry,) = outcomes(dataclasses.replace(evaluation.predictions, limits=limits), {})
    kept = ("right", "wrong", "uncertain", "rejected", "unseen_named")
    return {"max_error": max_error} | {key: entry[key] for key in kept}


def tested_on_others(folder: Path, others: Path) -> dict[str, Any]:
    """Test a model on all pictures of another folder, those of generators that it does not know as unseen."""
    manifest = Manifest.read(others)
    known = {generator.name for generator in load_model(folder).config.generators}
    rows = tuple(
        dataclasses.replace(row, split="test", role="seen" if row.generator in known else "unseen")
        for row in manifest.rows
    )
    evaluation = evaluate(folder, Manifest(manifest.root, rows), folder / "others", yardsticks=[])
    return told(evaluation)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="recommended")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--why", default="what the preset achieves")
    options = parser.parse_args()
    keep_freed_memory()
    study(**vars(options))


if __name__ == "__main__":
    main()
