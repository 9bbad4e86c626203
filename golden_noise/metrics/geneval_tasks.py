"""GenEval's prompts and rules (Ghosh et al. 2023, arXiv 2310.11513): what a prompt wants, and what an image shows."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from golden_noise.errors import UserError

# COCO's classes in the order of their labels, under GenEval's names.
NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, computer mouse,
tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush""".replace("\n", " ").split(", ")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
POSITIONS = ("left of", "right of", "above", "below")
NUMBERS = {"two": 2, "three": 3, "four": 4}
PLURALS = {name + ("es" if name.endswith("s") else "s"): name for name in NAMES}  # "benchs", as in the prompts
MAX_OBJECTS = 16  # of one class


@dataclass(frozen=True)
class Request:
    """Objects that have to be in the image."""

    name: str
    count: int = 1
    color: str | None = None


@dataclass(frozen=True)
class Task:
    """What one prompt asks for.

    Attributes:
        position: where the first object has to be, seen from the second.
        exact: whether more objects than wanted are wrong: only where they are counted.
    """

    requests: tuple[Request, ...]
    position: str | None = None
    exact: bool = False

    @property
    def confidence(self) -> float:
        """What a detection must exceed to count."""
        return 0.9 if self.exact else 0.3


@dataclass(frozen=True)
class Instance:
    """An object that the detector found: box (left, top, right, bottom) in pixels and mask (H, W) bool."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray


def _thing(i: int) -> str:
    return rf"an? (?:(?P<color{i}>{'|'.join(COLORS)}) )?(?P<name{i}>{'|'.join(NAMES)})"


ONE = re.compile(f"a photo of {_thing(0)}")
TWO = re.compile(f"a photo of {_thing(0)} (?P<relation>and|{'|'.join(POSITIONS)}) {_thing(1)}")
SEVERAL = re.compile(f"a photo of (?P<number>{'|'.join(NUMBERS)}) (?P<plural>{'|'.join(PLURALS)})")


def parse(prompt: str) -> Task:
    """What a prompt of GenEval asks for.

    Raises:
        UserError: it is not such a prompt.
    """
    if match := SEVERAL.fullmatch(prompt):
        return Task((Request(PLURALS[match["plural"]], NUMBERS[match["number"]]),), exact=True)
    if match := ONE.fullmatch(prompt):
        return Task((Request(match["name0"], color=match["color0"]),))
    if match := TWO.fullmatch(prompt):
        requests = tuple(Request(match[f"name{i}"], color=match[f"color{i}"]) for i in (0, 1))
        return Task(requests, position=None if match["relation"] == "and" else match["relation"])
    raise UserError(f"the geneval metric cannot judge {prompt!r}: it knows GenEval's prompts, 'a photo of a dog'")


def fulfils(task: Task, instances: Sequence[Instance], color_of: Callable[[Instance], str]) -> bool:
    """Whether an image does what its prompt asks for.

    Of every class only the most certain detections count, as many as the prompt wants; their colors and boxes decide.

    Args:
        instances: all of the detector; those of too low confidence are ignored here.
        color_of: names the color of a detection, one of `COLORS`.
    """
    by_class = confident_instances(task, instances)
    for request in task.requests:
        best = by_class.get(request.name, [])[: request.count]
        if len(best) < request.count:
            return False
        if request.color and any(color_of(each) != request.color for each in best):
            return False
    if task.exact and any(len(by_class[request.name]) > request.count for request in task.requests):
        return False
    if task.position:
        first, second = (by_class[request.name][0].box for request in task.requests)
        return task.position in relations(first, second)
    return True


def confident_instances(task: Task, instances: Sequence[Instance]) -> Mapping[str, list[Instance]]:
    """The detections by class that are certain enough for the task, the most certain ones first."""
    by_class: dict[str, list[Instance]] = {}
    for each in sorted(instances, key=lambda each: -each.score):
        same = by_class.setdefault(each.name, [])
        if each.score > task.confidence and len(same) < MAX_OBJECTS:
            same.append(each)
    return by_class


def relations(first: Sequence[float], second: Sequence[float]) -> set[str]:
    """Where the first box lies seen from the second; nowhere if they overlap too much.

    The distance of the centres is shortened by a tenth of both boxes' sizes on either axis, and what is left has to be
    more than half of the whole distance.
    """
    a, b = (np.asarray(box, dtype=float).reshape(2, 2) for box in (first, second))
    offset = a.mean(axis=0) - b.mean(axis=0)
    left = np.maximum(np.abs(offset) - 0.1 * (np.ptp(a, axis=0) + np.ptp(b, axis=0)), 0) * np.sign(offset)
    if np.all(np.abs(left) < 1e-3):
        return set()
    x, y = left / np.linalg.norm(offset)
    sides = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {side for side, share in sides.items() if share > 0.5}
