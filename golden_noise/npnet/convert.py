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

from golden_noise.errors import UserError
from golden_noise.npnet import checkpoint
from golden_noise.npnet.core.adapters import Adapters
from golden_noise.npnet.core.load import assemble
from golden_noise.npnet.writing import write


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
        saved = checkpoint.read(options.source, "IN", **known)
        network = assemble(saved)  # refuses what could not be loaded again
        write(saved, options.target)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if isinstance(network, Adapters):
        print(f"{options.target}: adapters of rank {network.config['rank']} for a denoiser")
    else:
        print(f"{options.target}: noise {network.latent_shape}, prompts {network.embeds_shape}")


if __name__ == "__main__":
    main()
