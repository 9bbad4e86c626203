"""Which trainings of a sweep go on."""

from hypothesis import given
from hypothesis import strategies as st

from golden_noise.sweeps.halving import Halving
from golden_noise.sweeps.runs import Run

HALVING = Halving(min_epochs=1, eta=3)
values = st.floats(-1, 1, allow_nan=False)
curves = st.lists(values, min_size=1, max_size=12).map(lambda found: [*enumerate(found, 1)])


@given(curves, st.lists(curves, max_size=8))
def test_who_is_best_everywhere_goes_on_and_who_is_worst_among_many_does_not(curve, others):
    assert not HALVING.is_behind(curve, [])
    assert not HALVING.is_behind([(epoch, 2.0) for epoch, _ in curve], others)
    assert HALVING.is_behind([(epoch, -2.0) for epoch, _ in curve], others) == bool(others)


def test_one_in_three_goes_on():
    others = [[(1, value)] for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert HALVING.is_behind([(1, 0.35)], others)
    assert not HALVING.is_behind([(1, 0.45)], others)  # the second of six
    assert not HALVING.is_behind([(1, 0.4)], others)  # equally good


def test_it_is_asked_again_where_fewer_are_left():
    others = [[(1, 0.1), (3, 0.6), (4, 0.9)], [(1, 0.2)]]
    assert not HALVING.is_behind([(1, 0.3), (2, 0.3)], others)
    assert HALVING.is_behind([(1, 0.3), (2, 0.3), (3, 0.5)], others)
    assert not HALVING.is_behind([(1, 0.3), (2, 0.3), (3, 0.6), (4, 0.6)], others)
    assert HALVING.is_behind([(2, 0.3), (4, 0.5)], others)  # validated every second epoch


def test_a_training_is_compared_with_those_beside_it(tmp_path):
    for name, found in {"good": (0.5, 0.6), "bad": (0.1, 0.2), "new": ()}.items():
        log = tmp_path / name / "csv/version_0/metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("epoch,val/explained\n" + "".join(f"{epoch},{value}\n" for epoch, value in enumerate(found)))
    (tmp_path / "summary.csv").touch()
    assert [HALVING.stops(Run(tmp_path / name, {}, None)) for name in ("good", "bad", "new")] == [False, True, False]


def test_a_training_is_not_among_the_others_beside_it(tmp_path):
    for value in range(5):
        log = tmp_path / f"{value}/csv/version_0/metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(f"epoch,val/explained\n0,0.{value}\n")
    assert [HALVING.stops(Run(tmp_path / f"{value}", {}, None)) for value in range(5)] == [True] * 4 + [False]
