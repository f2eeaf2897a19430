"""FramePainter: paints the frames of a clip, each in the light of those before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.darkroom import mix_with_photo
from service.jobs import FrameJob
from service.steadiness import Steadiness
from service.video_clip import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.jobs import NormStatistics, PaintedFrame
    from service.mixtures import Choice
    from service.stylizer import StyleEngine
    from service.video_clip import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """How a clip is painted.

    ``steadiness`` is that of live pictures: 0 paints each frame by itself, 1 changes slowest.
    ``quality`` is 0 (best) to 51; a run that breaks off loses at most ``segment_frames``.
    """

    max_side_px: int
    strength: float = 1.0
    keep_colors: bool = False
    seed: int = 0
    steadiness: float
    quality: int = 18
    span: Span = field(default_factory=Span)
    segment_frames: int = 100


class FramePainter:
    """Paints frames one after the other, each in the light of those before it."""

    def __init__(self, choice: Choice, options: VideoOptions, engine: StyleEngine) -> None:
        self._choice = choice
        self._options = options
        self._engine = engine
        self._steadiness: Steadiness[NormStatistics] = Steadiness()
        self.statistics: NormStatistics | None = None

    def paint(self, frame: Frame) -> NDArray[np.uint8]:
        """Paint the next frame.

        Raises:
            ServiceError: it cannot be painted.
        """
        before, memory = self._recall(frame)
        choice, options = self._choice, self._options
        job = FrameJob(choice.card, frame.pixels, before, memory, options.seed, choice.mix)
        (answer,) = self._engine.run([job])
        if isinstance(answer, Exception):
            raise answer
        painted: PaintedFrame = answer
        self._remember(painted.statistics)
        return mix_with_photo(
            painted.pixels,
            frame.pixels,
            keep_colors=options.keep_colors,
            strength=options.strength,
        )

    def go_on_from(self, frame: Frame, statistics: NormStatistics) -> None:
        """Be as after ``frame``, which left ``statistics``."""
        self._recall(frame)
        self._remember(statistics)

    def _recall(self, frame: Frame) -> tuple[NormStatistics | None, float]:
        return self._steadiness.recall(
            frame.pixels, self._choice.mix, frame.at_s, self._options.steadiness
        )

    def _remember(self, statistics: NormStatistics) -> None:
        self._steadiness.remember(statistics)
        self.statistics = statistics
