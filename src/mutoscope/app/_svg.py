"""The two plots of a report, as SVG text."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

__all__ = ["histogram", "rates"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 960, 170, 48, 22, 8


def rates(edges: NDArray[np.float64], values: NDArray[np.float64], marks: NDArray[np.float64], title: str) -> str:
    """Draw values over time as bars, and a line at each mark.

    Parameters
    ----------
    edges : ndarray, shape (n + 1,)
        Of the bins, in seconds.
    values : ndarray, shape (n,)
        Frames a second.
    marks : ndarray, shape (m,)
        Moments in seconds; such as fall on one pixel are drawn once.
    """
    top = float(values.max()) * 1.1 or 1.0
    bars = _bars(edges, values / top)
    at = np.unique(np.round(_x(marks, edges))) if marks.size else marks
    lines = "".join(f"<line class=mark x1={x:.0f} x2={x:.0f} y1={TOP} y2={HEIGHT - BOTTOM} />" for x in at)
    return _plot(bars + lines, [(0.0, "0"), (1 / 1.1, f"{values.max():.4g}")], edges, "s", title)


def histogram(edges: NDArray[np.float64], counts: NDArray[np.int64], title: str) -> str:
    """Draw counts as bars, on a logarithmic axis.

    Parameters
    ----------
    edges : ndarray, shape (n + 1,)
        Of the bins.
    counts : ndarray, shape (n,)
        In each.
    """
    heights = np.log10(counts + 1.0)
    top = float(heights.max()) * 1.05 or 1.0
    decades = [(np.log10(10.0**power + 1) / top, f"{10**power:,}") for power in range(int(heights.max()) + 1)]
    return _plot(_bars(edges, heights / top), decades, edges, "ms", title)


def _x(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(LEFT + (values - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - LEFT), dtype=np.float64)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _bars(edges: NDArray[np.float64], shares: NDArray[np.float64]) -> str:
    places = _x(edges, edges)
    path = f"M{places[0]:.1f} {_y(0):.1f}"
    for left, right, share in zip(places[:-1], places[1:], shares, strict=True):
        path += f"L{left:.1f} {_y(share):.1f}L{right:.1f} {_y(share):.1f}"
    return f'<path class=bar d="{path}L{places[-1]:.1f} {_y(0):.1f}Z"/>'


def _ticks(edges: NDArray[np.float64], unit: str) -> list[tuple[float, str]]:
    """Round numbers within the range, at most 8."""
    rough = float(edges[-1] - edges[0]) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * min((factor for factor in (1, 2, 5, 10) if power * factor >= rough), default=10)
    return [(at, f"{at:g} {unit}") for at in np.arange(0.0, float(edges[-1]) + step / 1e6, step).round(12).tolist()]


def _plot(inside: str, up: list[tuple[float, str]], edges: NDArray[np.float64], unit: str, title: str) -> str:
    said = html.escape(title)
    parts = [f'<p class=quiet>{said}</p><svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{said}">']
    for share, label in up:
        y = _y(share)
        parts.append(f"<line class=axis x1={LEFT} x2={WIDTH} y1={y:.1f} y2={y:.1f} />")
        parts.append(f"<text x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{label}</text>")
    for at, label in _ticks(edges, unit):
        x = float(_x(np.array(at), edges))
        anchor = "end" if x > WIDTH - 30 else "start" if at == 0 else "middle"
        parts.append(f"<text x={x:.0f} y={HEIGHT - 6} text-anchor={anchor}>{label}</text>")
    return "".join([*parts, inside, "</svg>"])
