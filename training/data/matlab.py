"""Lists of numbers and of names in MATLAB's .mat files (up to version 7.2)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from giqa.errors import TableInvalidError


def numbers(path: Path, *variables: str) -> list[float]:
    """Read a vector of numbers.

    Args:
        path: the file.
        variables: what it may be called; the first that is there is taken.

    Returns:
        Its elements; NaN and infinities are kept.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: it is no .mat file, has no such variable, or that holds no real numbers.
    """
    name, values = _variable(path, variables)
    if values.dtype.kind not in "biuf":
        raise TableInvalidError(f"{name} does not hold numbers", item=str(path))
    return [float(value) for value in values.ravel(order="F")]


def names(path: Path, *variables: str) -> list[str]:
    """Read a vector of strings: a cell array, or rows of characters.

    Args:
        path: the file.
        variables: what it may be called; the first that is there is taken.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: it is no .mat file, has no such variable, or that holds no strings.
    """
    name, values = _variable(path, variables)
    found = []
    for value in values.ravel(order="F"):
        while isinstance(value, np.ndarray) and value.size == 1:
            value = value.flat[0]
        if not isinstance(value, str):
            raise TableInvalidError(f"{name} does not hold names", item=str(path))
        found.append(value.strip())
    return found


def _variable(path: Path, variables: tuple[str, ...]) -> tuple[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, appendmat=False)
    except NotImplementedError as e:  # an HDF5 file
        raise TableInvalidError("MATLAB 7.3 is not read: save it as -v7", item=str(path)) from e
    except (MatReadError, ValueError, TypeError, KeyError, OSError, zlib.error, struct.error) as e:
        # A file that ends too soon is an OSError, too, without a number.
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise TableInvalidError(f"not a .mat file: {e}", item=str(path)) from e
    for name in variables:
        if name in found:
            return name, np.asarray(found[name])
    there = sorted(name for name in found if not name.startswith("__"))
    raise TableInvalidError(f"no variable {' or '.join(variables)}; it has {there}", item=str(path))
