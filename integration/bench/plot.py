"""Plots as SVG, drawn by hand: bars side by side, and lines. Nothing but text, so that a change of a figure is a change of a line."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 34, 54
COLOURS = ["#2f6f4f", "#b5523b", "#c79a3b", "#5b6f9e", "#8a5a83", "#7d7d7d"]


def bars(title: str, unit: str, groups: dict[str, dict[str, float | None]]) -> str:
    """Groups of bars: group -> series -> height; a series that a group lacks leaves a gap."""
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    axis = Axis(max((value for group in groups.values() for value in group.values() if value), default=1))
    parts = [*frame(title, unit, axis), *legend(series)]
    wide = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    bar = wide * 0.8 / max(len(series), 1)
    for number, (group, values) in enumerate(groups.items()):
        start = LEFT + wide * number + wide * 0.1
        parts.append(text(start + wide * 0.4, HEIGHT - BOTTOM + 16, group, "middle"))
        for place, name in enumerate(series):
            if (value := values.get(name)) is None:
                continue
            top = axis.y(value)
            x = start + bar * place
            parts.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{bar * 0.92:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" fill="{COLOURS[place % len(COLOURS)]}"/>')
            parts.append(text(x + bar * 0.46, top - 3, short(value), "middle", 9))
    return document(parts)


def lines(title: str, unit: str, below: str, curves: dict[str, list[tuple[float, float]]]) -> str:
    """Curves over a logarithmic axis, their points marked."""
    points = [point for curve in curves.values() for point in curve]
    axis = Axis(max((y for _, y in points), default=1))
    low, high = min((x for x, _ in points), default=1), max((x for x, _ in points), default=10)
    across = math.log(high / low) or 1

    def place(x: float) -> float:
        return LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * (math.log(x / low) / across if high > low else 0.5)

    parts = [*frame(title, unit, axis), *legend(list(curves)), text((LEFT + WIDTH) / 2, HEIGHT - BOTTOM + 34, below, "middle")]
    for x in sorted({x for x, _ in points}):
        parts.append(text(place(x), HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
    for number, curve in enumerate(curves.values()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{place(x):.1f},{axis.y(y):.1f}" for x, y in curve)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in curve:
            parts.append(f'<circle cx="{place(x):.1f}" cy="{axis.y(y):.1f}" r="3" fill="{colour}"/>')
            parts.append(text(place(x), axis.y(y) - 7, short(y), "middle", 9))
    return document(parts)


class Axis:
    """From zero to a round number above the largest value."""

    def __init__(self, largest: float) -> None:
        power = 10 ** math.floor(math.log10(largest)) if largest > 0 else 1
        self.top = next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if power * step >= largest * 1.05)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top


def frame(title: str, unit: str, axis: Axis) -> list[str]:
    parts = [f'<text x="{LEFT}" y="16" font-family="sans-serif" font-size="13" font-weight="bold" fill="#222">{escape(title)}</text>', text(8, TOP - 4, unit)]
    for quarter in range(5):
        value = axis.top * quarter / 4
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axis.y(value):.1f}" y2="{axis.y(value):.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, axis.y(value) + 4, short(value), "end"))
    return parts


def legend(series: list[str]) -> list[str]:
    parts, x = [], LEFT
    for number, name in enumerate(series):
        parts.append(f'<rect x="{x}" y="{HEIGHT - 12}" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(text(x + 14, HEIGHT - 3, name))
        x += 24 + 7 * len(name)
    return parts


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="sans-serif" font-size="{size}" fill="#444">{escape(content)}</text>'


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def document(parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])
