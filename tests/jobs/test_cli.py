"""The command line: help is quick, and each mistake costs one line."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hydra import compose, initialize_config_dir

from golden_noise.cli import CONF, _mistake, _remove_if_empty, quote_prompt


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, f"{script}.py", *arguments],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("script", ["collect", "train", "evaluate", "generate"])
def test_help_lists_groups_and_choices(script):
    result = run(script, "--help")
    assert result.returncode == 0
    (choices,) = (
        line.removeprefix("pipeline: ") for line in result.stdout.splitlines() if line.startswith("pipeline: ")
    )
    assert set(choices.split(", ")) == {path.stem for path in (CONF / "pipeline").glob("*.yaml")}
    assert f"python {script}.py" in result.stdout
    assert ("trainer: " in result.stdout) == (script == "train")  # only the groups of this job
    assert ("\nmodel: " in result.stdout) == ("weight_decay: " in result.stdout) == (script == "train")
    assert "device: auto # or cpu, cuda" in result.stdout  # comments and all


@pytest.mark.parametrize("option", ["--help", "--cfg=job"])
def test_help_may_be_cut_off_by_its_reader(option):
    command = [sys.executable, "evaluate.py", option, "npnet=x"]
    with subprocess.Popen(command, cwd=CONF.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `| head` does before the help is written
        assert process.stderr.read() == b""


def test_help_loads_no_heavy_library():
    start = time.perf_counter()
    assert run("train", "--help").returncode == 0
    assert time.perf_counter() - start < 15  # about 1 s when the machine is idle; torch alone takes longer


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train", ["model=nonsense"], ["model/nonsense", "svd_unet+unet"]),
        ("collect", ["search=nonsense"], ["search/nonsense", "redenoise"]),
        ("collect", ["pipeline.heigth=32"], ["no setting pipeline.heigth: did you mean pipeline.height?"]),
        ("collect", ["steps=3"], ["no setting steps: did you mean search.steps or pipeline.steps?"]),
        ("train", ["modle=vit"], ["did you mean model?"]),
        ("collect", ["pipeline.height=30"], ["pipeline.height=30", "multiple of 8"]),
        ("collect", ["pipeline.height=64"], ["32x32", "64x32"]),
        ("collect", ["collection.select_by=nonsense"], ["collection.select_by=nonsense", "strict"]),
        ("collect", ["collection.batch_size=0"], ["collection.batch_size=0", ">= 1"]),
        ("collect", ["pipeline=sdxl"], ["prompts=file"]),
        ("collect", ["prompts=file", "prompts.path=/nowhere/prompts.txt"], ["/nowhere/prompts.txt"]),
        ("collect", ["data_dir=/proc/nowhere"], ["/proc/nowhere"]),
        ("generate", [], ["no prompt: add prompt=", "prompts=file"]),
        ("generate", ["prompt=a circle", "model=unet"], ["model=unet: only train.py trains a network"]),
        ("evaluate", ["model.npnet.rank=3"], ["model.npnet.rank=3: only train.py trains a network"]),
        ("generate", ["prompt="], ["no prompt"]),
        ("generate", ["prompt=a, (b)", "npnet=/nowhere"], ["/nowhere"]),
        ("evaluate", ["npnet=/nowhere/npnet"], ["/nowhere/npnet"]),
        ("evaluate", ["evaluation=published"], ["evaluation.folder is missing: add evaluation.folder=VALUE"]),
        ("evaluate", ["evaluation=published", "evaluation.folder=/nowhere"], ["/nowhere/origin"]),
    ],
)
def test_a_mistake_costs_one_line(script, arguments, words, tmp_path):
    places = [f"paths.outputs={tmp_path}"]
    if script == "collect" and not any(a.startswith("data_dir") for a in arguments):
        places.append(f"data_dir={tmp_path}/pairs")
    result = run(script, *arguments, *places)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []  # no empty run folder stays


def test_ranks_that_remove_their_run_folder_at_once_do_not_trip_over_each_other(tmp_path):
    folders = [tmp_path / "runs" / str(i) for i in range(100)]
    for folder in folders:
        (folder / ".hydra").mkdir(parents=True)
        for name in ("config", "hydra", "overrides"):
            (folder / ".hydra" / f"{name}.yaml").touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_remove_if_empty, (folder for folder in folders for _ in range(4))))
    assert not any(folder.exists() for folder in folders)


def test_a_full_disk_costs_one_line():
    """Pillow and others raise it without a file's name."""
    assert "No space left" in _mistake(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "train")


@pytest.mark.parametrize(
    "text",
    [
        "a, b",
        "a cat [photo]: 50% {x}",
        "say \"hi\", 'ho'",
        "a\\",
        "5",
        "true",
        "null",
        "${a}",
        "a=b",
        "  x ",
        "ein Würfel",
    ],
)
def test_a_prompt_is_any_text(text):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("generate", quote_prompt([f"prompt={text}", "seed=3"]))
    assert (config.prompt, config.seed) == (text, 3)


@pytest.mark.parametrize("arguments", [["prompt='a, b'"], ['prompt="a \\" b"'], ["-m", "prompt=a,b"], ["npnet=a,b"]])
def test_what_is_quoted_or_swept_stays(arguments):
    assert quote_prompt(arguments) == arguments


def test_too_little_gpu_memory_costs_one_line():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nSee documentation")
    wrapped = RuntimeError("Error in call to target")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        line = _mistake(each, "collect")
        assert "Tried to allocate 2.00 GiB" in line and "memory.offload=model" in line and "\n" not in line
