"""Reports: what people and scripts read of a run: a progress bar, JSON lines, a last word."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from service.workshops import CannotPaintError

_MOST_NAMED = 100


class RunReport:
    """Counts what became of the photographs of one run, and names the failures at its end.

    Args:
        json_lines: whether to print a line for each on standard output, and one at the end.
        quiet: whether to say nothing at the end, but for failures.
        total: how many there are, where somebody watches.
    """

    def __init__(self, *, json_lines: bool, quiet: bool = False, total: int | None = None) -> None:
        self.counts = {"painted": 0, "present": 0, "failed": 0}
        self._json_lines = json_lines
        self._quiet = quiet
        self._failures: dict[str, None] = {}  # each once, however many styles it concerns
        self._unnamed = 0
        self._began_s = time.monotonic()
        self._bar = tqdm(
            total=total, unit="photo", disable=quiet or not sys.stderr.isatty(), leave=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish("" if error is None else "; the same command goes on from here")

    def painted(self, photo: Path, style: str, out: Path | None) -> None:
        """Note a painting that was made."""
        self._note("painted", photo, style, out)

    def present(self, photo: Path, style: str, out: Path) -> None:
        """Note a painting that was there already."""
        self._note("present", photo, style, out)

    def failed(self, photo: Path, style: str, error: CannotPaintError) -> None:
        """Note what could not be painted."""
        words = f"{photo}: {error.detail}"
        if words not in self._failures and len(self._failures) == _MOST_NAMED:
            self._unnamed += 1
        else:
            self._failures[words] = None
        self._note("failed", photo, style, None, error)

    def _finish(self, last_word: str) -> None:
        self._bar.close()
        seconds = time.monotonic() - self._began_s
        for failure in self._failures:
            print(failure, file=sys.stderr)
        if self._unnamed:
            print(f"and {self._unnamed} more, which --json names", file=sys.stderr)
        if self._json_lines:
            self._print_json({"summary": self.counts | {"seconds": round(seconds, 3)}})
        if not self._quiet:
            painted, present, failed = self.counts.values()
            words = f"{painted} painted, {present} there already, {failed} failed"
            print(f"{words}, in {seconds:.1f} s{last_word}", file=sys.stderr)

    def _note(
        self,
        state: str,
        photo: Path,
        style: str,
        out: Path | None,
        error: CannotPaintError | None = None,
    ) -> None:
        self.counts[state] += 1
        self._bar.update()
        if self._json_lines:
            line: dict[str, object] = {
                "photo": str(photo),
                "style": style,
                "state": state,
                "out": None if out is None else str(out),
            }
            if error is not None:
                line["error"] = {
                    "type": error.type,
                    "status": error.status,
                    "detail": error.detail,
                }
            self._print_json(line)

    def _print_json(self, line: dict[str, object]) -> None:
        try:
            print(json.dumps(line), flush=True)
        except BrokenPipeError:
            # Whoever read the lines has enough of them; the paintings are wanted all the same.
            self._json_lines = False
            drop_standard_output()


def drop_standard_output() -> None:
    """Let go of what nobody reads, so that it does not fail once more in the end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
