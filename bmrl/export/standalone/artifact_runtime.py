"""Loads and runs an exported file. Stands alone: it needs PyTorch, or what the format asks for, and never bmrl.

A copy of this file is in each Triton repository, where the served model runs it. As a program it answers images
from a file, which is how an export is verified::

    python -I artifact_runtime.py MODEL images.safetensors answers.safetensors --batches 1 3 64
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import io
import json
import os
import platform
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Graph = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

DESCRIPTION = "artifact.json"
OUTPUTS = ("probabilities", "embedding", "score")
"""What every exported graph gives out, in this order."""
SCHEMA = 2
MOST_BYTES = 64 * 2**20
"""Of ``artifact.json``, and of the description within a file."""
ADDED = {"sha256", "bytes", "verification"}
"""What only ``artifact.json`` says about a file, because it is known when the file is written."""
INSTRUCTION_SETS = {
    "flags": ("abm", "amx", "avx", "bmi", "f16c", "fma", "gfni", "lzcnt", "movbe", "popcnt", "sse", "ssse"),
    "features": ("asimd", "atomics", "bf16", "fp", "i8mm", "sme", "sve"),
}
"""What a compiler may make use of unasked, by the beginnings of the Linux kernel's names on x86 and on ARM."""
_LOADING = threading.Lock()


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks in this process, where by default each goes back to the system when it is freed.

    Then its pages need not be made again for the next batch: on a CPU, a model answers up to twice as often. For
    programs that run a model and nothing else: a library can't decide this.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold = -1, -3  # <malloc.h>
        # Before 2.35, glibc takes 32 MiB at most.
        if mallopt(m_mmap_threshold, 2**30) or mallopt(m_mmap_threshold, 32 * 2**20):
            mallopt(m_trim_threshold, 2**31 - 1)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what ``artifact.json`` next to an exported file says about it, once the two have been compared.

    The file's hash must be that of its entry, and what the file says about itself must be what the entry says.

    Args:
        path: the file.

    Returns:
        Its entry.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: one of the two is damaged, or they do not belong together.
    """
    path = Path(path)
    listing = path.with_name(DESCRIPTION)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected an exported file, got nothing there")
    if not path.is_file():
        raise ValueError(f"{path}: expected an exported file, got {'a folder' if path.is_dir() else 'no regular file'}")
    if not listing.exists():
        raise FileNotFoundError(f"{listing}: expected the description of {path.name}, got nothing there")
    entries = read_entries(listing)
    description = entries.get(path.name)
    if description is None:
        raise ValueError(f"{listing}: expected an entry for {path.name}, got {', '.join(sorted(entries)) or 'none'}")
    if not isinstance(description, dict) or "sha256" not in description:
        raise ValueError(f"{listing}: expected an entry with the hash of {path.name}, got none in it")
    try:
        got = sha256_of(path)
        if got != description["sha256"]:
            raise ValueError(f"{path}: expected the content with SHA-256 {description['sha256']}, got {got}")
        within = embedded_description(path)
    except OSError as error:
        raise ValueError(f"{path}: expected an exported file, got {_one_line(error)}") from None
    for name in sorted(within.keys() | (description.keys() - ADDED)):
        if name not in within or description.get(name) != within[name]:
            raise ValueError(f"{listing}: expected the {name} that {path.name} itself holds, got another")
    return description


def read_entries(listing: Path) -> dict[str, Any]:
    """Return the entries of an ``artifact.json``, by file name.

    Raises:
        ValueError: it is damaged, or was not written by bmrl.
    """
    if not listing.is_file():
        raise ValueError(f"{listing}: expected a description written by bmrl, got no regular file")
    expected = f"{listing}: expected a description written by bmrl"
    try:
        with open(listing, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{expected}, got {_one_line(error)}") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"{listing}: expected a description of at most {MOST_BYTES} bytes, got more")
    try:
        everything = json.loads(data.decode("utf-8"))
        schema, entries = everything["schema"], everything["artifacts"]
    except UnicodeDecodeError:
        raise ValueError(f"{listing}: expected JSON, got other bytes") from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{expected}, got {_one_line(error)}") from None
    if schema != SCHEMA:
        raise ValueError(f"{listing}: expected schema {SCHEMA}, got {schema!r}; export the file again")
    if not isinstance(entries, dict):
        raise ValueError(f"{listing}: expected a description written by bmrl, got entries that are none")
    return entries


def embedded_description(path: Path) -> dict[str, Any]:
    """Return what an exported file says about itself.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no description, or a damaged one.
    """
    expected = f"{path}: expected an exported file that holds its description"
    try:
        text = _text_in_archive(path) if zipfile.is_zipfile(path) else _text_in_onnx(path)
        found = None if text is None else json.loads(text)
    except OSError:
        raise
    except Exception as error:  # of zip archives, whose compression methods raise many kinds, of JSON, and our own
        raise ValueError(f"{expected}, got one with {_one_line(error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{expected}, got {'none in it' if found is None else type(found).__name__}")
    return found


def _text_in_archive(path: Path) -> str | bytes | None:
    """Return the description in a file that PyTorch wrote, which is a zip archive; None if it has none."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(f"/extra/{DESCRIPTION}"):
                return _read_entry(archive, entry)
            if entry.filename.endswith("_metadata.json"):  # of AOTInductor
                text: str | None = json.loads(_read_entry(archive, entry)).get(DESCRIPTION)
                if text is not None:
                    return text
    return None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return an entry's content, which unpacks to no more than a description may have."""
    if entry.file_size > MOST_BYTES:
        raise ValueError(f"{entry.file_size} bytes, of which {MOST_BYTES} are allowed")
    return archive.read(entry)


