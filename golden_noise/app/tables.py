"""Scores and progress as small pieces of HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from golden_noise.app.choices import Choice
from golden_noise.app.searching import Progress
from golden_noise.app.studio import Picture
from golden_noise.generation.names import STANDARD

Scores = Mapping[str, float | None]


def scores_table(pictures: Sequence[Picture], labels: Mapping[str, str]) -> str:
    """A row for each noise: its mean scores and their change from standard noise, and its denoiser calls.

    Args:
        labels: of the noises.
    """
    noises = list(dict.fromkeys(picture.noise for picture in pictures))
    means = {noise: _means(picture for picture in pictures if picture.noise == noise) for noise in noises}
    names = list(means[noises[0]])
    head = '<th class="noise">noise</th>' + "".join(f"<th>{escape(name)}</th>" for name in [*names, "calls"])
    rows = ""
    for noise in noises:
        cells = "".join(f"<td>{_cell(means[noise][name], means[STANDARD][name])}</td>" for name in names)
        calls = next(picture.calls for picture in pictures if picture.noise == noise)
        rows += f'<tr><th class="noise">{escape(labels[noise])}</th>{cells}<td>{calls:g}</td></tr>'
    return f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{_remark(means)}'


def caption(picture: Picture, labels: Mapping[str, str]) -> str:
    """What stands below a picture of a grid, with its first score: `3, golden: 1`."""
    first = next(iter(picture.scores.items()), None)
    score = "" if first is None or first[1] is None else f": {_number(first[1])}"
    return f"{picture.seed}, {labels[picture.noise]}{score}"


def progress_bar(progress: Progress) -> str:
    """How far a search is."""
    done = progress.total if progress.pictures else progress.done
    parts = [f"{done:,} of {progress.total:,} forward passes", f"{progress.seconds:.0f} s"]
    if progress.best is not None:
        parts.append(f"best reward so far {_number(progress.best)}")
    if progress.stopped:
        parts.append("stopped")
    if progress.pictures:
        parts.append("done")
    bar = f'<div><div style="width: {100 * done / progress.total:.1f}%"></div></div>'
    return f'<div class="progress" role="status">{bar}{" · ".join(parts)}</div>'


def labels_of(choice: Choice, searched: str = "") -> dict[str, str]:
    """The names of the noises on the page."""
    golden = "golden" if choice.strength == 1 else f"golden, strength {choice.strength:g}"
    return {"standard": "standard", "golden": golden, "search": searched or f"noise × {choice.factor:g}"}


def _means(pictures: Iterable[Picture]) -> dict[str, float | None]:
    scores = [picture.scores for picture in pictures]
    means: dict[str, float | None] = {}
    for name in scores[0]:
        known = [score for each in scores if (score := each[name]) is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def _cell(score: float | None, standard: float | None) -> str:
    if score is None or standard is None:
        return "–"
    change = score - standard
    if abs(change) < 5e-4:
        return _number(score)
    return f'{_number(score)} <span class="{"up" if change > 0 else "down"}">{change:+.3g}</span>'.replace("-", "−")


def _remark(means: Mapping[str, Scores]) -> str:
    unknown = [name for name, score in next(iter(means.values())).items() if score is None]
    return f'<p class="remark">{escape(", ".join(unknown))}: cannot judge this prompt</p>' if unknown else ""


def _number(score: float) -> str:
    return f"{score:.4g}".replace("-", "−")
