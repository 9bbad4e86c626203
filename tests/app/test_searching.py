"""Searches that can be watched and stopped."""

from threading import Event

import numpy as np
import pytest

from golden_noise.app.searching import searching, settings_of, total_calls
from golden_noise.app.tables import progress_bar
from golden_noise.errors import UserError


def watched(studio, choice, name, length, stop=None):
    config = settings_of(studio, choice, name, length)
    return searching(studio, choice, name, config, stop or Event())


@pytest.mark.parametrize(
    ("name", "length"),
    [("noise_level_guidance", 3), ("redenoise", 2), ("zero_order", 1), ("best_of_n", 3), ("reno", 2)],
)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_it_takes_as_many_calls_as_it_says(studio, choose, name, length, guidance):
    choice = choose(steps=2, guidance=guidance)
    last = [*watched(studio, choice, name, length)][-1]
    image = 4 if guidance > 1 else 2
    assert [picture.noise for picture in last.pictures] == ["standard", "search"]
    # The watcher sees the calls before each of them; the last one is of one row, or of two with guidance.
    assert last.done + image // 2 == last.total == total_calls(settings_of(studio, choice, name, length), name, choice)
    assert "done" in progress_bar(last)


def test_a_search_by_a_reward_shows_the_best_so_far(studio, choose):
    choice = choose(steps=2)
    last = [*watched(studio, choice, "best_of_n", 4)][-1]
    found = last.pictures[1]
    assert last.best == pytest.approx(found.scores["reward"], rel=1e-4)
    assert (np.asarray(last.image) == np.asarray(found.image)).all()


def test_it_stops_when_it_is_told_to(studio, choose):
    stop, seen = Event(), []
    for progress in watched(studio, choose(), "zero_order", 20, stop):
        seen.append(progress)
        if progress.best is not None:
            stop.set()
    assert seen[-1].stopped and not seen[-1].pictures
    assert 0 < seen[-1].done < seen[-1].total / 2
    assert "stopped" in progress_bar(seen[-1])
    assert len(next(studio.draw(choose(), ["standard"]))) == 1  # the models are free


def test_it_ends_when_nobody_asks_any_more(studio, choose):
    steps = watched(studio, choose(), "zero_order", 20)
    next(steps)
    steps.close()
    assert len(next(studio.draw(choose(), ["standard"]))) == 1


def test_a_stop_before_the_start_counts(studio, choose):
    stop = Event()
    stop.set()
    last = [*watched(studio, choose(), "reno", 2, stop)][-1]
    assert last.stopped and last.done == 0


@pytest.mark.parametrize("length", [0, -1, 1.5, None, "3", 10**9, float("nan")])
def test_a_length_that_is_none_is_refused(studio, choose, length):
    with pytest.raises(UserError, match="The length of the search must be a whole number from 1 to 2,000"):
        settings_of(studio, choose(), "reno", length)


def test_too_long_a_search_is_refused(studio, choose):
    with pytest.raises(UserError, match=r"would take 10,100 denoiser calls, of at most 2,000: make it shorter"):
        settings_of(studio, choose(steps=50, guidance=2.0), "best_of_n", 99)


def test_a_mistake_in_the_search_reaches_the_visitor(studio, choose):
    with pytest.raises(Exception) as error:
        [*watched(studio, choose(steps=1), "redenoise", 1)]
    from golden_noise.app.events import mistake_of

    assert "must be >= 2" in mistake_of(error.value)
