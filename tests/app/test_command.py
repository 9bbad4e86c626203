"""The command line of the app."""

import os
import signal
import socket
import tempfile
import threading
import time

import gradio as gr
import pytest

from golden_noise.app.command import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pipeline=sdxl"], "error: pipeline=sdxl has no NPNet of its own"),
        (["pipeline=nonsense"], "error: pipeline=nonsense is none of the choices"),
        (["stepz=3"], "error: no setting stepz"),
        (["prompts=shapes_test"], "error: prompts=shapes_test: the app sets prompts itself"),
        (["pipeline.steps=60", "--max-steps", "50"], "error: pipeline.steps=60 is above --max-steps 50"),
        pytest.param(["npnet=nowhere/at/all"], "error: no folder nowhere/at/all", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2 and words in said and said.count("\n") == 1


def test_options_may_stand_between_settings(capsys):
    with pytest.raises(SystemExit):
        main(["pipeline=shapes", "--port", "1", "noise=golden", "--share"])
    assert "the app sets noise itself" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["device=cpu", "--port", str(taken.getsockname()[1])])
    assert "cannot listen at 127.0.0.1, port" in capsys.readouterr().err


def test_sigterm_deletes_what_was_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    close = gr.Blocks.close

    def interrupted(*args, **options):
        close(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(gr.Blocks, "close", interrupted)  # by a second Ctrl-C
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def end():
        while not list(tmp_path.glob("golden-noise-app-*")):
            time.sleep(0.05)
        while "golden-noise app: " not in capsys.readouterr().out:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    main(["device=cpu", "--port", str(port)])
    assert signal.getsignal(signal.SIGTERM) == before
    assert not list(tmp_path.glob("golden-noise-app-*"))
