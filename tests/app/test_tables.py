"""Scores as HTML."""

import re

from golden_noise.app.searching import Progress
from golden_noise.app.studio import Picture
from golden_noise.app.tables import caption, labels_of, progress_bar, scores_table

LABELS = {"standard": "standard", "golden": "golden", "search": "<b>×</b>"}


def picture(noise, calls=4, **scores):
    return Picture(noise, 3, None, scores, calls, {})


def test_means_changes_and_calls():
    pictures = [
        picture("standard", s=0.0),
        picture("golden", 5, s=1.0),
        picture("standard", s=0.5),
        picture("golden", 5, s=0.0),
    ]
    page = scores_table(pictures, LABELS)
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", page)]
    assert cells == ["noise", "s", "calls", "standard", "0.25", "4", "golden", "0.5 +0.25", "5"]
    assert 'class="up"' in page and 'class="down"' not in page


def test_what_is_not_known_is_a_dash():
    page = scores_table([picture("standard", s=None, t=1.0), picture("golden", s=None, t=0.5)], LABELS)
    assert page.count("<td>–</td>") == 2 and "s: cannot judge this prompt" in page
    assert "−0.5" in page and 'class="down"' in page


def test_without_scores_there_are_calls():
    assert "<td>4</td>" in scores_table([picture("standard")], LABELS)
    assert caption(picture("standard"), LABELS) == "3, standard"


def test_names_cannot_become_markup():
    page = scores_table([picture("standard", **{"<i>": 1.0}), picture("search", **{"<i>": 1.0})], LABELS)
    assert "<b>" not in page and "<i>" not in page


def test_labels_and_progress(choose):
    assert labels_of(choose(strength=0.5, factor=0.7)) == {
        "standard": "standard",
        "golden": "golden, strength 0.5",
        "search": "noise × 0.7",
    }
    assert "width: 25.0%" in progress_bar(Progress(40, 10, 2.6, -0.5)) and "−0.5" in progress_bar(
        Progress(4, best=-0.5)
    )
