"""Arrays and metadata to one file and back: ``.npz`` or ``.safetensors``, written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["SUFFIXES", "SavedDraws", "atomic_path", "check_directory", "check_save", "load_draws", "save_draws"]

SUFFIXES = (".npz", ".safetensors")
_METADATA = "metadata"
_BFLOAT16 = "bfloat16_as_float32"
"""The metadata key that lists the arrays that an .npz holds in float32 because NumPy has no bfloat16."""


class SavedDraws(NamedTuple):
    """What a file holds."""

    arrays: dict[str, Tensor]
    """By name, on the CPU, in the dtype that was saved."""
    metadata: dict[str, str]
    """What was said about them."""


def save_draws(path: str | os.PathLike[str], arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to a file, whole or not at all.

    An .npz holds the metadata as JSON in a 0-d string array ``metadata``, and bfloat16 arrays in float32, which is
    exact; their names are in the metadata under ``bfloat16_as_float32``. A .safetensors file has both natively.

    Args:
        path: Ends in .npz or .safetensors. An existing file is replaced once the new one is complete.
        arrays: Tensors by name, on any device.
        metadata: Strings by name.

    Raises:
        ValueError: The suffix is neither of the two; an array is named "metadata"; the directory does not exist.
        TypeError: An array is no tensor, or a metadata value no string.
        ImportError: safetensors is not installed and the suffix asks for it.
        OSError: The file cannot be written; nothing of it is left.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_draws(folder + "/draws.npz", {"x": torch.zeros(3, 2)}, {"seed": "0"})
        ...     load_draws(folder + "/draws.npz").metadata
        {'seed': '0'}
    """
    target = Path(path)
    _format_of(target)
    for name, tensor in arrays.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"arrays[{name!r}]: expected a tensor, got {type(tensor).__name__}")
    for name, text in metadata.items():
        if not isinstance(text, str):
            raise TypeError(f"metadata[{name!r}]: expected a string, got {type(text).__name__}; use str(...)")
    if _METADATA in arrays:
        raise ValueError(f"arrays: expected names other than {_METADATA!r}, which the file uses itself; rename it")
    write: Callable[[Path, dict[str, Tensor], dict[str, str]], None] = (
        _write_npz if target.suffix == ".npz" else _write_safetensors
    )
    tensors = {name: tensor.detach().cpu() for name, tensor in arrays.items()}
    with atomic_path(target) as temporary:
        write(temporary, tensors, dict(metadata))


def load_draws(path: str | os.PathLike[str]) -> SavedDraws:
    """Read what :func:`save_draws` wrote; never unpickles.

    Args:
        path: An .npz or .safetensors file.

    Returns:
        :class:`SavedDraws` ``(arrays, metadata)``, the arrays in the dtype that was saved.

    Raises:
        ValueError: The suffix is neither of the two, or the file is damaged or of another kind.
        ImportError: safetensors is not installed and the file needs it.
        OSError: The file cannot be read.

    Example:
        >>> arrays, metadata = load_draws("draws.npz")  # doctest: +SKIP
    """
    source = Path(path)
    read = _read_npz if _format_of(source) == ".npz" else _read_safetensors
    try:
        return read(source)
    except (OSError, ImportError):
        raise
    except Exception as error:  # the two formats raise a dozen types for what is one thing
        raise ValueError(f"{source}: expected a file that save_draws wrote, got {type(error).__name__}: {error}") from (
            error
        )


def check_save(path: str | os.PathLike[str]) -> None:
    """Raise now what :func:`save_draws` would raise hours later: suffix, library, directory.

    Raises:
        ValueError, ImportError: Naming the path, what was expected, and what to do.
    """
    if _format_of(Path(path)) == ".safetensors":
        _safetensors()
    check_directory(Path(path))


def check_directory(path: Path) -> None:
    """Raise if a file at ``path`` could not be created; found out by creating another one beside it.

    Raises:
        ValueError: Naming the path, and what stands in the way.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise ValueError(f"{path}: expected a file name, got a directory")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a file, got a device or a pipe, which would be replaced")
    if not folder.is_dir():
        raise ValueError(f"{path}: expected an existing directory, got {str(folder)!r}; create it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{path}: expected a writable directory, got {str(folder)!r}: {error.strerror or error}"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same directory, which takes the place of ``path`` if the block succeeds.

    Whatever ends the block early, Ctrl-C too, leaves what was at ``path`` as it was, and no temporary file.
    """
    target = path.resolve()  # through a symbolic link, so that the link stays one
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut could keep the new name and lose the contents
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _format_of(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file name that ends in {' or '.join(SUFFIXES)}, got {path.name!r}")
    return path.suffix


def _write_npz(path: Path, arrays: dict[str, Tensor], metadata: dict[str, str]) -> None:
    import numpy as np

    widened = [name for name, tensor in arrays.items() if tensor.dtype == torch.bfloat16]
    if widened:
        metadata = metadata | {_BFLOAT16: ", ".join(widened)}
    columns: dict[str, Any] = {
        name: (tensor.float() if name in widened else tensor).numpy() for name, tensor in arrays.items()
    }
    columns[_METADATA] = np.array(json.dumps(metadata))
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez(file, **columns)


def _read_npz(path: Path) -> SavedDraws:
    import numpy as np

    # opened here: given a name, NumPy leaves a damaged file open
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        metadata: dict[str, str] = json.loads(str(file[_METADATA]))
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != _METADATA}
    for name in filter(None, metadata.pop(_BFLOAT16, "").split(", ")):
        arrays[name] = arrays[name].bfloat16()
    return SavedDraws(arrays, metadata)


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(".safetensors files need safetensors: pip install safetensors") from error
    module: ModuleType = safetensors
    return module


def _write_safetensors(path: Path, arrays: dict[str, Tensor], metadata: dict[str, str]) -> None:
    # a copy of each: two names for one tensor, and strided ones, are refused
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in arrays.items()}
    library = _safetensors()
    path.touch()
    mode = path.stat().st_mode
    try:
        library.torch.save_file(tensors, path, metadata=metadata)
        path.chmod(mode)  # some versions make the file readable by its owner alone
    except library.SafetensorError as error:  # its own name for a full disk
        raise OSError(str(error)) from error


def _read_safetensors(path: Path) -> SavedDraws:
    with _safetensors().safe_open(path, framework="pt") as file:
        return SavedDraws({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})
