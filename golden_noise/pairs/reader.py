"""Reading shards: all samples in order, or any pair by its row."""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.pair import check_finite, decode_array, malformed, npy_header, parse_meta, prompt_hash
from golden_noise.pairs.source import ShardSource, damaged, stamp

RawSample = dict[str, Any]
_MEMBERS = ("json", "noise.npy", "golden.npy", "embeds.npy", "pooled.npy", "guided.npy")


def read_shard(folder: Path, entry: ShardEntry, rejected: bool = False) -> Iterator[RawSample]:
    """The accepted samples of a shard, not decoded, each with its prompt's hash as `__prompt__`.

    Args:
        rejected: whether to return the rejected samples too; they have no `__prompt__`.

    Raises:
        UserError: naming the file, if it is not the recorded one, cannot be read to its end, or holds other samples
            than recorded.
    """
    path = folder / entry.name
    number = 0
    with ShardSource(folder).open(entry) as file:
        try:
            samples = _samples(file, entry)
            accepted = [key for key, members in samples.items() if "noise.npy" in members]
            if (len(accepted), len(samples)) != (entry.samples, entry.samples + entry.rejected):
                raise ValueError(f"{len(samples)} of {entry.samples + entry.rejected} samples")
            for key, members in samples.items():
                sample: RawSample = {"__key__": key, "__url__": str(path)}
                if "noise.npy" in members:
                    sample["__prompt__"] = entry.prompt(number)
                    number += 1
                elif not rejected:
                    continue
                yield sample | {name: _pread(file, size, start) for name, (start, size) in members.items()}
        except Exception as error:  # whatever a damaged or hostile tar makes the parser raise
            raise damaged(path, error) from error


def _samples(file: BinaryIO, entry: ShardEntry) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size of every member of a shard, by the sample's key and the member's suffix.

    Raises:
        ValueError, tarfile.TarError: it is not a tar file of plain files that is as long as recorded.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    end = 0
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:  # read as a stream, a forged size can keep it busy for years
        for member in tar:
            if not member.isreg() or member.size < 0 or member.offset_data < end:
                raise ValueError(f"member {member.name!r} is not a plain file")
            end = member.offset_data + member.size
            if end > entry.bytes:
                raise ValueError(f"it ends in the middle of {member.name!r}")
            key, _, suffix = member.name.partition(".")
            members = samples.setdefault(key, {})
            if suffix in members:
                raise ValueError(f"{member.name!r} occurs twice")
            members[suffix] = member.offset_data, member.size
    return samples


def locate(file: BinaryIO, entry: ShardEntry) -> NDArray[np.int64]:
    """Where the accepted pairs of a shard lie in its file: (pairs, members, 2) of offset and size, 0 if absent.

    Raises:
        ValueError, tarfile.TarError: it is not a tar file of the recorded pairs.
    """
    accepted = [members for members in _samples(file, entry).values() if "noise.npy" in members]
    if len(accepted) != entry.samples:
        raise ValueError(f"{len(accepted)} of {entry.samples} pairs")
    rows = [[members.get(suffix, (0, 0)) for suffix in _MEMBERS] for members in accepted]
    return np.array(rows, np.int64).reshape(-1, len(_MEMBERS), 2)


class OpenShard:
    """A shard whose pairs are read by their row.

    Args:
        file: what `ShardSource.open` returns; closed with this.
        entry: of the index.
        name: of the file, for messages.
        members: what `locate` returned for it earlier.

    Raises:
        UserError: it is not a tar file of the recorded pairs.
    """

    def __init__(self, file: BinaryIO, entry: ShardEntry, name: str, members: NDArray[np.int64] | None = None):
        self.file, self.entry, self.name = file, entry, name
        self._stamp = stamp(file.fileno())
        try:
            self.members = locate(file, entry) if members is None else members
        except Exception as error:  # whatever a damaged or hostile tar makes the parser raise
            file.close()
            raise damaged(name, error) from error

    def close(self) -> None:
        self.file.close()

    def read(self, row: int, out: Mapping[str, NDArray[np.float16]]) -> tuple[str, dict[str, Any]]:
        """Read the arrays of a pair into `out`, by name, and return the pair's key and all that is not an array.

        Raises:
            UserError: the pair is not what the index and `out` expect.
        """
        key: str | None = None
        try:
            meta = parse_meta(self._bytes(row, "json"))
            key = f"{meta['index']:09d}"
            if prompt_hash(meta["prompt"]) != self.entry.prompt(row):
                raise ValueError("its prompt is not the one in index.json")
            for name, array in out.items():
                self._read_array(row, name, array)
            if stamp(self.file.fileno()) != self._stamp:
                raise ValueError("the file was changed while it was read")
        except Exception as error:  # numpy's and json's parsers raise a dozen kinds on damaged bytes
            sample = {"__url__": self.name, "__key__": key or f"number {row}"}
            raise malformed(sample, error) from error
        return key, meta

    def shapes(self, row: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays that a pair has."""
        try:
            arrays = {member.removesuffix(".npy"): self._bytes(row, member) for member in _MEMBERS[1:]}
            return {name: decode_array(name, data).shape for name, data in arrays.items() if data}
        except Exception as error:
            raise malformed({"__url__": self.name, "__key__": f"number {row}"}, error) from error

    def _bytes(self, row: int, member: str) -> bytes:
        offset, size = self.members[row, _MEMBERS.index(member)].tolist()
        data = _pread(self.file, size, offset)
        if len(data) != size:
            raise ValueError(f"{member} is truncated")
        return data

    def _read_array(self, row: int, name: str, out: NDArray[np.float16]) -> None:
        """Straight from the file into the batch, if the array's header is exactly the one that numpy writes for it."""
        offset, size = self.members[row, _MEMBERS.index(f"{name}.npy")].tolist()
        expected = npy_header(out.shape)
        header = bytearray(len(expected))
        if size == len(header) + out.nbytes:
            count = os.preadv(self.file.fileno(), [header, out.view(np.uint8).data], offset)
            if count == size and header == expected:
                check_finite(name, out)
                return
        if size == 0:
            raise ValueError(f"{name} is missing, not {format_shape(out.shape)}")
        array = decode_array(name, self._bytes(row, f"{name}.npy"))
        if array.shape != out.shape:
            raise ValueError(f"{name} is {format_shape(array.shape)}, not {format_shape(out.shape)}")
        out[...] = array


def _pread(file: BinaryIO, size: int, offset: int) -> bytes:
    """The bytes at an offset, fewer only at the end of the file: `os.pread` may stop anywhere."""
    data = b""
    while len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
        data += more
    return data


def format_shape(shape: Sequence[int]) -> str:
    """A shape as people write it: 4x8x8."""
    return "x".join(map(str, shape))
