"""What a kill leaves of a file or folder that is being written: nothing, or what was there before."""

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


def test_text_is_written_in_utf_8(tmp_path):
    write_atomically(tmp_path / "a.txt", "Würfel 立方体\n")
    assert (tmp_path / "a.txt").read_bytes() == "Würfel 立方体\n".encode()
