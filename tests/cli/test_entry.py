"""The command line: help is quick, and each mistake costs one line."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from safetensors import SafetensorError

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.jobs import main
from golden_noise.cli.mistakes import describe
from golden_noise.cli.run_folder import RunFolder


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, f"{script}.py", *arguments],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs an entry point in this process: its exit code, and what it says on stderr."""

    def call(script, *arguments):
        monkeypatch.chdir(CONF.parent)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, getattr(sys, stream))  # a run's log takes their place
        code = 0
        try:
            main(script)
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err

    yield call
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("script", ["collect", "train", "evaluate", "generate"])
def test_help_lists_groups_and_choices(script):
    result = run(script, "--help")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    (pipelines,) = (line.removeprefix("pipeline: ") for line in lines if line.startswith("pipeline: "))
    assert pipelines.split(", ") == choices("pipeline")
    assert f"python {script}.py" in result.stdout
    assert ("trainer: " in result.stdout) == (script == "train")  # only the groups of this job
    assert ("\nmodel: " in result.stdout) == ("weight_decay: " in result.stdout) == (script == "train")
    assert "device: auto # or cpu, cuda" in result.stdout  # comments and all
    assert "  # The bundled miniature: a tiny SDXL of coloured shapes." in result.stdout  # of groups, too
    assert "    vae: null # another VAE: source (hub id, folder or file), revision" in lines  # also of the included


@pytest.mark.parametrize("option", ["--help", "--cfg=job"])
def test_help_may_be_cut_off_by_its_reader(option):
    command = [sys.executable, "evaluate.py", option, "npnet=x"]
    with subprocess.Popen(command, cwd=CONF.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `| head` does before the help is written
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [["--help"], ["prompt="], ["-m", "search=5,zigzag"]])
def test_neither_help_nor_a_mistake_loads_a_heavy_library(arguments, tmp_path):
    """Seconds each. What is loaded is asked at the end: nothing else tells a fast machine from a slow one."""
    code = f"""
import sys
from golden_noise.cli.entry import run
sys.argv[1:] = {[*arguments, f"paths.outputs={tmp_path}"]}
try:
    run(lambda config: None, "generate")
except SystemExit:
    pass
print(*({{"torch", "lightning", "diffusers", "transformers", "wandb", "numpy"}} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "", done.stderr


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given, policy, tmp_path):
    """OpenMP reads the variable once, when torch is loaded."""
    code = f"""
