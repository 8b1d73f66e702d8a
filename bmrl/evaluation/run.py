"""Evaluation of a model on a manifest: ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmrl._checks import check_integer
from bmrl._extras import require
from bmrl._files import claimed, new_file
from bmrl._outputs import check_out_file, check_out_folder
from bmrl._values import check_choice
from bmrl.data.row import SPLITS, collections_by_generator
from bmrl.errors import DataError, DTypeError
from bmrl.evaluation._rows import as_manifest
from bmrl.evaluation.families import families_of_unseen
from bmrl.evaluation.outcomes import outcomes
from bmrl.evaluation.predictions import predict_and_describe
from bmrl.evaluation.report import render_report
from bmrl.evaluation.result import Evaluation
from bmrl.evaluation.sources import within_sources
from bmrl.evaluation.summary import as_summary, summarize
from bmrl.evaluation.yardsticks import YARDSTICKS, Describe, describers, fit_yardsticks
from bmrl.inference.calibrating import CALIBRATED_ALTERATIONS, chosen_alterations
from bmrl.inference.checks import check_thresholds
from bmrl.inference.decider import limits_of
from bmrl.inference.running import resolve_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from bmrl.data.manifest import Manifest
    from bmrl.evaluation._rows import Computed
    from bmrl.evaluation.summary import Summary
    from bmrl.models import BMRL, BMRLConfig

__all__ = ["evaluate"]

METRICS, REPORT = "metrics.json", "report.html"


def evaluate(
    model: BMRL | str | os.PathLike[str],
    data: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str = "test",
    thresholds: Sequence[float] | None = None,
    batch_size: int = 32,
    device: str | torch.device = "auto",
    baselines: Mapping[str, Summary | Mapping[str, Any]] | None = None,
    yardsticks: Sequence[str] = tuple(YARDSTICKS),
    alterations: Sequence[str] = CALIBRATED_ALTERATIONS,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model on one split and write ``metrics.json`` and ``report.html`` to ``out``.

    Both files appear whole or not at all; existing ones are replaced. Each image is decoded once.

    Args:
        model: a model or its folder.
        data: a folder with ``manifest.csv``, or its manifest; seen generators must be classes of the model, unseen
            ones must not.
        out: a folder, made if missing.
        split: ``train``, ``val`` or ``test``.
        thresholds: one or more in 0 .. 1; None: the model's.
        batch_size: images per step, >= 1; results do not depend on it.
        device: where to run, as PyTorch names devices. ``"auto"``: where a model that is passed is; one from a folder
            runs on the accelerator if there is one, and else on the CPU.
        baselines: results of other models on the same split, by name, to be shown next to this one's: what
            :func:`evaluate` or :func:`~bmrl.evaluation.summarize` returned, or the content of a ``metrics.json``.
        yardsticks: names of :data:`bmrl.evaluation.yardsticks.YARDSTICKS`: what linear probes of features that know
            nothing of generators achieve is shown next to the model (they need seen training images of two generators).
        alterations: names of :data:`bmrl.data.ALTERATIONS`: the model is tested on the images altered so, too, each
            of which takes as long as the test itself.
        progress: called after each step with the number of images done and of all.

    Returns:
        The metrics and the predictions behind them; ``to_dict()`` is the content of ``metrics.json``.

    Raises:
        DataError: the split has no image of a seen generator or none can be read, roles contradict the model's
            classes, or a baseline has no metrics.
        MissingFileError: there is no such model or manifest. MissingExtraError: the extra ``train`` is missing.
        OutputError: ``out`` can't be written. FolderInUseError: another evaluation or training writes into it.
        DeviceError: there is no such device.
        RangeError, DTypeError: another argument is out of range or of the wrong type, or the model returns NaN.
        All but NaN and images that can't be read is noticed before the work begins.
    """
    limits = None if thresholds is None else check_thresholds(thresholds)
    check_choice("split", split, SPLITS)
    check_integer("batch_size", batch_size, least=1)
    changes = chosen_alterations(alterations)
    summaries = _baselines(baselines)
    check_out_folder("out", out)
    target = Path(out)
    require("jinja2", "matplotlib", "sklearn")
    manifest = as_manifest(data)
    _check_seen(manifest, split)
    network = resolve_model(model, device)
    with _claimed(target):
        for file in (METRICS, REPORT):
            check_out_file("out", target / file)
        describe, left_out = describers(yardsticks, network.config.image_size)
        predictions, altered, features = predict_and_describe(
            network,
            manifest,
            (lambda images: tuple(each(images) for each in describe.values())) if describe else None,
            split=split,
            batch_size=batch_size,
            device="auto",
            alterations=changes,
            progress=progress,
        )
        limits = limits or network.config.decision.thresholds
        probes, reasons = _yardsticks(manifest, network.config, split, limits, describe, features)
        summary = summarize(predictions, limits)
        training = manifest.select(split="train", role="seen")
        evaluation = Evaluation(
            seen=summary.seen,
            unseen=summary.unseen,
            thresholds=summary.thresholds,
            detection=summary.detection,
            folder=target,
            model=_described(model, network),
            data={
                "root": str(manifest.root),
                "split": split,
                "num_images": len(predictions.rows),
                "num_skipped": len(predictions.skipped),
            },
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            predictions=predictions,
            limits=limits_of(network),
            outcomes=outcomes(predictions, altered),
            sources=within_sources(predictions, _trained(network) or collections_by_generator(training)),
            families=families_of_unseen(predictions, network, training),
            yardsticks=probes,
            yardsticks_left_out=left_out | reasons,
            baselines=summaries,
        )
        _write(evaluation)
    return evaluation


