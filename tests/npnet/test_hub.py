"""Publishing an NPNet and loading it again, through the real clients, with a hub of this process."""

import base64
import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

COMMIT = "0" * 40
SCRIPT = """
import torch
from golden_noise.errors import UserError
from golden_noise.cli import convert
from golden_noise.npnet import NPNet, checkpoint

npnet = NPNet((4, 8, 8), (5, 12)).eval()
torch.nn.init.normal_(npnet.svd_branch.mlp4[-1].weight)
npnet.push_to_hub("me/npnet")
inputs = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 12)
assert torch.equal(NPNet.from_pretrained("me/npnet")(*inputs), npnet(*inputs))
assert torch.equal(checkpoint.load("me/npnet", fit="tile")(*inputs), npnet(*inputs))
convert.main(["me/npnet", "npnet.safetensors"])
assert torch.equal(checkpoint.load("npnet.safetensors")(*inputs), npnet(*inputs))
for source in ("me/none", "me/none/weights.pth"):
    try:
        checkpoint.load(source)
    except UserError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """The few calls of the hub that uploads and downloads make. `files` are those of the one repository."""

    files: dict[str, bytes]

    def answer(self, content: bytes, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        path = re.fullmatch(r"/me/npnet/resolve/(?:main|0+)/(.*)", self.path)
        if path and path[1] in self.files:
            self.answer(self.files[path[1]], ETag=f'"{path[1]}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(b"", 404, X_Error_Code="EntryNotFound" if path else "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply: dict = {"url": "me/npnet"}
        if self.path.endswith("/validate-yaml"):
            reply = {"errors": [], "warnings": []}
        elif "/preupload/" in self.path:
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            reply = {"files": [{"path": file["path"], **mode} for file in json.loads(body)["files"]]}
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            for file in (line["value"] for line in lines if line["key"] == "file"):
                self.files[file["path"]] = base64.b64decode(file["content"])
            reply = {"commitUrl": f"me/npnet/commit/{COMMIT}", "commitOid": COMMIT}
        self.answer(json.dumps(reply).encode(), Content_Type="application/json")

    def log_message(self, *_):
        pass


OFFLINE = """
from golden_noise.errors import UserError
from golden_noise.npnet import checkpoint
from golden_noise.npnet.pretrained import denoiser_conv_in

for load, source in ((checkpoint.load, "me/a"), (checkpoint.load, "me/a/b.pth"), (denoiser_conv_in, "me/a")):
    try:
        load(source)
    except UserError as error:
        print(error)
"""


@pytest.fixture
def hub():
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(script, endpoint, folder):
    """The script in a process of its own, with a hub at the endpoint and its cache in the folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder), "HF_TOKEN": "none", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.long
def test_pushed_and_loaded_it_is_the_same(hub, tmp_path):
    done = run(SCRIPT, f"http://127.0.0.1:{hub.server_port}", tmp_path)
    assert set(Hub.files) == {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines[0] == "npnet.safetensors: noise (4, 8, 8), prompts (5, 12)"
    assert "no NPNet in me/none" in lines[1] and "me/none/weights.pth" in lines[2]


@pytest.mark.long
def test_a_hub_that_does_not_answer_is_said_once_and_at_once(tmp_path):
    done = run(OFFLINE, "http://127.0.0.1:9", tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("http://127.0.0.1:9 does not answer, and it was not downloaded before" in line for line in lines)
    assert "http://127.0.0.1:9" not in done.stderr  # no word of the hub's library about its attempts
