"""What a simulated camera sees: diffusing beads on a noisy background, at the cost of about one copy a frame.

Everything is a function of the seed and the tick, so that any process can say what a frame must be, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import copy_out
from mutoscope.model.errors import ConfigError

__all__ = ["BeadScene", "CounterScene", "NoiseScene", "Scene", "SceneSettings", "make_scene", "most_beads"]

SUBPIXEL = 16
"""Beads lie on a grid of 1/16 pixel, so that their true positions are exact."""

PATH_TICKS = 4093
"""Ticks after which the beads' closed paths repeat; a prime, so that they do not repeat together with the noise."""

_POOL_BYTES = 32 << 20
_MIX = 2654435761  # 2**32 / golden ratio (Knuth, TAOCP 3, 6.4): spreads consecutive ticks over the pool


@dataclass(frozen=True)
class SceneSettings:
    """The settings on which a scene's pixels depend; fields as in ``SimulatedCamera``."""

    pattern: Literal["beads", "noise", "counter"]
    shape: tuple[int, int]
    dtype: str
    seed: int
    beads: int
    bead_sigma_px: float
    bead_intensity: float
    bead_step_px: float
    background: float
    noise: float
    noise_frames: int


class Scene:
    """A pool of rows, of which each tick copies a stretch; subclasses say what is in the pool and what is put on top."""

    def __init__(self, settings: SceneSettings, pool: NDArray[Any]) -> None:
        self.settings = settings
        self.pool = pool
        height, _ = settings.shape
        self._height = height
        self._starts = pool.shape[0] - height + 1

    def render(self, tick: int, out: NDArray[Any]) -> None:
        """Write the frame of `tick` into `out`, shape ``(y, x)``."""
        start = (((tick + self.settings.seed) * _MIX & 0xFFFFFFFF) * self._starts) >> 32
        copy_out(out, self.pool[start : start + self._height])

    def truth(self, tick: int) -> NDArray[np.float64]:
        """Return the true positions ``(n, 2)`` as (y, x) in pixels, integers at pixel centres."""
        return np.empty((0, 2))