def _text_in_onnx(path: Path) -> bytes | None:
    """Return the description in an ONNX file; None if it has none.

    It is in ``ModelProto.metadata_props``, field 14: a key and a value each. Parsed here, because engines give it
    out in many ways, or not at all.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            field, kind = divmod(_varint(file), 8)
            if kind == 0:
                _varint(file)
                continue
            if kind not in (1, 2, 5):
                raise ValueError("what is neither a zip archive nor ONNX")
            length = {1: 8, 5: 4}.get(kind) or _varint(file)
            if field != 14:
                file.seek(length, os.SEEK_CUR)
                continue
            if length > min(size, MOST_BYTES):
                raise ValueError(f"{length} bytes, of which {MOST_BYTES} are allowed")
            entry = io.BytesIO(file.read(length))
            parts = {}
            while entry.tell() < length:
                key = _varint(entry) // 8
                parts[key] = entry.read(_varint(entry))
            if parts.get(1) == DESCRIPTION.encode():
                return parts.get(2)
    return None


def _varint(file: Any) -> int:
    """Read an integer as protobuf writes it."""
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | os.PathLike[str], *, num_threads: int | None = None, engine: str | None = None) -> Graph:
    """Return the graph of an exported file: uint8 images on the CPU in, what :data:`OUTPUTS` names out.

    Args:
        path: the file, with its ``artifact.json`` next to it.
        num_threads: CPU threads per run; None leaves the engine's choice. PyTorch's is set for the process.
        engine: one of the file's kind, see :data:`LOADERS`; None is its first.

    Raises:
        FileNotFoundError, ValueError: see :func:`describe`.
        ValueError: the file can't be read, or was made for another PyTorch or another processor.
        ImportError: the engine is not installed.
    """
    description = describe(path)
    kind = description.get("format")
    loader = LOADERS.get(kind) if isinstance(kind, str) else None
    if loader is None:
        raise ValueError(f"{path}: expected a format of {', '.join(LOADERS)}, got {kind!r}")
    try:
        device = description["device"]
        _check_fits(path, description, loader)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected an entry written by bmrl, got one without {error}") from None
    if engine not in (None, *loader.engines):
        known = ", ".join(map(str, loader.engines))
        raise ValueError(f"engine: expected {known} for a file of format {kind}, got {engine!r}")
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    run = loader.engines.get(engine) or next(iter(loader.engines.values()))
    try:
        with _without_pickle():
            return run(path, device, num_threads)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: expected a file of format {kind}, got one with {_one_line(error)!r}") from error


@contextlib.contextmanager
def _without_pickle() -> Iterator[None]:
    """Let ``torch.load`` build only tensors, in any code that calls it: loading a pt2 file falls back on pickle."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    with _LOADING:  # the environment belongs to all threads
        before = os.environ.get(name)
        os.environ[name] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def processor_features() -> list[str]:
    """Return the instruction sets of this processor that compiled code may need; none where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        key, _, names = line.partition(":")
        if (beginnings := INSTRUCTION_SETS.get(key.strip().lower())) is not None:
            return sorted(name for name in names.split() if name.startswith(beginnings))
    return []


def _check_fits(path: str | os.PathLike[str], description: dict[str, Any], loader: Loader) -> None:
    """Raise ValueError where a file was made for another PyTorch or processor."""
    wanted, got = {}, {"torch": str(torch.__version__)}
    if loader.same_torch:
        wanted["torch"] = description["versions"]["torch"]
    if loader.same_processor and description["device"] == "cpu":
        wanted["processor"] = description["processor"]
        got["processor"] = torch.backends.cpu.get_cpu_capability()
    for name, value in wanted.items():
        if got[name] != value:
            raise ValueError(
                f"{path}: expected {name} {value}, as where it was exported, got {got[name]}; export it again"
            )
    if loader.same_processor:  # the host's part of a program for a CUDA device is compiled for the processor, too
        missing = sorted({*description.get("processor_features", ())} - {*processor_features()})
        if missing:
            names = ", ".join(missing)
            raise ValueError(f"{path}: expected a processor with {names}, as where it was exported; export it again")


def _load_torchscript(path: str | os.PathLike[str], device: str, num_threads: int | None) -> Graph:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        graph = torch.jit.load(str(path), map_location=device).eval()

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Unoptimized, because the executor would stop to specialize the graph when batch sizes change.
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return _outputs(graph(images))

    return run


def _load_pt2(path: str | os.PathLike[str], device: str, num_threads: int | None) -> Graph:
    graph = torch.export.load(str(path)).module()

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            return _outputs(graph(images))

    return run


def _load_aoti(path: str | os.PathLike[str], device: str, num_threads: int | None) -> Graph:
    # As torch._inductor.aoti_load_package does, but for its comparison of processors, which needs a compiler and, at
    # the first time, a minute; _check_fits compares them.
    from torch.export.pt2_archive._package import AOTICompiledModel

    graph = AOTICompiledModel(torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1))

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            return tuple(output.cpu() for output in graph(images.to(device)))

    return run


def _load_onnxruntime(path: str | os.PathLike[str], device: str, num_threads: int | None) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _outputs(session.run(None, {"images": images.numpy()}))

    return run


def _load_openvino(path: str | os.PathLike[str], device: str, num_threads: int | None) -> Graph:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": num_threads or torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # or float32 would be computed in bfloat16 where the processor can
    }
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", options)

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _outputs(compiled([images.numpy()]).to_tuple())

    return run


def _outputs(outputs: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(output) for output in outputs)


class Loader(NamedTuple):
    """How files of a kind are loaded."""

    engines: dict[str | None, Callable[[str | os.PathLike[str], str, int | None], Graph]]
    """What runs them, the default first; None is PyTorch. Called with path, device and number of threads."""
    same_torch: bool = False
    """Whether they run only in the version of PyTorch that wrote them."""
    same_processor: bool = False
    """Whether they run only on processors with the instruction sets of the one that wrote them."""


LOADERS = {
    "torchscript": Loader({None: _load_torchscript}),
    "pt2": Loader({None: _load_pt2}, same_torch=True),
    "aoti": Loader({None: _load_aoti}, same_torch=True, same_processor=True),
    "onnx": Loader({"onnxruntime": _load_onnxruntime, "openvino": _load_openvino}),
}
"""By what an entry of ``artifact.json`` calls its ``format``."""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"


def _main() -> None:
    """Answer images in batches of several sizes; the last size takes all images, the others the first dozen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("answers")
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--engine")
    options = parser.parse_args()
    sys.modules["bmrl"] = None  # type: ignore[assignment]  # an import of it fails
    from safetensors.torch import load_file, save_file

    graph = load(options.model, engine=options.engine)
    images = load_file(options.images)["images"]
    answers = {}
    for size in options.batches:
        taken = images if size == options.batches[-1] else images[:12]
        outputs = [graph(part) for part in taken.split(size)]
        for name, parts in zip(OUTPUTS, zip(*outputs, strict=True), strict=True):
            answers[f"{name}.{size}"] = torch.cat(parts).contiguous()
    save_file(answers, options.answers)


if __name__ == "__main__":
    _main()
