"""What a YAML file says of the generators in a folder that is to be imported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmrl._regular_files import open_regular
from bmrl._text import one_line, printable
from bmrl._values import described
from bmrl.data.importers.known import known_family
from bmrl.data.row import ROLES
from bmrl.errors import BMRLError, DataError, MissingExtraError, MissingFileError
from bmrl.generators import NAME_RULE, Generator, is_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["GeneratorRule", "families_entry", "read_families", "rule_of"]

_KEYS = ("generator", "manipulation", "architecture", "role", "group")
_SHARED = ("manipulation", "architecture", "role")  # keys on which all folders of one generator must agree
_YAML_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


@dataclass(frozen=True, slots=True)
class GeneratorRule:
    """What an importer needs to know of one folder.

    Attributes:
        generator: what made the images in the folder: its name and families.
        role: ``seen`` or ``unseen``.
        group: finds the group in an image's path below the folder, without the suffix: its first capturing group, or
            all it matches; None takes the file's name without the suffix.
    """

    generator: Generator
    role: str = "seen"
    group: re.Pattern[str] | None = None


def read_families(path: Path) -> dict[str, GeneratorRule]:
    r"""Read what a YAML file says of the generators, by folder.

    ::

        mygan:    {manipulation: EFS, architecture: GAN}
        my_swap:  {manipulation: FS, architecture: diffusion, role: unseen}
        photos:   {manipulation: none, group: '^(\d+)_'}
        photos_2: {generator: photos}
        DDPM:     {role: unseen}

    ``generator`` names the class of the folder's images, by default after the folder; folders that name the same
    generator become one class, and what they say of it must agree. What is left out is taken from the other folders of
    the generator; else the families are those of a published generator of this name (:func:`known_family`), the
    architecture of photographs is none, and the role is ``seen``. ``group`` is a regular expression
    (:class:`GeneratorRule`) for the one folder.

    Raises:
        MissingFileError: there is no such file.
        DataError: it can't be read, is not YAML, has an unknown key or value, lacks one, or contradicts itself.
        MissingExtraError: PyYAML is not installed.
    """
    where = printable(str(path))
    content = _read_yaml(path, where)
    for folder in content:
        if isinstance(folder, bool) or not isinstance(folder, str | int):
            raise DataError(f"{where}: expected generator names, got {folder!r}; put a name of another type in quotes")
        if not is_name(str(folder)):
            raise DataError(f"{where}: expected generator names of {NAME_RULE}, got {described(folder)}")
    places = {str(folder): f"{where}, {printable(str(folder))}" for folder in content}
    entries = {str(folder): _entry(str(folder), entry, places[str(folder)]) for folder, entry in content.items()}
    agreed = _agreed(entries, places)
    return {folder: _rule(entry, agreed[entry["generator"]], places[folder]) for folder, entry in entries.items()}


def _read_yaml(path: Path, where: str) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "train") from error
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8")
        content = yaml.safe_load(text)
        twice = _given_twice(yaml.compose(text, yaml.SafeLoader))
    except FileNotFoundError as error:
        raise MissingFileError(f"{where}: expected a YAML file, got nothing at this path") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{where}: expected a YAML file, got: {reason}") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{where}: expected a mapping of generator names, got {type(content).__name__}")
    if twice is not None:  # YAML would take the last
        raise DataError(f"{where}: expected each name once, got {described(twice)} twice")
    return content


def _given_twice(node: Any) -> str | None:
    """Return the first key that a YAML mapping, or one in it, holds twice."""
    if not isinstance(getattr(node, "value", None), list) or node.id != "mapping":
        return None
    keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    return twice or next(filter(None, (_given_twice(value) for _, value in node.value)), None)


def rule_of(folder: str, said: Mapping[str, GeneratorRule]) -> GeneratorRule | None:
    """Return the rule of one folder: what the user said of it, else what is known by its name; None if neither is.

    Args:
        folder: its name.
        said: what :func:`read_families` returned.
    """
    if folder in said:
        return said[folder]
    same = [rule for rule in said.values() if rule.generator.name == folder]
    if same:  # another folder's images are of the generator of this name
        return replace(same[-1], group=None)
    known = known_family(folder)
    return None if known is None else GeneratorRule(known)


def families_entry(name: str) -> str:
    """Return the YAML by which a user may say what a generator is, with a family to be corrected."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and name.lower() not in _YAML_WORDS
    return f"{name if plain else json.dumps(name, ensure_ascii=False)}: {{manipulation: EFS, architecture: GAN}}"


def _entry(folder: str, entry: Any, where: str) -> dict[str, Any]:
    """Return what the file says of one folder, with the name of its generator."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a mapping with the key manipulation, got {entry!r}")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise DataError(f"{where}: expected the keys {', '.join(_KEYS)}, got {unknown[0]!r}")
    name = entry.get("generator", folder)
    if isinstance(name, bool) or not isinstance(name, str | int) or not is_name(str(name)):
        raise DataError(f"{where}, generator: expected {NAME_RULE}, got {described(name)}")
    if "role" in entry and entry["role"] not in ROLES:
        raise DataError(f"{where}, role: expected {' or '.join(ROLES)}, got {entry['role']!r}")
    return {**entry, "generator": str(name)}


def _agreed(entries: Mapping[str, Mapping[str, Any]], places: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what all folders of each generator say of it together.

    Raises:
        DataError: two folders of one generator contradict each other.
    """
    agreed: dict[str, dict[str, Any]] = {}
    first: dict[tuple[str, str], str] = {}
    for folder, entry in entries.items():
        name = entry["generator"]
        shared = agreed.setdefault(name, {})
        for key in _SHARED:
            if key in entry and shared.setdefault(key, entry[key]) != entry[key]:
                raise DataError(
                    f"{places[folder]}, {key}: expected {described(shared[key])} for {name}, as {first[name, key]} "
                    f"says, got {described(entry[key])}"
                )
            if key in entry:
                first.setdefault((name, key), folder)
    return agreed


def _rule(entry: Mapping[str, Any], agreed: Mapping[str, Any], where: str) -> GeneratorRule:
    """Return the rule of one folder: what is agreed of its generator, completed by what is known of it by name."""
    name = entry["generator"]
    manipulation, architecture = agreed.get("manipulation"), agreed.get("architecture")
    known = known_family(name) if manipulation is None and architecture is None else None
    if manipulation == "none" and architecture is None:
        architecture = "none"
    try:
        generator = known or Generator(name=name, manipulation=manipulation, architecture=architecture)  # type: ignore[arg-type]
    except BMRLError as error:
        raise DataError(f"{where}, {error}") from error
    pattern = _pattern(entry["group"], where) if "group" in entry else None
    return GeneratorRule(generator, agreed.get("role", "seen"), pattern)


def _pattern(text: Any, where: str) -> re.Pattern[str]:
    if not isinstance(text, str):
        raise DataError(f"{where}, group: expected a regular expression, got {text!r}")
    try:
        return re.compile(text)
    except re.error as error:
        raise DataError(f"{where}, group: expected a regular expression, got {text!r}: {error}") from error
