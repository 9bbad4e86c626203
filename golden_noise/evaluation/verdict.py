"""The results in words: is a gain golden noise, or do the controls gain as much?"""

from collections.abc import Callable
from typing import Any

from golden_noise.evaluation.scores import ALL
from golden_noise.generation.names import BEST_OF_N, CONSTANT, CONTROLS, NPNET, SEARCH, STANDARD

FEW = 10  # units (prompts); with fewer the sign test can hardly reach 5 % and the bootstrap is too narrow
FEW_CHANGED = 6  # units that differ; with fewer no sign test reaches 5 %, but the bootstrap's interval may exclude 0
SIGNIFICANT = 0.05

NAMES = {
    STANDARD: "standard noise",
    SEARCH: "search",
    NPNET: "NPNet",
    "shuffled": "shuffled prompts",
    "random_shift": "random shift",
    "rescaled": "rescaled noise",
    "guided": "guidance",
    CONSTANT: "constant factor",
    BEST_OF_N: "best of N",
}


def name(method: str) -> str:
    """A method's name for readers."""
    return NAMES.get(method, method)


def style_class(method: str) -> str:
    """The page's style class for a method."""
    return method if method in (STANDARD, SEARCH, NPNET) else "control" if method in CONTROLS else "other"


def signed(value: float) -> str:
    """A difference with its sign, even if it rounds to 0: ``+0.031``, ``-0.000``."""
    return f"{value or 0.0:+.3f}"


def plain(value: float) -> str:
    """A score: ``0.592``."""
    return f"{value:.3f}".replace("-0.000", "0.000")


def amount(calls: float | None) -> str:
    """Denoiser calls: ``1,510``; a dash where they were not counted."""
    return "–" if calls is None else f"{calls:,.1f}".removesuffix(".0")


def percent(value: float) -> str:
    """A share: ``58 %``."""
    return f"{value:.0%}".replace("%", " %")


def interval(ci95: list[float], number: Callable[[float], str] = plain) -> str:
    """An interval in the given form of number: ``[0.018, 0.044]``."""
    return f"[{number(ci95[0])}, {number(ci95[1])}]"


def change(comparison: dict[str, Any]) -> str:
    """A difference with its interval: ``+0.031 [+0.018, +0.044]``."""
    return f"{signed(comparison['difference'])} {interval(comparison['ci95'], signed)}"


def is_clear(ci95: list[float]) -> bool:
    """Whether an interval excludes 0."""
    return ci95[0] > 0 or ci95[1] < 0


def sign(comparison: dict[str, Any]) -> int:
    """1 if b is clearly above a, -1 if it is clearly below, else 0.

    Clear: the mean difference's interval excludes 0, and the sign test, corrected by Holm over the metrics, finds more
    units on the same side.
    """
    low, high = comparison["ci95"]
    if comparison["p_holm"] >= SIGNIFICANT:
        return 0
    more = comparison["units_better"] - comparison["units_worse"]
    return int(low > 0 and more > 0) - int(high < 0 and more < 0)


def probability(p_value: float) -> str:
    """A p-value with the digits that matter."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def count(number: int, what: str) -> str:
    """``1 pair``, ``2,000 pairs``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def extent(entry: dict[str, Any]) -> str:
    """The sample of a mean or comparison: ``2,000 pairs``, or ``2,000 pairs of 267 prompts`` where these repeat."""
    pairs = count(entry["n"], "pair")
    return pairs if entry["units"] == entry["n"] else f"{pairs} of {count(entry['units'], 'prompt')}"


def compared(summary: dict[str, Any], metric: str, a: str, b: str) -> dict[str, Any] | None:
    """The comparison of b with a over all items, or None if it was not made."""
    key = (metric, a, b, ALL)
    return next((c for c in summary["comparisons"] if (c["metric"], c["a"], c["b"], c["task"]) == key), None)


def outcome(summary: dict[str, Any], metric: str) -> str:
    """What the comparisons show, by these rules.

    :func:`sign` decides which of two methods is above the other. A control gains if its interval against standard noise
    is above 0, whatever the sign test says: doubt counts against golden noise.

    - ``absent``: NPNet was not evaluated.
    - ``few``: too few prompts for any test, or too few that differ behind an interval that excludes 0.
    - ``loss``: standard noise is above NPNet. ``none``: neither is above the other.
    NPNet is above standard noise, and
    - ``control``: some control gains too, and NPNet is not above that control.
    - ``unclear``: NPNet is not above some control, though no such control gains.
    - ``uncontrolled``: NPNet is above the controls that were run, but not all of them were run.
    - ``partly``: NPNet is above every control, but some control gains.
    - ``golden``: NPNet is above every control, and no control gains.
    """
    gain = compared(summary, metric, STANDARD, NPNET)
    if gain is None:
        return "absent"
    if gain["units"] < FEW or (is_clear(gain["ci95"]) and gain["units_better"] + gain["units_worse"] < FEW_CHANGED):
        return "few"
    if sign(gain) <= 0:
        return "loss" if sign(gain) < 0 else "none"
    gaining, unbeaten = _gaining(summary, metric), _unbeaten(summary, metric)
    if unbeaten:
        return "control" if set(gaining) & set(unbeaten) else "unclear"
    if not set(CONTROLS) <= summary["methods"].keys():
        return "uncontrolled"
    return "partly" if gaining else "golden"


