"""Tar files as shards are: plain ustar members that say nothing of their owner or time.

Written here rather than by `tarfile`, byte for byte as it does: making and keeping its objects, five for a pair, takes
longer than all else that is done to file a small pair.
"""

import tarfile

_BLOCK = tarfile.BLOCKSIZE
_TEMPLATE = tarfile.TarInfo()
_TEMPLATE.mode = 0o444
_EMPTY = _TEMPLATE.tobuf(tarfile.USTAR_FORMAT)
_BEFORE, _BETWEEN, _AFTER = _EMPTY[100:124], _EMPTY[136:148], _EMPTY[156:]  # around the size and the checksum
_SUM = sum(_BEFORE) + sum(_BETWEEN) + sum(_AFTER) + 8 * ord(" ")  # the checksum itself counts as spaces


def member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, content and padding of a member.

    Raises:
        ValueError: the name is not ASCII or longer than 100 bytes, or the content takes 8 GiB.
    """
    title, size = name.encode("ascii"), b"%011o\0" % len(data)
    if len(title) > 100 or len(size) > 12:
        raise ValueError(f"{name} of {len(data)} bytes does not fit in a ustar header")
    checksum = b"%06o\0 " % (_SUM + sum(title) + sum(size))
    header = b"".join((title.ljust(100, b"\0"), _BEFORE, size, _BETWEEN, checksum, _AFTER))
    return header, data, bytes(-len(data) % _BLOCK)


def end(size: int) -> bytes:
    """What stands after members that take so many bytes together."""
    return bytes(2 * _BLOCK + -(size + 2 * _BLOCK) % tarfile.RECORDSIZE)
