import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.cli.pairs import main
from golden_noise.errors import UserError
from golden_noise.pairs import Failure, NoisePair, ShardIndex, read_shard
from golden_noise.pairs.published import PublishedSet, export_set, import_set
from golden_noise.pairs.verify import problems
from golden_noise.pipelines.prompt_embedding import PromptEmbedding

from .factory import LATENT_SHAPE, collect, make_pair

GENTLE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIPELINE = {"pipeline": {"name": "tiny", "latent_shape": list(LATENT_SHAPE), "embeds_shape": [3, 5]}}


def encode(texts):
    """Embeddings that tell one prompt from another."""
    lengths = torch.tensor([float(len(text)) for text in texts])
    return PromptEmbedding(lengths[:, None, None].expand(-1, 3, 5), pooled=lengths[:, None].expand(-1, 6))


def save_pair(folder: Path, index: int, seed: int, fill: float = 0.5, shape=(1, *LATENT_SHAPE), name=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.full(shape, fill, np.float16)
    path = folder / (name or f"{index}_{seed}.npz")
    np.savez(path, noise, noise + 1, np.array(index))
    return path


def save_lines(folder: Path, rows: list, name="prompts.jsonl", dump=json.dumps) -> None:
    (folder / name).write_text("".join(dump(row) + "\n" for row in rows))


def line(index: int, seed: int, caption=None, old=(0.2, 5.0), new=(0.3, 4.0)) -> dict:
    scores = {"original_score_list": list(old), "optimized_score_list": list(new)}
    return {"index": index, "seed": seed, "caption": caption or f"prompt {index} of seed {seed}"} | scores


def strict(error: UserError) -> None:
    raise error


def run_import(source: Path, target: Path, on_bad=strict, shard_size=3, **options) -> list[NoisePair]:
    published = PublishedSet(source, LATENT_SHAPE, on_bad, **options)
    index = import_set(published, target, PIPELINE, encode, shard_size, batch_size=2)
    assert list(problems(target)) == []
    return [NoisePair.from_sample(s) for shard in index.shards for s in read_shard(target, shard, rejected=True)]


def test_an_exported_set_imports_as_it_was(tmp_path):
    collect(tmp_path / "a", [3, 2])
    assert export_set(tmp_path / "a", tmp_path / "b") == 5
    pairs = run_import(tmp_path / "b", tmp_path / "c", metrics=["hpsv2"])
    originals = [make_pair(index) for index in (0, 1, 2, 4, 5)]
    for pair, original in zip(pairs, originals, strict=True):
        assert (pair.prompt.text, pair.prompt.seed) == (original.prompt.text, original.prompt.seed)
        assert pair.scores == original.scores and pair.accepted
        assert torch.equal(pair.noise, original.noise) and torch.equal(pair.golden, original.golden)
        assert pair.embeds[0, 0] == pair.pooled[0] == len(pair.prompt.text)


def test_the_exported_files_are_as_published(tmp_path):
    collect(tmp_path / "a", [2])
    export_set(tmp_path / "a", tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["0_1000.npz", "1_1001.npz", "pairs.jsonl"]
    rows = [json.loads(row) for row in (tmp_path / "b/pairs.jsonl").read_text().splitlines()]
    assert rows[1] == line(1, 1001, "a photo of object 1", old=[0.25], new=[0.5])
    with np.load(tmp_path / "b/1_1001.npz", allow_pickle=False) as arrays:
        assert arrays["arr_0"].shape == arrays["arr_1"].shape == (1, *LATENT_SHAPE)
        assert arrays["arr_0"].dtype == np.float16 and int(arrays["arr_2"]) == 1
    with pytest.raises(UserError, match="not empty"):
        export_set(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="no score aes: choose from hpsv2"):
        export_set(tmp_path / "a", tmp_path / "c", ["aes"])


@pytest.mark.parametrize("dump", [json.dumps, repr], ids=["json", "python"])
def test_lines_are_json_or_python_literals(tmp_path, dump):
    save_pair(tmp_path / "a", 0, 7)
    save_lines(tmp_path / "a", [line(0, 7, caption='it\'s "quoted"')], dump=dump)
    (pair,) = run_import(tmp_path / "a", tmp_path / "b")
    assert pair.prompt.text == 'it\'s "quoted"' and pair.prompt.seed == 7
    assert pair.scores == {"score_0": (0.2, 0.3), "score_1": (5.0, 4.0)}


def test_a_line_without_index_has_its_place(tmp_path):
    for index in (0, 1):
        save_pair(tmp_path / "a", index, 7)
    save_lines(tmp_path / "a", [{"caption": "first", "seed": 7}, {"caption": "second"}])
    assert [pair.prompt.text for pair in run_import(tmp_path / "a", tmp_path / "b")] == ["first", "second"]


def test_discard_looks_at_the_first_score(tmp_path):
    for index in range(3):
        save_pair(tmp_path / "a", index, 7)
    save_lines(tmp_path / "a", [line(0, 7), line(1, 7, new=(0.2, 9.0)), line(2, 7, new=(0.1, 9.0))])
    assert [pair.accepted for pair in run_import(tmp_path / "a", tmp_path / "b")] == [True] * 3
    assert [pair.accepted for pair in run_import(tmp_path / "a", tmp_path / "c", discard=True)] == [True, False, False]


def test_sub_folders_of_several_gpus(tmp_path):
    """One has lines of its own; two count from 0 again and share the lines above them."""
    for place, seed in (("a", 1), ("a/own", 2), ("a/gpu0", 3), ("a/gpu1/deep", 4)):
        save_pair(tmp_path / place, 0, seed)
    save_lines(tmp_path / "a", [line(0, 1), line(0, 3), line(100, 4)])
    save_lines(tmp_path / "a/own", [line(0, 2)])
    assert [pair.prompt.seed for pair in run_import(tmp_path / "a", tmp_path / "b")] == [1]
    pairs = run_import(tmp_path / "a", tmp_path / "c", all_files=True, shifts={"gpu1/deep": 100})
    assert {pair.prompt.tags["source"]: pair.prompt.text for pair in pairs} == {
        "0_1.npz": "prompt 0 of seed 1",
        "own/0_2.npz": "prompt 0 of seed 2",
        "gpu0/0_3.npz": "prompt 0 of seed 3",
        "gpu1/deep/0_4.npz": "prompt 100 of seed 4",
    }
    with pytest.raises(UserError, match=r"0_4\.npz: line 0 has seed 1, not 4 .*--shift"):
        run_import(tmp_path / "a", tmp_path / "d", all_files=True)


def test_an_import_goes_on_where_it_stopped(tmp_path):
    for index in range(5):
        save_pair(tmp_path / "a", index, 7)
    save_lines(tmp_path / "a", [line(index, 7) for index in range(5)])
    whole = [pair.prompt for pair in run_import(tmp_path / "a", tmp_path / "b", shard_size=2)]
    stamp = (tmp_path / "b/pairs-000000.tar").stat().st_mtime_ns
    (tmp_path / "b/pairs-000001.tar").unlink()
    assert [pair.prompt for pair in run_import(tmp_path / "a", tmp_path / "b", shard_size=2)] == whole
    assert (tmp_path / "b/pairs-000000.tar").stat().st_mtime_ns == stamp
    save_pair(tmp_path / "a", 5, 7)
    with pytest.raises(UserError, match=r"published\.files"):
        run_import(tmp_path / "a", tmp_path / "b", shard_size=2)


def spoil_object(path: Path) -> None:
    np.savez(path, np.array([{"a": 1}], dtype=object), np.zeros(3), np.array(1))


def spoil_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"arr_{i}.npy", bytes(2**24))


def spoil_not_finite(path: Path) -> None:
    arrays = np.full((1, *LATENT_SHAPE), np.inf, np.float16)
    np.savez(path, arrays, arrays, np.array(1))


BAD = {
    "missing array": (lambda path: np.savez(path, np.zeros(3), np.zeros(3)), "no arr_2"),
    "object array": (spoil_object, "pickle"),
    "shape": (lambda path: save_pair(path.parent, 1, 7, shape=(1, 4, 4, 4)), "float16 1x4x4x4, not float16 1x4x2x2"),
    "bomb": (spoil_bomb, "larger than"),
    "not finite": (spoil_not_finite, "not finite"),
    "array alone": (lambda path: np.save(path.open("wb"), np.zeros(3)), "not an .npz archive"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "pickle"),
    "empty": (lambda path: path.write_bytes(b""), "No data left"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:300]), "pickle|zip"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_skipped_or_fatal(tmp_path, kind):
    spoil, reason = BAD[kind]
    for index in range(3):
        save_pair(tmp_path / "a", index, 7)
    save_lines(tmp_path / "a", [line(index, 7) for index in range(3)])
    spoil(tmp_path / "a/1_7.npz")
    errors: list[UserError] = []
    pairs = run_import(tmp_path / "a", tmp_path / "b", on_bad=errors.append)
    assert [pair.prompt.index for pair in pairs] == [0, 2] and len(errors) == 1
    with pytest.raises(UserError, match=rf"1_7\.npz: .*({reason})") as error:
        run_import(tmp_path / "a", tmp_path / "c")
    assert "\n" not in str(error.value)
    (tmp_path / "a/1_7.npz").unlink()
    save_pair(tmp_path / "a", 1, 7)
    run_import(tmp_path / "a", tmp_path / "b", on_bad=errors.append)  # its shard is finished, and says what it lacks
    assert str(errors[1]) == str(errors[0])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{'seed': 7}", "no caption"),
        ("[1]", "no caption"),
        ("{", "not a JSON object"),
        ("__import__('os').system('false')", "not a JSON object"),
        (json.dumps(line(1, 7) | {"caption": "\ud800"}), "surrogates"),
        (json.dumps(line(1, 7) | {"seed": "7"}), "not an integer"),
        (json.dumps(line(1, 7, new=[1.0])), "2 and 1 scores"),
        (json.dumps(line(1, 7, new=[1.0, float("nan")])), "not finite"),
    ],
)
def test_a_bad_line_is_named_and_so_is_its_pair(tmp_path, row, problem):
    for index in range(2):
        save_pair(tmp_path / "a", index, 7)
    (tmp_path / "a/x.jsonl").write_text(json.dumps(line(0, 7)) + "\n" + row + "\n")
    errors: list[UserError] = []
    (pair,) = run_import(tmp_path / "a", tmp_path / "b", on_bad=errors.append)
    assert pair.prompt.index == 0
    first, second = map(str, errors)
    assert "x.jsonl, line 2" in first and problem in first
    assert "1_7.npz: no line has its index 1" in second