def verdict(summary: dict[str, Any], metric: str) -> str:
    """One plain sentence on a metric, worded by its :func:`outcome`."""
    shown = outcome(summary, metric)
    gain, search = compared(summary, metric, STANDARD, NPNET), compared(summary, metric, STANDARD, SEARCH)
    if gain is None:
        known = f"; the search changes {metric} by {change(search)}" if search else ""
        return f"NPNet was not evaluated{known}."
    if shown == "few":
        return _too_little(metric, gain)
    if shown in ("none", "loss"):
        verb = "loses" if shown == "loss" else "shows no clear change in"
        aside = f" (the search: {change(search)})" if search else ""
        needed = gain.get("pairs_needed") if not is_clear(gain["ci95"]) else None
        power = f"; an effect of this size would need about {needed:,} pairs" if needed else ""
        sentence = f"NPNet {verb} {metric} against standard noise: {change(gain)}{aside}, {extent(gain)}{power}."
        return sentence + (_dissent(gain) if shown == "none" else "")
    kept = summary["kept_share"][metric]
    sentence = f"NPNet gains {change(gain)} {metric} over standard noise"
    if kept:
        sentence += f", {percent(kept['share'])} {interval(kept['ci95'], percent)} of the search's gain"
    return f"{sentence}; {_reservation(summary, metric, shown)}."


def _too_little(metric: str, gain: dict[str, Any]) -> str:
    unit = "pair" if gain["units"] == gain["n"] else "prompt"
    if gain["units"] >= FEW:
        changed = gain["units_better"] + gain["units_worse"]
        differ = "differs" if changed == 1 else "differ"
        return f"Only {changed} of {count(gain['units'], unit)} {differ} in {metric}: too few to say anything about it."
    are = "is" if gain["units"] == 1 else "are"
    return f"{count(gain['units'], unit)} {are} too few to say anything about {metric}: evaluate at least {FEW}."


def _dissent(comparison: dict[str, Any]) -> str:
    """Why a difference is not clear, if the interval or the sign test alone would call it so."""
    more = comparison["units_better"] > comparison["units_worse"]
    significant = comparison["p_holm"] < SIGNIFICANT
    if not significant and not is_clear(comparison["ci95"]):
        return ""
    won = "wins more often than it loses" if more else "loses more often than it wins"
    said = f"By the sign test it {won}, but not" if significant else "The sign test does not confirm the interval"
    if significant:
        said += " on average" if is_clear(comparison["ci95"]) else " clearly on average"
    units = "pairs" if comparison["units"] == comparison["n"] else "prompts"
    numbers = f"{comparison['units_better']:,} {units} better and {comparison['units_worse']:,} worse"
    rate, p_value = f"win rate {100 * comparison['win_rate']:.1f} %", f"p {probability(comparison['p_holm'])} (Holm)"
    return f" {said}: {numbers}, {rate}, {p_value}."


def _reservation(summary: dict[str, Any], metric: str, shown: str) -> str:
    """What the controls say about a clear gain, by the strongest of those that decided the outcome."""
    gaining, unbeaten = _gaining(summary, metric), _unbeaten(summary, metric)
    deciding = {
        "golden": list(CONTROLS),
        "partly": gaining,
        "unclear": unbeaten,
        "control": [control for control in unbeaten if control in gaining],
    }
    if shown not in deciding:
        missing = ", ".join(control for control in CONTROLS if control not in summary["methods"])
        return f"controls not run: {missing}, so it is not known whether this is golden noise"
    rival = max(deciding[shown], key=lambda control: _made(summary, metric, STANDARD, control)["difference"])
    gain, lead = change(_made(summary, metric, STANDARD, rival)), _lead_in_words(_made(summary, metric, rival, NPNET))
    constant = summary.get("constant") if rival == CONSTANT else None  # unknown for images drawn elsewhere
    control = f"a mere factor of {constant['factor']:g}" if constant else f"the {name(rival)} control"
    return {
        "golden": f"no control gains (the best, {name(rival)}: {gain}) and all are clearly below it: "
        "the gain is golden noise",
        "partly": f"{control} alone gains {gain}: only the rest, {lead}, is golden noise",
        "unclear": f"but it is not clearly above {control} ({lead}): whether this is golden noise is open, "
        "more pairs would tell",
        "control": f"but {control} gains {gain} too and NPNet is not clearly above it ({lead}): "
        "this is not golden noise",
    }[shown]


def _lead_in_words(lead: dict[str, Any]) -> str:
    """A lead with its interval, and with the sign test's p-value if that alone leaves it unclear."""
    doubted = lead["ci95"][0] > 0 and sign(lead) <= 0
    return change(lead) + (f", p {probability(lead['p_holm'])} by the sign test" if doubted else "")


def _gaining(summary: dict[str, Any], metric: str) -> list[str]:
    """Controls whose interval is above standard noise."""
    run = [control for control in CONTROLS if control in summary["methods"]]
    return [control for control in run if _made(summary, metric, STANDARD, control)["ci95"][0] > 0]


def _unbeaten(summary: dict[str, Any], metric: str) -> list[str]:
    """Controls that NPNet is not above."""
    run = [control for control in CONTROLS if control in summary["methods"]]
    return [control for control in run if sign(_made(summary, metric, control, NPNET)) <= 0]


def _made(summary: dict[str, Any], metric: str, a: str, b: str) -> dict[str, Any]:
    """The comparison of b with a, both of which were run."""
    comparison = compared(summary, metric, a, b)
    assert comparison is not None
    return comparison
