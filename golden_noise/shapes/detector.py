"""Exact detector of coloured shapes: which objects an image holds, and whether they are what its caption asks for.

Every object is one connected region of a palette hue. Hue is not changed by blending with the grey background, so the
soft edges of generated images keep their colour; a region ends where its chroma falls below half of the palette's.
The region's shape is the template with the largest overlap after both are fitted to their bounding boxes.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from golden_noise.shapes.scenes import COLOURS, RELATIONS, SHAPES, Request, coverage

UPSAMPLING = 3  # 32-pixel images are too coarse for clean outlines; bilinear upsampling recovers sub-pixel edges
TEMPLATE = 24
SMALLEST_AREA = 10.0  # in original pixels; the smallest drawn object, a cross of radius 4, covers 38
SMALLEST_OVERLAP = 0.70  # below it a region is no known shape
RELATION_COSINE = 0.5  # GenEval's axis threshold: within 60 degrees of the relation's direction


@dataclass(frozen=True)
class DetectedShape:
    """One object in an image. Position in original pixels; `overlap` is the IoU with its template in [0, 1].

    `shape` is "unknown" when no template overlaps enough.
    """

    shape: str
    colour: str
    x: float
    y: float
    overlap: float


@cache
def _templates() -> np.ndarray:
    """(4, TEMPLATE, TEMPLATE) bool: every shape, cropped to its bounding box."""
    one = np.array([30.0], dtype=np.float32)
    masks = [coverage(shape, one * 34 / 30, one * 34 / 30, one, size=68)[0] >= 0.5 for shape in SHAPES]
    return np.stack([_fit(mask[ndimage.find_objects(mask.astype(int))[0]]) for mask in masks])


def _fit(mask: np.ndarray) -> np.ndarray:
    """Nearest-neighbour resize of a cropped mask to TEMPLATE x TEMPLATE."""
    rows, columns = (((np.arange(TEMPLATE) + 0.5) * n / TEMPLATE).astype(int) for n in mask.shape)
    return mask[np.ix_(rows, columns)]


@cache
def _palette() -> tuple[np.ndarray, np.ndarray]:
    """Unit hue vectors (5, 3) and chroma (5,) of the palette, both free of the grey component."""
    colours = np.array(list(COLOURS.values()), dtype=np.float32) / 255
    hue = colours - colours.mean(1, keepdims=True)
    chroma = np.linalg.norm(hue, axis=1)
    return hue / chroma[:, None], chroma


@cache
def _enlarging(side: int) -> np.ndarray:
    """Matrix (UPSAMPLING * side, side) of bilinear upsampling along one axis: far faster than zooming."""
    return ndimage.zoom(np.eye(side), (UPSAMPLING, 1), order=1, grid_mode=True, mode="nearest")


def detect(image: np.ndarray) -> list[DetectedShape]:
    """Find all objects in an image (3, H, W), float in [0, 1]."""
    rows, columns = (_enlarging(side) for side in image.shape[1:])
    fine = (rows @ image @ columns.T).astype(np.float32)
    hues, chromas = _palette()
    grey_free = fine - fine.mean(0)
    along = np.tensordot(hues, grey_free, axes=1)  # chroma in the direction of each palette hue
    nearest = along.argmax(0)
    inside = along.max(0) >= 0.5 * chromas[nearest]
    detected = []
    smallest = SMALLEST_AREA * UPSAMPLING**2
    for index, colour in enumerate(COLOURS):
        coloured = inside & (nearest == index)
        if coloured.sum() < smallest:  # most images lack most colours
            continue
        labels, _ = ndimage.label(coloured)
        for label, window in enumerate(ndimage.find_objects(labels), start=1):
            mask = labels[window] == label
            if mask.sum() >= smallest:
                detected.append(_describe(mask, window, colour))
    return detected


def _describe(mask: np.ndarray, window: tuple[slice, slice], colour: str) -> DetectedShape:
    fitted = _fit(mask)
    templates = _templates()
    overlaps = (fitted & templates).sum((1, 2)) / (fitted | templates).sum((1, 2))
    # A long thin or tiny box fits the square template perfectly, but no drawn shape looks like it.
    stretch = max(mask.shape) / min(mask.shape)
    best = int(overlaps.argmax())
    known = overlaps[best] >= SMALLEST_OVERLAP and stretch <= 1.5
    y, x = ((side.start + side.stop) / 2 / UPSAMPLING for side in window)
    return DetectedShape(SHAPES[best] if known else "unknown", colour, x, y, float(overlaps[best]))


def passes(request: Request, detected: list[DetectedShape]) -> bool:
    """GenEval's verdict, strict: exactly the requested objects, colours and relation, and nothing else."""
    matched = _match(request, detected)
    wanted = sum(part.count for part in request.parts)
    complete = len(detected) == wanted and len(matched) == wanted and all(credit == 1 for _, credit in matched.values())
    return complete and (request.relation is None or _cosine(matched, request.relation) >= RELATION_COSINE)


def fulfilment(request: Request, detected: list[DetectedShape]) -> float:
    """Graded form of `passes` in [0, 1]: mean credit of objects, count and relation; 1 needs perfect outlines too."""
    matched = _match(request, detected)
    wanted = sum(part.count for part in request.parts)
    objects = sum(credit * detection.overlap for detection, credit in matched.values()) / wanted
    count = max(0.0, 1 - abs(len(detected) - wanted) / wanted)
    terms = [objects, count]
    if request.relation:
        terms.append((1 + _cosine(matched, request.relation)) / 2 if len(matched) == 2 else 0.0)
    return float(np.mean(terms))


def _match(request: Request, detected: list[DetectedShape]) -> dict[int, tuple[DetectedShape, float]]:
    """Assign detections to the wanted objects for the largest total credit: half for the shape, half for the colour."""
    wanted = [part for part in request.parts for _ in range(part.count)]
    if not detected:
        return {}
    credits = np.array(
        [[0.5 * (d.shape == w.shape) + 0.5 * (w.colour in (None, d.colour)) for d in detected] for w in wanted]
    )
    rows, columns = linear_sum_assignment(-credits)
    return {int(r): (detected[c], float(credits[r, c])) for r, c in zip(rows, columns, strict=True)}


def _cosine(matched: dict[int, tuple[DetectedShape, float]], relation: str) -> float:
    """Cosine between the offset of the first object from the second and the relation's direction."""
    if len(matched) < 2:
        return -1.0
    (first, _), (second, _) = matched[0], matched[1]
    offset = np.array([first.x - second.x, first.y - second.y])
    return float(offset @ RELATIONS[relation] / max(float(np.linalg.norm(offset)), 1e-6))
