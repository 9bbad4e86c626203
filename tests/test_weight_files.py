"""What makes the files of a model useless."""

import pytest

from golden_noise.weight_files import damage


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("config.json", "config.json is damaged: it is not JSON"),
        ("unet/config.json", "unet/config.json is damaged: it is not JSON"),
        ("projects/others/config.json", None),
    ],
)
def test_a_model_is_a_folder_and_its_subfolders(name, fault, tmp_path):
    """Anything may be named by mistake, a home folder too: it is not read to its depths."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{")
    assert damage(tmp_path) == fault
