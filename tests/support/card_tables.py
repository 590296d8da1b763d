"""The tables of a run card: what they must say by its report, and what they do say."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from taxi_duration.evaluation.report import Report

Table = list[list[str]]
"""Rows of cells, the header first; as a reader sees them, without marks of emphasis."""


def compare(ours: float, theirs: float) -> str:
    change = 100 * (ours / theirs - 1)
    if f"{abs(change):.1f}" == "0.0":
        return "the same"
    return f"{abs(change):.1f}% {'higher' if change > 0 else 'lower'}"


def expect_tables(report: Report) -> list[Table]:
    """All tables of a report's card, from its figures alone."""
    train, validation = report["train"], report["validation"]
    months, month = train["months"], validation["month"]
    window = ", ".join(months) if len(months) < 3 else f"{months[0]} to {months[-1]}"
    parts = [f"training {window}", f"validation {month}"]
    champion = report["gate"] and report["gate"]["champion"]
    rivals = [
        (
            "zone-pair median" + (f" of {months[-1]}" if len(months) > 1 else ""),
            report["baselines"]["zone_pair_median"]["rmse"],
        ),
        ("training mean", report["baselines"]["mean"]["rmse"]),
    ]
    if champion:
        seen = f", trained on {month} too" if champion["is_seen"] else ""
        rivals.insert(0, (f"champion, version {champion['version']}{seen}", champion["rmse"]))
    tables: list[Table] = [
        [
            [f"on {month}", "RMSE, minutes", "model's RMSE is"],
            [
                f"linear regression, {report['features']} features",
                f"{validation['rmse']:.4f}",
                "",
            ],
            *([name, f"{rmse:.4f}", compare(validation["rmse"], rmse)] for name, rmse in rivals),
        ]
    ]
    for kind in dict.fromkeys(each["kind"] for each in report["slices"]):
        header = [kind, "trips", "RMSE", "MAE", "mean residual"]
        if champion:
            header += ["champion's RMSE", "model's RMSE is"]
        rows = [
            expect_slice(each, report["gate"]) for each in report["slices"] if each["kind"] == kind
        ]
        tables.append([header, *rows])
    residuals = report["residuals"]
    tables.append(
        [
            ["minutes", "mean", *(f"{share} %" for share in residuals["quantiles"])],
            [
                "residual: mean, and quantiles",
                f"{residuals['mean']:.4f}",
                *(f"{each:.4f}" for each in residuals["quantiles"].values()),
            ],
        ]
    )
    tables.append(
        [
            ["picked up", "from zone", "to zone", "miles", "minutes", "predicted", "residual"],
            *(
                [
                    " ".join(trip["pickup"].split("T")),
                    str(trip["pickup_zone"]),
                    str(trip["dropoff_zone"]),
                    *(f"{trip[name]:.2f}" for name in ("distance_miles", "minutes", "predicted")),
                    f"{trip['minutes'] - trip['predicted']:.2f}",
                ]
                for trip in report["largest_errors"]
            ),
        ]
    )
    tables.append(
        [
            ["slowest pairs of zones", "trips", "miles", "predicted minutes a mile"],
            *(
                [
                    f"{pair['pickup_zone']} to {pair['dropoff_zone']}",
                    f"{pair['trips']:,}",
                    f"{pair['miles']:.2f}",
                    f"{pair['minutes_per_mile']:.2f}",
                ]
                for pair in report["coefficients"]["slowest_pairs"]
            ),
        ]
    )
    pace = report["coefficients"]["minutes_per_mile"]
    shown = {kind: [f"{each:#.4g}" for each in minutes] for kind, minutes in pace.items()}
    for name, hours in (("before noon", range(12)), ("from noon on", range(12, 24))):
        if len({*shown["working day"], *shown["day off"]}) == 1:
            continue
        rows = [
            [f"{hour}:00", shown["working day"][hour], shown["day off"][hour]] for hour in hours
        ]
        tables.append([[f"minutes a mile, {name}", "working day", "day off"], *rows])
    if report["past"]:
        ours = {"month": month, "version": "this one",
            "model_id": report["model_id"], "rmse": validation["rmse"]
        }  # fmt: skip
        rows = [
            [each["month"], each["version"], each["model_id"], f"{each['rmse']:.4f}"]
            for each in [*report["past"], ours]
        ]
        tables.append([["validated on", "version", "model", "RMSE"], *rows])
    counts = {
        "read": (train["rows_read"], validation["rows_read"]),
        **{
            f"dropped: {rule}": (n, validation["dropped"][rule])
            for rule, n in train["dropped"].items()
        },
        **{
            f"kept, noted: {rule}": (n, validation["noted"][rule])
            for rule, n in train["noted"].items()
        },
        "kept": (train["rows_kept"], validation["rows_kept"]),
    }
    tables.append(
        [["trips", *parts], *([name, *(f"{n:,}" for n in both)] for name, both in counts.items())]
    )
    tables.append([["contract: rows", *parts, "limit a month"], *expect_contract(report)])
    shifts = report["stability"]
    tables.append(
        [
            [
                "drift: population stability index",
                "distance",
                "hour",
                "duration",
                "unseen zone pairs",
            ],
            *(
                [
                    f"{name} beside the {'training window' if name == month else beside}",
                    *(f"{shift[each]:.4f}" for each in ("distance", "hour", "duration")),
                    f"{100 * shift['unseen_pairs']:.2f}%",
                ]
                for beside in ["window's other months"]
                for name, shift in shifts.items()
            ),
        ]
    )
    tables.append([["file", "sha256"], *([*each] for each in report["inputs"].items())])
    tables.append([["software", "version"], *([*each] for each in report["versions"].items())])
    return tables


