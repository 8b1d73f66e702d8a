"""Every error that bmrl raises on bad input.

Each class derives from :class:`BMRLError`, so that one ``except`` catches them all, and from the
builtin that fits, so that code which has never heard of bmrl still handles them. Messages read
``argument: expected X, got Y`` on one line.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BMRLError",
    "ConfigError",
    "DTypeError",
    "DataError",
    "DeviceError",
    "DivergenceError",
    "ExportError",
    "FolderInUseError",
    "ImageError",
    "MissingExtraError",
    "MissingFileError",
    "ModelFolderError",
    "OutputError",
    "RangeError",
    "RepositoryError",
    "RequestRefusedError",
    "ServerError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "ShapeError",
    "VerificationError",
]


class BMRLError(Exception):
    """Base class of all errors raised by bmrl."""


class ShapeError(BMRLError, ValueError):
    """A tensor has the wrong number of axes or the wrong size along one."""


class DTypeError(BMRLError, TypeError):
    """A tensor or argument has the wrong type."""


class DeviceError(BMRLError, ValueError):
    """A device is not there, or tensors that must share one do not."""


class RangeError(BMRLError, ValueError):
    """A value lies outside its documented range."""


class ConfigError(BMRLError, ValueError):
    """A configuration has an unknown key or values that do not fit together."""


class DataError(BMRLError, ValueError):
    """A manifest or data folder does not hold what it must."""


class ImageError(BMRLError, ValueError):
    """An image can't be read, or is not safe to decode."""


class MissingFileError(BMRLError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class ModelFolderError(BMRLError, ValueError):
    """A model folder is incomplete, damaged or of another version."""


class OutputError(BMRLError, OSError):
    """A file or folder can't be written at the place that was named."""


class FolderInUseError(BMRLError, RuntimeError):
    """Another process writes into this folder now."""


class DivergenceError(BMRLError, ArithmeticError):
    """A training arrived at values that are not finite; the message says where, and what to try."""


class ExportError(BMRLError, RuntimeError):
    """A model could not be written in a format."""


class ArtifactError(BMRLError, ValueError):
    """An exported file is damaged, of another version, or not what its description says."""


class VerificationError(ExportError):
    """An exported file does not answer as its model does."""


class RepositoryError(BMRLError, ValueError):
    """A folder is not a model repository that a Triton server could serve, or can't take what is to be put into it."""


class ServerError(BMRLError, RuntimeError):
    """The inference server did not start, answer or stop as it should."""


class ServerUnavailableError(ServerError, ConnectionError):
    """The server could not be reached or said that it is not available; asking again later may help."""


class ServerTimeoutError(ServerError, TimeoutError):
    """The server did not answer in time."""


class RequestRefusedError(ServerError, ValueError):
    """The server refused the request; asking again does not help."""


class MissingExtraError(BMRLError, ImportError):
    """An optional package is not installed; the message names the extra that brings it.

    Args:
        package: what could not be imported.
        extra: one of pyproject.toml, which the README says how to install.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package}: not installed; it comes with the extra [{extra}] of bmrl (see README.md)")
