"""Figures: samples to medians with their spread, and the file that they are kept in (schema: docs/benchmarks.md)."""

import json
import pathlib
import statistics

SCHEMA = 2
# A sample's figures; the first two are per request, or per MB of payload where the work says so.
FIGURES = ("cpu_us", "machine_us", "rate", "p50_us", "p99_us", "p999_us")


def summary(samples: list[dict]) -> dict:
    """Medians of the runs without errors; a run with an error doesn't count, and it is said how many were such."""
    good = [sample for sample in samples if not sample["errors"]]
    if not good:
        why = next((sample["why"] for sample in samples if sample.get("why")), "")
        return {"runs": 0, "runs_with_errors": len(samples), "errors": sum(sample["errors"] for sample in samples), "why": why}
    figures: dict = {"runs": len(good), "runs_with_errors": len(samples) - len(good)}
    for key in FIGURES:
        figures[key] = spread([sample[key] for sample in good])
    return figures


def spread(values: list[float]) -> dict:
    return {"median": round(statistics.median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def median(figures: dict | None, key: str) -> float | None:
    return ((figures or {}).get(key) or {}).get("median")


def update(path: pathlib.Path, new: dict) -> None:
    """Puts sections in place of those of the same name: what another command has written stays."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("schema") != SCHEMA:
        known = {"schema": SCHEMA}
    path.write_text(json.dumps({**known, **new}, indent=2) + "\n")


def line(work: str, name: str, figures: dict, base: float | None) -> str:
    if not figures.get("runs"):
        return f"{work:16} {name:8} did not count: {figures['errors']} errors {figures['why']}"
    ratio = f"{figures['cpu_us']['median'] / base:5.2f} x HAProxy" if base else ""
    failed = f"  ({figures['runs_with_errors']} runs with errors left out)" if figures["runs_with_errors"] else ""
    return (
        f"{work:16} {name:8} cpu {figures['cpu_us']['median']:8.1f} us  machine {figures['machine_us']['median']:8.1f} us  "
        f"{figures['rate']['median']:8.0f} /s  p50 {figures['p50_us']['median']:7.0f}  p99 {figures['p99_us']['median']:7.0f} us  {ratio}{failed}"
    )
