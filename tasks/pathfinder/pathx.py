"""Path-X: Pathfinder at 128 x 128, sequences of 16,384 pixels (Tay et al. 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from tasks.pathfinder.task import Pathfinder, PictureConfig


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class PathXConfig(PictureConfig):
    """Pathfinder's, at its own size; ``configs/task/pathx.yaml`` says the same."""

    name: Literal["pathx"] = "pathx"
    resolution: Literal[32, 64, 128, 256] = 128


class PathX(Pathfinder):
    """The Path-X task."""

    Config: ClassVar[type] = PathXConfig