def test_lines_that_contradict_each_other_are_refused(tmp_path):
    save_pair(tmp_path / "a", 0, 7)
    save_lines(tmp_path / "a", [line(0, 7, "one"), line(0, 7, "other")])
    with pytest.raises(UserError, match="several lines"):
        run_import(tmp_path / "a", tmp_path / "b")


def test_mistakes_are_found_before_anything_is_written(tmp_path):
    save_pair(tmp_path / "a/sub", 0, 7)
    for options, problem in [
        ({}, "--all-file"),
        ({"captions": tmp_path / "nowhere"}, "no file"),
        ({"shifts": {"nowhere": 1}}, "no such folder"),
    ]:
        with pytest.raises(UserError, match=problem):
            PublishedSet(tmp_path / "a", LATENT_SHAPE, strict, **options)
    with pytest.raises(UserError, match=r"no \.jsonl file.*--captions"):
        run_import(tmp_path / "a", tmp_path / "b", all_files=True)


def arrays(*parts: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i, part in enumerate(parts):
            archive.writestr(f"arr_{i}.npy", part)
    return stream.getvalue()


@GENTLE
@given(content=st.binary(max_size=300) | st.builds(arrays, *[st.binary(max_size=200)] * 3))
def test_any_bytes_as_a_file_are_one_line(tmp_path, content):
    path = save_pair(tmp_path / "a", 0, 7)
    save_lines(tmp_path / "a", [line(0, 7)])
    path.write_bytes(content)
    errors: list[UserError] = []
    assert PublishedSet(tmp_path / "a", LATENT_SHAPE, errors.append).read(0) == Failure(0, "0_7.npz", str(errors[0]))
    (error,) = errors
    assert "0_7.npz" in str(error) and "\n" not in str(error)


@GENTLE
@given(data=st.data())
def test_a_flipped_bit_in_a_file_is_one_line_or_harmless(tmp_path, data):
    path = save_pair(tmp_path / "a", 0, 7)
    save_lines(tmp_path / "a", [line(0, 7)])
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    errors: list[UserError] = []
    pair = PublishedSet(tmp_path / "a", LATENT_SHAPE, errors.append).read(0)
    assert isinstance(pair, Failure) == (len(errors) == 1)
    assert isinstance(pair, Failure) or (pair.noise == 0.5).all()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["index", "seed", "caption", "original_score_list", "optimized_score_list"])