import os, sys
from golden_noise.cli.entry import run
sys.argv[1:] = ["prompt=a red circle", "paths.outputs={tmp_path}"]
run(lambda config: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules), "generate")
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=CONF.parent, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [policy, "False"], done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train", ["model=nonsense"], ["model=nonsense is none of the choices", "svd_unet+unet"]),
        ("collect", ["search=nonsense"], ["search=nonsense is none of the choices", "redenoise"]),
        ("collect", ["pipeline.heigth=32"], ["no setting pipeline.heigth: did you mean pipeline.height?"]),
        ("collect", ["steps=3"], ["no setting steps: did you mean pipeline.steps or search.steps?"]),
        ("train", ["modle=vit"], ["did you mean model?"]),
        ("train", ["model.npnet.rnk=3"], ["error: no setting model.npnet.rnk; --help"]),
        ("train", ["modle=vit", "-m", "seed=1,2"], ["did you mean model?"]),
        ("train", ["paths=null"], ["paths=null must be settings"]),
        ("train", ["evaluation=null"], ["evaluation is missing: train needs it: choose one of default"]),
        ("collect", ["name=x"], ["no setting name: collect takes data_dir=FOLDER instead"]),
        ("collect", ["pipeline.height=30"], ["pipeline.height=30", "multiple of 8"]),
        ("collect", ["pipeline.height=64"], ["32x32", "64x32"]),
        ("collect", ["collection.select_by=nonsense"], ["collection.select_by=nonsense", "strict"]),
        ("collect", ["collection.batch_size=0"], ["collection.batch_size=0", ">= 1"]),
        ("collect", ["pipeline=sdxl"], ["prompts=file"]),
        ("collect", ["prompts=file", "prompts.path=/nowhere/prompts.txt"], ["/nowhere/prompts.txt"]),
        ("collect", ["data_dir=/proc/nowhere"], ["/proc/nowhere"]),
        ("generate", [], ["no prompt: add prompt=", "prompts=file"]),
        ("generate", ["prompt=a circle", "model=unet"], ["model=unet: generate does not read model, only train"]),
        ("evaluate", ["model.npnet.rank=3"], ["model.npnet.rank=3: evaluate does not read model"]),
        ("generate", ["prompt="], ["no prompt"]),
        ("generate", ["prompt=a \udce9 circle"], ["error: the command line is not UTF-8: prompt=a \\udce9 circle"]),
        ("evaluate", ["npnet=\udce9", "-m"], ["not UTF-8: npnet="]),
        ("generate", ["prompt=a", "+pipeline.\udce9=1"], ["not UTF-8: +pipeline."]),
        ("generate", ["a", "red", "circle"], ["'a' is not a setting: give KEY=VALUE"]),
        ("generate", ["prompt=a", "seeds=[1,2"], ["seeds=[1,2 must be a list, each an integer"]),
        ("generate", ["experiment=published_sdxl", "prompt="], ["no prompt"]),
        ("generate", ["experiment=shapes_variants"], ["no prompt"]),
        ("generate", ["logger=csv", "prompt=a"], ["logger=csv: generate does not read logger"]),
        ("evaluate", ["trainer=ddp"], ["trainer=ddp: evaluate does not read trainer"]),
        ("evaluate", ["search=null"], ["search is missing: evaluate needs it", "zigzag"]),
        ("train", ["search=5"], ["search=5 is none of the choices", "redenoise"]),
        ("train", ["+sede=3"], ["no setting sede: did you mean seed?"]),
        ("train", ["+pipeline.heigth=3"], ["no setting pipeline.heigth: did you mean pipeline.height?"]),
        ("generate", ["prompt=a, (b)", "npnet=/nowhere"], ["/nowhere"]),
        ("evaluate", ["npnet=/nowhere/npnet"], ["/nowhere/npnet"]),
        ("evaluate", ["~search"], ["search is missing: evaluate needs it"]),
        ("generate", ["prompt=null"], ["no prompt"]),
        ("generate", ["prompt=a", "device=3"], ["device=3 must be auto, cpu"]),
        ("generate", ["prompt=a", "name=../x"], ["name=../x must be a name"]),
        ("generate", ["prompt=a", "pipeline.negative_prompt=null"], ["pipeline.negative_prompt=null must be text"]),
        (
            "generate",
            ["prompt=a", "pipeline.batch_size=2"],
            ["pipeline.batch_size=2 must be settings: collect"],
        ),
        ("evaluate", ["evaluation=published"], ["evaluation.folder is missing: add evaluation.folder=VALUE"]),
        ("evaluate", ["evaluation=published", "evaluation.folder=/nowhere"], ["/nowhere/origin"]),
    ],
)
def test_a_mistake_costs_one_line(script, arguments, words, tmp_path, run_here):
    places = [f"paths.outputs={tmp_path}"]
    if script == "collect" and not any(a.startswith("data_dir") for a in arguments):
        places.append(f"data_dir={tmp_path}/pairs")
    code, errors = run_here(script, *arguments, *places)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []  # no empty run folder stays


def test_a_mistake_deletes_and_changes_nothing_that_was_there(tmp_path):
    """Neither in a folder of the user's own, empty or not, nor in a run's that is to go on."""
    (tmp_path / "mine/sub").mkdir(parents=True)
    (tmp_path / "mine/sub/config.yaml").write_text("a: 1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/overrides.yaml").write_text("- seed=1")
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    folders = [*(f"hydra.run.dir={tmp_path}/{name}" for name in ("mine", "empty", "new/deep", "run"))]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda folder: run("generate", folder, "prompt="), folders))
    assert [result.returncode for result in results] == [2] * len(folders)
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


