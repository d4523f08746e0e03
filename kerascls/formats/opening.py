"""Models that other runtimes than TensorFlow run: LiteRT (.tflite), ONNX Runtime (.onnx) and OpenVINO (.xml and .bin).

Each class is called with uint8 `(n, height, width, channels)` in [0, 255] and gives float32 `(n, num_classes)`. Its
`input_shape` and `output_shape` are as a keras.Model has them, and `card` is the text of its card.
`kind` is its name for people, `suffix` that of its files, and `file_name`, of a model in a folder, the file that tells.
None imports TensorFlow, but for a .tflite where ai-edge-litert is not installed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kerascls.errors import ModelError


def utf8(path: Path) -> str:
    """A path for libraries that take no other. Raises ModelError where its bytes are no UTF-8."""
    try:
        return str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        raise ModelError(f"{path} cannot be opened under a name that is not UTF-8: rename or copy it.") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """One line in place of what a runtime says of a damaged file. Each has exceptions of its own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0]
        raise ModelError(f"Model {path} cannot be loaded: {reason[:200]}") from None


def there(path: Path, card: str | None) -> str:
    if card is None:
        raise ModelError(
            f"Model {path} has no card (class names, image shape): it is cut short, or not one that `kerascls export` "
            "wrote."
        )
    return card


def check(path: Path, fits: bool, received: str) -> None:
    if not fits:
        raise ModelError(f"Model {path} must take a batch of float32 images. Received: {received}")
