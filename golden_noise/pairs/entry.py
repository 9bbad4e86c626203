"""What an index says of a shard."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter

from golden_noise.errors import UserError
from golden_noise.pairs.pair import REDO, Failure

Count = Annotated[int, Field(strict=True, ge=0)]


def pack(hashes: str | Sequence[str]) -> bytes:
    """Hashes of prompts (`prompt_hash`), one after the other or in a list, as 4 bytes each.

    Raises:
        ValueError: they are none.
    """
    text = hashes if isinstance(hashes, str) else "".join(hashes)
    packed = bytes.fromhex(text)
    if packed.hex() != text or len(packed) % 4 or (not isinstance(hashes, str) and {*map(len, hashes)} - {8}):
        raise ValueError("they are not 8 hexadecimal digits each")
    return packed


Packed = Annotated[bytes, BeforeValidator(pack), PlainSerializer(bytes.hex)]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A finished shard.

    Attributes:
        name: file name in the folder of the index.
        samples: accepted pairs.
        rejected: rejected pairs.
        bytes: size of the file.
        sha256: checksum of the file.
        prompts: `prompt_hash` of every accepted pair, in the order of the shard, as `pack` makes them.
        prompts_sha256: `prompts_digest` of all prompts of the unit, "asked" on disk; empty if it was not recorded.
        failures: the prompts that gave no pair.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^pairs-[0-9]{6}\.tar$")]  # a path could lead out of the folder
    samples: Count
    rejected: Count
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    prompts: Packed
    prompts_sha256: Annotated[str, Field(alias="asked", pattern="^([0-9a-f]{64})?$")] = ""
    failures: list[Failure] = field(default_factory=list)

    @property
    def unit(self) -> int:
        return int(self.name[6:12])

    @property
    def tried(self) -> int:
        """Prompts of the unit, whatever came of them."""
        return self.samples + self.rejected + len(self.failures)

    def prompt(self, row: int) -> str:
        """`prompt_hash` of an accepted pair."""
        return self.prompts[4 * row : 4 * row + 4].hex()

    @property
    def hashes(self) -> NDArray[np.uint32]:
        """`prompts` as numbers, (samples,)."""
        return np.frombuffer(self.prompts, ">u4").astype(np.uint32)

    def is_intact(self, folder: Path) -> bool:
        """Whether the file is there with its recorded size."""
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.bytes

    def verify(self, folder: Path) -> None:
        """Check the file without reading it.

        Raises:
            UserError: if the file is missing or has another size than recorded.
        """
        if not self.is_intact(folder):
            path = folder / self.name
            problem = f"has {path.stat().st_size} of {self.bytes} bytes" if path.is_file() else "is missing"
            raise UserError(f"shard {path} {problem}: delete it from {folder} and {REDO}")


_ENTRY = TypeAdapter(ShardEntry)


def dump_entry(entry: ShardEntry) -> bytes:
    """An entry as one line of JSON."""
    return json.dumps(_ENTRY.dump_python(entry, by_alias=True), sort_keys=True).encode()


def parse_entry(text: bytes) -> ShardEntry:
    """What `dump_entry` made, also that of earlier versions.

    Raises:
        ValueError, TypeError: it made something else.
    """
    entry = _ENTRY.validate_json(text)
    if len(entry.prompts) != 4 * entry.samples:
        raise ValueError(f"{len(entry.prompts) // 4} prompts for the {entry.samples} samples of {entry.name}")
    return entry
