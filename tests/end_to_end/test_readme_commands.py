"""The README's commands, typed from top to bottom as they are written, by somebody new to it all.

Each runs in bash, with the environment that the commands before it left in its terminal. The README
says in words where a terminal begins, and so it is read here: "another terminal" begins one.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from taxi_duration.data.month import Month, newest_published
from taxi_duration.operations import alerts as watching
from tests.conftest import REPOSITORY
from tests.support.buckets import KEY, SECRET, S3Server, serve_s3
from tests.support.deployments import make_checkout, make_machine
from tests.support.months import write_month
from tests.support.servers import PROGRAMS, answers, find_free_port, run_server, wait_until
from tests.support.watched import Receiver, receive
from tests.support.web import Handler, Tlc, hang, serve, serve_tlc

pytestmark = pytest.mark.timeout(900)

README = (REPOSITORY / "README.md").read_text("utf-8")
MONTHS = Month(2023, 6).window(6)
PATIENCE_SECONDS = 400.0
STARTS = re.MULTILINE | re.DOTALL
IS_INSTALLED = """python -c '
import sys; from importlib.metadata import version; from packaging.requirements import Requirement
needed = Requirement(sys.argv[1]); sys.exit(version(needed.name) not in needed.specifier)'"""

Check = Callable[["Reader", str], None]
"""Looks at what a command showed and did."""


@dataclass(frozen=True)
class Written:
    """A command of the README, and the paragraph before its block, if it is the block's first."""

    text: str
    before: str | None


@dataclass
class Machine:
    """A home, a checkout and a Prefect server's port, which the README says is 4200."""

    environment: dict[str, str]
    checkout: Path
    port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"


@dataclass
class Terminal:
    """What a shell on a machine knows."""

    machine: Machine
    environment: dict[str, str]
    is_taken: bool = False
    """By a command that stays."""


