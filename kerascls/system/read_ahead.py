"""Work that all cores do ahead of who needs it, by a bounded number of batches: how images are read beside a model."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from kerascls.system import machine

Item, Result = TypeVar("Item"), TypeVar("Result")

_LEAST_SHARE = 8  # items that a thread takes at once; below, calling costs more than a core gains


def ahead(
    items: Iterable[Item], batch_size: int, work: Callable[[Sequence[Item]], Sequence[Result]]
) -> Iterator[tuple[list[Item], list[Result]]]:
    """`batch_size` items at a time, in order, with what `work` makes of them.

    Each core takes a share of a batch. `work` gets that share, in a thread, and returns a result for each of its items;
    what it raises is raised here, and what waits then is not begun.
    """
    cores = machine.cores()
    share = max(_LEAST_SHARE, -(-batch_size // cores))  # of a batch, to a core
    most = max(2, -(-2 * cores * share // batch_size))  # batches that wait, done, under way or yet to be
    rest = iter(items)
    waiting: collections.deque = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(cores)
    try:
        while True:
            while len(waiting) <= most and (batch := list(itertools.islice(rest, batch_size))):
                shares = [batch[at : at + share] for at in range(0, len(batch), share)]
                waiting.append((batch, [pool.submit(work, each) for each in shares]))
            if not waiting:
                return
            batch, tasks = waiting.popleft()
            yield batch, [result for task in tasks for result in task.result()]
    finally:
        pool.shutdown(cancel_futures=True)
