"""Damage and names of any kind: changed bytes are never used unnoticed, and no path leads out."""

import random
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_duration.data.bucket import check_key_prefix
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import CABS
from taxi_duration.data.tlc import locate_month
from taxi_duration.errors import DataError, InputError, SourceError
from taxi_duration.files import hash_file
from taxi_duration.flows.options import LocalOptions, read_options
from taxi_duration.flows.train import make_plan
from tests.support.downloads import FILE, GREEN, SIDECAR, list_names, locate
from tests.support.web import Tlc

FEBRUARY = Month(2023, 2)
REAL = FEBRUARY.file_name("green")
MUTATIONS = 1000
BLOCK = 512

Mutate = Callable[[bytes, random.Random], bytes]


def flip_bit(content: bytes, draw: random.Random) -> bytes:
    mutated = bytearray(content)
    mutated[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(mutated)


def truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def splice(content: bytes, draw: random.Random) -> bytes:
    """Put some other part of the file where there was none."""
    place, other = draw.randrange(len(content)), draw.randrange(len(content) - BLOCK)
    return content[:place] + content[other : other + BLOCK] + content[place:]


def cut_out(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) - BLOCK)
    return content[:place] + content[place + draw.randint(1, BLOCK) :]


def swap_blocks(content: bytes, draw: random.Random) -> bytes:
    first, second = sorted(draw.sample(range(len(content) // BLOCK), 2))
    mutated = bytearray(content)
    one, other = (slice(place * BLOCK, (place + 1) * BLOCK) for place in (first, second))
    mutated[one], mutated[other] = mutated[other], mutated[one]
    return bytes(mutated)


def blank(content: bytes, draw: random.Random) -> bytes:
    """Have a block read as zeros, as a disk does that lost it."""
    place = draw.randrange(len(content) - BLOCK)
    return content[:place] + bytes(BLOCK) + content[place + BLOCK :]


KINDS_OF_DAMAGE: tuple[Mutate, ...] = (
    flip_bit, flip_bit, truncate, splice, cut_out, swap_blocks, blank,
)  # fmt: skip


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Other bytes than these, a little or a lot."""
    mutated = content
    while mutated == content:
        mutated = draw.choice(KINDS_OF_DAMAGE)(content, draw)
    return mutated


def locate_february(data: Path, offline: bool) -> MonthFile:
    return locate_month(GREEN, FEBRUARY, data, offline)


@pytest.fixture
def original(tlc: Tlc, data: Path, real_data: Path) -> bytes:
    """The bytes of a real month that was fetched, and can be again."""
    tlc.files[REAL] = (real_data / REAL).read_bytes()
    assert locate_february(data, False).path.read_bytes() == tlc.files[REAL]
    return tlc.files[REAL]


def test_changed_month_is_never_used_offline(tlc: Tlc, original: bytes, data: Path) -> None:
    draw = random.Random(4)
    path = data / REAL
    sha256 = hash_file(path)
    for _ in range(MUTATIONS):
        mutated = mutate(original, draw)
        path.write_bytes(mutated)
        with pytest.raises(DataError, match=f"{path} has sha256 .*, but {sha256} was fetched"):
            locate_february(data, True)
    assert path.read_bytes() == mutated
    assert list_names(data) == [REAL, f"{REAL}.json"]
    assert len(tlc.requests) == 1


def test_changed_month_is_fetched_again(tlc: Tlc, original: bytes, data: Path) -> None:
    draw = random.Random(5)
    for _ in range(20):
        (data / REAL).write_bytes(mutate(original, draw))
        file = locate_february(data, False)
        assert file.path.read_bytes() == original
        notice, _ = file.notices
        assert notice.endswith("its bytes changed on this disk, and it is fetched again.")
    assert len(tlc.requests) == 21


def test_month_beside_a_changed_sidecar_is_the_original_or_none(
    tlc: Tlc, fetched: MonthFile, month: bytes, data: Path
) -> None:
    draw = random.Random(6)
    sidecar = (data / SIDECAR).read_bytes()
    refused = 0
    for _ in range(500):
        (data / SIDECAR).write_bytes(flip_bit(sidecar, draw))
        try:
            file = locate(data, offline=True)
        except DataError:
            refused += 1
        else:
            assert file == fetched
    assert refused > 100
    assert (data / FILE).read_bytes() == month


ANY_TEXT = st.text() | st.sampled_from(
    [
        "..",
        "../../x",
        "/etc/passwd",
        "a/b",
        "\0",
        "green/..",
        "2023/../..",
        "~",
        "%2e%2e",
        "\\..\\x",
    ]
)
ANY_VALUE = ANY_TEXT | st.integers() | st.none() | st.floats() | st.booleans()


@settings(max_examples=200, deadline=None)
@given(
    year=ANY_VALUE | st.integers(2009, 2026) | st.integers(2009, 2026).map(str),
    month=ANY_VALUE | st.integers(1, 12) | st.integers(1, 12).map(str),
    cab=ANY_TEXT | st.sampled_from([*CABS]),
)
@example(year="2023", month="1", cab="green")
@example(year="../2023", month="1", cab="green")
@example(year=2023, month="01/../../../x", cab="green")
@example(year=2023, month=1, cab="../green")
@example(year=2023, month=1, cab="/etc/green")
def test_no_year_month_or_cab_leads_out_of_the_data_directory(
    year: object, month: object, cab: str
) -> None:
    # The suite's TLC, at a port where nobody listens: each month is asked for, and none is had.
    with tempfile.TemporaryDirectory() as parent:
        data = Path(parent, "outer", "data")
        values = {"year": year, "month": month, "cab": cab, "data_dir": data}
        try:
            options = read_options(LocalOptions, values)
            plan = make_plan(options, date(2026, 11, 1))
        except InputError:
            assert [*Path(parent).iterdir()] == []
            return
        for each in plan.months:
            with pytest.raises(SourceError, match=each.file_name(plan.cab.name)):
                locate_month(plan.cab, each, options.data_dir, False)
        made = {path for path in Path(parent).rglob("*") if path.is_file()}
        assert made == {data / f".{each.file_name(plan.cab.name)}.lock" for each in plan.months}


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT | st.from_regex(r"[a-z0-9_./\\-]{0,12}", fullmatch=True))
def test_no_prefix_leads_out_of_itself(text: str) -> None:
    try:
        prefix = check_key_prefix(text)
    except InputError:
        return
    parts = prefix.split("/")
    assert not {"", ".", ".."} & {*parts}
    assert Path("/bucket", prefix, FILE).resolve().parts == ("/", "bucket", *parts, FILE)