class NoiseScene(Scene):
    """Gaussian noise on a constant background."""

    def __init__(self, settings: SceneSettings) -> None:
        height, width = settings.shape
        dtype = np.dtype(settings.dtype)
        row_bytes = width * dtype.itemsize
        rows = min(height * settings.noise_frames, max(height + 256, _POOL_BYTES // row_bytes))
        pool = np.empty((max(rows, height), width), dtype)
        random = np.random.default_rng([settings.seed, 1])
        block = max(1, (1 << 20) // width)
        for first in range(
            0, pool.shape[0], block
        ):  # in blocks: the 32-bit floats of a whole pool would be several times its size
            part = pool[first : first + block]
            values = random.standard_normal(part.shape, dtype=np.float32) * settings.noise + settings.background
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                np.rint(values, out=values)
                np.clip(values, max(limits.min, -(2.0**24)), min(limits.max, 2.0**24), out=values)
            part[:] = values.astype(dtype)
        pool.flags.writeable = False
        super().__init__(settings, pool)


class BeadScene(NoiseScene):
    """Beads that diffuse inside a box each, on noise.

    The boxes are the cells of a grid, so that beads neither overlap nor leave the frame. Each path is a closed Brownian bridge
    of :data:`PATH_TICKS` steps, reflected at the box's walls: for short lags the mean squared displacement along one axis is
    ``bead_step_px ** 2`` a tick.
    """

    def __init__(self, settings: SceneSettings) -> None:
        super().__init__(settings)
        self._radius = stamp_radius(settings.bead_sigma_px)
        self._stamps = self._make_stamps()
        self._grid = self._make_paths()
        fine = self._grid.astype(np.int64)
        whole, part = np.divmod(fine, SUBPIXEL)
        corner = whole - self._radius
        stamp = part[..., 0] * SUBPIXEL + part[..., 1]
        self._places = np.concatenate([corner, stamp[..., None]], axis=-1).astype(np.int32)  # (tick, bead, (y, x, stamp))

    def render(self, tick: int, out: NDArray[Any]) -> None:
        super().render(tick, out)
        side = 2 * self._radius + 1
        stamps, add = self._stamps, np.add
        for y, x, stamp in self._places[(tick - 1) % PATH_TICKS].tolist():
            window = out[y : y + side, x : x + side]
            add(window, stamps[stamp], window)

    def truth(self, tick: int) -> NDArray[np.float64]:
        result: NDArray[np.float64] = self._grid[(tick - 1) % PATH_TICKS] / float(SUBPIXEL)
        return result

    def _make_stamps(self) -> list[NDArray[Any]]:
        """Gaussian spots centred at each sub-pixel position, in counts; index ``y_part * SUBPIXEL + x_part``."""
        settings, radius = self.settings, self._radius
        axis = np.arange(-radius, radius + 1)
        offsets = np.arange(SUBPIXEL) / SUBPIXEL
        profile = np.exp(-((axis[None, :] - offsets[:, None]) ** 2) / (2 * settings.bead_sigma_px**2))
        spots = settings.bead_intensity * profile[:, None, :, None] * profile[None, :, None, :]
        dtype = np.dtype(settings.dtype)
        if dtype.kind in "iu":
            room = np.iinfo(dtype).max - float(self.pool.max())
            spots = np.minimum(np.rint(spots), max(room, 0.0))
        side = 2 * radius + 1
        return list(spots.reshape(SUBPIXEL**2, side, side).astype(dtype))

    def _make_paths(self) -> NDArray[np.int32]:
        """Positions ``(tick, bead, (y, x))`` in sub-pixels."""
        settings = self.settings
        height, width = settings.shape
        random = np.random.default_rng([settings.seed, 2])
        rows, columns = grid_of(settings.beads, settings.shape)
        cells = random.permutation(rows * columns)[: settings.beads]
        margin = self._radius + 1
        paths = np.empty((PATH_TICKS, settings.beads, 2), np.int32)
        for bead, cell in enumerate(cells.tolist()):
            for axis, (index, count, length) in enumerate(((cell // columns, rows, height), (cell % columns, columns, width))):
                low = index * length // count + margin
                high = (index + 1) * length // count - 1 - margin
                steps = random.standard_normal(PATH_TICKS) * settings.bead_step_px
                walk = np.cumsum(steps - steps.mean())
                start = random.uniform(low, high)
                paths[:, bead, axis] = np.rint(_reflect(start + walk, low, high) * SUBPIXEL)
        return paths


class CounterScene(Scene):
    """A ramp that moves by one with each tick; the first pixels of integer frames hold the tick, least significant first."""

    def __init__(self, settings: SceneSettings) -> None:
        height, width = settings.shape
        self._flat = np.resize(np.arange(1 << 16).astype(settings.dtype), height * width + (1 << 16))
        self._flat.flags.writeable = False
        super().__init__(settings, self._flat[: height * width].reshape(height, width))
        dtype = np.dtype(settings.dtype)
        self._digit_bits = 8 * dtype.itemsize - (dtype.kind == "i") if dtype.kind in "iu" else 0
        self._digits = min(width, -(-64 // self._digit_bits)) if self._digit_bits else 0

    def render(self, tick: int, out: NDArray[Any]) -> None:
        height, width = self.settings.shape
        start = (tick + self.settings.seed) & 0xFFFF
        copy_out(out, self._flat[start : start + height * width].reshape(height, width))
        for digit in range(self._digits):
            out[0, digit] = (tick >> (digit * self._digit_bits)) & ((1 << self._digit_bits) - 1)


def make_scene(settings: SceneSettings) -> Scene:
    """Make the scene of a pattern; takes some tens of milliseconds for its pool."""
    if settings.pattern == "counter":
        return CounterScene(settings)
    if settings.pattern == "noise" or settings.beads == 0:
        return NoiseScene(settings)
    return BeadScene(settings)


def stamp_radius(sigma_px: float) -> int:
    """Half the side of a bead's stamp: 3.5 standard deviations and the sub-pixel shift."""
    return math.ceil(3.5 * sigma_px) + 1


def cell_side(sigma_px: float) -> int:
    """Smallest side of a bead's box: its stamp, a margin, and four pixels to move in."""
    return 2 * (stamp_radius(sigma_px) + 1) + 5


def most_beads(shape: tuple[int, int], sigma_px: float) -> int:
    """How many beads find a box of their own in a frame."""
    side = cell_side(sigma_px)
    return (shape[0] // side) * (shape[1] // side)


def grid_of(beads: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the squarest grid that has a cell for each bead."""
    height, width = shape
    best: tuple[float, int, int] | None = None
    for rows in range(1, beads + 1):
        columns = -(-beads // rows)
        side = min(height / rows, width / columns)
        if best is None or side > best[0]:
            best = (side, rows, columns)
    if best is None:
        raise ConfigError("a grid of beads has at least one bead")
    return best[1], best[2]


def _reflect(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Fold a free path into [low, high], as walls that reflect would."""
    span = high - low
    phase = np.mod(values - low, 2 * span)
    return np.asarray(low + np.where(phase > span, 2 * span - phase, phase), dtype=np.float64)
