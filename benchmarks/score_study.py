"""Which score tells generators that a model was not trained on, and what fitting it to altered pictures brings.

python -m benchmarks.score_study --data DIR --others DIR --out FILE.json --leave-out NAME ... [--fold 0] [--seed 0]

A model is trained without some of the generators, on four fifths of the groups of the others, and sees the last fifth,
the pictures of the generators that were left out, and those of the generators of another data folder, all as they are
and altered. Of the fifth, one half of the groups stands for validation pictures, by which the combined score is chosen
and decisions are calibrated, and the other half is compared with the unseen pictures. No picture of a test split is
used. Each call adds a run to the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from sklearn.metrics import roc_auc_score

from benchmarks.fold_study import TESTED, fold_of, trained
from bmrl._files import write_text
from bmrl.data import ALTERATIONS, Manifest
from bmrl.data.alterations import read_versions
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.inference import Decider, fit_temperature, infer
from bmrl.inference.calibration import limits_for
from bmrl.inference.scores import SCORES, FittingData
from bmrl.models import CalibrationAnswers, FittedDecision

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bmrl.data import Row
    from bmrl.models import BMRL

LEAST_NEAR = 10
"""Seen pictures of an unseen generator's own collections, for an AUROC within them."""

ASKED = (0.02, 0.05, 0.1)
"""Shares of wrong names that are asked for."""

VERSIONS = ("as it is", *TESTED)


class Pictures(NamedTuple):
    """Embeddings ``(n, v, d)`` in all versions, and for each picture a name, a group and a collection."""

    embeddings: Tensor
    names: list[str]
    groups: list[str]
    collections: list[str]


def read(model: BMRL, images: list[tuple[Manifest, Row]]) -> Pictures:
    """Run the model on all versions of some images."""
    altered = [None, *(ALTERATIONS[name] for name in TESTED)]
    size = model.config.image_size
    found = [infer(model, read_versions(of.image_path(row), size, altered)).embedding for of, row in images]
    columns = ("generator", "group", "collection")
    return Pictures(torch.stack(found), *([getattr(row, column) for _, row in images] for column in columns))


def compare(
    head: Callable[[Tensor], Tensor], classes: list[str], train: Pictures, tested: Pictures, unseen: Pictures
) -> dict[str, Any]:
    """Return AUROCs by what the score was fitted to, the score, the unseen generator and the version.

    Args:
        head: from embeddings to logits.
        classes: the model's, in order.
        train: what the scores are fitted to.
        tested: pictures of the classes that the model was not trained on.
        unseen: pictures of other generators.
    """

    def data(embeddings: Tensor, pictures: Pictures, place: Tensor, held_out: FittingData | None) -> FittingData:
        chosen = place.tolist()
        return FittingData(
            logits=head(embeddings),
            embeddings=embeddings,
            labels=torch.tensor([classes.index(pictures.names[each]) for each in chosen]),
            sources=tuple(pictures.collections[each] for each in chosen),
            held_out=held_out,
        )

    order = {group: number for number, group in enumerate(sorted(set(tested.groups)))}
    validating = torch.tensor([order[group] % 2 == 0 for group in tested.groups])
    held, versions = validating.nonzero()[:, 0], len(VERSIONS)
    everything = torch.arange(len(train.names))
    fitted_to = {
        "as they are": data(
            train.embeddings[:, 0], train, everything, data(tested.embeddings[held, 0], tested, held, None)
        ),
        "all versions in turn": data(
            train.embeddings[everything, everything % versions],
            train,
            everything,
            data(tested.embeddings[held].flatten(0, 1), tested, held.repeat_interleave(versions), None),
        ),
    }
    names = sorted(set(unseen.names))
    of = {name: torch.tensor([each == name for each in unseen.names]) for name in names}
    homes = {name: {unseen.collections[place] for place in of[name].nonzero()[:, 0].tolist()} for name in names}
    compared = [tested.collections[place] for place in (~validating).nonzero()[:, 0].tolist()]
    near = {name: torch.tensor([each in homes[name] for each in compared]) for name in names}
    found: dict[str, Any] = {}
    for way, fitting in fitted_to.items():
        for kind, score_class in SCORES.items():
            score = score_class.fit(fitting)
            with torch.no_grad():
                scores = [
                    score(head(each), each).reshape(-1, versions)
                    for each in (tested.embeddings[~validating].flatten(0, 1), unseen.embeddings.flatten(0, 1))
                ]
            entry = {name: _aurocs(scores[0], scores[1][of[name]]) for name in names}
            for name in names:
                if near[name].sum() >= LEAST_NEAR:
                    entry[name]["one collection"] = _aurocs(scores[0][near[name]], scores[1][of[name]])["together"]
            found.setdefault(way, {})[kind] = entry | (
                {"weights": score.weights()} if kind == "combined" else {}  # type: ignore[attr-defined]
            )
    return found


