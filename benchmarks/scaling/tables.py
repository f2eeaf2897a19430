"""The tables that the scaling benchmark prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.scaling.figures import Figure
    from benchmarks.scaling.times import ServiceTimes

_PARTS = (("images_per_s", "images/s", 1), ("p50_ms", "p50 ms", 0), ("p99_ms", "p99 ms", 0))


def print_validation_head() -> None:
    """Head of the comparison with real replicas."""
    print("Model against real replicas of one core, real/model")
    print(f"{'replicas':<9}{'load':>6}{'requests':>10}{'images/s':>14}", end="")
    print(f"{'p50 ms':>14}{'p99 ms':>14}{'refused':>16}{'others':>8}")


def print_validation(row: dict[str, Any]) -> None:
    """Print one line of it."""
    pairs = [
        f"{row['real'][key]:.{digits}f}/{row['model'][key]:.{digits}f}" for key, _, digits in _PARTS
    ]
    refused = f"{row['real']['refused']:.1%}/{row['model']['refused']:.1%}"
    print(
        f"{row['replicas']:<9}{row['load']:>6.1f}{row['requests']:>10}{pairs[0]:>14}"
        f"{pairs[1]:>14}{pairs[2]:>14}{refused:>16}{row['others']:>8.1%}",
        flush=True,
    )


def print_figures(times: ServiceTimes, loads_s: dict[str, float], figures: list[Figure]) -> None:
    """Print all numbers that the model is fed with, and their sources."""
    here = "this run"
    rows = [
        (f"{name}, one core, {round(pixels**0.5)} px, ms a pass", 1000 * seconds, here)
        for name, one in times.passes.items()
        for pixels, seconds in zip(one.each.pixels, one.each.seconds, strict=True)
    ]
    rows += [
        (f"{name}, {round(curve.pixels[-1] ** 0.5)} px, ms", 1000 * curve.seconds[-1], here)
        for name, curve in (("decode", times.decode), ("encode", times.encode))
    ]
    rows += [
        ("event loop, ms a request", 1000 * times.http_s, here),
        ("a refusal, ms", 1000 * times.refusal_s, here),
        ("client and nginx, ms a request", 1000 * times.outside_s, here),
    ]
    rows += [(f"load a style, {name}, ms", 1000 * s, here) for name, s in loads_s.items()]
    rows += [(figure.name, figure.value, figure.source) for figure in figures]
    print(f"\n{'Measured':<44}{'':>9}  where")
    for name, value, source in rows:
        print(f"{name:<44}{value:>9.2f}  {source}")


def print_h200(rows: list[dict[str, Any]]) -> None:
    """Print the model beside what an H200 did."""
    print(f"\n{'Processes on one H200':<24}{'measured/s':>11}{'model/s':>9}{'batch':>7}", end="")
    print(f"{'pass ms':>9}{'measured':>10}")
    for row in rows:
        measured = f"{row['measured_pass_ms']:.0f}" if row["processes"] == 1 else "-"
        print(
            f"{row['processes']:<24}{row['measured_images_per_s']:>11.0f}"
            f"{row['images_per_s']:>9.0f}{row['mean_batch']:>7.2f}{row['pass_ms']:>9.1f}"
            f"{measured:>10}"
        )


def print_shortcuts(rows: list[dict[str, Any]]) -> None:
    """Print what may stand for larger simulations."""
    print(f"\n{'Shortcut':<44}{'p99 ms':>9}{'whole':>9}{'refused':>9}{'whole':>9}")
    for row in rows:
        print(
            f"{row['name']:<44}{row['p99_ms']:>9.1f}{row['whole_p99_ms']:>9.1f}"
            f"{row['refused']:>9.2%}{row['whole_refused']:>9.2%}",
            flush=True,
        )


def _print_growth_head() -> None:
    print(f"\n{'Fleet':<12}{'units':>6}{'traffic':>9}{'images/s':>11}", end="")
    print(f"{'p50 ms':>9}{'p99 ms':>9}{'spread':>8}{'refused':>9}{'batch':>7}{'window s':>10}")


def _print_growth(row: dict[str, Any]) -> None:
    print(
        f"{row['device']:<12}{row['units']:>6}{row['traffic']:>9}{row['rate']:>11.1f}"
        f"{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}"
        f"{row['p99_spread']:>8.1%}{row['refused']:>9.2%}{row['mean_batch']:>7.2f}"
        f"{row['window_s']:>10.2f}",
        flush=True,
    )


def _print_routing_head() -> None:
    print(
        f"\n{'Fleet':<14}{'styles':>7}{'held':>6}  {'routing':<19}{'asked/s':>9}{'done/s':>9}",
        end="",
    )
    print(f"{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'batch':>7}{'loads':>7}{'uneven':>8}")


def _print_routing(row: dict[str, Any]) -> None:
    held = row["resident"] or "all"
    print(
        f"{row['device']:<14}{row['networks']:>7}{held:>6}  {row['routing']:<19}"
        f"{row['rate']:>9.1f}{row['images_per_s']:>9.1f}{row['p50_ms']:>9.1f}"
        f"{row['p99_ms']:>9.1f}{row['refused']:>9.2%}{row['mean_batch']:>7.2f}"
        f"{row['loads']:>7.2f}{row['unevenness']:>8.2f}",
        flush=True,
    )


def _print_provisioning_head() -> None:
    print(f"\n{'To provision':<14}{'sizes':>8}{'traffic':>9}{'images/s':>10}", end="")
    print(f"{'p99 <= 1 s':>12}{'(/s each)':>11}{'<= 250 ms':>11}{'(/s each)':>11}{'at most':>9}")


def _print_provisioning(row: dict[str, Any]) -> None:
    cells = [
        f"{row[key][target] or 'none'}"
        for target in (1000, 250)
        for key in ("units", "images_per_s_each")
    ]
    print(
        f"{row['device']:<14}{row['sizes']:>8}{row['traffic']:>9}{row['rate']:>10.0f}"
        f"{cells[0]:>12}{cells[1]:>11}{cells[2]:>11}{cells[3]:>11}{row['capacity_each']:>9.1f}",
        flush=True,
    )


HEADS = {
    "growth": _print_growth_head,
    "routing": _print_routing_head,
    "provisioning": _print_provisioning_head,
}
ROWS = {
    "growth": _print_growth,
    "routing": _print_routing,
    "provisioning": _print_provisioning,
}
