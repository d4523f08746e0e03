"""Whether a host answers."""

import threading
import urllib.error
import urllib.request

_HOST = "https://storage.googleapis.com/tfds-data/"  # where TFDS itself looks first
_PATIENCE = 5.0  # seconds; without a network TFDS alone would try for over 200


def network_reachable(url: str = _HOST, seconds: float = _PATIENCE) -> bool:
    """Whether one request through the user's proxy settings is answered, whatever the answer, within `seconds`."""
    answered = threading.Event()
    finished = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError):
            pass
        finished.set()

    # In a thread of its own, because looking a host's name up knows no time limit.
    threading.Thread(target=ask, daemon=True).start()
    finished.wait(seconds)
    return answered.is_set()
