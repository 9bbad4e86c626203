"""Faults, each drawn at random from the system calls that an undisturbed run makes."""

import errno
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.library import FOR_EVER, Action, Kind, State

YEAR = 365 * 24 * 3600
MB = 1 << 20
NEEDS_SPACE = (Kind.OPEN_WRITE, Kind.WRITE, Kind.SYNC, Kind.CLOSE, Kind.MKDIR)
CHANGES = (*NEEDS_SPACE, Kind.RENAME, Kind.UNLINK)


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run.

    Attributes:
        name: what is counted.
        kinds: of calls.
        first, last: which of the calls of these kinds are faulty, from 1.
        error: of the system, where they fail.
        clock: the call of a clock after which all are wrong, and by how many seconds.
        memory: bytes that the process may have beside those it starts with.
        second_at: the call at which the same command is started once more.
        damage: what becomes of the shard that takes the place of another: half of it, or one byte of it changed.
    """

    name: str
    kinds: Sequence[Kind] = ()
    action: Action = Action.COUNT
    first: int = 1
    last: int = FOR_EVER
    error: int = 0
    clock: tuple[int, int] = (0, 0)
    memory: int | None = None
    second_at: int | None = None
    damage: str | None = None

    def arm(self, state: State, root: str) -> None:
        """Have it happen below a folder; `Fault("none")` only counts."""
        disarm(state)
        state.kinds = sum(1 << kind for kind in self.kinds)
        state.action, state.error = self.action, self.error
        state.first, state.last = self.first, self.last
        state.clock_from, state.clock_jump = self.clock
        state.root = root.encode()

    def __str__(self) -> str:
        words = [self.name, self.action.name.lower()]
        words += [errno.errorcode[self.error]] if self.error else []
        if self.kinds:
            last = "" if self.last == self.first else ".."
            words.append(f"{'|'.join(kind.name.lower() for kind in self.kinds)} {self.first}{last}")
        if self.clock[1]:
            words.append(f"{self.clock[1]:+,} s from call {self.clock[0]}")
        if self.memory is not None:
            words.append(f"{self.memory / MB:.0f} MB")
        if self.second_at is not None:
            words.append(f"second at {self.second_at}")
        words += [self.damage] if self.damage else []
        return " ".join(words)


def disarm(state: State) -> None:
    """End all faults, and forget what was counted."""
    state.root = b""
    state.where = b""
    state.seen = state.fired = state.clock_calls = state.clock_jump = 0
    for kind in Kind:
        state.counts[kind] = 0


@dataclass
class Draw:
    """Draws faults for a job, whose undisturbed run makes `counts` calls of every kind."""

    rng: random.Random
    counts: Sequence[int]

    def __call__(self, name: str) -> Fault:
        return getattr(self, name)()

    def _one_of(self, kinds: Sequence[Kind]) -> Kind:
        return self.rng.choice([kind for kind in kinds if self.counts[kind]])

    def _call(self, kinds: Sequence[Kind]) -> int:
        return self.rng.randint(1, sum(self.counts[kind] for kind in kinds))

    def kill(self) -> Fault:
        """SIGKILL before or after a call, or in the middle of a write."""
        kind = self._one_of(CHANGES)
        at = self._call([kind])
        return Fault("kill", [kind], self.rng.choice([Action.KILL, Action.KILL_AFTER]), at, at)

    def full(self) -> Fault:
        """No space, once (somebody frees some) or from then on."""
        kinds = self.rng.choice([NEEDS_SPACE, [self._one_of(NEEDS_SPACE)]])
        at = self._call(kinds)
        error = self.rng.choice([errno.ENOSPC, errno.EDQUOT])
        return Fault("full", kinds, Action.FAIL, at, self.rng.choice([at, FOR_EVER]), error)

    def readonly(self) -> Fault:
        """The file system becomes read-only, as Linux does with a damaged one."""
        kinds = [kind for kind in CHANGES if kind is not Kind.CLOSE]
        return Fault("readonly", kinds, Action.FAIL, self._call(kinds), FOR_EVER, errno.EROFS)

    def broken(self) -> Fault:
        """An error of the disk, at one call or at all calls from then on."""
        kinds = self.rng.choice([tuple(Kind), [self._one_of(tuple(Kind))]])
        at = self._call(kinds)
        return Fault("broken", kinds, Action.FAIL, at, self.rng.choice([at, FOR_EVER]), errno.EIO)

    def short(self) -> Fault:
        """Calls that read and write less than they were asked to, which any may."""
        kinds = (Kind.READ, Kind.WRITE)
        return Fault("short", kinds, Action.SHORT, self._call(kinds), FOR_EVER)

    def clock(self) -> Fault:
        """The time of day jumps by hours or years, also back."""
        jump = self.rng.choice([3600, -3600, YEAR, -YEAR, 20 * YEAR, -30 * YEAR])
        return Fault("clock", clock=(self.rng.randint(1, 200), jump))

    def memory(self) -> Fault:
        """Little more memory than is taken already."""
        return Fault("memory", memory=self.rng.randint(0, 400) * MB)

    def twice(self) -> Fault:
        """The same command again, while the first runs."""
        return Fault("twice", CHANGES, second_at=self._call(CHANGES))

    def twice_killed(self) -> Fault:
        """The same command again, and one of both is killed."""
        kind = self._one_of(CHANGES)
        at = self._call([kind])
        return Fault("twice_killed", [kind], Action.KILL, at, at, second_at=self.rng.randint(1, at))

    def replaced(self) -> Fault:
        """A shard is replaced by a bad one while it may be read."""
        kinds = (Kind.OPEN_READ, Kind.READ)
        at = self._call(kinds)
        action = self.rng.choice([Action.REPLACE, Action.OVERWRITE])
        return Fault("replaced", kinds, action, at, at, damage=self.rng.choice(["half", "byte"]))


NAMES = ("kill", "full", "readonly", "broken", "short", "clock", "memory", "twice", "twice_killed", "replaced")


def resident_space() -> int:
    """Bytes of address space of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
