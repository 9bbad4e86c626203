"""Bytes from and to URLs, as fsspec opens them: what a network or a server spoils is tried again.

A try that fails is reported on stderr and repeated after a wait, which doubles from `WAIT` to `LONGEST` seconds and is
shortened at random, so that processes which fail together do not come back together. What cannot get better, such as a
missing file or wrong credentials, is an error at once. The file systems have retries of their own below this.
"""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
from tqdm import tqdm

from golden_noise.errors import UserError, first_line, one_line

TRIES = 8  # in a row that bring nothing
WAIT, LONGEST = 1.0, 30.0
SILENCE = 30  # seconds that a web server may take for its next byte; a whole file may take any time
CHUNK = 1 << 23  # object storage is asked for ranges of this size

#: HTTP statuses of requests that may yet succeed, beside those of 500 and more: timeout, conflict, changed, too many.
_PASSING = (408, 409, 412, 425, 429)
#: Errors of S3 that have status 400, but that the network causes.
_SPOILT = ("RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch")
#: Errors of botocore that are about settings; they have no base class of their own.
_SETTINGS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError", "InvalidConfigError")

#: What OpenSSL says where a server speaks no TLS, or whose certificate nobody vouches for.
_NO_TLS = ("WRONG_VERSION_NUMBER", "CERTIFICATE_VERIFY_FAILED")

T = TypeVar("T")


def chunks(url: str) -> Iterator[bytes]:
    """A URL's bytes, or what a command after `pipe:` writes; a try that fails is continued where it stopped.

    What is behind the URL may change between two tries, so compare a checksum.

    Raises:
        UserError: it cannot be read to its end.
    """
    if url.startswith("pipe:"):
        yield from _command(url)
        return
    done, patience = 0, _Patience(url, "fetched")
    while True:
        try:
            for chunk in _stream(url, done):
                yield chunk
                done += len(chunk)
                patience.renew()
            return
        except Exception as error:  # fsspec's file systems raise different errors
            patience.spend(error)


def read(url: str) -> bytes:
    """All bytes of a URL in its state at one moment, or what a command after `pipe:` writes.

    Raises:
        UserError: it cannot be read.
    """
    if url.startswith("pipe:"):
        return b"".join(_command(url))
    return _patiently(lambda: b"".join(_stream(url)), url, "fetched")


def write(url: str, content: bytes) -> None:
    """Store bytes; in object storage they appear at once.

    Raises:
        UserError: they cannot be stored.
    """

    def put() -> None:
        system, path = fsspec.url_to_fs(url)
        system.pipe_file(path, content)

    _patiently(put, url, "written")


def upload(file: Path, url: str) -> None:
    """Store a file; in object storage it appears once it is there whole.

    Raises:
        UserError: it cannot be stored.
    """

    def put() -> None:
        system, path = fsspec.url_to_fs(url)
        system.put_file(str(file), path)
        size = system.info(path)["size"]
        if size != file.stat().st_size:
            raise OSError(f"{size} of {file.stat().st_size} bytes arrived")

    _patiently(put, url, "written")


def listing(url: str) -> dict[str, int]:
    """The sizes of the files in a remote folder by name; empty if there is none.

    Raises:
        UserError: it cannot be read.
    """

    def look() -> dict[str, int]:
        system, path = fsspec.url_to_fs(url)
        system.invalidate_cache()
        try:
            found = system.ls(path, detail=True)
        except FileNotFoundError as error:
            if _mistake(error):
                return {}
            raise
        return {each["name"].rstrip("/").rpartition("/")[2]: each["size"] for each in found if each["type"] == "file"}

    return _patiently(look, url, "listed")


def delete(url: str) -> None:
    """Delete a file, if it is there.

    Raises:
        UserError: it cannot be deleted.
    """

    def remove() -> None:
        system, path = fsspec.url_to_fs(url)
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(path)

    _patiently(remove, url, "deleted")


