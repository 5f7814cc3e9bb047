"""The parameters of a Pathfinder picture, and the published ones of each resolution.

Facts from the benchmark's own description of its data (google-research/long-range-arena,
lra_benchmarks/data/pathfinder.py) and from the generator it names (drewlinsley/pathfinder;
Linsley et al. 2018). All lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PathfinderLaw:
    """What a picture is made of; two long contours of paddles, short distractors, two discs."""

    resolution: int  # pixels of a side
    frame: int  # width of the border that nothing may touch
    length: int  # of a paddle
    thickness: float  # of a paddle; a multiple of 1/2, see ``footprints``
    margins: tuple[int, ...]  # between paddles; one is drawn per picture
    seed_distance: int  # between the first paddles of the two contours
    radius: float  # of a marker
    continuity: float  # the larger, the straighter
    distractors: int  # short contours that are tried; at 32 one or two of five find a place
    snake_contrast: float  # brightness of a distractor; a marker has 1
    paddle_contrast: float  # of the two long contours, times ``snake_contrast``
    contour_length: int = 14  # paddles of each long contour; 14 is the published "hard"

    @property
    def distractor_length(self) -> int:
        """Paddles of a distractor; the published generator takes a third, rounded down."""
        return self.contour_length // 3


# The number of distractors is that of the benchmark's description (20 // 4, 22 / 4.67, 35 / 4.67,
# 30 / 4.67, a started one counts). Other public sources have about twice as many: 10, 11, 18, 15.
PUBLISHED = {
    law.resolution: law
    for law in (
        PathfinderLaw(32, 1, 2, 0.5, (1,), 7, 1.5, 1.0, 5, 2.0, 0.75),
        PathfinderLaw(64, 1, 5, 1.0, (1,), 12, 2.5, 1.8, 5, 0.8, 1.0),
        PathfinderLaw(128, 1, 5, 1.5, (2, 3), 20, 3.0, 1.8, 8, 0.9, 1.0),
        PathfinderLaw(256, 22, 5, 2.0, (3,), 27, 5.0, 1.8, 7, 1.0, 1.0),
    )
}
