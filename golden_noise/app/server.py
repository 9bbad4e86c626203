"""Serves the page."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import gradio as gr
from starlette.middleware import Middleware

from golden_noise.app.guard import LOOPBACK, Guard
from golden_noise.app.page import STYLE, THEME, build
from golden_noise.app.settings import Settings
from golden_noise.app.studio import Studio
from golden_noise.app.visitors import Visitors
from golden_noise.errors import UserError

TINY = 128  # pixels: smaller pictures are enlarged so that pixels stay squares
SQUARES = "<style>.pictures img { image-rendering: pixelated; }</style>"


def launch(settings: Settings, host: str, port: int, share: bool) -> None:
    """Load the models, and answer visitors until Ctrl-C or SIGTERM.

    Raises:
        UserError: a model cannot be loaded, or the port is taken.
    """
    with (
        suppress(KeyboardInterrupt),  # a second one, too, while it ends
        terminated_as_by_ctrl_c(),
        serving(settings, host, port, share) as (page, address),
    ):
        print(f"golden-noise app: {address} (Ctrl-C ends it)", flush=True)
        while page.is_running:
            time.sleep(0.1)


@contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """So that a SIGTERM deletes what visitors drew, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def serving(settings: Settings, host: str, port: int, share: bool = False) -> Iterator[tuple[gr.Blocks, str]]:
    """The page while it is served, and its address; the visitors' pictures are deleted in the end.

    Raises:
        UserError: a model cannot be loaded, or the port is taken.
    """
    small = max(settings.config.pipeline.height, settings.config.pipeline.width) <= TINY
    visitors = Visitors()
    with TemporaryDirectory(prefix="golden-noise-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of the parts of the page too, so before these are made
        page = build(Studio(settings), visitors)
        guard = Middleware(Guard, page=page, visitors=visitors, local=host in LOOPBACK and not share)
        try:
            _, local, public = page.launch(
                server_name=host,
                server_port=port,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[],
                max_file_size=0,
                app_kwargs={"middleware": [guard]},
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
        try:
            yield page, public or local
        finally:
            page.close(verbose=False)
