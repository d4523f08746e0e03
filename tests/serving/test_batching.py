"""Batches that clients share."""

import asyncio
import threading
import time

import numpy as np
import pytest

from kerascls.errors import Busy, DataError
from kerascls.serving.batching import Batcher


def batched(work, read=None, forward=None, **options):
    """Runs `work(batcher)`, returns what it returns and the sizes of the batches. Item i has pixels and row [i]."""
    sizes = []

    async def run():
        batcher = Batcher(
            read or (lambda items: [np.array([item]) for item in items]),
            forward or (lambda images: images),
            observe=sizes.append,
            **options,
        )
        await batcher.start()
        try:
            return await work(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(run()), sizes


def rows(answers):
    return [answer if isinstance(answer, Exception) else answer[1].tolist() for answer in answers]


def test_clients_that_come_together_share_a_batch_and_get_their_own_answers():
    async def work(batcher):
        return await asyncio.gather(*(batcher.answer([i, i + 100]) for i in range(8)))

    answers, sizes = batched(work, max_delay=1.0)
    assert [rows(each) for each in answers] == [[[i], [i + 100]] for i in range(8)]
    assert sum(sizes) == 16 and max(sizes) > 4


def test_a_batch_is_never_larger_than_allowed():
    async def work(batcher):
        return await batcher.answer(range(50))

    answers, sizes = batched(work, max_batch=8)
    assert rows(answers) == [[i] for i in range(50)]
    assert sum(sizes) == 50 and max(sizes) <= 8


def test_who_comes_alone_does_not_wait():
    async def work(batcher):
        begin = time.perf_counter()
        for _ in range(3):
            await batcher.answer([1])
        return time.perf_counter() - begin

    seconds, sizes = batched(work, max_delay=5.0)
    assert seconds < 2 and sizes == [1, 1, 1]


def test_an_image_that_does_not_decode_fails_alone():
    def read(items):
        return [DataError("damaged") if item % 2 else np.array([item]) for item in items]

    async def work(batcher):
        return await asyncio.gather(*(batcher.answer([i]) for i in range(6)))

    answers, _ = batched(work, read, max_delay=0.5)
    assert [rows(each)[0] for each in answers][::2] == [[0], [2], [4]]
    assert all(isinstance(each[0], DataError) for each in answers[1::2])


def test_more_than_the_queue_holds_is_refused_and_room_comes_back():
    gate = threading.Event()

    def forward(images):
        gate.wait(10)
        return images

    async def work(batcher):
        first = asyncio.create_task(batcher.answer(range(4)))
        await asyncio.sleep(0.1)
        with pytest.raises(Busy, match="4 images are under way"):
            await batcher.answer([5])
        gate.set()
        return rows(await first), rows(await batcher.answer([5])), batcher.under_way

    assert batched(work, forward=forward, max_queue=4)[0] == ([[0], [1], [2], [3]], [[5]], 0)


def test_what_takes_too_long_is_given_up_and_costs_no_other():
    def forward(images):
        time.sleep(0.6 if images[0, 0] == 1 else 0)
        return images

    async def work(batcher):
        with pytest.raises(TimeoutError):
            await batcher.answer([1])
        with pytest.raises(TimeoutError):  # waits behind it
            await batcher.answer([2])
        await asyncio.sleep(0.3)
        return rows(await batcher.answer([3])), batcher.under_way

    answers, sizes = batched(work, forward=forward, timeout=0.25)
    assert answers == ([[3]], 0)
    assert sizes == [1, 1]  # nobody waited for 2 any more: it was not computed


def test_a_model_that_fails_fails_its_batch_alone():
    def forward(images):
        if images[0, 0] == 1:
            raise MemoryError("too large")
        return images

    async def work(batcher):
        with pytest.raises(MemoryError):
            await batcher.answer([1])
        return rows(await batcher.answer([2]))

    assert batched(work, forward=forward)[0] == [[2]]


def test_work_in_the_models_thread_is_counted_too():
    async def work(batcher):
        return await batcher.in_model_thread(lambda: threading.current_thread().name), batcher.under_way

    (name, under_way), _ = batched(work)
    assert name.startswith("model") and under_way == 0
