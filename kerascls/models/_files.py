"""The reading of Keras files, for every room from here to the right."""

from pathlib import Path

import keras

from kerascls.errors import ModelError

KINDS = {b"PK": (".keras",), b"\x89HDF\r\n\x1a\n": (".h5", ".hdf5")}  # first bytes and the suffixes that Keras goes by


def read_model(path: Path) -> keras.Model:
    """Opens a .keras or .h5 file in safe mode, uncompiled: no code of the file runs.

    Raises:
        ModelError: it is missing, cut short, damaged, or not a model that Keras 3 reads.
    """
    if not path.is_file():
        raise ModelError(f"Model {path} does not exist.")
    with path.open("rb") as file:
        magic = file.read(8)
    suffixes = next((suffixes for start, suffixes in KINDS.items() if magic.startswith(start)), None)
    if suffixes is None:
        raise ModelError(
            f"{path} is not a model file: expected .keras or .h5. Received a file that begins with {magic[:4]!r}."
        )
    if path.suffix not in suffixes:
        raise ModelError(f"{path} must end in {' or '.join(suffixes)}.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py raise whatever a damaged file leads them to
        raise not_loadable(path, error) from None


def not_loadable(path: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"{path} cannot be loaded: it is cut short, damaged, or not a model that Keras 3 reads ({reason[:160]})."
    )
