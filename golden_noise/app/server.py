"""Serves the page."""

import os
from tempfile import TemporaryDirectory

from starlette.middleware import Middleware

from golden_noise.app.guard import Guard
from golden_noise.app.page import STYLE, THEME, build
from golden_noise.app.settings import Settings
from golden_noise.app.studio import Studio
from golden_noise.errors import UserError

TINY = 128  # pixels: smaller pictures are enlarged so that pixels stay squares
SQUARES = "<style>.pictures img { image-rendering: pixelated; }</style>"


def launch(settings: Settings, host: str, port: int, share: bool) -> None:
    """Load the models, and answer visitors until Ctrl-C.

    Raises:
        UserError: a model cannot be loaded, or the port is taken.
    """
    small = max(settings.config.pipeline.height, settings.config.pipeline.width) <= TINY
    with TemporaryDirectory(prefix="golden-noise-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of the parts of the page too, so before these are made
        page = build(Studio(settings))
        try:
            _, local, public = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[],
                max_file_size=0,
                app_kwargs={"middleware": [Middleware(Guard)]},
                theme=THEME,
                css_paths=[STYLE],
                head=SQUARES if small else "",
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                ssr_mode=False,
            )
        except OSError as error:
            raise UserError(f"cannot listen at {host}, port {port}: give another --port or --host") from error
        print(f"golden-noise app: {public or local} (Ctrl-C ends it)", flush=True)
        page.block_thread()
