"""The whole path on simulated data: simulate, train, evaluate, export, serve, attribute over the wire, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bmrl._files import claimed
from bmrl.cli.demo_folder import clear, record
from bmrl.data.manifest import Manifest
from bmrl.data.simulated import simulate
from bmrl.errors import ServerError
from bmrl.evaluation import evaluate, format_metrics, predict, summarize, train_resnet18
from bmrl.evaluation.yardsticks import in_words
from bmrl.export import TritonClient, TritonServer, export_model, write_triton_repository
from bmrl.export.triton.remote import attribute_remotely
from bmrl.inference import Attribution, Attributor, format_table
from bmrl.models import BMRL, load_model
from bmrl.training import train
from bmrl.training.baselines.resnet18 import resnet18_recipe
from bmrl.training.hardware import check_single_process

if TYPE_CHECKING:
    import os

__all__ = ["demo"]

IMAGES_PER_GENERATOR = 160
IMAGE_SIZE = 64  # shows the traces, at a quarter of the work of the preset's 128
MODEL = {
    "image_size": IMAGE_SIZE,
    "statistics": {},  # tell the simulated generators apart almost alone
    "fusion.kind": "concat",
    "decision.score": "neighbors",
    "decision.typical": 0.4,  # strict: simulated unseen generators differ little from seen ones
}
RECIPE = {  # the simulated traces are plain: fewer epochs than the preset's will do
    "epochs": 8,
    "drop_every": 6,
    "augmentation": {"compress": 0.4, "compress_twice": 0.1, "least_quality": 70, "rescale": 0.2},
}
BASELINE_RECIPE = {"epochs": 7, "drop_every": 5}
IMAGES_SERVED = 10
TOLERANCE = 1e-4


def demo(out: str | os.PathLike[str] = "demo", *, seed: int = 0) -> Path:
    """Run every step once and print what each one did; nothing is downloaded.

    The data are *simulated*: their scores say that the software works, not how well faces of real generators are
    attributed.

    Args:
        out: a new or empty folder for the data, the model, the exports and the report. What an earlier demo made in it
            is replaced, unless something was added or changed since.
        seed: of the data and of the training.

    Returns:
        The report.

    Raises:
        ConfigError: ``out`` holds anything but what an earlier demo made; nothing is changed then.
        FolderInUseError: another process or thread writes into ``out``.
        ServerError: the server could not be started, or answered differently from the model.
    """
    folder = Path(out)
    check_single_process()
    with claimed(folder):
        clear(folder)
        try:
            return _run(folder, seed)
        finally:
            record(folder)


def _run(folder: Path, seed: int) -> Path:
    """Run every step in an empty folder and return the report."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)
        record(folder)  # so that a kill leaves little that the next demo does not know

    data, model = folder / "data", folder / "model"
    drawn = simulate(data, seed=seed, images_per_generator=IMAGES_PER_GENERATOR, image_size=IMAGE_SIZE)
    manifest = Manifest.read(drawn.folder)
    seen, unseen = len(manifest.generators("seen")), len(manifest.generators("unseen"))
    say(
        f"simulated {len(manifest.rows)} images by {seen} seen and {unseen} unseen generators: {data}/contact_sheet.png"
    )

    train(data, model, preset="tiny", model_changes=MODEL, recipe_changes={"seed": seed} | RECIPE)
    say(f"trained, and fitted when to say a name: {model}")

    config = load_model(model).config
    baseline = train_resnet18(manifest, config, resnet18_recipe(seed=seed, **BASELINE_RECIPE))
    say("trained a ResNet-18 for as many epochs, to compare")

    resnet18 = summarize(predict(cast("BMRL", baseline), manifest), config.decision.thresholds)
    evaluation = evaluate(model, data, folder / "report", baselines={"ResNet-18": resnet18})
    say("evaluated on the test split (simulated data):")
    print(format_metrics({"BMRL": evaluation, "ResNet-18": resnet18}))
    for sentence in in_words(evaluation.best_yardsticks):
        print(sentence)
    print("by the model's own decision, of seen images and of unseen ones:")
    for entry in evaluation.outcomes:
        print(
            f"  {entry['version']}: named rightly {entry['right']:.1%}, wrongly {entry['wrong']:.1%}; "
            f"unseen ones named {entry['unseen_named']:.1%}"
        )

    export_model(load_model(model), folder / "bmrl.pt")
    repository = write_triton_repository(load_model(model), folder / "repository")
    say(f"exported: {folder}/bmrl.pt and {repository}")

    rows = manifest.select(split="test")
    images = [str(manifest.image_path(row)) for row in rows[:: len(rows) // IMAGES_SERVED][:IMAGES_SERVED]]
    with TritonServer(repository) as server, TritonClient(server.grpc_url) as client:
        say(f"serving on {server.grpc_url} (gRPC) and {server.http_url} (HTTP)")
        served = [answer for answer in attribute_remotely(client, images) if isinstance(answer, Attribution)]
    say(f"attributed {len(served)} images over gRPC:")
    print(format_table(served))
    difference = _largest_difference(served, Attributor(model)(images))
    if difference > TOLERANCE:
        raise ServerError(f"served probabilities: expected the model's within {TOLERANCE}, got {difference:.1e} apart")
    report = folder / "report" / "report.html"
    say(f"served and local probabilities differ by at most {difference:.1e}; open {report}")
    return report


def _largest_difference(first: list[Attribution], second: list[Attribution]) -> float:
    return max(
        abs(probability - other.probabilities[name])
        for one, other in zip(first, second, strict=True)
        for name, probability in one.probabilities.items()
    )
