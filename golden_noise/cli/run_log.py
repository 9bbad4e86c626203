"""`log.txt`: all output of a job, with times."""

import re
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from golden_noise.invocation import arguments, words

LOG = "log.txt"
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class RunLog:
    """Lines with their times, appended to a file.

    Args:
        path: the file; a resumed run appends.
        begins_with: lines wait until this path exists, so that a refused job leaves no file.
    """

    def __init__(self, path: Path, begins_with: Path):
        self.path, self.begins_with = path, begins_with
        self._waiting: list[str] = []
        self._file: TextIO | None = None

    def line(self, text: str) -> None:
        """Append a line."""
        self._waiting.append(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")
        try:
            if self._file is None and self.begins_with.exists():
                self._file = self.path.open("a", encoding="utf-8", errors="replace")
            if self._file is not None:
                self._file.writelines(self._waiting)
                self._waiting.clear()
                self._file.flush()
        except OSError:  # the job itself reports a full disk
            self._waiting.clear()

    def start(self) -> None:
        """Log the command, and then all that this process writes to stdout and stderr."""
        self.line(f"$ {shlex.join([*words(), *arguments()])}")
        sys.stdout, sys.stderr = Tee(sys.stdout, self), Tee(sys.stderr, self)


class Tee:
    """A text stream that copies its lines to a log, except progress bars, which return to their line's start."""

    def __init__(self, stream: Any, log: RunLog):
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        """Write to the stream, and whole lines to the log."""
        count = self._stream.write(text)
        if text.startswith("\r"):
            self._line = ""
            return count
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if shown := COLOURS.sub("", line.rpartition("\r")[2]).rstrip():
                self._log.line(shown)
        return count

    def writelines(self, lines: Any) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
