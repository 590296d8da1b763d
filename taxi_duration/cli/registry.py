"""`python -m taxi_duration history`, `promote`, `rollback` and `show champion`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from taxi_duration.cli.ending import describe_mlflow_page
from taxi_duration.data.schema import CABS, DEFAULT_CAB, Cab, get_cab
from taxi_duration.errors import ModelError
from taxi_duration.registry.champion import (
    UNKNOWN,
    Change,
    History,
    Period,
    Version,
    promote,
    read_history,
    rollback,
)
from taxi_duration.registry.resolve import name_command
from taxi_duration.registry.runs import CHAMPION, REGISTERED_MODEL, name_alias
from taxi_duration.reports.terminal import draw_table, find_program

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ELSEWHERE = Change(
    "", UNKNOWN, "set in MLflow", None, UNKNOWN, "The alias was set by no command or run of ours."
)
"""How a version became champion of which nothing is known."""


def add_commands(commands: Commands) -> None:
    """Add the commands about registered models to those of a parser."""
    history = commands.add_parser(
        "history",
        help="list the registered versions, and who was champion when",
        description="List the registered versions with their months, RMSE and the gate's verdict, "
        "and every change of champion.",
        allow_abbrev=False,
    )
    history.set_defaults(run=print_history)
    _add_json(history)
    promotes = commands.add_parser(
        "promote",
        help="make a version champion",
        description="Make a registered version champion, whatever the gate said of it.",
        allow_abbrev=False,
    )
    promotes.add_argument(
        "version",
        metavar="VERSION",
        help="its number, as history lists it; or its alias, model id or run id",
    )
    promotes.set_defaults(run=_promote)
    rollbacks = commands.add_parser(
        "rollback",
        help="make the previous champion champion again",
        description="Make the previous champion champion again; once more goes back further.",
        allow_abbrev=False,
    )
    rollbacks.add_argument(
        "--from",
        dest="from_version",
        metavar="VERSION",
        help="do nothing unless this version is champion, so that a repeated call rolls back once",
    )
    rollbacks.set_defaults(run=_rollback)
    show = commands.add_parser(
        "show",
        help="show the champion: what it is, since when, why, and how to use it",
        description="Show the version in use: what it is, since when, why, and how to use it.",
        allow_abbrev=False,
    )
    show.add_argument("what", choices=[CHAMPION])
    show.set_defaults(run=show_champion)
    _add_json(show)
    for parser in (history, promotes, rollbacks, show):
        parser.add_argument(
            "--cab", choices=[*CABS], default=DEFAULT_CAB, help="cab type (default: %(default)s)"
        )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _promote(arguments: argparse.Namespace) -> None:
    print(promote(get_cab(arguments.cab), arguments.version))


def _rollback(arguments: argparse.Namespace) -> None:
    print(rollback(get_cab(arguments.cab), arguments.from_version))


def print_history(arguments: argparse.Namespace) -> None:
    """Print the versions and the changes of champion."""
    history = read_history(get_cab(arguments.cab))
    if arguments.json:
        _print_json(
            {
                "cab": history.cab,
                "store": history.store,
                "champion": history.champion,
                "versions": [_list_facts(version) for version in history.versions],
                "events": [asdict(change) for change in history.changes],
            }
        )
    elif history.versions:
        print(_render_history(history))
    else:
        print(f"no {history.cab} version is registered in {history.store}: train one first.")


def show_champion(arguments: argparse.Namespace) -> None:
    """Print what there is to know of the champion.

    Raises:
        ModelError: the alias is of a version that this pipeline did not log.
    """
    cab = get_cab(arguments.cab)
    history = read_history(cab)
    champion = history.find(history.champion)
    if history.champion is not None and champion is None:
        raise ModelError(
            f"champion, version {history.champion} of {REGISTERED_MODEL}, cannot be used, since no "
            "run of this pipeline logged it",
            f"make another one champion: {name_command('promote VERSION', cab)}",
        )
    if arguments.json:
        _print_json(_describe_champion(champion, history, cab) if champion else None)
    elif champion is None:
        print(
            f"{cab.name} has no champion in {history.store}: a run's gate makes one, or "
            f"{name_command('promote VERSION', cab)}."
        )
    else:
        print(_render_champion(champion, history, cab))


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _list_facts(version: Version) -> dict[str, Any]:
    facts = asdict(version)
    facts[CHAMPION] = [{"from": period.since, "to": period.until} for period in version.periods]
    del facts["periods"]
    return facts


def _describe_champion(champion: Version, history: History, cab: Cab) -> dict[str, Any]:
    since = _find_change(champion, history)
    return {
        "cab": cab.name,
        **_list_facts(champion),
        "since": since.at,
        "kind": since.kind,
        "reason": since.reason,
        "by": since.by,
        "model_uri": _name_model(cab),
    }


def _find_change(champion: Version, history: History) -> Change:
    """Return how the champion became it."""
    is_known = champion.periods[-1].since != UNKNOWN
    return (history.find_change(champion.version) if is_known else None) or ELSEWHERE


def _name_model(cab: Cab) -> str:
    return f"models:/{REGISTERED_MODEL}@{name_alias(CHAMPION, cab)}"


def _render_champion(champion: Version, history: History, cab: Cab) -> str:
    since = _find_change(champion, history)
    of = "" if cab.name == DEFAULT_CAB else f" --cab {cab.name}"
    rmse = "" if champion.rmse is None else f", RMSE {champion.rmse:.6f} minutes"
    if champion.page:
        page = describe_mlflow_page(champion.page, history.store)
        run = f"{champion.run_id}\n{' ' * 20}to see it: {page}"
    else:
        run = "gone from MLflow"
    return f"""
{cab.name} champion: version {champion.version} of {REGISTERED_MODEL}
  model             {champion.model_id}
  trained on        {", ".join(champion.trained_on) or "unknown"}
  validated on      {champion.validated_on or "unknown"}{rmse}
  champion since    {_show_time(since.at)} UTC, {since.kind} by {since.by}
  why               {since.reason}
  to use it         {find_program("python")} -m taxi_duration predict --model champion{of} \