def _trained(network: BMRL) -> Mapping[str, tuple[str, ...]]:
    """Return the collections that the model says it was trained on, none if it does not say."""
    decision = getattr(network, "decision", None)
    return {} if decision is None else decision.collections


def _check_seen(manifest: Manifest, split: str) -> None:
    if not manifest.select(split=split, role="seen"):
        raise DataError(f"split: expected images of seen generators in the {split} split of {manifest.root}, got none")


def _described(model: BMRL | str | os.PathLike[str], network: BMRL) -> dict[str, Any]:
    folder = os.fsdecode(model) if isinstance(model, str | os.PathLike) else None
    return {
        "name": Path(folder).resolve().name if folder else type(network).__name__,
        "folder": folder,
        "image_size": network.config.image_size,
        "generators": [asdict(generator) for generator in network.config.generators],
    }


def _yardsticks(
    manifest: Manifest,
    config: BMRLConfig,
    split: str,
    thresholds: Sequence[float],
    describe: dict[str, Describe],
    features: Computed | None,
) -> tuple[dict[str, Summary], dict[str, str]]:
    """Return the summary of each yardstick, and why there are none."""
    if not describe:
        return {}, {}
    try:
        predictions = fit_yardsticks(
            manifest, config.generators, describe=describe, split=split, image_size=config.image_size, known=features
        )
    except DataError as error:
        return {}, dict.fromkeys(describe, str(error))
    return {name: summarize(each, thresholds) for name, each in predictions.items()}, {}


def _baselines(baselines: Mapping[str, Summary | Mapping[str, Any]] | None) -> dict[str, Summary]:
    if baselines is not None and not isinstance(baselines, Mapping):
        raise DTypeError(f"baselines: expected a mapping by name, got {type(baselines).__name__}")
    summaries = {}
    for name, baseline in (baselines or {}).items():
        try:
            summaries[name] = as_summary(baseline)
        except DataError as error:
            raise DataError(f"baselines: of {name!r}: {error}") from error
    return summaries


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep the folder for this process; one that was made for nothing is removed again."""
    is_new = not folder.exists()
    try:
        with claimed(folder):
            yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(evaluation: Evaluation) -> None:
    """Write both files to temporary places first, so that a full disk leaves both old ones."""
    metrics = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    report = render_report(evaluation)
    with new_file(evaluation.folder / METRICS) as first, new_file(evaluation.folder / REPORT) as second:
        for path, content in ((first, metrics), (second, report)):
            path.write_text(content, encoding="utf-8", errors="backslashreplace")  # of names that are not Unicode
