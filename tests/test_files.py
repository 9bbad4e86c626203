"""What a kill leaves of a file or folder that is being written: nothing, or what was there before."""

import errno
import os
from pathlib import Path

import pytest

from golden_noise.files import atomic_file, atomic_folder, write_atomically


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_whole_or_as_it_was(tmp_path, durable):
    def write(content: bytes, kill: bool = False) -> None:
        with atomic_file(tmp_path / "ü.bin", durable) as file:
            file.write(content)
            if kill:
                raise Killed

    with pytest.raises(Killed):
        write(b"half", kill=True)
    assert not (tmp_path / "ü.bin").exists()
    write(b"whole")
    with pytest.raises(Killed):
        write(b"longer than whole", kill=True)
    assert (tmp_path / "ü.bin").read_bytes() == b"whole"
    write(b"new")
    assert (tmp_path / "ü.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["ü.bin"]


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    target = tmp_path / "new" / "weights"

    def fill(names: str, kill: bool = False) -> None:
        with atomic_folder(target) as folder:
            assert isinstance(folder, Path) and not list(folder.iterdir())
            for name in names:
                (folder / name).touch()
            if kill:
                raise Killed

    with pytest.raises(Killed):
        fill("ab", kill=True)
    assert not target.exists()
    fill("cd")
    with pytest.raises(Killed):
        fill("e", kill=True)
    assert sorted(path.name for path in target.iterdir()) == ["c", "d"]
    fill("f")
    assert [path.name for path in target.iterdir()] == ["f"]
    assert [path.name for path in target.parent.iterdir()] == ["weights"]


def test_a_folder_keeps_the_older_one_until_the_new_one_has_its_name(tmp_path):
    target, aside = tmp_path / "weights", tmp_path / ".weights.old"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(target) as folder:
        folder.rmdir()  # so that it cannot take the name
    assert [path.name for path in target.iterdir()] == ["old"]
    target.rename(aside)  # as a kill between the two leaves it
    with pytest.raises(Killed), atomic_folder(target):
        raise Killed
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_names_the_file_and_leaves_its_space(tmp_path, number):
    with pytest.raises(OSError, match=os.strerror(number)) as raised, atomic_file(tmp_path / "ü.bin") as file:
        file.write(b"half")
        raise OSError(number, os.strerror(number))
    assert raised.value.filename == str(tmp_path / "ü.bin")
    assert not list(tmp_path.iterdir())


def test_text_is_written_in_utf_8(tmp_path):
    write_atomically(tmp_path / "a.txt", "Würfel 立方体\n")
    assert (tmp_path / "a.txt").read_bytes() == "Würfel 立方体\n".encode()