@dataclass
class Reader:
    """Somebody who types the commands, and what they stand on."""

    root: Path
    you: Machine
    s3: S3Server
    tlc: Tlc
    receiver: Receiver
    running: ExitStack
    terminals: list[Terminal] = field(default_factory=list)
    deploying: Terminal | None = None
    runs: dict[str, UUID] = field(default_factory=dict)
    """The runs that were started, by the command that did."""
    done: int = 0
    stopped_at: str | None = None

    @property
    def terminal(self) -> Terminal:
        return self.terminals[-1]

    def type_up_to(self, number: int) -> None:
        """Type the commands that were not, to this one."""
        while self.done <= number:
            assert self.stopped_at is None, f"not reached: {self.stopped_at!r} failed"
            written, (_, check) = COMMANDS[self.done], EXPECTED[self.done]
            self.stopped_at = written.text
            if not isinstance(check, CoveredBy):
                self._type(written, check)
            self.stopped_at = None
            self.done += 1

    def _type(self, written: Written, check: Check) -> None:
        if written.before is not None:
            self._sit_down(written.before)
        terminal = self.terminal
        assert not terminal.is_taken, f"no terminal is free for {written.text!r}"
        if written.text == "prefect deploy --all" and self.deploying is None:
            self.deploying = terminal
        command = written.text
        for text, (_, replace) in SUBSTITUTIONS.items():
            command = command.replace(text, replace(self))
        if isinstance(check, Stays):
            terminal.is_taken = True
            self._start(command, check)
            return
        state = self.root / "environment"
        typed = subprocess.run(
            ["bash", "-c", f"{command}\ncode=$?\nenv -0 > '{state}'\nexit $code"],
            cwd=terminal.machine.checkout, env=terminal.environment, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert typed.returncode == 0, typed.stdout
        variables = filter(None, state.read_text("utf-8").split("\0"))
        terminal.environment = dict(variable.split("=", 1) for variable in variables)
        with self.connected():
            check(self, typed.stdout)

    def _sit_down(self, before: str) -> None:
        """Go to the terminal that the words before a block name, or stay."""
        if "terminal of `prefect deploy --all`" in before:
            assert self.deploying is not None
            self.terminals.append(self.deploying)
            return
        if "another terminal" not in before and self.terminals:
            return
        self.terminals.append(Terminal(self.you, self.you.environment))

    def _start(self, command: str, check: "Stays") -> None:
        machine = self.terminal.machine
        log = self.root / f"terminal-{len(self.terminals)}.log"

        def is_ready() -> bool:
            return check.is_ready(machine, log.read_text("utf-8"))

        self.running.enter_context(
            run_server(
                ["bash", "-c", command], self.terminal.environment, log, is_ready, machine.checkout
            )
        )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Have this process use the reader's server."""
        with temporary_settings({PREFECT_API_URL: self.you.api}):
            yield

    def wait_for(self, command: str, state: str) -> None:
        """Wait until the run that a command started is in a state; no other end will do."""
        with get_client(sync_client=True) as client:

            def is_so() -> bool:
                run = client.read_flow_run(self.runs[command])
                assert run.state_name == state or not run.state or not run.state.is_final(), (
                    f"{command}: {run.state}"
                )
                return run.state_name == state

            wait_until(is_so, f"{command} to be {state}", PATIENCE_SECONDS)


@dataclass(frozen=True)
class Stays:
    """Of a command that does not end: when it has begun."""

    is_ready: Callable[[Machine, str], bool]

    def __call__(self, _: Reader, __: str) -> None:
        raise AssertionError("it is not waited for")


@dataclass(frozen=True)
class CoveredBy:
    """Of a command that is not typed, since a test of its own does the same and more."""

    path: str

    def __call__(self, _: Reader, __: str) -> None:
        raise AssertionError("it is not typed")


COVERED_AS_DEPLOYED = CoveredBy("tests/end_to_end/test_deployment.py")
COVERED_ON_DASK = CoveredBy("tests/flows/test_runners.py")


def shows(*texts: str) -> Check:
    def check(_: Reader, shown: str) -> None:
        for text in texts:
            assert text in shown, shown

    return check


def shows_nothing(_: Reader, shown: str) -> None:
    assert shown == ""


STAYS_AS_SERVER = Stays(lambda machine, _: answers(f"{machine.api}/health"))
STAYS_AS_WORKER = Stays(lambda _, log: "Worker 'ProcessWorker" in log)


def deploys(*names: str) -> Check:
    return shows(*(f"Deployment '{name}' successfully created" for name in names))


def starts(command: str, then: Callable[[Reader], None]) -> tuple[str, Check]:
    """The command of a deployment's run, and what must come of it before the next command."""

    def check(reader: Reader, shown: str) -> None:
        (found,) = re.findall(r"UUID: (\S+)", shown)
        reader.runs[command] = UUID(found)
        then(reader)

    return command, check


def shows_the_verdict(_: Reader, shown: str) -> None:
    """All that the README shows of it, but for the identity of the champion's model."""
    (block,) = re.findall(r"trained on 2023-02, validated on 2023-03\n(.*?)^```", README, STARTS)
    for line in filter(None, re.sub(r"\(green/\S+\)", "(ID)", block).split("\n")):
        assert line in re.sub(r"\(green/\S+\)", "(ID)", shown), shown


def runs(reader: Reader) -> None:
    reader.wait_for(LONG_RUN, "Running")


def names_the_run(reader: Reader, shown: str) -> None:
    assert str(reader.runs[LONG_RUN]) in shown


def cancels_the_run(reader: Reader, shown: str) -> None:
    reader.wait_for(LONG_RUN, "Cancelled")


def is_all_well(_: Reader, shown: str) -> None:
    *lines, last = shown.splitlines()
    assert last == "all 10 ok"
    assert all(line.startswith("ok ") for line in lines)
    printed = re.findall(r"^(?:ok|not ok) +(.*?)  ", README, re.MULTILINE)
    assert [re.split(r"  +", line)[1] for line in lines] == printed


def tells_of_the_failure(reader: Reader) -> None:
    reader.wait_for(FAILING_RUN, "Failed")
    told = reader.receiver.told

    def is_told() -> bool:
        return any("began in August 2013" in each.content["text"] for each in told)

    wait_until(is_told, "the webhook to be told of the failure", PATIENCE_SECONDS)


def shows_the_table(_: Reader, shown: str) -> None:
    rows = re.findall(r"^ *(2023-0\d +2023-0\d +\d\d,\d{3} .*)$", README, re.MULTILINE)
    assert len(rows) == 5
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for row in rows:  # behind which the champion has a column
        assert any(line.startswith(" ".join(row.split())) for line in lines), shown


LOCAL_RUN = "prefect deployment run 'main-flow/taxi_local_data' -p year=2023 -p month=2"
S3_RUN = "prefect deployment run 'main-flow-s3/taxi_s3_data' -p year=2023 -p month=2"
LOCAL_PRODUCTION_RUN = LOCAL_RUN.replace("data'", "data_production'")
S3_PRODUCTION_RUN = S3_RUN.replace("data'", "data_production'")
LONG_RUN = LOCAL_RUN.replace("2023 -p month=2", "2022 -p month=12 -p train_months=12")
FAILING_RUN = LOCAL_RUN.replace("2023 -p month=2", "2013 -p month=1")
PREDICT_RUN = (
    "prefect deployment run 'predict/taxi_predict' -p input=2023-03 "
    "-p output=predictions/2023-03.parquet"
)
BACKFILL_RUN = (
    "prefect deployment run 'backfill/taxi_backfill' -p from_month=2023-01 -p to_month=2023-06"
)
OF_2023_01 = shows(
    "green trips, extended features, trained on 2023-01", "validation RMSE   4.522878"
)
ALL = (
    "main-flow/taxi_local_data",
    "main-flow-s3/taxi_s3_data",
    "main-flow/taxi_local_data_yellow",
    "main-flow-s3/taxi_s3_data_yellow",
    "backfill/taxi_backfill",
    "predict/taxi_predict",
)
SAVED = shows(*(f"saved automation {name!r}" for name in (watching.TELLING, watching.CRASHING)))

NOT_RUN = {
    "make run": "it prepares .venv, as CI does before this test",
    "make test": "it is what runs this test",
}

EXPECTED: list[tuple[str, Check]] = [
    (". .venv/bin/activate", shows_nothing),
    ("python orchestrate.py --year 2023 --month 1", OF_2023_01),
    ("python orchestrate.py --year 2023 --month 2", shows_the_verdict),
    ("python -m taxi_duration history", shows("2023-03        4.6847   promoted ", " to now\n")),
    ("python -m taxi_duration show champion", shows("green champion: version 2 of nyc-taxi-")),
    ("python -m taxi_duration rollback", shows("version 1 is champion again, in place of ")),
    ("python -m taxi_duration promote VERSION", shows("version 2 is champion now, in place of ")),
    (
        "python -m taxi_duration predict --model champion --input 2023-03",
        shows("72,044", "realised errors           RMSE 4.684717 minutes"),
    ),
    ("python -m taxi_duration reproduce champion", shows("\nreproduced: 24 agree to 1e-09 ")),
    ("export AWS_ACCESS_KEY_ID=", shows_nothing),
    ("export AWS_ENDPOINT_URL=", shows_nothing),
    ("python -m taxi_duration create-s3-blocks", shows("s3-bucket-block for bucket my-bucket\n")),
    ("python orchestrate_s3.py --year 2023 --month 1", CoveredBy("tests/flows/test_train_s3.py")),
    ("prefect server start", STAYS_AS_SERVER),
    (". .venv/bin/activate", shows_nothing),
    ("export PREFECT_API_URL=", shows_nothing),
    ("prefect worker start -p zoompool", STAYS_AS_WORKER),
    (". .venv/bin/activate", shows_nothing),
    ("export PREFECT_API_URL=", shows_nothing),
    ("prefect deploy --all", deploys(*ALL)),
    (LOCAL_RUN, COVERED_AS_DEPLOYED),
    (S3_RUN, COVERED_AS_DEPLOYED),
    (PREDICT_RUN, COVERED_AS_DEPLOYED),
    ("sed -i.off 's/active: false/active: true/' prefect.yaml", shows_nothing),
    ("prefect deploy --all", deploys(*ALL)),
    starts(LONG_RUN, runs),
    ("prefect flow-run ls --state Running", names_the_run),
    ("prefect flow-run cancel ID", cancels_the_run),
    ("python -m taxi_duration doctor", is_all_well),
    (". .venv/bin/activate", shows_nothing),
    ("export PREFECT_API_URL=", shows_nothing),
    ("export TAXI_DURATION_S3_BUCKET=my-bucket TAXI_DURATION_DIRECTORY=", shows_nothing),
    ("export MLFLOW_TRACKING_URI=", shows_nothing),
    ("prefect --no-prompt deploy --prefect-file deployment.yaml --all", COVERED_AS_DEPLOYED),
    (LOCAL_PRODUCTION_RUN, COVERED_AS_DEPLOYED),
    (S3_PRODUCTION_RUN, COVERED_AS_DEPLOYED),
    # On two machines: `Here` and `Elsewhere`.
    (". .venv/bin/activate", COVERED_AS_DEPLOYED),
    ("export PREFECT_SERVER_API_AUTH_STRING=", COVERED_AS_DEPLOYED),
    ("prefect server start --host 0.0.0.0", COVERED_AS_DEPLOYED),
    (". .venv/bin/activate", COVERED_AS_DEPLOYED),
    ("export PREFECT_API_URL=", COVERED_AS_DEPLOYED),
    ("prefect worker start -p zoompool", COVERED_AS_DEPLOYED),
    (". .venv/bin/activate", COVERED_AS_DEPLOYED),
    ("export PREFECT_API_URL=", COVERED_AS_DEPLOYED),
    ("prefect deploy --all", COVERED_AS_DEPLOYED),
    (LOCAL_RUN.replace("month=2", "month=1"), COVERED_AS_DEPLOYED),
    ("python -m taxi_duration watch --webhook", SAVED),
    starts(FAILING_RUN, tells_of_the_failure),
    ('python -c "from prefect.blocks.notifications import SlackWebhook ', shows_nothing),
    ("python -m taxi_duration watch --block slack-webhook/taxi", SAVED),
    ('python -c "from prefect.blocks.notifications import SendgridEmail ', shows_nothing),
    ("python -m taxi_duration watch --block sendgrid-email/taxi", SAVED),
    ("python -m taxi_duration backfill --from 2023-01 --to 2023-06", shows_the_table),
    (BACKFILL_RUN, COVERED_AS_DEPLOYED),
    ("pip install 'prefect-dask", shows_nothing),
    ("python -m taxi_duration backfill --from 2023-01 --to 2023-06 --runner dask", COVERED_ON_DASK),
]  # fmt: skip
"""The commands' beginnings, one after another, and what each must show or do."""

SUBSTITUTIONS: dict[str, tuple[str, Callable[[Reader], str]]] = {
    "http://127.0.0.1:4200": (
        "others may use the port", lambda reader: f"http://127.0.0.1:{reader.you.port}",
    ),
    "AWS_ACCESS_KEY_ID=...": ("a placeholder", lambda _: f"AWS_ACCESS_KEY_ID={KEY}"),
    "AWS_SECRET_ACCESS_KEY=...": ("a placeholder", lambda _: f"AWS_SECRET_ACCESS_KEY={SECRET}"),
    "http://127.0.0.1:9000": ("others may use the port", lambda reader: reader.s3.endpoint),
    "/srv/taxi": (
        "a test leaves nothing on the machine", lambda reader: str(reader.root / "srv" / "taxi"),
    ),
    "https://hooks.example.org/taxi": (
        "a placeholder", lambda reader: reader.receiver.url("/taxi"),
    ),
    "promote VERSION": ("a placeholder", lambda _: "promote 2"),
    "cancel ID": (
        "a placeholder", lambda reader: f"cancel {reader.runs.get(LONG_RUN)}",
    ),
    "pip install": (
        "what it installs is in the environment already, which is looked at instead",
        lambda _: IS_INSTALLED,
    ),
}  # fmt: skip
"""What is not run as written: why, and what is run. A server's port is in its environment."""


def read_commands() -> list[Written]:
    """The commands in the README's order."""
    commands, end = [], 0
    for block in re.finditer(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        paragraph = README[end : block.start()].strip().rsplit("\n\n", 1)[-1]
        lines = block[1].splitlines()
        assert all(line.startswith("$ ") for line in lines), block[0]
        texts = [line.removeprefix("$ ") for line in lines if line[2:] not in NOT_RUN]
        commands += [
            Written(text, None if place else " ".join(paragraph.split()))
            for place, text in enumerate(texts)
        ]
        end = block.end()
    return commands


COMMANDS = read_commands()


def test_every_command_is_expected() -> None:
    beginnings = [beginning for beginning, _ in EXPECTED]
    for number, (written, beginning) in enumerate(zip(COMMANDS, beginnings, strict=False)):
        assert written.text.startswith(beginning), f"command {number} of the README is another"
    assert len(COMMANDS) == len(EXPECTED)


def test_every_substitution_is_of_something_written() -> None:
    for text in SUBSTITUTIONS:
        assert any(text in written.text for written in COMMANDS), text


def test_what_is_tested_elsewhere_is() -> None:
    for _, check in EXPECTED:
        assert not isinstance(check, CoveredBy) or (REPOSITORY / check.path).is_file()


def serve_months_of_2023(request: Handler) -> None:
    """Serve what is there, and keep whoever wants a month of 2022 waiting, to be cancelled."""
    (hang if "tripdata_2022" in request.name else serve)(request)


def prepare_environment(checkout: Path) -> None:
    """Have `.venv` be what `make run` makes: here, the environment of the tests."""
    activate = checkout / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{PROGRAMS}:$PATH"\n', "utf-8")


@pytest.fixture(scope="module")
def reader(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    root = tmp_path_factory.mktemp("readme")
    with ExitStack() as running:
        s3 = running.enter_context(serve_s3(tmp_path_factory.mktemp("s3")))
        tlc = running.enter_context(serve_tlc(tmp_path_factory.mktemp("tlc")))
        receiver = running.enter_context(receive())
        checkout = make_checkout(root / "checkout")
        in_bucket = s3.root / "my-bucket" / "trip-data"
        in_bucket.mkdir(parents=True)
        for month in MONTHS:
            file = real_data / month.file_name("green")
            tlc.files[file.name] = file.read_bytes()
            shutil.copy(file, checkout / "data")
            shutil.copy(file, in_bucket)
        newest = newest_published(date.today())
        made = write_month(root / newest.file_name("green"), month=newest)
        tlc.files[made.name] = made.read_bytes()
        tlc.always = serve_months_of_2023
        prepare_environment(checkout)
        port = find_free_port()
        environment = make_machine(
            root / "homes" / "you",
            **tlc.environment,
            PREFECT_SERVER_API_PORT=str(port),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS="1",
            PREFECT_WORKER_QUERY_SECONDS="1",
        )
        if sys.prefix != sys.base_prefix:  # so that nothing runs where `activate` was forgotten
            paths = os.environ["PATH"].split(os.pathsep)
            environment["PATH"] = os.pathsep.join(path for path in paths if Path(path) != PROGRAMS)
        you = Machine(environment, checkout, port)
        yield Reader(root, you, s3, tlc, receiver, running.enter_context(ExitStack()))


@pytest.mark.parametrize(
    "number",
    range(len(COMMANDS)),
    ids=[f"{number:02}-{written.text[:50]}" for number, written in enumerate(COMMANDS)],
)
def test_command_does_what_the_readme_says(number: int, reader: Reader) -> None:
    reader.type_up_to(number)