--input FILE_OR_MONTH --output FILE
                    in Python: mlflow.pyfunc.load_model({_name_model(cab)!r})
  MLflow run        {run}
"""


def _render_history(history: History) -> str:
    numbers = ["version", "RMSE"]
    header = [
        "version", "model", "trained on", "validated on", "RMSE", "verdict", "champion (UTC)",
    ]  # fmt: skip
    rows = [
        [
            version.version,
            version.model_id,
            _show_span(version.trained_on),
            version.validated_on or "",
            "" if version.rmse is None else f"{version.rmse:.4f}",
            version.verdict,
            "\n".join(map(_show_period, version.periods)),
        ]
        for version in history.versions
    ]
    refused = [
        f"  version {version.version}: {reason}"
        for version in history.versions
        for reason in version.reasons
    ]
    changes = [
        [
            _show_time(change.at),
            change.kind,
            change.version,
            change.previous or "none",
            change.by,
            change.reason,
        ]
        for change in history.changes
    ]
    parts = [
        f"{history.cab} versions of {REGISTERED_MODEL} in {history.store}; RMSE in minutes on the "
        "month that validated it",
        draw_table(header, rows, numbers),
    ]
    if refused:
        parts += ["not promoted, because", *refused, ""]
    if changes:
        table = ["when (UTC)", "what", "champion", "before", "by", "why"]
        parts += ["changes of champion", draw_table(table, changes)]
    if not history.champion:
        parts.append("no version is champion now")
    return "\n" + "\n".join(parts).rstrip() + "\n"


def _show_time(text: str) -> str:
    return text[:19].replace("T", " ")


def _show_period(period: Period) -> str:
    return f"{_show_time(period.since)} to {_show_time(period.until) if period.until else 'now'}"


def _show_span(months: tuple[str, ...]) -> str:
    return " to ".join(dict.fromkeys((months[0], months[-1]))) if months else ""
