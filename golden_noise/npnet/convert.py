"""Converts NPNets between diffusers folders and the published forms: `python -m golden_noise.npnet.convert IN OUT`.

IN is a folder, a hub id, a `.pth` or `.safetensors` file, or ORG/NAME/FILE on the hub. OUT ends in `.pth` for the
form of the paper's authors, in `.safetensors` for the community's, or is a folder.
"""

import argparse
import sys
from collections.abc import Sequence

from golden_noise.errors import UserError
from golden_noise.npnet import checkpoint


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m golden_noise.npnet.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    built = parser.add_argument_group("what a file of the authors' training code does not say")
    built.add_argument("--attention", choices=["true", "false"], help="false: trained as svd_unet+unet")
    built.add_argument("--target", dest="predicts", help="absolute: trained as vit; difference: as e_unet")
    options = parser.parse_args(arguments)
    try:
        attention = None if options.attention is None else options.attention == "true"
        npnet = checkpoint.load(options.source, "IN", attention=attention, target=options.predicts)
        checkpoint.save(npnet, options.target)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.target}: noise {npnet.latent_shape}, prompts {npnet.embeds_shape}")


if __name__ == "__main__":
    main()
