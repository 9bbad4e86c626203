"""Computing and writing at the same time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
LOOK = 0.1  # seconds between two looks at whether the thread still works


class Abandoned(Exception):
    """Raised in the thread: there will be no more items, what it has of them is not whole."""


def consume(items: Iterable[T], consumer: Callable[[Iterator[T]], object], ahead: int) -> None:
    """Call `consumer` with `items` in a thread, while the items are computed in this one.

    Args:
        ahead: items that may wait for the consumer; with more, computing waits.

    Raises:
        Exception: whatever computing or the consumer raises; the other one is stopped first.
    """
    queue: Queue[T | BaseException] = Queue(ahead)
    with ThreadPoolExecutor(1, "consumer") as pool:
        running = pool.submit(lambda: consumer(_received(queue)))

        def put(item: T | BaseException) -> None:
            while not running.done():
                try:
                    return queue.put(item, timeout=LOOK)
                except Full:
                    continue

        end: BaseException = Abandoned()
        try:
            for item in items:
                put(item)
                if running.done():
                    break
            else:
                end = StopIteration()
        finally:
            put(end)
        running.result()


def _received(queue: Queue[T | BaseException]) -> Iterator[T]:
    while True:
        item = queue.get()
        if isinstance(item, StopIteration):
            return
        if isinstance(item, BaseException):
            raise item
        yield item
