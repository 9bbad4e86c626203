"""Whether a network fits a pipeline's noise and prompts."""

from collections.abc import Sequence

from golden_noise.errors import UserError
from golden_noise.npnet.denoiser import DenoiserNPNet
from golden_noise.npnet.low_frequency import LowFrequencyNPNet
from golden_noise.npnet.npnet import NPNet


def check_fits(
    npnet: NPNet | DenoiserNPNet | LowFrequencyNPNet,
    source: str,
    pipeline: str,
    latent_shape: Sequence[int],
    embeds_shape: Sequence[int],
    long_prompts: bool = False,
) -> None:
    """Refuse a network that was made for other shapes than the pipeline's and may not be used at them.

    Args:
        source: of the network, for the message.
        pipeline: what the message calls it.
        latent_shape: (C, H, W) of its noise.
        embeds_shape: (L, D) of its prompt embedding.
        long_prompts: whether that may be longer than the network's, which then does what its `long_prompt` says.

    Raises:
        UserError: it does not fit. Networks that share the denoiser and those of another class check themselves.
    """
    if not isinstance(npnet, NPNet | LowFrequencyNPNet):
        return
    have, want = npnet.latent_shape, tuple(latent_shape)
    if isinstance(npnet, LowFrequencyNPNet):
        fits, hint = npnet.takes(want), f"heights and widths may differ, and must be at least {npnet.modes}"
    else:
        fits = have == want or (npnet.fit != "exact" and have[0] == want[0])
        hint = "other heights and widths need fit=tile, fit=crop or fit=resize"
    if not fits:
        raise UserError(f"the NPNet in {source} has latent_shape {have}, {pipeline} needs {want}: {hint}")
    have, want = npnet.embeds_shape, tuple(embeds_shape)
    longer = long_prompts and want[0] > have[0] and have[1] == want[1]
    if have != want and not longer:
        raise UserError(f"the NPNet in {source} has embeds_shape {have}, {pipeline} needs {want}")
