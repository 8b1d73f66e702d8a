"""The images of a manifest as a PyTorch data set."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bmrl._checks import check_integer
from bmrl._values import check_switch
from bmrl.data._parsing_map import lower_lip_share, order_problem
from bmrl.data._reading import header_problem, read_row, reason
from bmrl.data.manifest import PARSING
from bmrl.errors import DataError, ImageError, MissingFileError
from bmrl.images import MAX_IMAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.generators import Generator

__all__ = ["CACHE_BYTES", "UNSEEN", "FaceDataset", "Sample"]

CACHE_BYTES = 4 * 2**30
"""Memory that decoded images and maps may take by default: some 21,000 of them at 224 px."""

UNSEEN = -1
"""The label of every image of an unseen generator."""

CHUNK = 64
"""Images that a thread examines at a time."""

MOST_REPLACED = 100
"""Consecutive images that fail to decode before that is an error."""

_logger = logging.getLogger(__name__)


class Sample(TypedDict):
    """One image: what :class:`FaceDataset` yields; PyTorch's default collation makes batches of it."""

    image: Tensor
    parsing: Tensor
    has_parsing: bool
    label: int
    index: int


class FaceDataset(Dataset[Sample]):
    """The readable images of one split of a manifest, labeled, and held in memory as far as they fit.

    At construction, in threads, the images that the cache holds are decoded; of the others only the headers are read,
    so that a million images take minutes. Images that can't be read are left out, listed in ``skipped`` and reported
    as one warning of the logger ``bmrl.data.dataset``; parsing maps that can't be used are handled the same way.

    An image beyond the cache may still turn out to be damaged, or vanish, when it is decoded. Then the next readable
    image replaces it from then on (with its own label and index); it is added to ``skipped``, with a warning. When many
    in a row fail, as after the loss of a disk, that is an error.

    The prompts belong to the class and not to the sample: see :func:`bmrl.data.prompts.prompt_tokens`.

    A sample is a dict:

    * ``image`` uint8 ``(3, image_size, image_size)``, the center square (:func:`bmrl.images.resize_image`);
    * ``parsing`` uint8 ``(image_size, image_size)``, class indices 0 to 18 of the same square, all 0 without a map;
    * ``has_parsing`` bool;
    * ``label`` int, the place in ``generators``, or -1 for an unseen generator;
    * ``index`` int, the place in ``rows``.

    Args:
        manifest: the images and what is known of them.
        split: ``train``, ``val`` or ``test``.
        image_size: > 0, the side of the samples in pixels.
        generators: the model's classes in label order (``config.generators``); only the names are compared.
        role: ``seen``, ``unseen``, or None for both.
        parsing: read the parsing maps; otherwise no sample has one.
        cache: hold decoded samples in memory; otherwise each access decodes again.
        cache_bytes: >= 0, memory that the cache may take; the samples beyond it are decoded on each access.
        transform: changes a sample (augmentation); it gets copies, never the cached tensors.

    Attributes:
        rows: the rows of the samples.
        labels: the labels of the samples.
        skipped: path and reason of each image left out, or replaced since (in this process).
        parsing_skipped: path and reason of each sample without a usable map (empty if ``parsing`` is off).
        num_parsing: the number of samples with a map, judged by the headers.

    Raises:
        DataError: no image of the split and role is in the manifest, or none is readable; a seen generator is
            not among ``generators``, or an unseen one is.
        DTypeError: an argument is of another type.
        RangeError: ``split``, ``role``, ``image_size`` or ``cache_bytes`` is out of range.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from bmrl.data import Manifest, Row
        >>> folder = tempfile.mkdtemp()
        >>> Image.new("RGB", (8, 6)).save(f"{folder}/a.png")
        >>> manifest = Manifest(folder, [Row("a.png", "DDPM", "EFS", "diffusion", "seen", "train", "a")])
        >>> generators = manifest.generators()
        >>> faces = FaceDataset(manifest, split="train", image_size=4, generators=generators, parsing=False)
        >>> len(faces), faces[0]["image"].shape, faces[0]["label"]
        (1, torch.Size([3, 4, 4]), 0)
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        split: str,
        image_size: int,
        generators: Sequence[Generator],
        role: str | None = "seen",
        parsing: bool = True,
        cache: bool = True,
        cache_bytes: int = CACHE_BYTES,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        check_integer("image_size", image_size, least=1, most=MAX_IMAGE_SIZE)
        check_integer("cache_bytes", cache_bytes, least=0)
        check_switch("parsing", parsing)
        check_switch("cache", cache)
        rows = manifest.select(split, role)
        where = f"{manifest.root}, {role or 'seen and unseen'} images of split {split}"
        if not rows:
            raise DataError(f"{where}: expected at least one, got none")
        labels = _labels(rows, generators)

        self.image_size = image_size
        self.transform = transform
        self._manifest = manifest
        self._parsing = parsing
        sample_bytes = image_size**2 * (4 if parsing else 3)
        num_cached = min(len(rows), cache_bytes // sample_bytes) if cache else 0
        self._cached_images = torch.empty(num_cached, 3, image_size, image_size, dtype=torch.uint8)
        self._cached_parsing = torch.zeros(num_cached if parsing else 0, image_size, image_size, dtype=torch.uint8)

        with ThreadPoolExecutor() as pool:
            chunks = (range(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK))
            examined = pool.map(lambda chunk: [self._examine(rows[slot], slot) for slot in chunk], chunks)
            findings = [finding for chunk in examined for finding in chunk]
        kept = [place for place, finding in enumerate(findings) if finding.image_problem is None]
        self._slots = kept
        self._lost: set[int] = set()
        order = order_problem([finding.lower_lip for finding in findings if finding.lower_lip is not None])
        self.rows = tuple(rows[place] for place in kept)
        self.labels = tuple(labels[place] for place in kept)
        self._has_parsing = tuple(parsing and findings[place].parsing_problem is None for place in kept)
        self.num_parsing = sum(self._has_parsing)
        self.skipped = _problems((row.path, finding.image_problem) for row, finding in zip(rows, findings, strict=True))
        self.parsing_skipped = _problems((rows[place].path, findings[place].parsing_problem) for place in kept)
        if not kept:
            raise DataError(f"{where}: expected a readable one, got {_summary(self.skipped)}")
        if self.skipped:
            _logger.warning("%s: skipped %s of %d", where, _summary(self.skipped), len(rows))
        if order is not None:
            _logger.warning("%s: %s", where, order)
        if self.parsing_skipped and not (manifest.root / PARSING).is_dir():
            _logger.warning("%s: no parsing maps, got no folder %s", where, PARSING)
        elif self.parsing_skipped:
            _logger.warning("%s: no parsing map for %s of %d", where, _summary(self.parsing_skipped), len(kept))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        error: Exception | None = None
        for place in range(index, index + min(len(self), MOST_REPLACED)):
            place %= len(self)
            if place not in self._lost:
                try:
                    sample = self._sample(place)
                except (ImageError, MissingFileError) as problem:
                    error = problem
                    self._replace(place, error)
                else:
                    return sample if self.transform is None else self.transform(sample)
        raise DataError(
            f"{self._manifest.root}: expected readable images, got {min(len(self), MOST_REPLACED)} in a row that can't "
            f"be read any more, the last {self.skipped[-1][0]} ({self.skipped[-1][1]})"
        ) from error

    def _sample(self, index: int) -> Sample:
        slot = self._slots[index]
        if slot < len(self._cached_images):
            image = self._cached_images[slot].clone()
            parsing = self._cached_parsing[slot].clone() if self._has_parsing[index] else None
        else:
            image, parsing, _ = read_row(
                self._manifest, self.rows[index], self.image_size, parsing=self._has_parsing[index]
            )
        return Sample(
            image=image,
            parsing=torch.zeros(image.shape[1:], dtype=torch.uint8) if parsing is None else parsing,
            has_parsing=parsing is not None,
            label=self.labels[index],
            index=index,
        )

    def _replace(self, index: int, error: Exception) -> None:
        """Remember that a sample can't be read, so that the next one replaces it, and log that."""
        self._lost.add(index)
        path = self.rows[index].path
        self.skipped.append((path, reason(error, path)))
        _logger.warning("%s: %s; the next image replaces it", self._manifest.root, error)

    def _examine(self, row: Row, slot: int) -> _Finding:
        """Decode one image and its map if they go into the cache, else read the headers; return what is wrong."""
        try:
            if slot >= len(self._cached_images):
                return _Finding(None, header_problem(self._manifest, row, parsing=self._parsing))
            image, parsing, parsing_problem = read_row(self._manifest, row, self.image_size, parsing=self._parsing)
        except (ImageError, MissingFileError) as error:
            return _Finding(reason(error, row.path), None)
        self._cached_images[slot] = image
        if parsing is None:
            return _Finding(None, parsing_problem)
        self._cached_parsing[slot] = parsing
        return _Finding(None, None, lower_lip_share(parsing))


class _Finding(NamedTuple):
    """What is wrong with one image and with its map (None: nothing), and the share of the lower lip in the map."""

    image_problem: str | None
    parsing_problem: str | None
    lower_lip: float | None = None


def _labels(rows: Sequence[Row], generators: Sequence[Generator]) -> list[int]:
    places = {generator.name: place for place, generator in enumerate(generators)}
    for row in rows:
        if (row.role == "seen") != (row.generator in places):
            expected = (
                f"one of {', '.join(places)}" if row.role == "seen" else "a generator that the model does not know"
            )
            raise DataError(f"{row.path}, column generator: expected {expected}, got {row.role} {row.generator!r}")
    return [places.get(row.generator, UNSEEN) for row in rows]


def _problems(candidates: Iterable[tuple[str, str | None]]) -> list[tuple[str, str]]:
    return [(path, problem) for path, problem in candidates if problem is not None]


def _summary(problems: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{path} ({problem})" for path, problem in problems[:3])
    return f"{len(problems)} ({shown}{'; ...' if len(problems) > 3 else ''})"
