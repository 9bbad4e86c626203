"""Who waits for an answer, and who may stop a search: sessions of the page, named by the browsers themselves."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

PATIENCE = 3.0  # seconds from a request until its answer is listened for: a browser opens the stream after it
MOST_STOPS = 1_000  # each name is a new session, and a program can make up any number of them


class Visitors:
    """The sessions that listen for answers, and those that search."""

    def __init__(self) -> None:
        self._streams: Counter[str] = Counter()
        self._stops: dict[str, Event] = {}

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """While it is open, the session listens."""
        self._streams[session] += 1
        try:
            yield
        finally:
            self._streams[session] -= 1
            if not self._streams[session]:
                del self._streams[session]

    def listens(self, session: str, asked: float) -> bool:
        """Whether somebody waits for an answer; it may take a moment after the request until somebody does.

        Args:
            asked: when the request came, of `time.monotonic`.
        """
        while session not in self._streams:
            if time.monotonic() > asked + PATIENCE:
                return False
            time.sleep(0.05)
        return True

    def begin(self, session: str) -> None:
        """Make a stop for the search that comes next, in place of the oldest of too many."""
        self._stops.pop(session, None)
        self._stops[session] = Event()
        for oldest in [*self._stops][:-MOST_STOPS]:
            self._stops.pop(oldest, None)

    def stop_of(self, session: str) -> Event:
        """What stops the session's search."""
        return self._stops.get(session) or Event()

    def end(self, session: str) -> None:
        """The search is over, or its visitor left."""
        self._stops.pop(session, None)
