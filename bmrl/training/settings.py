"""The settings of a run: those of a preset with changes, or those that an interrupted run was started with."""

from __future__ import annotations

import json
import os
from itertools import chain
from typing import TYPE_CHECKING, Any

from bmrl._fields import names_of, unknown_name
from bmrl._files import CLAIM
from bmrl._values import check_choice, described
from bmrl.errors import BMRLError, ConfigError, DataError, DivergenceError, DTypeError, MissingFileError
from bmrl.models import BMRL, BMRLConfig, load_model, presets
from bmrl.models.serialization import check_restorable
from bmrl.models.weights import difference
from bmrl.training import recipes
from bmrl.training._run_folder import DIVERGED, SETTINGS
from bmrl.training.recipes import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bmrl.data.manifest import Manifest

__all__ = ["PRESETS", "given_model", "new_settings", "read_settings"]

PRESETS: dict[str, tuple[Callable[..., BMRLConfig], Callable[..., TrainingConfig]]] = {
    "paper": (presets.paper, recipes.paper),
    "tiny": (presets.tiny, recipes.tiny),
    "recommended": (presets.recommended, recipes.recommended),
}
"""Presets by name: a model and the recipe that trains it."""


def new_settings(
    folder: Path, manifest: Manifest, base: str | BMRL, model_changes: dict[str, Any], recipe_changes: dict[str, Any]
) -> tuple[BMRLConfig, TrainingConfig]:
    """Return the settings of a new run: a preset's, for the manifest's seen generators, or a model's, with the changes.

    Args:
        folder: of the run.
        manifest: of the data.
        base: a preset's name, or the model that is to be trained.
        model_changes: of the preset's model, by field.
        recipe_changes: of the recipe, by field.

    Raises:
        ConfigError, DataError, RangeError: as :func:`~bmrl.training.train`.
    """
    if isinstance(base, str):
        check_choice("preset", base, PRESETS)
    if any(entry.name != CLAIM for entry in folder.iterdir()):
        hint = " (give --resume to continue the run in it)" if (folder / SETTINGS).is_file() else ""
        raise ConfigError(f"out: expected a new or empty folder, got {folder}{hint}")
    generators = manifest.generators("seen")
    if len(generators) < 2:
        raise DataError(f"{manifest.root}: expected at least two seen generators, got {len(generators)}")
    for argument, changes in (("model_changes", model_changes), ("recipe_changes", recipe_changes)):
        if not isinstance(changes, dict):
            raise ConfigError(f"{argument}: expected fields by name, got {type(changes).__name__}")
    if "generators" in model_changes:
        raise ConfigError(
            "generators: expected no such change (the manifest's seen generators are the classes), got one"
        )
    known = names_of(BMRLConfig, TrainingConfig)
    for name in chain(model_changes, recipe_changes):
        if not any(name in fields for fields in known.values()):
            raise unknown_name(name, known)
    for changes, owner, argument in (
        (model_changes, BMRLConfig, "recipe_changes"),
        (recipe_changes, TrainingConfig, "model_changes"),
    ):
        for name in changes:
            if name not in known[owner.__name__]:
                raise ConfigError(f"{name}: expected a field of {owner.__name__}, got one that belongs in {argument}")
    if isinstance(base, str):
        model_preset, recipe_preset = PRESETS[base]
        config, recipe = model_preset(generators=generators, **model_changes), recipe_preset(**recipe_changes)
    else:
        config, recipe = base.config, TrainingConfig().with_changes(recipe_changes)
        _check_generators(manifest, config, "model")
    if recipe.shift >= config.image_size:
        raise ConfigError(f"shift: expected less than image_size {config.image_size}, got {recipe.shift}")
    return config, recipe


def given_model(model: Any, preset: str | None, model_changes: dict[str, Any] | None) -> BMRL:
    """Return the model that is to be trained in place of a preset's, once it is known that it can be saved.

    Raises:
        ConfigError, DTypeError, ModelFolderError: as :func:`~bmrl.training.train`.
    """
    for argument, value in (("preset", preset), ("model_changes", model_changes)):
        if value is not None:
            raise ConfigError(f"{argument}: expected none together with model, got {described(value)}")
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    if not isinstance(model, BMRL):
        raise DTypeError(f"model: expected a BMRL or its folder, got {type(model).__name__}")
    check_restorable(model)
    return model


def _check_generators(manifest: Manifest, config: BMRLConfig, owner: str) -> None:
    names = [generator.name for generator in manifest.generators("seen")]
    expected = [generator.name for generator in config.generators]
    if names != expected:
        raise DataError(
            f"{manifest.root}: expected the {owner}'s generators {', '.join(expected)}, got {', '.join(names)}"
        )


def read_settings(folder: Path, manifest: Manifest, given: BMRL | None) -> tuple[BMRLConfig, TrainingConfig]:
    """Return the settings that an interrupted run was started with.

    Args:
        folder: of the run.
        manifest: of the data.
        given: the model that is to be trained, where the run began with one.

    Raises:
        ConfigError, DataError, DivergenceError, MissingFileError: as :func:`~bmrl.training.train`.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise MissingFileError(f"out: expected a run to resume with {path}, got no such file")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        config, recipe = BMRLConfig.from_dict(settings["model"]), TrainingConfig.from_dict(settings["recipe"])
    except BMRLError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: expected the settings of a training run, got {error!r}") from error
    diverged = folder / DIVERGED
    if diverged.is_file():
        raise DivergenceError(f"{diverged}: {diverged.read_text(encoding='utf-8', errors='replace').strip()}")
    _check_generators(manifest, config, "run")
    if given is None and settings.get("model_given"):
        raise ConfigError(f"model: expected the one that the run in {folder} began with, got none")
    if given is not None and given.config != config:
        field, wanted, got = difference("", config.to_dict(), given.config.to_dict())
        raise ConfigError(
            f"model: expected one of the configuration in {path}, got another {field}: {got}, not {wanted}"
        )
    return config, recipe
