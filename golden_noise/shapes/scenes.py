"""Captioned scenes of coloured shapes: what a prompt asks for, and how such a scene is drawn.

The six tasks follow GenEval (Ghosh et al. 2023, arXiv 2310.11513): single object, two objects, counting, colours,
position and colour attribution. A caption fixes a `Request`; `sample_scene` draws one scene that fulfils it.
Images are RGB, SIZE x SIZE pixels, float32 in [0, 1].
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product

import numpy as np

SIZE = 32
COLOURS = {
    "red": (220, 40, 40),
    "yellow": (240, 200, 30),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "purple": (150, 50, 190),
}
SHAPES = ("circle", "square", "triangle", "cross")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
NUMBERS = {2: "two", 3: "three", 4: "four"}
OPENINGS = ("", "a photo of ", "a picture of ", "a drawing of ")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}

BACKGROUND_RANGE = (0.82, 1.0)  # grey level of the plain background
GAP = 2.0  # pixels between two objects, so that their masks never touch


@dataclass(frozen=True)
class Part:
    """`count` objects of one shape; `colour` None means any colour."""

    shape: str
    colour: str | None = None
    count: int = 1

    @property
    def phrase(self) -> str:
        noun = self.shape if self.count == 1 else PLURALS[self.shape]
        number = "a" if self.count == 1 else NUMBERS[self.count]
        return " ".join(word for word in (number, self.colour, noun) if word)


@dataclass(frozen=True)
class Request:
    """What one caption asks for. With a relation, the first part stands in that relation to the second."""

    task: str
    text: str
    parts: tuple[Part, ...]
    relation: str | None = None


@dataclass(frozen=True)
class Shape:
    """One drawn object: centre and half extent in pixels."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture of the miniature shows."""

    shapes: tuple[Shape, ...]
    background: float


@cache
def requests() -> dict[str, Request]:
    """Every caption of the miniature, in a fixed order, with what it asks for."""
    by_text: dict[str, Request] = {}

    def add(task: str, opening: str, parts: tuple[Part, ...], relation: str | None = None) -> None:
        text = opening + f" {relation or 'and'} ".join(part.phrase for part in parts)
        by_text[text] = Request(task, text, parts, relation)

    pairs = [(Part(first), Part(second)) for first, second in permutations(SHAPES, 2)]
    colours = list(permutations(COLOURS, 2))
    coloured_pairs = [(replace(a, colour=x), replace(b, colour=y)) for (a, b), (x, y) in product(pairs, colours)]
    for opening in OPENINGS:
        for shape in SHAPES:
            add("single_object", opening, (Part(shape),))
        for parts in pairs:
            add("two_object", opening, parts)
        for shape, count in product(SHAPES, NUMBERS):
            add("counting", opening, (Part(shape, count=count),))
        for shape, colour in product(SHAPES, COLOURS):
            add("colors", opening, (Part(shape, colour),))
    for relation in RELATIONS:
        for parts in pairs + coloured_pairs:
            add("position", "", parts, relation)
    for parts in coloured_pairs:
        add("color_attr", "", parts)
    return by_text


@cache
def requests_by_task() -> dict[str, list[Request]]:
    """All requests, grouped."""
    return {task: [r for r in requests().values() if r.task == task] for task in TASKS}


def sample_requests(rng: np.random.Generator, count: int) -> list[Request]:
    """Draw `count` requests: every task equally likely, every caption of a task equally likely."""
    by_task = requests_by_task()
    pools = [by_task[TASKS[i]] for i in rng.integers(len(TASKS), size=count)]
    return [pool[rng.integers(len(pool))] for pool in pools]


def sample_scene(request: Request, rng: np.random.Generator) -> Scene:
    """Draw one scene that fulfils the request and holds nothing else."""
    wanted = [part for part in request.parts for _ in range(part.count)]
    largest = 6.0 if len(wanted) <= 2 else 5.0
    names = list(COLOURS)
    colours = [part.colour or names[rng.integers(len(names))] for part in wanted]
    radii = rng.uniform(4.0, largest, len(wanted))
    centres = _sample_centres(radii, request.relation, rng)
    shapes = tuple(
        Shape(part.shape, colour, float(x), float(y), float(radius))
        for part, colour, (x, y), radius in zip(wanted, colours, centres, radii, strict=True)
    )
    return Scene(shapes, float(rng.uniform(*BACKGROUND_RANGE)))


def _sample_centres(radii: np.ndarray, relation: str | None, rng: np.random.Generator) -> np.ndarray:
    """Rejection sampling of centres (N, 2), many candidates at a time: apart, inside, and clearly in the relation."""
    low, high = radii[:, None] + 1, SIZE - 1 - radii[:, None]
    needed = radii[:, None] + radii[None] + GAP - 1e3 * np.eye(len(radii))
    while True:
        candidates = rng.uniform(low, high, (32, len(radii), 2))
        distance = np.abs(candidates[:, :, None] - candidates[:, None]).max(-1)
        good = (distance >= needed).all((1, 2))
        if relation is not None:
            # Along the relation's axis by far: drawn scenes are unambiguous examples of it.
            offset = candidates[:, 0] - candidates[:, 1]
            along = offset @ np.array(RELATIONS[relation])
            across = np.abs(offset @ np.array(RELATIONS[relation])[::-1])
            good &= (along >= 9.0) & (along >= 1.5 * across)
        if good.any():
            return candidates[good.argmax()]


def render(scenes: list[Scene]) -> np.ndarray:
    """Draw scenes with anti-aliased edges.

    Returns:
        (B, 3, SIZE, SIZE) float32 in [0, 1].
    """
    backgrounds = np.array([scene.background for scene in scenes], dtype=np.float32)
    images = np.broadcast_to(backgrounds[:, None, None, None], (len(scenes), 3, SIZE, SIZE)).copy()
    flat = [(i, shape) for i, scene in enumerate(scenes) for shape in scene.shapes]
    for name in SHAPES:
        chosen = [(i, shape) for i, shape in flat if shape.shape == name]
        sizes = np.array([(shape.x, shape.y, shape.radius) for _, shape in chosen], dtype=np.float32).reshape(-1, 3)
        for (i, shape), cover in zip(chosen, coverage(name, *sizes.T), strict=True):
            colour = np.array(COLOURS[shape.colour], dtype=np.float32)[:, None, None] / 255
            images[i] += cover * (colour - images[i])
    return images


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Share of each pixel that N objects of one shape cover, from their signed distance: (N, size, size) in [0, 1]."""
    grid = np.arange(size, dtype=np.float32) + 0.5
    dx = np.abs(grid[None, None, :] - x[:, None, None])
    dy = grid[None, :, None] - y[:, None, None]
    r = radius[:, None, None]
    if shape == "circle":
        distance = np.hypot(dx, dy) - r
    elif shape == "square":
        distance = np.maximum(dx, np.abs(dy)) - 0.9 * r
    elif shape == "triangle":
        distance = np.maximum(dy - 0.8 * r, (1.8 * dx - (dy + r)) / np.hypot(1.8, 1.0))
    elif shape == "cross":
        arm, vertical = 0.36 * r, np.abs(dy)
        distance = np.minimum(np.maximum(dx - r, vertical - arm), np.maximum(dx - arm, vertical - r))
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.clip(0.5 - distance, 0, 1)


def sample_batch(rng: np.random.Generator, count: int) -> tuple[list[Request], np.ndarray]:
    """Draw `count` requests and one image for each: (requests, (B, 3, SIZE, SIZE) float32 in [0, 1])."""
    drawn = sample_requests(rng, count)
    return drawn, render([sample_scene(request, rng) for request in drawn])
