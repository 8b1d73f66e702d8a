"""Does the DFACC loss do what the paper says? Metric losses against cross-entropy alone, and sweeps of its settings.

python -m benchmarks.dfacc_study --data DIR --out FILE.json [--image-size 64] [--epochs 7] [--seeds 0 1 2]

The visual encoders of the tiny preset are trained with the cross-entropy and one metric loss, without the parsing and
the language branch, so that nothing else moves the embedding. Each finished training is written at once; started
again, the study goes on after the last one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback

from bmrl._files import write_text
from bmrl.data.manifest import Manifest
from bmrl.evaluation import Predictions, predict, summarize
from bmrl.models import build_model
from bmrl.training.fitting import fit
from bmrl.training.loading import load_split
from bmrl.training.settings import PRESETS
from bmrl.training.task import BMRLTask

if TYPE_CHECKING:
    from torch import Tensor

VARIANTS: dict[str, dict[str, Any]] = {
    "CE": {"metric_loss": "none"},
    "CE + VCC": {"metric_loss": "vcc"},
    "CE + DFACC on the embedding": {},
    "CE + DFACC on the probabilities": {"dfacc_on": "probability"},
    "margin 0.5": {"margin": 0.5},
    "margin 0.9": {"margin": 0.9},
    "lambda 0": {"inter_weight": 0.0},
    "lambda 0.3": {"inter_weight": 0.3},
    "lambda 0.7": {"inter_weight": 0.7},
}
"""Arguments of ``BMRLObjective``; the sweeps vary DFACC on the embedding (margin 0.7, lambda 0.5)."""

METRICS = {
    "accuracy": "seen accuracy",
    "auroc": "AUROC",
    "oscr": "OSCR",
    "within": "within families",
    "between": "between families",
    "ratio": "within / between",
    "related_at_first": "related centers at first",
    "related": "at last",
    "related_in_family": "of these in one family",
}


def study(
    data: Path, out: Path, *, variants: list[str], seeds: list[int], image_size: int, epochs: int, drop_every: int
) -> None:
    """Train every variant with every seed and write the metrics of the test split."""
    manifest = Manifest.read(data)
    make_config, make_recipe = PRESETS["tiny"]
    config = make_config(generators=manifest.generators("seen"), image_size=image_size, parsing=None, language=None)
    train_set = load_split(manifest, config, "train")
    settings = {"image_size": image_size, "epochs": epochs, "drop_every": drop_every, "images": len(train_set)}
    content = json.loads(out.read_text()) if out.is_file() else {"settings": settings, "runs": []}
    if content["settings"] != settings:
        raise SystemExit(f"--out: expected a study with {settings}, got {content['settings']} in {out}")
    done = {(run["variant"], run["seed"]) for run in content["runs"]}
    for seed, name in itertools.product(seeds, variants):
        if (name, seed) in done:
            continue
        objective = VARIANTS[name] | {"weights": {"cmc": 0.0, "cpc": 0.0, "kl": 0.0}}
        recipe = make_recipe(epochs=epochs, drop_every=drop_every, seed=seed, objective=objective)
        torch.manual_seed(seed)
        task = BMRLTask(build_model(config), recipe)
        relations = _Relations()
        fit(task, train_set, None, progress=False, callbacks=[relations])
        predictions = predict(task.model, manifest)
        metrics = summarize(predictions, config.decision.thresholds).metrics
        metrics |= family_distances(predictions) | relations.metrics(predictions)
        run = {"variant": name, "seed": seed} | {metric: metrics[metric] for metric in METRICS}
        run["related_by_epoch"] = [int(related.sum()) for related in relations.related]
        print(run, flush=True)
        content["runs"].append(run)
        content["environment"] = {"torch": torch.__version__, "machine": platform.machine()}
        write_text(out, json.dumps(content, indent=1) + "\n")


def family_distances(predictions: Predictions) -> dict[str, float]:
    """Distances between the mean embeddings of the seen classes, averaged over pairs of one family and of two.

    A family is a manipulation by an architecture, and all photographs. Embeddings are taken at length 1.
    """
    unit = F.normalize(predictions.embeddings.double())
    means = torch.stack([unit[predictions.labels == label].mean(0) for label in range(len(predictions.generators))])
    same_family = _same_family(predictions)
    distances = torch.cdist(means, means)
    pairs = torch.ones_like(same_family).triu(1)
    within = distances[pairs & same_family].mean().item()
    between = distances[pairs & ~same_family].mean().item()
    return {"within": within, "between": between, "ratio": within / between}


class _Relations(Callback):
    """Which pairs of centers lie within the margin: before training and after each epoch."""

    def __init__(self) -> None:
        self.related: list[Tensor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        loss = pl_module.objective.dfacc
        if loss is not None:
            centers = loss.centers.detach().double()
            self.related.append((torch.cdist(centers, centers) < loss.margin).triu(1))

    def metrics(self, predictions: Predictions) -> dict[str, float | None]:
        if not self.related:
            return dict.fromkeys(("related_at_first", "related", "related_in_family"))
        return {
            "related_at_first": float(self.related[0].sum()),
            "related": float(self.related[-1].sum()),
            "related_in_family": float((self.related[-1] & _same_family(predictions)).sum()),
        }


def _same_family(predictions: Predictions) -> Tensor:
    families = [(generator.manipulation, generator.architecture) for generator in predictions.generators]
    return torch.tensor([[one == other for other in families] for one in families])


def table(file: Path) -> str:
    """Return the study as a Markdown table: mean and range over the seeds."""
    runs = json.loads(file.read_text())["runs"]
    lines = [["", *METRICS.values()], ["---"] * (len(METRICS) + 1)]
    for name in dict.fromkeys(run["variant"] for run in runs):
        mine = [run for run in runs if run["variant"] == name]
        lines.append([name, *(_cell([run[metric] for run in mine]) for metric in METRICS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(values: list[float | None]) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return "-"
    digits = 0 if all(value.is_integer() for value in present) else 3
    low, high = (f"{extreme:.{digits}f}" for extreme in (min(present), max(present)))
    return f"{statistics.mean(present):.{max(digits, 1)}f} ({low}-{high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, continued if it exists")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--drop-every", type=int, default=5, help="epochs before the learning rate falls tenfold")
    options = vars(parser.parse_args())
    study(**options)
    print(table(options["out"]))


if __name__ == "__main__":
    main()