def test_ranks_that_tidy_their_run_folder_at_once_do_not_trip_over_each_other(tmp_path):
    folders = [tmp_path / "runs" / str(i) for i in range(100)]
    found = [[RunFolder(folder) for _ in range(4)] for folder in folders]
    for folder in folders:
        (folder / ".hydra").mkdir(parents=True)
        for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "log.txt", "config.yaml"):
            (folder / name).touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(RunFolder.tidy, (each for ranks in found for each in ranks)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_with_results_stays(tmp_path):
    found = RunFolder(tmp_path / "run")
    for name in ("log.txt", "results.json"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    found.tidy()
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_a_folder_that_another_process_uses_stays(tmp_path):
    one, two = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.use()
    two.use()
    (tmp_path / "run/log.txt").touch()
    one.tidy()
    assert (tmp_path / "run/log.txt").is_file()
    one._use.close()  # as the end of its process does
    two.tidy()
    assert not (tmp_path / "run").exists()


REFUSED = """
from golden_noise.cli.entry import run
from golden_noise.errors import UserError
import sys
def job(config):
    if config.seed == 2:
        raise UserError("other settings")
    open(f"{{config.folder}}/image.png", "w").close()
sys.argv[1:] = ["prompt=a", "name=x", "paths.outputs={}", "seed={}"]
run(job, "generate")
"""


def test_the_miniature_by_the_papers_recipe_gets_a_note(tmp_path):
    code = "import sys; from golden_noise.cli.entry import run; run(lambda config: None, 'train')"
    for arguments, noted in ([], True), (["experiment=shapes"], False), (["pipeline=sdxl", "data_dir=x"], False):
        command = [sys.executable, "-c", code, *arguments, f"paths.outputs={tmp_path}", "name=x"]
        done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert (done.stderr.count("experiment=shapes trains in minutes") == 1) == noted


def test_a_refused_job_leaves_the_settings_of_the_run_that_is_there(tmp_path):
    found = []
    for seed in (1, 2, 3):
        code = REFUSED.format(tmp_path, seed)
        subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, timeout=120)
        settings = (tmp_path / "generate/x/.hydra/overrides.yaml").read_text()
        found.append([line for line in settings.splitlines() if "seed" in line])
    assert found == [["- seed=1"], ["- seed=1"], ["- seed=3"]]


def test_the_whole_config_is_shown_with_its_references_filled_in():
    done = run("train", "--cfg", "job", "--resolve")
    assert done.returncode == 0 and "${" not in done.stdout


STOPPED = """
import sys
from golden_noise.cli.entry import run
def job(config):
    print("begun")
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        {}
sys.argv[1:] = ["prompt=a", "name=1e5", "paths.outputs={}"]
run(job, "generate")
"""


@pytest.mark.parametrize(("way", "code_of"), [("raise", 1), ("sys.exit(1)", 1), ("sys.exit(143)", 143)])
def test_an_interrupted_job_says_how_to_go_on(way, code_of, tmp_path):
    """The second way is Lightning's, the third is what a training makes of a SIGTERM."""
    code = STOPPED.format(way, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (code_of, "begun\n")
    assert done.stderr == "interrupted: resume by rerunning the same command with name=1e5\n"
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_ranks_says_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    command = [sys.executable, "-c", STOPPED.format("raise", tmp_path)]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_programming_error_keeps_its_traceback_and_its_log(tmp_path):
    code = STOPPED.format("raise KeyError('x')", tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "KeyError: 'x'" in done.stderr
    log = (tmp_path / "generate/1e5/log.txt").read_text()
    assert "begun" in log and "KeyError: 'x'" in log
    assert "- name=" in (tmp_path / "generate/1e5/.hydra/overrides.yaml").read_text()


def test_a_mistake_that_an_interpolation_finds_is_said_as_it_is(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    config = OmegaConf.create({"devices": "${processes:null,auto}"})
    with pytest.raises(InterpolationResolutionError) as raised:
        _ = config.devices
    assert describe(raised.value, "train").startswith("SLURM starts several tasks, but does not say how many")


def test_a_full_disk_costs_one_line():
    """Pillow and others raise it without a file's name."""
    assert "No space left" in describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "train")


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_behind_a_library_costs_one_line(number):
    try:
        try:
            raise OSError(number, os.strerror(number), "ü.ckpt")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")  # as torch's writer does
    except RuntimeError as error:
        line = describe(error, "train")
    assert line.startswith(f"{os.strerror(number)}: ü.ckpt: ") and "rerun the same command" in line
    saving = SafetensorError(f'Error while serializing: I/O error: words (os error {number}) at path "ü.safetensors"')
    assert describe(saving, "train").startswith(f"{os.strerror(number)}: ")


def test_too_little_memory_costs_one_line():
    no_fork = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    for error in (MemoryError(), no_fork, RuntimeError("can't start new thread")):
        wrapped = InstantiationException("Error in call to target")
        wrapped.__cause__ = error
        for each in (error, wrapped):
            line = describe(each, "collect")
            assert line.startswith("too little memory") and "\n" not in line
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert describe(raised.value, "train").startswith("too little memory")


@pytest.mark.parametrize("options", [{"fast_dev_run": -1}, {"precision": "x"}])
def test_what_lightning_finds_in_its_settings_costs_one_line(options):
    with pytest.raises(Exception) as raised:
        Trainer(accelerator="cpu", logger=False, **options)
    line = describe(raised.value, "train")
    assert line and "\n" not in line and "Trainer" not in line
    assert describe(ValueError("ours"), "train") is None


def test_what_fails_in_a_target_names_its_setting():
    config = OmegaConf.create({"model": {"optimizer": {"_target_": "builtins.int", "nonsense": 1}}})
    with pytest.raises(InstantiationException) as raised:
        instantiate(config.model)
    line = describe(raised.value, "train")
    assert line and line.startswith("model.optimizer: Error in call to target 'builtins.int'") and "\n" not in line


def test_too_little_gpu_memory_costs_one_line():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nSee documentation")
    wrapped = RuntimeError("Error in call to target")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        line = describe(each, "collect")
        assert "Tried to allocate 2.00 GiB" in line and "memory.offload=model" in line and "\n" not in line


def test_a_search_for_settings_needs_a_multirun(run_here, tmp_path):
    code, said = run_here("train", "hparams_search=recipe", f"paths.outputs={tmp_path}", "name=x")
    assert code == 2 and "hparams_search=recipe is a search, which needs -m" in said
    assert not list(tmp_path.iterdir())
