"""The benchmark runs and its figures agree; how long anything takes is never a test."""

import math
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import course

ROOT = Path(course.__file__).parents[1]


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.course", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def measured(way: str, rmse: float) -> course.Measurement:
    seconds = {course.OURS: 2.0, course.COURSE: 5.0, course.CONVERGED: 7.0}[way]
    return course.Measurement(rmse, seconds, peak_mib=seconds * 100, idle_mib=50)


def test_smoke_prints_the_table_with_ratios_and_keeps_nothing() -> None:
    kept = course.RESULTS / "course.md"
    before = kept.read_bytes() if kept.exists() else None
    completed = run_benchmark("--smoke")
    assert (completed.returncode, completed.stderr) == (0, "")
    rows = re.findall(r"^\| ([a-z, ]+) \| ([\d.]+) \|(.*)$", completed.stdout, re.MULTILINE)
    assert [way for way, *_ in rows] == ["ours", "course", "course, converged"]
    rmse = {way: float(minutes) for way, minutes, _ in rows}
    assert rmse["ours"] == pytest.approx(rmse["course, converged"], abs=2e-6)
    assert all(len(re.findall(r"\d+\.\dx", figures)) == 2 for *_, figures in rows)
    assert "synthetic_green_tripdata_2025-01.parquet" in completed.stdout
    assert str(ROOT) not in completed.stdout
    assert (kept.read_bytes() if kept.exists() else None) == before


@pytest.mark.parametrize(("apart", "exit_code"), [(0.9e-6, 0), (1.1e-6, 1), (math.nan, 1)])
def test_smoke_fails_when_the_answers_differ(
    apart: float,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pretend(way: str, *_months: Path) -> course.Measurement:
        return measured(way, 7.0 + (apart if way == course.CONVERGED else 0.0))

    monkeypatch.setattr(course, "measure_apart", pretend)
    assert course.main(["--smoke"]) == exit_code
    assert ("differ by" in capsys.readouterr().err) == bool(exit_code)


def test_the_report_holds_medians_ratios_and_no_path() -> None:
    runs = {way: [measured(way, 7.5)] * 2 for way in course.WAYS}
    runs["ours"].append(course.Measurement(7.5, 90.0, 9000, 50))
    given = Namespace(train=Path("/a/train"), validate=Path("/a/val"), rounds=3, smoke=False)
    report = course.make_report(runs, given)
    assert "| ours | 7.500000 | 2.000 (2.000 to 90.000) | 1.0x | 200 (50) | 1.0x |" in report
    assert "| course | 7.500000 | 5.000 (5.000 to 5.000) | 2.5x | 500 (50) | 2.5x |" in report
    assert "Medians of 3 rounds" in report
    assert "`python -m benchmarks.course --train train --validate val --rounds 3`" in report
    assert "/a/" not in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds 0 is too few: give at least 1."),
        (["--rounds", "x"], "argument --rounds: invalid int value: 'x'"),
        (["--train", __file__], "--train and --validate belong together: give both, or neither."),
        (["--smoke", "--rounds", "2"], "--smoke takes no other option"),
        (["--train", "absent", "--validate", __file__], "absent is not a file"),
        (["--month", "1"], "unrecognized arguments: --month 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        course.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_a_file_that_is_no_month_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(course, "measure_apart", course.measure)
    assert course.main(["--train", __file__, "--validate", __file__]) == 2
    printed = capsys.readouterr()
    assert "test_benchmark.py is not a parquet file" in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")
