"""The Pathfinder law once more: slow, whole canvases, angles as numbers, no tables.

It takes its random numbers in the same order as the compiled code, so that the same pictures must
come out, pixel by pixel. Footprints are reduced by Pillow. Coordinates are (y, x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.pathfinder.footprints import line
from tasks.pathfinder.law import PathfinderLaw

Array = NDArray[Any]


def translate(place: tuple[int, int], angle: float, distance: int) -> tuple[int, int]:
    """A step, rounded up, but for the last digits: cos(pi / 2) is no way to the right."""
    y, x = place[0] + distance * math.sin(angle), place[1] + distance * math.cos(angle)
    return math.ceil(round(y, 9)), math.ceil(round(x, 9))


def dilate(image: Array, radius: int) -> Array:
    """The brightest pixel within ``radius``; outside the image there is none."""
    result = image.copy()
    height, width = image.shape
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                target = result[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
                source = image[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
                np.maximum(target, source, out=target)
    return result


def shrink(image: Array, size: int) -> Array:
    bytes_ = Image.fromarray((255 * image).astype(np.uint8))
    return np.asarray(bytes_.resize((size, size), Image.Resampling.LANCZOS)).astype(int)


@dataclass
class Naive:
    law: PathfinderLaw
    margin: int
    state: int  # of the random numbers
    footprints: dict[float, tuple[Array, Array]] = field(default_factory=dict)
    rooms: dict[float, list[tuple[int, int]]] = field(default_factory=dict)

    def below(self, limit: int) -> int:
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        word = self.state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        return (((word ^ (word >> 31)) >> 32) * limit) >> 32

    def footprint(self, angle: float) -> tuple[Array, Array]:
        """The paddle's intensity and mask, from the middle pixel on."""
        if angle not in self.footprints:
            half = self.law.length + math.ceil(self.law.thickness) + self.margin
            end = translate((1000, 1000), angle, 2 * self.law.length)
            fine = line(2 * half, (end[0] - 1000, end[1] - 1000), round(2 * self.law.thickness))
            zone = dilate(fine, 2 * self.margin)
            self.footprints[angle] = shrink(fine, 2 * half + 1), shrink(zone, 2 * half + 1)
        return self.footprints[angle]

    def paste(self, stamp: Array, place: tuple[int, int]) -> Array:
        """A stamp round a place of an empty canvas; what is outside is lost."""
        side, half = self.law.resolution, len(stamp) // 2
        canvas = np.zeros((side + 2 * len(stamp), side + 2 * len(stamp)), dtype=int)
        y, x = place[0] + len(stamp) - half, place[1] + len(stamp) - half
        canvas[y : y + len(stamp), x : x + len(stamp)] = stamp
        return canvas[len(stamp) : len(stamp) + side, len(stamp) : len(stamp) + side]

    def inside(self, place: tuple[int, int]) -> bool:
        return all(0 <= each < self.law.resolution for each in place)

    def room(self, angle: float) -> list[tuple[int, int]]:
        """Which pixels must be free for a first paddle, from its tail."""
        if angle not in self.rooms:
            zone = self.footprint(angle)[1]
            shift, reach = len(zone) // 2 - 1, self.law.length + self.margin
            offsets = [(int(y) - shift, int(x) - shift) for y, x in np.argwhere(zone == 255)]
            near = [each for each in offsets if max(map(abs, each)) <= reach]
            # As cv2.dilate has it: a pixel with only the outside under the zone is below zero, ...
            side = range(self.law.resolution)
            seen = all(
                any(self.inside((y + dy, x + dx)) for dy, dx in near) for y in side for x in side
            )
            self.rooms[angle] = near if seen else []  # ... and then there is no place at all
        return self.rooms[angle]

    def has_room(self, taken: Array, angle: float, tail: tuple[int, int]) -> bool:
        pixels = [(tail[0] + y, tail[1] + x) for y, x in self.room(angle)]
        return bool(pixels) and not any(
            self.inside(pixel) and taken[pixel] > 0.3 * 255 for pixel in pixels
        )

    def picture(self, label: int) -> Array:
        while (grown := self.contours()) is None:
            pass
        strokes, taken, tips = grown
        scale = self.law.snake_contrast * self.law.paddle_contrast
        image = np.max([scale * self.paste(ink, place) for ink, place in strokes], axis=0)
        image = self.distractors(image, taken)
        one = self.below(2)
        half = math.ceil(self.law.radius) + 3
        y, x = np.mgrid[: 4 * half + 2, : 4 * half + 2] - 2 * half
        disc = shrink(y**2 + x**2 <= (2 * self.law.radius) ** 2, 2 * half + 1)
        for place in (tips[one][0], tips[one if label else 1 - one][1]):
            image = np.maximum(image, self.paste(disc, place))
        scaled = 255 * (image - image.min()) / (image.max() - image.min())
        return np.floor(scaled + 0.5 + 1e-9).astype(np.uint8)

    def contours(self) -> Any:
        law, side = self.law, self.law.resolution
        taken = np.full((side, side), 255)
        taken[law.frame : side - law.frame, law.frame : side - law.frame] = 0
        angle = math.radians(self.below(360) - 180)
        far = np.full_like(taken, 255)
        border = 2 * law.seed_distance
        far[border : side - border, border : side - border] = 0
        tails = self.tails(far, angle, border - 4)
        if not tails:
            return None
        rows, columns = sorted({y for y, _ in tails}), sorted({x for _, x in tails})
        assert len(tails) == len(rows) * len(columns)  # a rectangle
        tail = rows[self.below(len(rows))], columns[self.below(len(columns))]
        seeds = [(tail, angle)]
        for _ in range(3):
            angle = math.radians(self.below(360) - 180)
            away = math.radians(self.below(360) - 180)
            other = (
                tail[0] + round(round(law.seed_distance * math.sin(away), 9)),
                tail[1] + round(round(law.seed_distance * math.cos(away), 9)),
            )
            if self.fits(other, angle):
                seeds.append((other, angle))
                break
        else:
            return None
        snakes = [self.first(*seed) for seed in seeds]
        strokes = [snake["stroke"] for snake in snakes]
        for _ in range(law.contour_length - 1):
            for snake in snakes:
                if not self.extend(snake, taken):
                    return None
                strokes.append(snake["stroke"])
        np.maximum(taken, snakes[1]["zone"], out=taken)
        tips = [(seed[0], snake["stroke"][1]) for seed, snake in zip(seeds, snakes, strict=True)]
        return strokes, taken, tips

    def tails(self, taken: Array, angle: float, border: int) -> list[tuple[int, int]]:
        """Where a first paddle has room, ``border`` pixels from the edge or more."""
        places = range(border, self.law.resolution - border)
        return [(y, x) for y in places for x in places if self.has_room(taken, angle, (y, x))]

    def fits(self, tail: tuple[int, int], angle: float) -> bool:
        head = translate(tail, angle, self.law.length)
        pivot = translate(head, angle + math.pi, self.law.length + self.margin)
        return self.inside(head) and self.inside(pivot)

    def first(self, tail: tuple[int, int], angle: float) -> dict[str, Any]:
        ink, zone = self.footprint(angle)
        head = translate(tail, angle, self.law.length)
        pivot = translate(head, angle + math.pi, self.law.length + self.margin)
        stroke = (ink, tail)
        return {"stroke": stroke, "zone": self.paste(zone, tail), "pivot": pivot, "angle": angle}

    def extend(self, snake: dict[str, Any], taken: Array) -> bool:
        law = self.law
        radius = law.length + self.margin
        pivot = translate(snake["pivot"], snake["angle"], law.length + 2 * self.margin)
        near = dilate(taken, self.margin)
        points = np.arange(0, 2 * math.pi, 1 / radius)
        ends = {
            (
                math.floor(pivot[0] + radius * math.sin(a)),
                math.floor(pivot[1] + radius * math.cos(a)),
            )
            for a in points
        }
        odds = []
        for end in sorted(filter(self.inside, ends)):
            phi = math.atan2(end[0] - pivot[0], end[1] - pivot[1])
            turn = abs(phi - snake["angle"])
            turn = min(turn, 2 * math.pi - turn)
            weight = math.cos(min(law.continuity * turn, math.pi / 2)) ** 2
            odds.append((round(65536 * weight) * (255 - int(near[end])), end, phi))
        total = sum(odd for odd, _, _ in odds)
        if total < 1e-4 * 255 * 65536 - 1:
            return False
        for _ in range(3):
            left = self.below(total)
            chosen = 0
            while left >= odds[chosen][0]:
                left -= odds[chosen][0]
                chosen += 1
            _, end, phi = odds[chosen]
            ink, zone = self.footprint(phi + math.pi)
            placed = self.paste(zone, end)
            if (taken + placed).max() < 459:
                np.maximum(taken, snake["zone"], out=taken)
                snake |= {"stroke": (ink, end), "zone": placed, "pivot": pivot, "angle": phi}
                return True
        return False

    def distractors(self, image: Array, taken: Array) -> Array:
        for _ in range(self.law.distractors):
            if (taken <= 0.3 * 255).mean() < 0.01:
                break
            for _ in range(5):
                trial = taken.copy()
                strokes = self.distractor(trial)
                if strokes:
                    taken = trial
                    for ink, place in strokes:
                        image = np.maximum(image, self.law.snake_contrast * self.paste(ink, place))
                    break
        return image

    def distractor(self, taken: Array) -> list[Any]:
        side = self.law.resolution
        for _ in range(3):
            angle = math.radians(self.below(360) - 180)
            if not self.room(angle):
                return []
            for _ in range(64):
                tail = 1 + self.below(side - 2), 1 + self.below(side - 2)
                if self.has_room(taken, angle, tail):
                    break
            else:
                free = self.tails(taken, angle, 1)
                if not free:
                    return []
                tail = free[self.below(len(free))]
            if self.fits(tail, angle):
                break
        else:
            return []
        snake = self.first(tail, angle)
        strokes = [snake["stroke"]]
        for _ in range(self.law.contour_length // 3 - 1):
            if not self.extend(snake, taken):
                return []
            strokes.append(snake["stroke"])
        np.maximum(taken, snake["zone"], out=taken)
        return strokes
