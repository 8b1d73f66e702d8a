"""What is known of a generator by its name, or said of it in a YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmrl.data._manifest_rules import ARCHITECTURES, MANIPULATIONS, ROLES
from bmrl.errors import DataError, MissingExtraError, MissingFileError
from bmrl.models.config import Generator

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GeneratorRule", "known_family", "read_families"]

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
    """Return the generator of this name if the paper has it or the name begins with "real", else None.

    Example:
        >>> known_family("sd2.1")
        Generator(name='sd2.1', manipulation='EFS', architecture='diffusion')
    """
    key = _key(name)
    for (manipulation, architecture), names in _KNOWN.items():
        if key in map(_key, names.split()) or (manipulation == "none" and key.startswith("real")):
            return _generator(name, manipulation, architecture)
    return None


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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: expected a YAML file, got nothing at this path") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: expected a YAML file, got: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected a mapping of generator names, got {type(content).__name__}")
    return {str(name): _rule(str(name), entry, f"{path}, {name}") for name, entry in content.items()}


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
