"""What is known of a generator by its name, or said of it in a YAML file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmrl._checks import described
from bmrl._regular_files import open_regular
from bmrl._text import one_line, printable
from bmrl.data.row import ROLES
from bmrl.errors import DataError, MissingExtraError, MissingFileError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, NAME_RULE, Generator, is_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PHOTOGRAPHS", "GeneratorRule", "families_entry", "known_family", "names_photographs", "read_families"]

# The seen and unseen generators of arXiv:2504.14129, in DF40's spellings too; the families are inferred from the
# generators' own publications. Names are compared without case and punctuation.
_KNOWN = {
    ("EFS", "GAN"): "StyleGAN2 StyleGAN3 VQGAN",
    ("EFS", "diffusion"): "DDPM LatDiff CollDiff CollabDiff SD-2.1 DiT SiT",
    ("AM", "GAN"): "LatTrans",
    ("AM", "diffusion"): "Diffae",
    ("FS", "GAN"): "FSLSD FaceSwapper SimSwap InSwapper InSwap UniFace e4s",
    ("FS", "diffusion"): "DiffFace REFace",
    ("none", "none"): "CelebA CelebA-HQ FFHQ",
}

PHOTOGRAPHS = "real"
"""The class of photographs that lie in a generator's folder."""

_YAML_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
_REAL = frozenset(("real", "reals"))
_MADE = re.compile(
    r"fake|swap|gan|diff|synth|gener|edit|manip|^(not|non|un|and|vs|or|ai|vis|visxl|nvp|time|sd[0-9]*|sdxl|xl|flux)$"
)


@dataclass(frozen=True, slots=True)
class GeneratorRule:
    """What an importer needs to know of one generator.

    Attributes:
        generator: its name and families.
        role: ``seen`` or ``unseen``.
        group: finds the group in an image's path below the generator's folder, without the suffix: its first
            capturing group, or all it matches; None takes the file's name without the suffix.
    """

    generator: Generator
    role: str = "seen"
    group: re.Pattern[str] | None = None


def known_family(name: str) -> Generator | None:
    """Return the generator of this name if the paper has it or the name says "photographs", else None.

    Example:
        >>> known_family("sd2.1")
        Generator(name='sd2.1', manipulation='EFS', architecture='diffusion')
    """
    key = _key(name)
    for (manipulation, architecture), names in _KNOWN.items():
        if key in map(_key, names.split()):
            return _generator(name, manipulation, architecture)
    return _generator(name, "none", "none") if names_photographs(name) else None


def names_photographs(name: str) -> bool:
    """Whether a folder of this name holds photographs: its first or last word is "real", and no word is a generator's.

    Words are what punctuation separates; numbers in front do not count. So ``realistic_vision``, ``RealVisXL`` and
    ``real_esrgan`` are none.

    Example:
        >>> [name for name in ("real_ffhq", "0_Real_FF++", "celeba_real", "RealVisXL") if names_photographs(name)]
        ['real_ffhq', '0_Real_FF++', 'celeba_real']
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    while words and words[0].isdigit():
        del words[0]
    return bool(words) and bool(_REAL & {words[0], words[-1]}) and not any(map(_MADE.search, words))


def read_families(path: Path) -> dict[str, GeneratorRule]:
    r"""Read what a YAML file says of generators, by name.

    ::

        mygan:    {manipulation: EFS, architecture: GAN}
        my_swap:  {manipulation: FS, architecture: diffusion, role: unseen}
        photos:   {manipulation: none, group: '^(\d+)_'}

    Photographs need no architecture; the role is ``seen`` unless it says otherwise; ``group`` is a regular
    expression (:class:`GeneratorRule`).

    Raises:
        MissingFileError: there is no such file.
        DataError: it can't be read, is not YAML, has an unknown key or value, or lacks one.
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "train") from error
    where = printable(str(path))
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
    for name in content:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise DataError(f"{where}: expected generator names, got {name!r}; put a name that means more in quotes")
        if not is_name(str(name)):
            raise DataError(f"{where}: expected generator names of {NAME_RULE}, got {described(name)}")
    return {str(name): _rule(str(name), entry, f"{where}, {printable(str(name))}") for name, entry in content.items()}


def _given_twice(node: Any) -> str | None:
    """Return the first key that a YAML mapping, or one in it, holds twice."""
    if not isinstance(getattr(node, "value", None), list) or node.id != "mapping":
        return None
    keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    return twice or next(filter(None, (_given_twice(value) for _, value in node.value)), None)


def families_entry(name: str) -> str:
    """Return the YAML by which a user may say what a generator is, with a family to be corrected."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and name.lower() not in _YAML_WORDS
    return f"{name if plain else json.dumps(name, ensure_ascii=False)}: {{manipulation: EFS, architecture: GAN}}"


def _rule(name: str, entry: Any, where: str) -> GeneratorRule:
    keys = ("manipulation", "architecture", "role", "group")
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a mapping with the key manipulation, got {entry!r}")
    unknown = [key for key in entry if key not in keys]
    if unknown:
        raise DataError(f"{where}: expected the keys {', '.join(keys)}, got {unknown[0]!r}")
    is_real = entry.get("manipulation") == "none"
    values = {"architecture": "none" if is_real else None, "role": "seen", **entry}
    for key, choices in (("manipulation", MANIPULATIONS), ("architecture", ARCHITECTURES), ("role", ROLES)):
        if values.get(key) not in choices:
            raise DataError(f"{where}, {key}: expected {' or '.join(choices)}, got {values.get(key)!r}")
    if is_real != (values["architecture"] == "none"):
        raise DataError(
            f"{where}, architecture: expected none exactly for photographs (manipulation none), "
            f"got {values['architecture']} with manipulation {values['manipulation']}"
        )
    return GeneratorRule(
        _generator(name, values["manipulation"], values["architecture"]),
        values["role"],
        _pattern(entry["group"], where) if "group" in entry else None,
    )


def _pattern(text: Any, where: str) -> re.Pattern[str]:
    if not isinstance(text, str):
        raise DataError(f"{where}, group: expected a regular expression, got {text!r}")
    try:
        return re.compile(text)
    except re.error as error:
        raise DataError(f"{where}, group: expected a regular expression, got {text!r}: {error}") from error


def _generator(name: str, manipulation: Any, architecture: Any) -> Generator:
    return Generator(name=name, manipulation=manipulation, architecture=architecture)


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
