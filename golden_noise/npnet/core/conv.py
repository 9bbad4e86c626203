"""The residual branch of the `unet` variant: convolutions behind the denoiser's own first one (arXiv 2411.09502)."""

from torch import Tensor, nn


class ConvBranch(nn.Module):
    """`g`: the denoiser's `conv_in` -> ReLU -> 7x7 conv -> BatchNorm -> 7x7 conv -> ReLU -> 7x7 conv.

    The last conv starts at zero, so that a new branch changes nothing.

    Args:
        channels: C of the noise.
        width: channels that the denoiser's `conv_in` gives.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, channels, 7, padding=3, bias=False)  # the norm would undo a bias
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 7, padding=3)
        self.conv3 = nn.Conv2d(channels, channels, 7, padding=3)
        for parameter in self.conv3.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns g(x), shaped as x."""
        hidden = self.norm(self.conv1(self.conv_in(x_BCHW).relu()))
        return self.conv3(self.conv2(hidden).relu())
