"""The files of docs/cluster: what their comments and the page say can be composed, and what they share is equal."""

import re
import shlex
import subprocess

import pytest

from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check
from tests.docs.pages import ROOT

FILES = sorted((ROOT / "docs/cluster").glob("*.sbatch"))
TEXTS = [(ROOT / "docs/cluster.md").read_text("utf-8"), *(re.sub("^# ?", "", f.read_text(), flags=re.M) for f in FILES)]
JOBS = {"sweep": "train"}
COMMANDS = [
    line
    for text in TEXTS
    for line in text.replace("\\\n", " ").splitlines()
    if re.match(r"\s*sbatch .*\.sbatch \w", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_submitted_can_be_composed(command, tmp_path):
    words = shlex.split(command)
    (file,) = (word for word in words if word.endswith(".sbatch"))
    assert (ROOT / file).is_file()
    name = file.removeprefix("docs/cluster/").removesuffix(".sbatch")
    job = JOBS.get(name, name)
    settings = [re.sub(r"=([^,]*),.*", r"=\1", word) for word in words[words.index(file) + 1 :]]
    places = {"data_dir": ("collect", "train"), "folder": ("train", "evaluate", "generate")}
    check(job_config(job, [*settings, *(f"{place}={tmp_path}" for place, jobs in places.items() if job in jobs)]))


def test_every_file_is_submitted_somewhere():
    assert len(FILES) == 5
    assert all(any(file.name in command for command in COMMANDS) for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_a_script_that_is_queued_again(file):
    """SLURM reads no option after the first command."""
    subprocess.run(["bash", "-n", str(file)], check=True)
    head, _, body = file.read_text().partition("\nsource ")
    assert all(line.startswith("#") or not line for line in head.splitlines()) and "#SBATCH" not in body
    assert "#SBATCH --requeue\n#SBATCH --signal=B:USR1@120 " in head and "#SBATCH --open-mode=append\n" in head
    assert "trap 'scontrol requeue \"$job\"' USR1\n" in body and "wait $! || wait $!" in body
    assert f"python {JOBS.get(file.stem, file.stem)}.py " in body