def expect_slice(part: dict[str, Any], gate: dict[str, Any] | None) -> list[str]:
    row = [part["name"], f"{part['trips']:,}"]
    row += [f"{part[name]:.4f}" for name in ("rmse", "mae", "mean_residual")]
    if gate is None or gate["champion"] is None:
        return row
    settings, theirs = gate["settings"], part["champion_rmse"]
    over = part["trips"] >= settings["fewest_slice_trips"] and part["rmse"] > theirs * (
        1 + settings["most_slice_worsening"]
    )
    change = compare(part["rmse"], theirs)
    return [*row, f"{theirs:.4f}", f"{change}, over the limit" if over else change]


LIMITS = {
    "picked up outside the month": "most_outside_month",
    "drop-off not after pick-up": "most_negative_durations",
    "zone missing": "most_null_zones",
    "zone not 1 to 265": "most_zones_out_of_range",
}


def expect_contract(report: Report) -> list[list[str]]:
    rows = []
    for rule, count in report["train"]["broken"].items():
        thresholds = report["thresholds"]
        limit = thresholds[LIMITS[rule]] if rule in LIMITS else 1 - thresholds["fewest_within_hour"]
        shares = {
            each["broken"][rule] / each["rows_read"]: name
            for name, each in reversed(report["train"]["by_month"].items())
        }
        worst = max(shares)
        several = len(report["train"]["months"]) > 1 and worst
        rows.append(
            [
                rule,
                f"{count:,}"
                + (f" (at most {100 * worst:.2f}%, {shares[worst]})" if several else ""),
                f"{report['validation']['broken'][rule]:,}",
                f"{100 * limit:.4g} %",
            ]
        )
    return rows


def read_markdown_tables(text: str) -> list[Table]:
    tables: list[Table] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("| ")]
        rows = [
            [cell.strip().strip("*`") for cell in line[1:-1].split("|")]
            for line in lines
            if not line.startswith("| ---")
        ]
        if rows:
            tables.append(rows)
    return tables


class _TableReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.is_inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.tables[-1][-1][-1] += data


def read_html_tables(text: str) -> list[Table]:
    reader = _TableReader()
    reader.feed(text)
    return reader.tables
