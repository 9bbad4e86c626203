"""Small prompt files."""

import pytest

from golden_noise.errors import UserError
from golden_noise.prompts import read_prompts


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


@pytest.fixture
def texts(write):
    """The captions of a file."""
    return lambda name, content: [prompt.text for prompt in read_prompts(write(name, content))]


@pytest.fixture
def refusal(write):
    """The one line with which a file is refused."""

    def refused(name: str, content: str | bytes) -> str:
        path = write(name, content)
        with pytest.raises(UserError) as error:
            read_prompts(path)
        assert "\n" not in str(error.value) and path in str(error.value)
        return str(error.value).replace(path, name)

    return refused
