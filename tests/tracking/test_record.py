"""What `run.json` says of the code that made a run."""

import subprocess

from golden_noise.tracking import record


def test_the_commit_says_whether_the_code_was_changed(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *arguments], cwd=tmp_path, check=True)

    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    assert record.commit() is None
    git("init", "-q")
    (tmp_path / "record.py").write_text("1")
    git("add", "record.py")
    git("commit", "-q", "-m", "x")
    clean = record.commit()
    assert clean and not clean.endswith("+")
    (tmp_path / "record.py").write_text("2")
    assert record.commit() == f"{clean}+"
