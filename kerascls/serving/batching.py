"""Images of many clients share batches: threads that decode, one thread for the model, and a bounded queue.

Decoders take what waits as soon as they are free, the model takes what is decoded: neither waits for the other, so
batches grow by themselves while the model is busy, and an image that comes alone is answered at once.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerascls.errors import Busy, DataError
from kerascls.system import machine


@dataclasses.dataclass
class _Ticket:
    """An image on its way. `answer` becomes (pixels, row of probabilities)."""

    item: Any
    answer: asyncio.Future
    pixels: np.ndarray | None = None


class Batcher:
    """Answers images in shared batches. Used in one event loop, from `start` to `stop`.

    Args:
        read: takes items, returns of each uint8 pixels `image_shape` or a DataError; called in several threads.
        forward: takes uint8 `(n, *image_shape)`, returns `(n, num_classes)`; called in one thread at a time.
        max_batch: most images of a call of `forward`.
        max_delay: most seconds that a decoded image waits for others.
        max_queue: most images under way; more are refused.
        timeout: seconds within which an image must be answered.
        observe: is told the size of each batch.
    """

    def __init__(
        self,
        read: Callable[[list], Sequence[np.ndarray | DataError]],
        forward: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch: int = 32,
        max_delay: float = 0.005,
        max_queue: int = 256,
        timeout: float = 30.0,
        observe: Callable[[int], None] = lambda size: None,
    ):
        self.max_batch, self.max_delay, self.max_queue, self.timeout = max_batch, max_delay, max_queue, timeout
        self._read, self._forward, self._observe = read, forward, observe
        self._threads = machine.cores()
        self._encoded: collections.deque[_Ticket] = collections.deque()
        self._decoded: collections.deque[_Ticket] = collections.deque()
        self._decoding = 0  # images that decoders have
        self.under_way = 0  # images taken and not yet answered or given up

    async def start(self) -> None:
        self._some_encoded, self._some_decoded = asyncio.Event(), asyncio.Event()
        self._decoders = concurrent.futures.ThreadPoolExecutor(self._threads, "decode")
        self._model = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._loops = [asyncio.create_task(self._decode()) for _ in range(self._threads)]
        self._loops.append(asyncio.create_task(self._compute()))

    async def stop(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._model.shutdown(wait=False, cancel_futures=True)

    async def answer(self, items: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray] | DataError]:
        """Of each item, in order, its pixels and its probabilities `(num_classes,)`, or what is wrong with it.

        Raises:
            Busy: so many images are under way that these cannot be taken.
            TimeoutError: an image was not answered in time.
        """
        self._take(len(items))
        tickets = [_Ticket(item, asyncio.get_running_loop().create_future()) for item in items]
        for ticket in tickets:
            ticket.answer.add_done_callback(self._leave)
        self._encoded.extend(tickets)
        self._some_encoded.set()
        try:
            async with asyncio.timeout(self.timeout):
                return [await ticket.answer for ticket in tickets]
        finally:
            for ticket in tickets:
                if not ticket.answer.cancel() and not ticket.answer.cancelled():
                    ticket.answer.exception()  # asyncio complains of one that nobody looked at

    async def in_model_thread(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, in the model's thread between two batches. Raises as `answer` does."""
        self._take(1)
        future = asyncio.get_running_loop().run_in_executor(self._model, work)
        future.add_done_callback(self._leave)
        async with asyncio.timeout(self.timeout):
            return await future

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, in a decoder's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    def _take(self, count: int) -> None:
        if self.under_way + count > self.max_queue:
            raise Busy(f"{self.under_way} images are under way and at most {self.max_queue} may be. Try again.")
        self.under_way += count

    def _leave(self, _: asyncio.Future) -> None:
        self.under_way -= 1

    async def _decode(self) -> None:
        """One of the loops that take what waits, each its share."""
        while True:
            while not self._encoded:
                self._some_encoded.clear()
                await self._some_encoded.wait()
            share = min(self.max_batch, -(-len(self._encoded) // self._threads))
            tickets = [self._encoded.popleft() for _ in range(share)]
            tickets = [ticket for ticket in tickets if not ticket.answer.done()]  # its client may have given up
            if not tickets:
                continue
            self._decoding += len(tickets)
            try:
                read = await self.in_thread(lambda waiting=tickets: self._read([ticket.item for ticket in waiting]))
            except Exception as error:
                read = [error] * len(tickets)
            self._decoding -= len(tickets)
            for ticket, pixels in zip(tickets, read, strict=True):
                ticket.item = None  # the encoded bytes are of no more use
                if isinstance(pixels, np.ndarray):
                    ticket.pixels = pixels
                    self._decoded.append(ticket)
                elif isinstance(pixels, DataError):
                    _settle(ticket, pixels)
                else:
                    _fail(ticket, pixels)
            self._some_decoded.set()

    async def _compute(self) -> None:
        """The loop that feeds the model."""
        clock = asyncio.get_running_loop().time
        last = 1  # images of the batch before
        while True:
            while not self._decoded:
                self._some_decoded.clear()
                await self._some_decoded.wait()
            until = clock() + self.max_delay
            # Who comes alone is not kept waiting: others are waited for where some are being decoded, or where as many
            # came lately.
            while len(self._decoded) < self.max_batch and (wait := until - clock()) > 0:
                if len(self._decoded) >= last and not self._encoded and not self._decoding:
                    break
                self._some_decoded.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._some_decoded.wait()
                except TimeoutError:
                    break
            batch = [self._decoded.popleft() for _ in range(min(self.max_batch, len(self._decoded)))]
            batch = [ticket for ticket in batch if not ticket.answer.done()]
            if not batch:
                continue
            last = len(batch)
            self._observe(last)
            images = np.stack([ticket.pixels for ticket in batch])
            try:
                rows = await asyncio.get_running_loop().run_in_executor(self._model, self._forward, images)
            except Exception as error:
                for ticket in batch:
                    _fail(ticket, error)
                continue
            for ticket, row in zip(batch, rows, strict=True):
                _settle(ticket, (ticket.pixels, row))


def _settle(ticket: _Ticket, answer: Any) -> None:
    if not ticket.answer.done():
        ticket.answer.set_result(answer)


def _fail(ticket: _Ticket, error: Exception) -> None:
    if not ticket.answer.done():
        ticket.answer.set_exception(error)
