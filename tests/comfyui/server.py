"""A real ComfyUI server of its own, and its HTTP interface."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.comfyui.engine import ENGINE, ROOT

PACK = "golden-noise"  # as a user may call the folder
START, RUN = 120, 120  # the longest that a start, or a workflow, may take, in seconds

Graph = dict[str, dict[str, Any]]


def lay_out(base: Path) -> Path:
    """Fills ComfyUI's base folder: the pack, the miniature's loader, and the bundled network."""
    for folder in ("custom_nodes", "models/npnet", "input", "output"):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / PACK).symlink_to(ROOT / "comfyui")
    (base / "custom_nodes/miniature.py").symlink_to(ROOT / "tests/comfyui/miniature.py")
    shutil.copytree(ROOT / "golden_noise/shapes/weights/npnet", base / "models/npnet/miniature")
    return base


class Server:
    """ComfyUI on a free loopback port, with a base folder (custom_nodes, models, input, output) of its own."""

    def __init__(self, base: Path):
        self.base, self.log, self._read = base, base / "comfyui.log", 0
        self.address = f"http://127.0.0.1:{_free_port()}"
        page = base / "page"
        page.mkdir()
        (page / "index.html").write_text("the browser's part is not needed")
        options = {
            "--listen": "127.0.0.1",
            "--port": self.address.rpartition(":")[2],
            "--base-directory": str(base),
            "--front-end-root": str(page),
            "--database-url": "sqlite:///:memory:",
        }
        arguments = ["--cpu", "--disable-api-nodes", *(word for option in options.items() for word in option)]
        # More threads than cores make the miniature twenty times as slow.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", *arguments], cwd=ENGINE, env=environment, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Returns once it answers."""
        for _ in range(4 * START):
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.25)
        raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Ends this server and no other."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def logged(self) -> str:
        """What it has logged since this was last asked."""
        text = self.log.read_text(errors="replace")
        new, self._read = text[self._read :], len(text)
        return new

    def get(self, path: str) -> Any:
        """What is there, read as JSON if it is that."""
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if answer.headers.get_content_type() == "application/json" else content

    def submit(self, graph: Graph) -> dict[str, Any]:
        """Runs a workflow in API form to its end: its entry in the history."""
        body = json.dumps({"prompt": graph}).encode()
        request = urllib.request.Request(f"{self.address}/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                identity = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"refused: {error.read().decode()}") from error
        for _ in range(50 * RUN):
            if found := self.get(f"/history/{identity}"):
                return found[identity]
            time.sleep(0.02)
        raise TimeoutError(f"the workflow still runs after {RUN} seconds")

    def run(self, graph: Graph) -> dict[str, Any]:
        """The outputs by node of a workflow that must succeed."""
        entry = self.submit(graph)
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
        return entry["outputs"]

    def error(self, graph: Graph) -> str:
        """The message of a workflow that must fail."""
        entry = self.submit(graph)
        assert entry["status"]["status_str"] == "error", entry
        return next(
            facts["exception_message"] for kind, facts in entry["status"]["messages"] if kind == "execution_error"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
