"""Checks that run one after another, each in bounded time: what they found, as lines or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import asdict, dataclass
from threading import Thread

from taxi_duration.errors import TaxiDurationError, hide_credentials

DEADLINE_SECONDS = 10.0
"""A check's own timeouts end it before; this one is for what has none, such as a name server."""


class CheckError(Exception):
    """What a check found wrong.

    Args:
        fix: what sets it right; a command exactly as it is typed, where there is one.
    """

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Args:
        run: says what it found, or raises CheckError.
        needs: names of the earlier checks without which this one cannot be made.
    """

    name: str
    run: Callable[[], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What became of a check; `fix` is empty if it is ok."""

    name: str
    ok: bool
    found: str
    fix: str


def examine(checks: Sequence[Check], seconds: float = DEADLINE_SECONDS) -> Iterator[Finding]:
    """Make the checks in their order, and give each one's finding as soon as it is there.

    No check stops the next ones; one that needs a check that was not ok is not made, and not ok.

    Args:
        seconds: the most that one check may take.
    """
    failed: set[str] = set()
    for check in checks:
        needed = next((name for name in check.needs if name in failed), None)
        if needed is None:
            finding = _make(check, seconds)
        else:
            finding = Finding(
                check.name,
                ok=False,
                found=f"not checked: needs {needed}",
                fix=f"that of {needed} first",
            )
        if not finding.ok:
            failed.add(check.name)
        yield finding


def _make(check: Check, seconds: float) -> Finding:
    outcome: list[str | Exception] = []

    def run() -> None:
        try:
            outcome.append(check.run())
        except Exception as error:  # whatever it is, the other checks are made
            outcome.append(error)

    # A daemon: what hangs is left behind, and does not hold up the end of the process.
    worker = Thread(target=copy_context().run, args=(run,), daemon=True)
    worker.start()
    worker.join(seconds)
    ended = outcome[0] if outcome else _time_out(seconds)
    if isinstance(ended, str):
        return Finding(check.name, ok=True, found=_clean(ended), fix="")
    found, fix = _split(ended)
    return Finding(check.name, ok=False, found=_clean(found), fix=_clean(fix))


def _time_out(seconds: float) -> CheckError:
    return CheckError(
        f"no answer within {seconds:g} s",
        "look for a network, name server or network disk that hangs, and run doctor again",
    )


def split_remedy(error: TaxiDurationError) -> tuple[str, str]:
    """What an error of ours says is wrong, and the remedy, which is its last clause.

    >>> split_remedy(TaxiDurationError("models is a file: give a directory."))
    ('models is a file', 'give a directory')
    """
    text = str(error)
    place = max(text.rfind(": "), text.rfind("; "))
    return (text[:place], text[place + 2 :].rstrip(".")) if place > 0 else (text, "see above")


def _split(error: Exception) -> tuple[str, str]:
    """What was found and what to do about it."""
    if isinstance(error, CheckError):
        return error.found, error.fix
    if isinstance(error, TaxiDurationError):
        return split_remedy(error)
    said = next(iter(str(error).splitlines()), "")
    return f"the check itself failed ({type(error).__name__}: {said})", "report this line"


def _clean(text: str) -> str:
    return " ".join(hide_credentials(text).split())


def render_line(finding: Finding, width: int) -> str:
    """A finding as one line.

    Args:
        width: of the longest name.

    >>> render_line(Finding("disk", ok=False, found="full", fix="rm -r models/sums"), 5)
    'not ok  disk   full; fix: rm -r models/sums'
    >>> render_line(Finding("block", ok=True, found="saved", fix=""), 5)
    'ok      block  saved'
    """
    verdict = "ok" if finding.ok else "not ok"
    fix = f"; fix: {finding.fix}" if finding.fix else ""
    return f"{verdict:<6}  {finding.name:<{width}}  {finding.found}{fix}"


def render_json(findings: Sequence[Finding]) -> str:
    """The findings as a list of objects with `name`, `ok`, `found` and `fix`."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)
