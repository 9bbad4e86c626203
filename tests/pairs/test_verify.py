import dataclasses
import io
import json
import tarfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.cli.pairs import main
from golden_noise.pairs import NoisePair, ShardWriter
from golden_noise.pairs.verify import problems

from .factory import CONFIG, collect, make_pair, replace_shard, rewrite_entry

GENTLE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def members(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def as_members(pair: NoisePair) -> dict[str, bytes]:
    return {f"{pair.key}.{name}": data for name, data in pair.to_sample().items() if name != "__key__"}


def test_an_untouched_folder_is_fine(tmp_path, capsys):
    collect(tmp_path, [3, 0, 2])
    assert list(problems(tmp_path)) == []
    main(["verify", str(tmp_path)])
    assert "all files" in capsys.readouterr().out


def test_every_bad_file_has_a_line(tmp_path, capsys):
    collect(tmp_path, [2, 2, 2, 2])
    (tmp_path / "pairs-000000.tar").unlink()
    with (tmp_path / "pairs-000002.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"?")
    (tmp_path / "pairs-000009.tar").touch()
    with pytest.raises(SystemExit) as exit:
        main(["verify", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert exit.value.code == 1 and len(lines) == 3
    for i, reason in enumerate(
        ["000000.tar is missing", "000002.tar is damaged (its checksum", "000009.tar is not in"]
    ):
        assert f"pairs-{reason}" in lines[i]


@pytest.mark.parametrize("content", [None, "{", '{"version": 1, "config": {}, "shards": [{}]}'])
def test_a_bad_index_is_a_problem_too(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(SystemExit) as exit:
        main(["verify", str(tmp_path)])
    assert exit.value.code == 1 and len(capsys.readouterr().out.splitlines()) == 1


WIDE = torch.zeros(4, 2, 4)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": make_pair(0).prompt}, r"pairs-000000\.tar has this key too"),
        ({"noise": WIDE, "golden": WIDE}, "noise is 4x2x4, not 4x2x2"),
        ({"embeds": None}, "embeds is missing, not 3x5"),
        ({"pooled": torch.zeros(7)}, "pooled is 7, not 6"),
        ({"search": {"rounds": 2}}, r"search is {'rounds': 2}, not {'rounds': 1}"),
        ({"scores": {}}, "metrics is none, not hpsv2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_pair_unlike_the_others_is_found(tmp_path, changes, problem):
    collect(tmp_path, [1])
    ShardWriter(tmp_path, CONFIG).write(1, [dataclasses.replace(make_pair(9), **changes)])
    (line,) = problems(tmp_path)
    assert "pairs-000001.tar" in line
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(line)


def test_shapes_are_those_of_the_recorded_pipeline(tmp_path):
    pipeline = {"latent_shape": [4, 2, 2], "embeds_shape": [77, 5]}
    ShardWriter(tmp_path, {"pipeline": pipeline}).write(0, [make_pair(0)])
    (line,) = problems(tmp_path)
    assert "embeds is 3x5, not 77x5" in line


def test_what_the_index_says_of_counts_and_prompts_is_compared(tmp_path):
    collect(tmp_path, [2, 2])
    rewrite_entry(tmp_path, shard=0, rejected=2)
    rewrite_entry(tmp_path, shard=1, prompts=["ffffffff"] * 2)
    counts, prompts = problems(tmp_path)
    assert "pairs-000000.tar is damaged (3 of 4 samples)" in counts
    assert "pairs-000001.tar" in prompts and "not the one in index.json" in prompts


def test_a_value_that_is_no_number_is_found(tmp_path):
    collect(tmp_path, [1])
    content = as_members(make_pair(0)) | as_members(make_pair(1, accepted=False))
    replace_shard(tmp_path, members(content))
    assert list(problems(tmp_path)) == []
    noise = content["000000000.noise.npy"]
    replace_shard(tmp_path, members(content | {"000000000.noise.npy": noise[:-2] + b"\x00\x7e"}))
    (line,) = problems(tmp_path)
    assert "000000000" in line and "noise.npy is not finite" in line


@GENTLE
@given(member=st.sampled_from(["json", "noise.npy", "golden.npy", "embeds.npy"]), data=st.binary(max_size=300))
def test_any_bytes_as_a_member_are_one_line(tmp_path, member, data):
    collect(tmp_path, [1])
    content = as_members(make_pair(0)) | as_members(make_pair(1, accepted=False))
    replace_shard(tmp_path, members(content | {f"000000000.{member}": data}))
    (line,) = problems(tmp_path)
    assert "pairs-000000.tar" in line and "\n" not in line


@GENTLE
@given(data=st.binary(max_size=2000))
def test_any_bytes_as_a_shard_are_one_line(tmp_path, data):
    collect(tmp_path, [1])
    replace_shard(tmp_path, data)
    (line,) = problems(tmp_path)
    assert "pairs-000000.tar" in line and "\n" not in line


@GENTLE
@given(
    data=st.binary(max_size=500) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_any_bytes_as_the_index_are_one_line(tmp_path, data):
    (tmp_path / "index.json").write_bytes(data)
    (line,) = problems(tmp_path)
    assert "index.json" in line and "\n" not in line
