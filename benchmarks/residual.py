"""What the residual branch saves by resizing after its last 1x1 convolution: `python benchmarks/residual.py`.

A training step of the published size, with features read as the map that they are; the two orders take turns.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from golden_noise.npnet import NPNet
from golden_noise.npnet.core.residual import ResidualBranch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH, REPEATS = 4, 5


class ResizeFirst(ResidualBranch):
    """The published order."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns g(x), shaped as x."""
        assert self.backbone_size is not None
        image = F.interpolate(x_BCHW, size=(self.backbone_size, self.backbone_size), mode="nearest")
        (features,) = self.backbone.forward_intermediates(
            self.conv_in(image), indices=1, norm=True, intermediates_only=True
        )
        return self.conv_out(F.interpolate(features, size=x_BCHW.shape[-2:], mode="nearest"))


def seconds(step: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    npnet = NPNet((4, 128, 128), (77, 2048), backbone="swin_tiny_patch4_window7_224", backbone_size=224).to(DEVICE)
    noise, embeds = torch.randn(BATCH, 4, 128, 128, device=DEVICE), torch.randn(BATCH, 77, 2048, device=DEVICE)

    def step(order: type[ResidualBranch]) -> None:
        assert npnet.residual_branch is not None
        npnet.residual_branch.__class__ = order
        npnet.zero_grad()
        npnet(noise, embeds).square().mean().backward()

    orders = (ResidualBranch, ResizeFirst)
    times = [[seconds(partial(step, order)) for order in orders] for _ in range(REPEATS + 1)][1:]
    after, first = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(slow / fast for fast, slow in times)
    print(f"{DEVICE.type}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}\n")
    print("| resize after the convolution | before it | ratio |\n| --- | --- | --- |")
    print(f"| {after:.0f} ms | {first:.0f} ms | {ratio:.2f} |")


if __name__ == "__main__":
    main()
