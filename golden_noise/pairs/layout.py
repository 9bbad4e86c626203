"""How `index.json` lies on disk: a JSON document with a line for every shard, so that adding one writes one line.

    {"config": {...}, "version": 2, "shards": [
    {"name": "pairs-000000.tar", ...}
    ,{"name": "pairs-000001.tar", ...}
    ]}

A new line takes the place of the last one. A process that is killed meanwhile leaves an end that is not whole: what
comes after the last whole line of a shard does not count, and the next shard's line takes its place.

Earlier versions wrote the document in one line. It is read as well.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

END = b"]}\n"
_SHARDS = b', "shards": [\n'


@dataclass(frozen=True)
class Document:
    """A document that is read line by line.

    Attributes:
        opening: the first line, up to the shards; empty if the document is one of earlier versions.
        header: what is in it.
        lines: that follow.
    """

    opening: bytes
    header: dict[str, Any]
    lines: Iterable[bytes]


def render(header: Mapping[str, Any], rows: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a whole document, of a row of JSON for each shard."""
    yield json.dumps(header, sort_keys=True).encode().removesuffix(b"}") + _SHARDS
    for i, row in enumerate(rows):
        yield line(row, first=i == 0)
    yield END


def line(row: bytes, first: bool) -> bytes:
    """The line of a shard."""
    return (b"" if first else b",") + row + b"\n"


def parse(file: BinaryIO) -> Document:
    """Read a document.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is none.
    """
    first = file.readline()
    if first.endswith(_SHARDS):
        return Document(first, json.loads(first.removesuffix(_SHARDS) + b"}"), file)
    header = json.loads(first + file.read())
    if not isinstance(header, dict):
        raise ValueError("it holds no JSON object")
    return Document(b"", header, [line(json.dumps(row).encode(), True) for row in header.pop("shards")])
