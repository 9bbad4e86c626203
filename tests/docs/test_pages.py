"""What the documentation says is there: links, commands and their options, choices in tables."""

import importlib
import re

import pytest
from omegaconf import OmegaConf

from experiments.miniature.measure import DEFAULTS
from golden_noise.__main__ import TOOLS as PACKAGE_TOOLS
from golden_noise.cli import configs
from golden_noise.cli.conf import choices
from golden_noise.cli.config import job_config
from golden_noise.cli.validation import check

from .pages import FENCE, PAGES, ROOT, Command, inline_commands, shell_commands, written_files

MINIATURE = ROOT / "experiments/miniature"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = [
    pytest.param(page, command, id=f"{page.parent.name if page.stem == 'README' else page.stem}: {command.text}")
    for page in PAGES
    for command in shell_commands(page) + inline_commands(page)
]
SCRIPTS = ("collect.py", "train.py", "evaluate.py", "generate.py")
JOBS = [case for case in COMMANDS if case.values[1].program in SCRIPTS]
TOOLS = {
    **{f"golden-noise {name}": module for name, (_, module) in PACKAGE_TOOLS.items()},
    "golden_noise.npnet.vendor": "golden_noise.npnet.vendor",
    "experiments": "experiments.__main__",
}
MODULES = [case for case in COMMANDS if case.values[1].program in TOOLS]
#: The settings that other modules take, as KEY=VALUE.
SETTINGS = {
    "experiments.miniature.measure": set(DEFAULTS),
    "experiments.miniature.train": set(OmegaConf.load(MINIATURE / "train.yaml")),
    "experiments.miniature.distil": set(OmegaConf.load(MINIATURE / "distil.yaml")),
}


def anchors(page):
    """The anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if not link.startswith(("http://", "https://")):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index():
    linked = LINK.findall((ROOT / "docs/README.md").read_text("utf-8"))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(linked)


def test_commands_are_found():
    assert len(JOBS) > 20
    assert len(MODULES) > 5


@pytest.mark.parametrize(("page", "command"), JOBS)
def test_a_job_can_be_composed(page, command, tmp_path, monkeypatch):
    """Every option that a page names is there, and the checks before the job pass."""
    overrides, search_path = job_overrides(command), []
    if "--config-dir" in command.arguments:
        for name, content in written_files(page).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, "utf-8")
        monkeypatch.chdir(tmp_path)
        for other in shell_commands(page):
            if other.program == "golden-noise config" and other.arguments[0] == "cp":
                configs.main(other.arguments)
        folder = command.arguments[command.arguments.index("--config-dir") + 1]
        search_path = [f"hydra.searchpath=[file://{tmp_path / folder}]"]
    check(job_config(command.program.removesuffix(".py"), [*overrides, *search_path]))


def job_overrides(command: Command) -> list[str]:
    """The overrides of one job, the first of a multirun."""
    given = [word for word in command.arguments if word != "job" and re.match(r"[+~]*[\w./@]+(=|$)", word)]
    if "--config-dir" in command.arguments:
        given.remove(command.arguments[command.arguments.index("--config-dir") + 1])
    if "-m" in command.arguments or "--multirun" in command.arguments:
        given = [re.sub(r"=([^\[{'\",]*),.*", r"=\1", override) for override in given]
    job = command.program.removesuffix(".py")
    named = {word.split("=")[0].lstrip("+") for word in given}
    places = {"collect": ["data_dir"], "train": ["data_dir", "folder"], "evaluate": ["folder"], "generate": ["folder"]}
    return [*given, *(f"{place}=somewhere" for place in places[job] if place not in named)]


@pytest.mark.parametrize(("page", "command"), MODULES)
def test_a_tool_has_its_subcommand_and_options(page, command, capsys):
    tool = importlib.import_module(TOOLS[command.program])
    with_commands = ("golden-noise pairs", "golden-noise sweep", "golden-noise config", "experiments")
    subcommand = command.arguments[:1] if command.program in with_commands else []
    with pytest.raises(SystemExit) as end:
        tool.main([*subcommand, "--help"])
    assert end.value.code == 0
    help_text = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in command.arguments if word.startswith("-")):
        assert option in help_text, option


def test_every_command_is_checked():
    for page, command in (case.values for case in COMMANDS):
        if command.program in SETTINGS:
            assert {word.partition("=")[0] for word in command.arguments} <= SETTINGS[command.program], command.text
        else:
            module = ROOT / f"{command.program.replace('.', '/')}.py"
            known = command.program in (*SCRIPTS, *TOOLS, "golden-noise --help")
            assert known or module.is_file() or (ROOT / command.program).is_file(), f"{page}: {command.text}"


@pytest.mark.parametrize("group", ["pipeline", "metric", "model", "search"])
def test_the_readme_names_every_choice(group):
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in choices(group) if f"`{name}`" not in text]
    assert missing == []


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_the_page_on_presets_names_every_one(group):
    text = (ROOT / "docs/experiments.md").read_text("utf-8")
    names = {*choices(group)} - {"default"}
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_page_on_loggers_names_every_one():
    text = (ROOT / "docs/compare_runs.md").read_text("utf-8")
    assert [name for name in choices("logger") if f"| `{name}` |" not in text] == []
