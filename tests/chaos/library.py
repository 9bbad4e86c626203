"""The library of `chaos.c`: built by the machine's C compiler, and steered through a file in shared memory."""

import ctypes
import mmap
import os
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("chaos.c")
FOR_EVER = 1 << 62


class Kind(IntEnum):
    """Kinds of system calls."""

    OPEN_READ = 0
    OPEN_WRITE = 1
    READ = 2
    WRITE = 3
    SYNC = 4
    CLOSE = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8


class Action(IntEnum):
    """What happens at a chosen call."""

    COUNT = 0
    KILL = 1
    KILL_AFTER = 2  # of a write, half
    FAIL = 3
    SHORT = 4
    REPLACE = 5  # first, another file takes a file's name
    OVERWRITE = 6  # first, a file gets the content of another


class State(ctypes.Structure):
    """`struct state` of `chaos.c`."""

    _fields_ = [
        ("root", ctypes.c_char * 1024),
        ("from_", ctypes.c_char * 1024),
        ("to", ctypes.c_char * 1024),
        ("where", ctypes.c_char * 1024),
        ("counts", ctypes.c_int64 * len(Kind)),
        ("seen", ctypes.c_int64),
        ("fired", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("clock_calls", ctypes.c_int64),
        ("clock_from", ctypes.c_int64),
        ("clock_jump", ctypes.c_int64),
        ("kinds", ctypes.c_int32),
        ("action", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("where_kind", ctypes.c_int32),
    ]


def compiler() -> str | None:
    """The machine's C compiler."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> dict[str, str]:
    """Compile the library; returns the environment in which a process loads it."""
    compiled = compiler()
    assert compiled is not None
    library, state = folder / "chaos.so", folder / "state"
    subprocess.run([compiled, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    state.write_bytes(bytes(ctypes.sizeof(State)))
    return {"LD_PRELOAD": str(library), "CHAOS_STATE": str(state)}


def shared_state() -> State:
    """The state of this process's library, which other processes see too."""
    with open(os.environ["CHAOS_STATE"], "r+b") as file:
        return State.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(State)))
