"""`golden-noise app [KEY=VALUE ...]`: starts the app; `--help` for the options."""

import argparse
import os
import sys
from collections.abc import Sequence

from golden_noise.app.choices import Limits
from golden_noise.cli.mistakes import describe
from golden_noise.errors import UserError
from golden_noise.invocation import share_cores

#: Nothing calls home, neither the libraries' counters nor their searches for newer versions.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake is one line on stderr and exit code 2."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        serve(options)
    except ModuleNotFoundError:
        raise  # golden_noise.__main__ knows the extra
    except Exception as error:
        mistake = describe(error, "generate", options.settings)
        if mistake is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)


def serve(options: argparse.Namespace) -> None:
    """Load the models, and answer visitors until Ctrl-C.

    Raises:
        UserError: the port is taken, or a setting is wrong.
    """
    os.environ.update(SILENT)
    share_cores()
    from golden_noise.app.settings import Settings  # these take seconds, and --help none of them

    settings = Settings.of(options.settings, Limits(options.max_steps, options.max_seeds, options.max_calls))
    if settings.config.pipeline.steps > options.max_steps:
        raise UserError(f"pipeline.steps={settings.config.pipeline.steps} is above --max-steps {options.max_steps}")
    from golden_noise.app.server import launch

    launch(settings, options.host, options.port, options.share)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="golden-noise app",
        description="Serves a page that draws from standard and from golden noise, compares them and searches for "
        "better noise: of the bundled miniature, or of any pipeline.",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="as for `generate`: pipeline=sdxl npnet=FOLDER device=cuda"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is all (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (%(default)s)")
    parser.add_argument("--share", action="store_true", help="a public address through Gradio's servers, for a week")
    parser.add_argument(
        "--max-steps", type=_count, default=Limits.steps, metavar="N", help="sampler steps (%(default)s)"
    )
    parser.add_argument("--max-seeds", type=_count, default=Limits.seeds, metavar="N", help="of a grid (%(default)s)")
    parser.add_argument(
        "--max-calls", type=_count, default=Limits.calls, metavar="N", help="denoiser calls of a search (%(default)s)"
    )
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 2:
        raise ValueError
    return number
