"""The phantom's drawing board: smooth solids given slice by slice, painted with partial-volume edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

FAT = -102.0  # HU
GAS = -900.0

PerSlice = np.ndarray | float  # one value for all slices, or one per slice (Z,)
Box = tuple[slice, slice, slice]  # the part of the volume that a solid can reach


@dataclass(frozen=True)
class Solid:
    """A solid on its box: approximate signed distance in mm (negative inside) and the angle around its centre."""

    box: Box
    distance: np.ndarray  # (z,h,w) mm
    angle: np.ndarray  # (z,h,w) radians; 0 along the solid's own first axis

    def grown(self, by_mm: PerSlice) -> Solid:
        """The same solid with its surface moved outward (inward where negative)."""
        return Solid(self.box, self.distance - by_mm, self.angle)

    def within(self, distance: np.ndarray) -> Solid:
        """What lies also inside another solid, given by its distance on the whole volume (Z,H,W)."""
        return Solid(self.box, np.maximum(self.distance, distance[self.box]), self.angle)


@dataclass(frozen=True)
class Lumps:
    """Low-order Fourier perturbation of an outline's radius, drifting through z: no organ is a perfect ellipse."""

    orders: np.ndarray  # (K,)
    amplitudes: np.ndarray  # (K,) relative to the radius
    phases: np.ndarray  # (K,)
    drifts: np.ndarray  # (K,) radians per mm of z

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float, orders: Sequence[int] = (2, 3, 4, 5)) -> Lumps:
        k = np.asarray(orders, float)
        amplitudes = strength * rng.normal(size=k.size) / np.sqrt(k - 1)
        return cls(k, amplitudes, rng.uniform(0, 2 * np.pi, k.size), rng.normal(0, 0.02, k.size))

    def radius(self, angle: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Factor on the radius at angles (z,h,w), heights z (z,1,1) in mm."""
        factor = np.ones_like(angle)
        for order, amplitude, phase, drift in zip(self.orders, self.amplitudes, self.phases, self.drifts, strict=True):
            factor += np.float32(amplitude) * np.cos(np.float32(order) * angle + (phase + drift * z).astype(np.float32))
        return factor


class Canvas:
    """A volume in HU with the patient's coordinates on it.

    Axes are (slice, row, column); x grows towards the patient's left, y towards the back, z upward, all in mm, with
    the origin in the middle of the trunk. The patient may lie turned and off-centre on the pixel grid.
    """

    def __init__(self, rng: np.random.Generator, z_mm: np.ndarray, grid: int, pixel_mm: float, turn: float,
                 offset_mm: tuple[float, float]):
        self.z, self.grid, self.pixel_mm, self.turn, self.offset_mm = z_mm, grid, pixel_mm, turn, offset_mm
        centred = (np.arange(grid) - (grid - 1) / 2) * pixel_mm
        right, down = centred[None, :] - offset_mm[0], centred[:, None] - offset_mm[1]
        self.x = (np.cos(turn) * right + np.sin(turn) * down).astype(np.float32)  # (H,W)
        self.y = (np.cos(turn) * down - np.sin(turn) * right).astype(np.float32)
        shape = (len(z_mm), grid, grid)
        self.hu = np.full(shape, -1000.0, np.float32)  # (Z,H,W)
        spacing_z = float(z_mm[1] - z_mm[0])
        # Two textures of unit spread: slow inhomogeneity, and finer marbling.
        self.slow = self._texture(rng, shape, 14.0, spacing_z)
        self.fine = self._texture(rng, shape, 3.6, spacing_z)

    def _texture(self, rng: np.random.Generator, shape: tuple[int, int, int], length_mm: float,
                 spacing_z: float) -> np.ndarray:
        sigmas = (length_mm / spacing_z, length_mm / self.pixel_mm, length_mm / self.pixel_mm)
        texture = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigmas, mode="wrap", truncate=3)
        return texture / texture.std()

    def blob(self, x: PerSlice, y: PerSlice, a: PerSlice, b: PerSlice, *, turn: PerSlice = 0.0, power: float = 2.0,
             lumps: Lumps | None = None, dent: tuple[PerSlice, float] | None = None, margin: float = 0.0) -> Solid:
        """A lumpy superellipse in each slice: centre and half-axes in mm, turned by an angle in radians.

        `a` lies along the solid's first axis (x turned by `turn`), `b` across it. Slices where `a` or `b` falls
        under half a millimetre have nothing. `dent` (relative depth, angular width) presses the outline in at angle 0.
        `margin` widens the box for a solid that will be grown by that many mm.
        """
        x, y, a, b, turn, depth = self._per_slice(x, y, a, b, turn, dent[0] if dent else 0.0)
        box = self._box(np.minimum(a, b) > 0.5, x, y, 1.35 * np.maximum(a, b) + margin + 2 * self.pixel_mm)
        rows = box[0]
        x, y, a, b, turn, depth = (v[rows, None, None].astype(np.float32) for v in (x, y, a, b, turn, depth))
        a, b = np.maximum(a, 0.25), np.maximum(b, 0.25)
        dx, dy = self.x[box[1:]][None] - x, self.y[box[1:]][None] - y  # (z,h,w)
        u = (np.cos(turn) * dx + np.sin(turn) * dy) / a
        v = (np.cos(turn) * dy - np.sin(turn) * dx) / b
        if power == 2.0:
            level = np.sqrt(u * u + v * v) + 1e-6
            slope = np.sqrt((u / a) ** 2 + (v / b) ** 2) / level
        else:
            p = np.float32(power)
            up, vp = np.abs(u) + 1e-6, np.abs(v) + 1e-6
            level = (up**p + vp**p) ** (1 / p)
            slope = np.sqrt(((up / level) ** (p - 1) / a) ** 2 + ((vp / level) ** (p - 1) / b) ** 2)
        angle = np.arctan2(v, u)
        radius = lumps.radius(angle, self.z[rows, None, None]) if lumps else np.float32(1.0)
        if dent:
            radius = radius - depth * np.exp(-((angle / dent[1]) ** 2))
        # First-order distance to a level set: f / |grad f| (Taubin, IEEE TPAMI 1991).
        return Solid(box, (level - radius) / np.maximum(slope, 1e-3), angle)

    def rod(self, x0: PerSlice, y0: PerSlice, x1: PerSlice, y1: PerSlice, radius: PerSlice) -> Solid:
        """In each slice the points within `radius` mm of the line from (x0,y0) to (x1,y1); radius 0: nothing."""
        x0, y0, x1, y1, radius = self._per_slice(x0, y0, x1, y1, radius)
        reach = np.hypot(x1 - x0, y1 - y0) / 2 + radius + 2 * self.pixel_mm
        box = self._box(radius > 0.3, (x0 + x1) / 2, (y0 + y1) / 2, reach)
        x0, y0, x1, y1, radius = (v[box[0], None, None].astype(np.float32) for v in (x0, y0, x1, y1, radius))
        dx, dy = self.x[box[1:]][None] - x0, self.y[box[1:]][None] - y0
        along_x, along_y = x1 - x0, y1 - y0
        part = np.clip((dx * along_x + dy * along_y) / (along_x**2 + along_y**2 + 1e-6), 0, 1)
        dx, dy = dx - part * along_x, dy - part * along_y
        return Solid(box, np.sqrt(dx * dx + dy * dy) - radius, np.arctan2(dy, dx))

    def coverage(self, distance: np.ndarray) -> np.ndarray:
        """The part of each voxel inside: 1 deep inside, 0 outside, a ramp one pixel wide across the surface."""
        return np.clip(0.5 - distance / self.pixel_mm, 0, 1)

    def paint(self, solid: Solid, hu: np.ndarray | float, slow: float = 3.0, fine: float = 2.0) -> None:
        """Blend a solid of the given HU over what is there; `slow` and `fine` scale its texture in HU."""
        part = self.coverage(solid.distance)
        target = hu + slow * self.slow[solid.box] + fine * self.fine[solid.box]
        below = self.hu[solid.box]
        below += part * (target - below)

    def above(self, solid: Solid, y: PerSlice) -> Solid:
        """What of a solid lies in front of the level `y`: gas over fluid in a patient on the back."""
        (level,) = self._per_slice(y)
        height = self.y[solid.box[1:]][None] - level[solid.box[0], None, None].astype(np.float32)
        return Solid(solid.box, np.maximum(solid.distance, height), solid.angle)

    def whole(self, solid: Solid) -> np.ndarray:
        """A solid's distance on the whole volume (Z,H,W), far outside where its box doesn't reach."""
        distance = np.full(self.hu.shape, 1e3, np.float32)
        distance[solid.box] = solid.distance
        return distance

    def _per_slice(self, *values: PerSlice) -> list[np.ndarray]:
        return [np.broadcast_to(np.asarray(value, float), self.z.shape) for value in values]

    def _box(self, present: np.ndarray, x: np.ndarray, y: np.ndarray, reach: np.ndarray) -> Box:
        """The slices, rows and columns that hold squares of half-side `reach` mm around patient points (x,y)."""
        slices = np.flatnonzero(present)
        if not len(slices):
            return slice(0, 0), slice(0, 0), slice(0, 0)
        first, last = slices[0], slices[-1] + 1
        x, y, reach = x[first:last], y[first:last], reach[first:last]
        column = np.cos(self.turn) * x - np.sin(self.turn) * y + self.offset_mm[0]
        row = np.sin(self.turn) * x + np.cos(self.turn) * y + self.offset_mm[1]
        def side(position: np.ndarray) -> slice:
            low = np.floor((position - reach).min() / self.pixel_mm + (self.grid - 1) / 2)
            high = np.ceil((position + reach).max() / self.pixel_mm + (self.grid - 1) / 2) + 1
            return slice(int(np.clip(low, 0, self.grid)), int(np.clip(high, 0, self.grid)))

        return slice(int(first), int(last)), side(row), side(column)


def smooth_step(value: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 after `end`, smooth between; `start` may be the greater."""
    part = np.clip((value - start) / (end - start), 0, 1)
    return part * part * (3 - 2 * part)


def wander(rng: np.random.Generator, z: np.ndarray, amplitude: float, length: float = 70.0) -> np.ndarray:
    """A smooth random drift through z, in the unit of its amplitude."""
    short, long = (
        amplitude * rng.normal(0, 0.6) * np.sin(2 * np.pi * z / (length * scale) + rng.uniform(0, 2 * np.pi))
        for scale in (0.7, 1.6))
    return short + long
