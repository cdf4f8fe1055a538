"""docs/speed.svg: each round's ratio to the bare relay as a dot, medians as bars."""

import statistics

from tools.bench.results import ROWS, Results, Row

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 720, 250, 90, 34, 48
_STYLE = (
    "text{font:13px sans-serif;fill:#333}.note{font-size:11px;fill:#777}"
    ".more{fill:#4c8dd6}.less{fill:#b9bec6}circle{fill:#1b3f6b;fill-opacity:.6}"
    "line{stroke:#d0542f;stroke-width:1.5}"
)


def draw(results: Results) -> str:
    """Return the plot as SVG."""
    # At rest a bare relay is another kind of program, and its ratio says nothing.
    rows = [row for row in ROWS if row.figure != "rest"]
    ratios = [(row, results.ratios("this", "bare", row.figure)) for row in rows]
    found = [each for each in ratios if each[1]]
    unit = (_WIDTH - _LEFT - _RIGHT) / max(1.0, *(max(ratios) for _, ratios in found))
    height, bare = _TOP + _ROW * len(found) + 12, _LEFT + unit
    size = f'width="{_WIDTH}" height="{height}"'
    note = "blue: more is better, grey: less; a dot is one round"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<style>{_STYLE}</style>",
        f'<rect {size} fill="#fff"/>',
        *(_row(*each, _TOP + at * _ROW, unit) for at, each in enumerate(found)),
        f'<line x1="{bare:.1f}" x2="{bare:.1f}" y1="{_TOP - 8}" y2="{height - 8}"/>',
        f'<text x="{bare:.1f}" y="16" text-anchor="middle">bare relay = 1</text>',
        f'<text class="note" x="{_WIDTH - 10}" y="32" text-anchor="end">{note}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _row(row: Row, ratios: list[float], top: int, unit: float) -> str:
    middle, median = top + 11, statistics.median(ratios)
    width, end = median * unit, _LEFT + max(ratios) * unit + 10
    kind = "more" if row.more_is_better else "less"
    parts = [
        f'<text x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{row.label}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="22"/>',
        *(f'<circle cx="{_LEFT + r * unit:.1f}" cy="{middle}" r="3"/>' for r in ratios),
        f'<text x="{end:.1f}" y="{middle + 4}">{median:.2f}</text>',
    ]
    return "".join(parts)
