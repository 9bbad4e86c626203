"""`golden-noise config`: lists and copies the configs."""

import pytest

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.configs import main


def test_groups_are_listed_with_their_choices(capsys):
    main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    assert f"pipeline: {', '.join(choices('pipeline'))}" in lines
    assert "hydra/launcher: process" in lines
    assert not any(" _base" in line for line in lines)


def test_a_group_is_listed_with_what_each_choice_is(capsys):
    main(["ls", "search"])
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == choices("search")
    assert (
        "full_inversion        Full inversion: sample with high guidance, invert all steps with low guidance\n" in said
    )


def test_a_copy_is_as_the_original(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["cp", "pipeline/sdxl.yaml", "mine/pipeline/größer.yaml"])
    assert capsys.readouterr().out == (
        "wrote mine/pipeline/größer.yaml; use it with --config-dir mine pipeline=größer\n"
    )
    assert (tmp_path / "mine/pipeline/größer.yaml").read_bytes() == (CONF / "pipeline/sdxl.yaml").read_bytes()
    main(["cp", "hydra/launcher/process", "hydra/launcher/many.yaml"])
    assert capsys.readouterr().out.endswith("--config-dir . hydra/launcher=many\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "pipelines"], "no group pipelines: there are callbacks, "),
        (["cp", "pipeline/sdx", "x.yaml"], "no config pipeline/sdx: did you mean pipeline/sdxl?"),
        (["cp", "../secret", "x.yaml"], "no config ../secret: `golden-noise config ls` lists them"),
        (["cp", "pipeline/sdxl", "x.yaml"], "x.yaml must be FOLDER/pipeline/NAME.yaml, where --config-dir FOLDER"),
        (["cp", "pipeline/sdxl", "mine/pipeline/x"], "must be FOLDER/pipeline/NAME.yaml"),
        (["cp", "pipeline/sdxl", "mine/pipeline/there.yaml"], "there.yaml exists: choose another name"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/pipeline").mkdir(parents=True)
    (tmp_path / "mine/pipeline/there.yaml").write_text("mine", "utf-8")
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1
    assert message in said
    assert (tmp_path / "mine/pipeline/there.yaml").read_text("utf-8") == "mine"