@GENTLE
@given(
    rows=st.binary(max_size=200)
    | st.dictionaries(NAMES, VALUES).map(lambda row: json.dumps(row).encode())
    | st.dictionaries(NAMES, VALUES).map(lambda row: repr(row).encode())
    | st.sampled_from([b"[" * 50_000, b"-" * 50_000 + b"1", b"9" * 50_000, b"(" * 50_000, b"1+" * 50_000])
)
def test_any_bytes_as_lines_are_recorded_or_read(tmp_path, rows):
    save_pair(tmp_path / "a", 0, 7)
    (tmp_path / "a/x.jsonl").write_bytes(rows)
    errors: list[UserError] = []
    pair = PublishedSet(tmp_path / "a", LATENT_SHAPE, errors.append).read(0)
    assert isinstance(pair, NoisePair) or errors
    assert all("\n" not in str(error) for error in errors)
    if isinstance(pair, NoisePair):
        json.loads(pair.to_sample()["json"])


def test_the_command_encodes_with_the_pipeline(tmp_path, tiny_sdxl, capsys):
    for index in range(3):
        save_pair(tmp_path / "a", index, 7, shape=(1, 4, 8, 8))
    save_lines(tmp_path / "a", [line(0, 7), line(2, 7)])
    config = ["--config", "pipeline=shapes", f"pipeline.model.source={tiny_sdxl}", "device=cpu"]
    main(["import", str(tmp_path / "a"), str(tmp_path / "b"), "--metrics", "pickscore,aes", *config])
    output = capsys.readouterr()
    assert "2 pairs, 0 discarded, 1 bad" in output.out and "1_7.npz" in output.err
    (shard,) = ShardIndex.load(tmp_path / "b").shards
    pairs = [NoisePair.from_sample(sample) for sample in read_shard(tmp_path / "b", shard)]
    assert pairs[0].embeds.shape == (16, 128) and pairs[0].pooled.shape == (64,)
    assert not torch.equal(pairs[0].embeds, pairs[1].embeds) and list(pairs[0].scores) == ["aes", "pickscore"]
    main(["verify", str(tmp_path / "b")])
    main(["export", str(tmp_path / "b"), str(tmp_path / "c"), "--metrics", "pickscore"])
    assert len(list((tmp_path / "c").glob("*.npz"))) == 2
    for arguments in (["--strict", *config], ["--config", "pipeline=nonsense"]):
        with pytest.raises(SystemExit) as exit:
            main(["import", str(tmp_path / "a"), str(tmp_path / "d"), *arguments])
        assert exit.value.code == 2 and capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_urls_are_not_read_by_tools_for_folders(capsys):
    for command in (["verify"], ["stats"], ["export", "target"]):
        with pytest.raises(SystemExit):
            main([command[0], "s3://bucket/pairs", *command[1:]])
        assert "s3://bucket/pairs is not a folder: copy it into one" in capsys.readouterr().err


def test_urls_are_not_written_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("import", "export"):
        with pytest.raises(SystemExit):
            main([command, "pairs", "https://host/pairs"])
        assert "https://host/pairs is not a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
