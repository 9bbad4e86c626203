"""What noise and images cost in denoiser calls, counted while they are made."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

BACKWARD = 2  # forward calls that a backward pass counts as: it multiplies by each weight twice


@dataclass
class Calls:
    """Denoiser calls so far, each row of a batch for itself: a guided prediction of one image is two.

    Attributes:
        forward: rows of forward passes, those that checkpointing computes again included.
        backward: rows of backward passes.
        watch: see `counting`.
    """

    watch: Callable[["Calls"], object] | None = None
    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """All of them, in forward calls."""
        return self.forward + BACKWARD * self.backward

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Count a forward pass with these arguments, of which the first one with rows holds the latents."""
        rows = next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 1)
        if self.watch is not None:
            self.watch(self)
        self.forward += rows
        return rows

    def leave(self, output: Any, rows: int) -> None:
        """Count the backward pass through this output, if there will be one."""
        tensor = output if isinstance(output, Tensor) else output[0]
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._add_backward(rows))

    def _add_backward(self, rows: int) -> None:
        self.backward += rows


@contextmanager
def counting(*owners: Any, watch: Callable[[Calls], object] | None = None) -> Iterator[Calls]:
    """Counts the calls of the owners' denoisers while it is open.

    Args:
        owners: pipelines and networks. What has no `denoiser` (an NPNet of its own layers, or None) counts nothing, and
            a denoiser that several owners share counts once.
        watch: gets the counts before every call, and may raise to end what is computed.
    """
    calls = Calls(watch)
    denoisers = {id(found): found for owner in owners if (found := getattr(owner, "denoiser", None)) is not None}
    with ExitStack() as stack:
        for denoiser in denoisers.values():
            stack.callback(_watch(denoiser, calls))
        yield calls


def _watch(denoiser: nn.Module, calls: Calls) -> Callable[[], None]:
    """Count what a denoiser does from now on; calling the result ends that.

    The call itself is wrapped: hooks of a compiled module are compiled too, and then neither come nor go.
    """
    compiled = denoiser._compiled_call_impl
    call = compiled or denoiser._call_impl

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows = calls.enter(args, kwargs)
        output = call(*args, **kwargs)
        calls.leave(output, rows)
        return output

    def end() -> None:
        denoiser._compiled_call_impl = compiled

    denoiser._compiled_call_impl = counted
    return end