def _patiently(action: Callable[[], T], url: str, done: str) -> T:
    patience = _Patience(url, done)
    while True:
        try:
            return action()
        except Exception as error:
            patience.spend(error)


class _Patience:
    """Counts the tries at something and waits between them."""

    def __init__(self, url: str, done: str):
        self.url, self.done, self.tries = url, done, 0

    def renew(self) -> None:
        """The last try brought something."""
        self.tries = 0

    def spend(self, error: Exception) -> None:
        """Wait before another try.

        Raises:
            UserError: another one makes no sense.
        """
        if isinstance(error, ImportError):
            raise UserError(f"{self.url} needs a package that is not installed ({first_line(error)})") from error
        cause = error.__cause__ or error  # fsspec raises FileNotFoundError even if no server answers
        reason = f"{type(cause).__name__}: {one_line(cause) or 'no answer'}"
        if mistake := _mistake(error):
            raise UserError(f"{self.url} cannot be {self.done} ({reason}): {mistake}") from error
        self.tries += 1
        if self.tries == TRIES:
            advice = "repeat the command when the server answers, it goes on from here"
            raise UserError(f"{self.url} cannot be {self.done} in {TRIES} tries ({reason}): {advice}") from error
        wait = min(LONGEST, WAIT * 2 ** (self.tries - 1)) * random.SystemRandom().uniform(0.5, 1)
        line = f"{self.url} was not {self.done} ({reason}): next try in {wait:.1f} s ({self.tries + 1} of {TRIES})"
        tqdm.write(line, file=sys.stderr)
        time.sleep(wait)


def _mistake(error: BaseException) -> str | None:
    """What to do about an error that will not go away by itself."""
    cause = error.__cause__ or error
    status = _status(cause)
    if status is not None and (status >= 500 or status in _PASSING or any(name in str(cause) for name in _SPOILT)):
        return None
    if status in (401, 403) or isinstance(cause, PermissionError) or type(cause).__name__ in _SETTINGS:
        return "check the credentials and the address"
    if any(name in str(error) for name in _NO_TLS):
        return "check http:// or https://, and the certificate"
    if status is not None or isinstance(cause, FileNotFoundError | ValueError | TypeError | NotImplementedError):
        return "check the address"
    return None


def _status(error: Any) -> int | None:
    """The HTTP status in an error of botocore or aiohttp."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None)


def _stream(url: str, start: int = 0) -> Iterator[bytes]:
    """A URL's bytes from `start` on, in one try."""
    system, path = fsspec.url_to_fs(url, **_options(url))
    with system.open(path, "rb", block_size=0) as stream:  # 0: as a stream, without reading ahead
        position = _skip(stream, start)
        while chunk := stream.read(CHUNK):
            position += len(chunk)
            yield chunk
        size = getattr(stream, "size", None)
        if size is not None and position < size:
            raise OSError(f"the answer ends after {position} of {size} bytes")


def _skip(stream: Any, start: int) -> int:
    """Go to a position, or read up to it if the server gives no ranges."""
    if not start:
        return 0
    try:
        stream.seek(start)
        return start
    except ValueError:
        left = start
        while left and (chunk := stream.read(min(left, CHUNK))):
            left -= len(chunk)
        return start - left


def _options(url: str) -> dict[str, Any]:
    """Options of a file system, beside those of the user's fsspec configuration."""
    protocol = url.partition(":")[0]
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout  # fsspec imports it for these, too

    configured = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=SILENCE, sock_read=SILENCE), **configured}}


def _command(url: str) -> Iterator[bytes]:
    """What a command after `pipe:` writes; it knows best how to try again."""
    try:
        with _output(url) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except OSError as error:
        raise UserError(f"{url} cannot be fetched ({type(error).__name__}: {one_line(error)})") from error


@contextlib.contextmanager
def _output(url: str) -> Iterator[IO[bytes]]:
    with subprocess.Popen(url.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
    if process.returncode:
        raise OSError(f"its command ended with exit code {process.returncode}")
