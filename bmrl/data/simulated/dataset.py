"""Write the simulated data set: images, parsing maps, manifest and contact sheet, all from one seed."""

from __future__ import annotations

import contextlib
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from bmrl._checks import check_integer
from bmrl._files import claimed
from bmrl._values import check_path
from bmrl.data.manifest import PARSING, Manifest
from bmrl.data.row import Row
from bmrl.data.simulated.camera import to_bytes
from bmrl.data.simulated.contact_sheet import write_contact_sheet
from bmrl.data.simulated.folder import clear_folder, prepare_folder, save_image
from bmrl.data.simulated.manipulations import Scene
from bmrl.data.simulated.people import draw_identity, draw_photo
from bmrl.data.simulated.report import SimulationReport
from bmrl.data.simulated.simulators import SIMULATORS, Simulator
from bmrl.errors import DataError, RangeError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["simulate"]

_IDENTITY, _DONOR, _PICTURE = 0, 1, 2


def simulate(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    images_per_generator: int = 200,
    image_size: int = 128,
    workers: int | None = None,
) -> SimulationReport:
    """Draw a data set of simulated faces and generators into ``folder``.

    Person i is drawn once by every seen generator, each time in another pose, light and outfit, so that content
    tells nothing about the generator. People are split, not pictures: a fifth of them for testing, 3 in 40 for
    validation (at least one each), the rest for training; unseen generators draw the test people. The second person of
    a face swap belongs to the first and appears with no one else.

    ``folder`` then holds ``<generator>/<person>.png``, ``parsing/<generator>/<person>.png`` (class indices 0..18),
    ``manifest.csv``, ``contact_sheet.png`` and ``simulated.json`` (these arguments; it marks the folder as ours).

    Args:
        folder: new, empty, or an earlier output of this function, which is replaced.
        seed: >= 0. The same arguments give the same bytes, for any number of ``workers``.
        images_per_generator: images of each seen generator in all splits together, >= 3; an unseen one gets as many
            as a seen one has for testing.
        image_size: side of the images in pixels, 64 to 512 and a multiple of 16. Train at this size: resizing an image
            wipes out its generator's trace.
        workers: threads that draw, >= 1; by default one per processor. (NumPy and Pillow release the lock, and threads
            need no import guard in the caller's script.)

    Returns:
        Where the data set is and how many images of each generator are in each split.

    Raises:
        RangeError: an argument is outside its range.
        DTypeError: ``folder`` is not a path, or a number is not an integer.
        DataError: ``folder`` holds anything that this function did not write, and nothing is changed then; or a file
            can't be written: then nothing that was drawn stays.
        FolderInUseError: another process writes into ``folder`` now.

    Example:
        >>> import tempfile
        >>> report = simulate(tempfile.mkdtemp(), images_per_generator=3, image_size=64)
        >>> report.num_images, report.images["sim_camera"]
        (36, {'train': 1, 'val': 1, 'test': 1})
    """
    root = check_path("folder", folder)
    check_integer("seed", seed, least=0)
    check_integer("images_per_generator", images_per_generator, least=3, most=100_000)
    check_integer("image_size", image_size, least=64, most=512)
    if image_size % 16:
        raise RangeError(f"image_size: expected a multiple of 16, got {image_size}")
    if workers is not None:
        check_integer("workers", workers, least=1, most=1024)
    if os.path.lexists(root) and not root.is_dir():
        raise DataError(f"folder: expected a folder, got the file {root}")

    settings = {"seed": int(seed), "images_per_generator": int(images_per_generator), "image_size": int(image_size)}
    pictures = _plan(images_per_generator)
    missing = not root.exists()
    try:
        with claimed(root):
            prepare_folder(root, settings, [simulator.name for simulator in SIMULATORS])
            try:
                with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
                    list(pool.map(partial(_write_picture, root, seed, image_size), pictures))
                manifest = Manifest(root, tuple(picture.row for picture in pictures))
                write_contact_sheet(manifest, SIMULATORS)
                manifest.write()  # last: a folder with a manifest is complete
            except BaseException:
                with contextlib.suppress(DataError, OSError):  # report the first failure
                    clear_folder(root)
                raise
    finally:
        if missing:
            with contextlib.suppress(OSError):
                root.rmdir()  # only where it is empty
    return SimulationReport(folder=root, seed=int(seed), image_size=int(image_size), images=manifest.counts())


class _Picture(NamedTuple):
    """One picture to draw."""

    simulator: Simulator
    person: int
    row: Row


def _plan(images_per_generator: int) -> list[_Picture]:
    """Every picture of the data set, generator by generator."""
    test, val = max(1, images_per_generator // 5), max(1, images_per_generator * 3 // 40)
    train = images_per_generator - val - test
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    pictures = []
    for simulator in SIMULATORS:
        for person, split in enumerate(splits):
            if simulator.role == "seen" or split == "test":
                path, group = f"{simulator.name}/{person:04d}.png", f"person {person:04d}"
                family = simulator.manipulation, simulator.architecture, simulator.role
                pictures.append(_Picture(simulator, person, Row(path, simulator.name, *family, split, group)))
    return pictures


def _write_picture(root: Path, seed: int, image_size: int, picture: _Picture) -> None:
    """Draw one picture and its parsing map, from random numbers that belong only to this picture."""
    simulator, person, row = picture
    rng = np.random.default_rng([seed, _PICTURE, zlib.crc32(simulator.name.encode()), person])
    identity = draw_identity(np.random.default_rng([seed, _IDENTITY, person]))
    donor = draw_identity(np.random.default_rng([seed, _DONOR, person]))
    face = simulator.draw(Scene(identity, donor, draw_photo(rng), image_size), rng)
    save_image(Image.fromarray(to_bytes(face.image)), root / row.path)
    save_image(Image.fromarray(face.parsing), root / PARSING / row.path)