def decide(
    head: Callable[[Tensor], Tensor], classes: list[str], train: Pictures, tested: Pictures, unseen: Pictures
) -> list[dict[str, Any]]:
    """Return what becomes of pictures by a decision of the score ``neighbors``, for each share of errors in ASKED.

    Half of the groups of ``tested`` stand for validation pictures and the other half is decided about, once this way
    and once the other. Arguments as of :func:`compare`.
    """

    def labels(pictures: Pictures) -> Tensor:
        return torch.tensor([classes.index(name) for name in pictures.names])

    order = {group: number for number, group in enumerate(sorted(set(tested.groups)))}
    even = torch.tensor([order[group] % 2 == 0 for group in tested.groups])
    place = torch.arange(len(train.names))
    fitted_to, versions = train.embeddings[place, place % len(VERSIONS)], len(VERSIONS)
    found = []
    for validating in (even, ~even):
        held = tested.embeddings[validating].transpose(0, 1)
        temperature = fit_temperature(head(held).flatten(0, 1), labels(tested)[validating].repeat(versions))
        fitting = FittingData(logits=head(fitted_to) / temperature, embeddings=fitted_to, labels=labels(train))
        decider = Decider(SCORES["neighbors"].fit(fitting), temperature)

        def decided(embeddings: Tensor, decider: Decider = decider) -> tuple[Tensor, Tensor]:
            parts = [decider(head(version), version) for version in embeddings.unbind(1)]
            return torch.stack([one for one, _ in parts]), torch.stack([score for _, score in parts])

        with torch.no_grad():
            of_held, of_seen, of_unseen = map(
                decided, (tested.embeddings[validating], tested.embeddings[~validating], unseen.embeddings)
            )
        fitted = FittedDecision(
            score="neighbors",
            state=decider.score.state_dict(),
            temperature=temperature,
            answers=CalibrationAnswers(
                versions=VERSIONS,
                scores=of_held[1],
                probabilities=of_held[0].amax(dim=2),
                right=of_held[0].argmax(dim=2) == labels(tested)[validating],
            ),
        )
        for max_error in ASKED:
            limits = limits_for(fitted, accept=0.95, typical=0.8, max_error=max_error)
            named, other = (
                (scores >= limits.seen) & (probabilities.amax(dim=2) >= limits.probability)
                for probabilities, scores in (of_seen, of_unseen)
            )
            right = of_seen[0].argmax(dim=2) == labels(tested)[~validating]
            shares = {"right": named & right, "wrong": named & ~right, "unseen_named": other}
            found.append(
                {"max_error": max_error, "validated": int(validating.sum())}
                | {name: share.double().mean(dim=1).tolist() for name, share in shares.items()}
            )
    return found


def _aurocs(seen: Tensor, unseen: Tensor) -> dict[str, float]:
    """Return the AUROC of each version, and of all of them together, from scores ``(n, v)``."""

    def auroc(one: Tensor, other: Tensor) -> float:
        labels = torch.cat((torch.ones(one.numel()), torch.zeros(other.numel())))
        return float(roc_auc_score(labels, torch.cat((one.flatten(), other.flatten()))))

    single = {name: auroc(seen[:, place], unseen[:, place]) for place, name in enumerate(VERSIONS)}
    return single | {"together": auroc(seen, unseen)}


def without(manifest: Manifest, names: list[str]) -> Manifest:
    """Return a manifest without some generators."""
    return Manifest(manifest.root, tuple(row for row in manifest.rows if row.generator not in names))


def study(data: Path, others: Path, out: Path, *, left_out: list[str], fold: int, seed: int) -> None:
    """Train one model, compare the scores, and add the run to the file."""
    everything, other = Manifest.read(data), Manifest.read(others)
    manifest = without(fold_of(everything, fold), left_out)
    model, seconds = trained(manifest, "recommended", seed)
    classes = [generator.name for generator in model.config.generators]
    rows = [row for row in everything.rows if row.generator in left_out and row.split != "test"]
    more = [row for row in other.rows if row.manipulation != "none" and row.generator not in classes]
    unseen = read(model, [(everything, row) for row in rows] + [(other, row) for row in more])
    train, tested = (
        read(model, [(manifest, row) for row in manifest.select(split=split)]) for split in ("train", "test")
    )
    with torch.no_grad():
        run = {"left_out": left_out, "fold": fold, "seed": seed, "seconds": round(seconds)}
        given = (lambda each: model.head(each)), classes, train, tested, unseen
        run |= {"auroc": compare(*given), "decided": decide(*given)}
    content = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"runs": []}
    content["runs"].append(run)
    write_text(out, json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", dest="left_out", nargs="*", default=[])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    study(**vars(options))


if __name__ == "__main__":
    main()
