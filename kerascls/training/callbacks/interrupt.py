"""A callback that ends training after a step when the user presses Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import keras


class Interruptible(keras.callbacks.Callback):
    """Inside `with`, Ctrl-C or SIGTERM ends training when the call into TensorFlow that is under way has ended, after
    `save` was called; a second one, at once.

    Python's own KeyboardInterrupt comes wherever the main thread is, and TensorFlow may crash on one in its own code.
    Only in the main thread, and only where the signal is not ignored or somebody else's.
    """

    def __init__(self, save: Callable[[], None] = lambda: None):
        super().__init__()
        self.save = save

    def __enter__(self) -> "Interruptible":
        self.asked = False
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        main = threading.current_thread() is threading.main_thread()
        self.before = {number: how for number, how in usual.items() if main and signal.getsignal(number) == how}
        for number in self.before:
            signal.signal(number, self.ask)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, how in self.before.items():
            signal.signal(number, how)

    def ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("Finishing the step and saving. Ctrl-C again stops at once.", file=sys.stderr, flush=True)

    def check(self, *_: Any, **__: Any) -> None:
        if self.asked:
            self.save()
            raise KeyboardInterrupt

    on_epoch_begin = on_train_batch_end = on_test_batch_end = on_train_end = check
