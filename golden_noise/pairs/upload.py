"""A folder of pairs in object storage while it is collected: every finished shard, and an index of what is there."""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from golden_noise.errors import UserError
from golden_noise.files import write_atomically
from golden_noise.identity import file_digest
from golden_noise.pairs import transfer
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.index import INDEX_NAME, ShardIndex, writing
from golden_noise.pairs.source import SHARD, ShardSource
from golden_noise.sharing.claims import locked
from golden_noise.urls import is_url

INTERVAL = 30.0  # seconds between two remote indexes: one of millions of pairs is large, and shards may come fast
_OWNER = "collection.txt"  # remote: the number of the only folder that may write there


class Upload:
    """Uploads the shards of a folder as they are finished. Processes that share the folder share this, too.

    The remote index lists a shard only while exactly that shard is there whole: first it is uploaded, then marked in
    the folder, then listed. Before another shard takes its name, an index without it is written. So a process may be
    killed at any moment, and whoever reads the remote folder finds a valid, growing set of pairs.

    Files below `.upload-…` in the folder hold the state: `owner`, an empty file for each shard that was uploaded, the
    last remote index and its digest in `published`.

    Args:
        folder: that pairs are collected into.
        url: of a remote folder, such as `s3://BUCKET/PREFIX`. A file must appear there once it is whole, as in object
            storage.

    Raises:
        UserError: `url` is none. Methods raise it too, if the remote folder cannot be read or written.
    """

    def __init__(self, folder: Path, url: str):
        if not is_url(url) or url.startswith(("pipe:", "file:")):
            raise UserError(f"upload={url} is not a URL of object storage: write it like s3://BUCKET/PREFIX")
        self.folder, self.url = folder, url.rstrip("/")
        self.state = folder / f".upload-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"
        self._index: ShardIndex | None = None

    def begin(self) -> None:
        """Check that the remote folder is this one's, and which of its shards are still there.

        Raises:
            UserError: it holds what this folder did not upload.
        """
        with self._alone():
            marked = self._marked()  # before the listing: other processes may be adding shards
            there = transfer.listing(self.url)
            self._own(there)
            for shard in self._refreshed().shards:
                if _mark(shard) in marked and there.get(shard.name) != shard.bytes:
                    (self.state / _mark(shard)).unlink(missing_ok=True)
            if INDEX_NAME not in there:
                (self.state / "published").unlink(missing_ok=True)
            self._publish()

    def clear(self) -> None:
        """Delete what was uploaded.

        Raises:
            UserError: it holds what this folder did not upload.
        """
        with self._alone():
            there = transfer.listing(self.url)
            self._own(there)
            transfer.delete(self._remote(INDEX_NAME))  # first: if killed here, no index lists the rest
            for mark in (*self._marked(), "published"):
                (self.state / mark).unlink(missing_ok=True)
            for name in there:
                if SHARD.fullmatch(name):
                    transfer.delete(self._remote(name))

    def has(self, shard: ShardEntry) -> bool:
        """Whether a shard was uploaded."""
        return (self.state / _mark(shard)).exists()

    def names(self, shards: Sequence[ShardEntry]) -> set[str]:
        """The names of those that were uploaded, by one listing."""
        marked = self._marked()
        return {shard.name for shard in shards if _mark(shard) in marked}

    def add(self, shard: ShardEntry) -> None:
        """Upload a shard that the folder's index lists, by the process that claims its unit.

        Raises:
            UserError: its file is damaged, or cannot be uploaded.
        """
        if not self.has(shard):
            self._withdraw(shard.name)
            ShardSource(self.folder).open(shard).close()  # which compares its checksum
            transfer.upload(self.folder / shard.name, self._remote(shard.name))
            with writing(self.folder):
                (self.state / _mark(shard)).touch()
        if not 0 <= time.time() - self._published_at() < INTERVAL:
            self.publish()

    def publish(self) -> None:
        """Write the remote index, if it is not the one that is there."""
        with self._alone():
            self._publish()

    def _publish(self) -> None:
        index, marked = self._refreshed(), self._marked()
        there = [shard for shard in index.shards if _mark(shard) in marked]
        if not there and not self._published_at():
            return  # a set without pairs is of no use to anybody
        ShardIndex(self.state, index.config, there).save()
        digest, published = file_digest(self.state / INDEX_NAME), self.state / "published"
        if not published.exists() or published.read_text() != digest:
            self._check_owner()
            transfer.upload(self.state / INDEX_NAME, self._remote(INDEX_NAME))
        write_atomically(published, digest)

    def _withdraw(self, name: str) -> None:
        """Have no shard of this name in the remote index but the one that the folder's index lists, if it is marked."""
        if old := [mark for mark in self._marked() if mark.startswith(f"{name}-")]:
            self.publish()
            for mark in old:
                (self.state / mark).unlink(missing_ok=True)

    def _own(self, there: dict[str, int]) -> None:
        """Take an empty remote folder for this folder; refuse one that another uploads to, or that holds pairs."""
        owner = self.state / "owner"
        if _OWNER in there and owner.exists():
            self._check_owner()
        elif _OWNER in there or any(name == INDEX_NAME or SHARD.fullmatch(name) for name in there):
            raise UserError(
                f"{self.url} holds pairs that {self.folder} did not upload: choose another place with upload=URL"
            )
        else:
            if not owner.exists():
                write_atomically(owner, uuid.uuid4().hex)
            transfer.write(self._remote(_OWNER), owner.read_bytes())

    def _check_owner(self) -> None:
        if transfer.read(self._remote(_OWNER)) != (self.state / "owner").read_bytes():
            raise UserError(f"another folder than {self.folder} uploads to {self.url}: give each a URL of its own")

    def _refreshed(self) -> ShardIndex:
        """The folder's index as it is now."""
        if self._index is None:
            self._index = ShardIndex.load(self.folder)
        else:
            self._index.refresh()
        return self._index

    def _marked(self) -> set[str]:
        return {name for name in os.listdir(self.state) if SHARD.match(name)}

    def _published_at(self) -> float:
        published = self.state / "published"
        return published.stat().st_mtime if published.exists() else 0.0

    def _remote(self, name: str) -> str:
        return f"{self.url}/{name}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with writing(self.folder):
            self.state.mkdir(parents=True, exist_ok=True)
            with locked(self.state):
                yield


def _mark(shard: ShardEntry) -> str:
    return f"{shard.name}-sha256-{shard.sha256}"
