import threading
import time

import pytest

from golden_noise.background import Abandoned, consume


def test_items_arrive_in_order_while_the_next_are_computed():
    consumed, overlapped = [], threading.Event()

    def items():
        yield from range(3)
        assert overlapped.wait(10)  # item 2 arrives although there is no item 3 yet
        yield 3

    def consumer(received):
        for item in received:
            consumed.append(item)
            if item == 2:
                overlapped.set()

    consume(items(), consumer, ahead=1)
    assert consumed == [0, 1, 2, 3]


def test_computing_waits_for_a_slow_consumer():
    computed = []

    def items():
        for item in range(20):
            computed.append(item)
            yield item

    def consumer(received):
        for item in received:
            assert len(computed) <= item + 4  # this one, two in the queue, one on its way there
            time.sleep(0.005)

    consume(items(), consumer, ahead=2)
    assert computed == list(range(20))


@pytest.mark.parametrize("ahead", [1, 100])
def test_an_error_of_the_consumer_stops_computing(ahead):
    def endless():
        while True:
            yield 0

    def consumer(received):
        next(received)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        consume(endless(), consumer, ahead)


def test_an_error_of_computing_does_not_look_like_the_end():
    ended = []

    def items():
        yield 0
        raise KeyboardInterrupt

    def consumer(received):
        try:
            list(received)
            ended.append("whole")
        except Abandoned:
            ended.append("abandoned")
            raise

    with pytest.raises(KeyboardInterrupt):
        consume(items(), consumer, ahead=1)
    assert ended == ["abandoned"]
