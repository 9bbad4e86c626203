import dataclasses

import pytest

from golden_noise.pairs import ShardWriter
from golden_noise.pairs.__main__ import main
from golden_noise.pairs.stats import acceptance, read_tried, score_rows

from .factory import CONFIG, collect, make_pair


def write(folder, tasks):
    """Accepted pairs gain 0.25 and 0.5 and so on; each second one is rejected and loses as much."""
    pairs = []
    for index, task in enumerate(tasks):
        gain = 0.25 * (index // 2 + 1) * (1 if index % 2 == 0 else -1)
        pair = make_pair(index, accepted=index % 2 == 0)
        prompt = dataclasses.replace(pair.prompt, tags={"task": task} if task else {})
        pairs.append(dataclasses.replace(pair, prompt=prompt, scores={"aes": (5.0, 5.0 + gain), "hpsv2": (0.5, 0.5)}))
    ShardWriter(folder, CONFIG).write(0, pairs)


def test_acceptance_per_task(tmp_path):
    write(tmp_path, ["counting", "counting", "colors", None, "counting"])
    assert acceptance(read_tried(tmp_path)) == {"all": (5, 3), "colors": (1, 1), "counting": (3, 2), "none": (1, 0)}


def test_scores_by_hand(tmp_path):
    """Gains 0.25, -0.25, 0.5, -0.5, 0.75: numpy's quantile interpolates between them in order."""
    write(tmp_path, ["colors"] * 5)
    rows = {row[:3]: row[3:] for row in score_rows(read_tried(tmp_path))}
    assert len(rows) == 6  # two metrics with three rows each; one task alone has none of its own
    count, values = rows["aes", "all", "gain"]
    assert count == 5 and values == pytest.approx([0.15, -0.45, -0.25, 0.25, 0.5, 0.7])
    assert rows["aes", "all", "standard"][1] == [5.0] * 6
    assert rows["hpsv2", "all", "gain"][1] == [0.0] * 6


def test_the_command_prints_tables(tmp_path, capsys):
    collect(tmp_path, [3, 2])
    main(["stats", str(tmp_path)])
    output = capsys.readouterr().out
    assert "71.4%" in output and "hpsv2" in output and "95%" in output


def test_an_empty_folder_has_tables_too(tmp_path, capsys):
    ShardWriter(tmp_path, CONFIG)
    main(["stats", str(tmp_path)])
    assert "tried" in capsys.readouterr().out


def test_no_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["stats", str(tmp_path / "nowhere")])
    assert exit.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
