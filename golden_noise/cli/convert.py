"""Converts NPNets: `golden-noise convert IN OUT`.

IN is a folder, a hub id, a `.safetensors`, `.pth` or `.pt` file, ORG/NAME/FILE on the hub, or package:PATH, a folder in
the installed package (package:shapes/weights/npnet is the miniature's network).

OUT ends in `.safetensors` for one file that holds any network of this project and says itself how it is built, for
ComfyUI and for `npnet=`. Programs that know the community's form read it too if the network is built as the published
ones are. OUT ends in `.pth` or `.pt` for the form of the paper's authors. Anything else is a diffusers folder.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from golden_noise.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="golden-noise convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    built = parser.add_argument_group("what a file of the authors' training code does not say")
    built.add_argument("--attention", choices=["true", "false"], help="false: trained as svd_unet+unet")
    built.add_argument("--target", dest="predicts", help="absolute: trained as vit; difference: as e_unet")
    options = parser.parse_args(arguments)
    told = {"attention": options.attention and options.attention == "true", "target": options.predicts}
    try:
        known = {name: value for name, value in told.items() if value is not None}
        print(f"{options.target}: {_convert(options.source, options.target, known)}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _convert(source: str, target: str, known: dict[str, Any]) -> str:
    """Write a network in another form, and say what it is.

    Args:
        known: what a file of the authors' training code does not say.
    """
    from golden_noise.npnet import checkpoint  # late, so that --help does not wait for torch
    from golden_noise.npnet.core.adapters import Adapters
    from golden_noise.npnet.core.load import assemble
    from golden_noise.npnet.writing import write

    saved = checkpoint.read(source, "IN", **known)
    network = assemble(saved)  # refuses what could not be loaded again
    write(saved, target)
    if isinstance(network, Adapters):
        return f"adapters of rank {network.config['rank']} for a denoiser"
    return f"noise {network.latent_shape}, prompts {network.embeds_shape}"
