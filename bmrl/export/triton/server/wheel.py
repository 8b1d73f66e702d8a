"""Where the ``nvidia-pytriton`` wheel keeps the Triton Inference Server, and how to run it from there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from bmrl.errors import ServerError

__all__ = ["link_backends", "link_models", "server_binary", "server_environment"]

STARTED_BY = ("bash", "env")
INSTALL_COMMAND = "pip install --no-deps nvidia-pytriton==0.7.0"


def _wheel() -> Path:
    """Return the wheel's ``tritonserver`` folder without importing the package, which needs more than the server."""
    spec = importlib.util.find_spec("pytriton")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location) / "tritonserver"
        if folder.is_dir():
            return folder
    raise ServerError(f"nvidia-pytriton: not installed; run: {INSTALL_COMMAND}")


def server_binary() -> Path:
    """Return the path of the ``tritonserver`` program.

    Raises:
        ServerError: the wheel is not installed; the message gives the command that installs it.
    """
    return _wheel() / "bin" / "tritonserver"


def link_backends(folder: Path) -> Path:
    """Lay out the Python backend for this Python version in ``folder`` and return ``folder``.

    The files are symbolic links: the stub finds its libraries relative to its real place, and a copy of it
    makes the server hang.

    Raises:
        ServerError: the wheel is not installed, or has no stub for this Python version.
    """
    wheel = _wheel()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        known = ", ".join(sorted(entry.name for entry in stub.parents[1].iterdir()))
        raise ServerError(f"python: expected a version that the server has a stub for ({known}), got {version}")
    backend = folder / "python"
    backend.mkdir(parents=True)
    source = wheel / "backends" / "python"
    for file in (source / "libtriton_python.so", source / "triton_python_backend_utils.py", stub):
        (backend / file.name).symlink_to(file)
    return folder


def link_models(repository: Path, folder: Path) -> list[str]:
    """Link the models of a repository into the new ``folder``, and return their names.

    A model is a folder with a configuration. What else is next to it, such as ``lost+found`` or a snapshot of the
    file system, would stop the server.
    """
    folder.mkdir(mode=0o700)
    names = []
    for config in sorted(repository.absolute().glob("*/config.pbtxt")):
        if not config.parent.name.startswith("."):
            (folder / config.parent.name).symlink_to(config.parent)
            names.append(config.parent.name)
    return names


def server_environment() -> dict[str, str]:
    """Return the environment in which the backend's stub runs this interpreter with this environment's packages.

    The stub is linked against libpython, and takes its packages from the first ``python3`` on PATH; it ignores
    PYTHONPATH. It is started by programs of the system: without them the server would wait for it forever.

    Raises:
        ServerError: one of those is not there.
    """
    environment = dict(os.environ)
    for program in STARTED_BY:
        if shutil.which(program) is None:
            environment["PATH"] = os.pathsep.join(part for part in (os.environ.get("PATH"), os.defpath) if part)
            if shutil.which(program, path=environment["PATH"]) is None:
                raise ServerError(
                    f"PATH: expected a folder with {program}, with which the server starts its models, "
                    f"got {environment['PATH']}"
                )
    first = {"PATH": str(Path(sys.executable).parent), "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""}
    for name, folder in first.items():
        environment[name] = os.pathsep.join(part for part in (folder, environment.get(name)) if part)
    return environment
