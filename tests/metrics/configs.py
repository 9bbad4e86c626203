"""The configs of all metrics, and prompts that each can judge."""

from omegaconf import OmegaConf

from golden_noise.cli.conf import CONF

CAPTIONS = ["a red circle", "two circles", "a red circle", "a blue square left of a green triangle"]
GENEVAL = ["a photo of a dog", "a photo of two dogs", "a photo of a red dog", "a photo of a dog and a cat"]
CHOICES = [
    (path.stem, name)
    for path in sorted((CONF / "metric").glob("*.yaml"))
    for name in OmegaConf.load(path)
    if name != "defaults"
]


def settings(choice, name, **changes):
    """A metric's own config, on the CPU, with changes to options that it has."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / "metric" / f"{choice}.yaml"), resolve=False)[name]
    config |= {key: value for key, value in {"device": "cpu", **changes}.items() if key in config}
    return config
