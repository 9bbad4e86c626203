import io
import tarfile

import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.pairs import tar

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=80)
SAMPLES = st.dictionaries(
    st.integers(0, 10**9 - 1).map("{:09d}".format),
    st.dictionaries(st.text("abcdeghjn", min_size=1, max_size=80), st.binary(max_size=2000), min_size=1, max_size=4),
    max_size=12,
)


def written(members: dict[str, bytes]) -> bytes:
    content = b"".join(part for name, data in members.items() for part in tar.member(name, data))
    return content + tar.end(len(content))


@given(samples=SAMPLES)
@settings(max_examples=200, deadline=None)
def test_bytes_are_those_that_webdataset_writes(samples):
    stream = io.BytesIO()
    with wds.TarWriter(stream, user="", group="", mtime=0, encoder=False) as writer:
        writer.tarstream.format = tarfile.USTAR_FORMAT
        for key, sample in samples.items():
            writer.write({"__key__": key, **sample})
    ours = written({f"{key}.{name}": sample[name] for key, sample in samples.items() for name in sorted(sample)})
    assert ours == stream.getvalue()


@given(members=st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
@settings(max_examples=200, deadline=None)
def test_tarfile_reads_what_was_written(members):
    with tarfile.open(fileobj=io.BytesIO(written(members)), mode="r:") as read:
        found = {info.name: read.extractfile(info).read() for info in read}
        infos = read.getmembers()
    assert found == members
    assert all((info.mode, info.mtime, info.uname, info.gname) == (0o444, 0, "", "") for info in infos)


@given(samples=SAMPLES)
@settings(max_examples=50, deadline=None)
def test_webdataset_reads_what_was_written(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "pairs-000000.tar"
    path.write_bytes(
        written({f"{key}.{name}": data for key, sample in samples.items() for name, data in sample.items()})
    )
    dataset = wds.WebDataset(str(path), shardshuffle=False, empty_check=False)
    found = [{name: data for name, data in sample.items() if name[0] != "_"} for sample in dataset]
    assert found == list(samples.values())


class Huge(bytes):
    """Bytes as many as no test can hold."""

    def __len__(self) -> int:
        return 8**11


@pytest.mark.parametrize(("name", "data"), [("x" * 101, b""), ("é", b""), ("x", Huge())])
def test_what_a_header_cannot_say_is_an_error(name, data):
    with pytest.raises(ValueError, match=r"ustar|ascii"):
        tar.member(name, data)
    assert len(tar.member("x" * 100, b"")[0]) == 512
