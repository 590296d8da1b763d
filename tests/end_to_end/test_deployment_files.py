"""prefect.yaml and deployment.yaml, read strictly: Prefect ignores what it does not know."""

import asyncio
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.cli.deploy._models import RawScheduleConfig
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from prefect.workers.process import ProcessWorker
from pydantic import TypeAdapter

from taxi_duration.data.month import Month
from taxi_duration.flows.options import LocalOptions
from taxi_duration.flows.train import make_plan
from tests.conftest import REPOSITORY

FLOWS = {
    "prefect.yaml": {
        "taxi_local_data": "main-flow",
        "taxi_s3_data": "main-flow-s3",
        "taxi_local_data_yellow": "main-flow",
        "taxi_s3_data_yellow": "main-flow-s3",
        "taxi_backfill": "backfill",
        "taxi_predict": "predict",
    },
    "deployment.yaml": {
        "taxi_local_data_production": "main-flow",
        "taxi_s3_data_production": "main-flow-s3",
    },
}
UNSCHEDULED = {"taxi_backfill": "backfill", "taxi_predict": "predict"}
"""Deployments that run when somebody asks, and the tag of each."""

ASKED = {
    "backfill": {"from_month": "2023-01", "to_month": "2023-06"},
    "predict": {"input": "2023-03", "output": "predictions/2023-03.parquet", "model": 3},
}
"""Parameters without which a flow does not run."""

TOP_KEYS = {
    "name", "prefect-version", "build", "push", "pull", "definitions", "deployments",
}  # fmt: skip
DEPLOYMENT_KEYS = {
    "name", "description", "entrypoint", "tags", "parameters", "schedules", "concurrency_limit",
    "work_pool",
}  # fmt: skip
OPTIONAL_KEYS = {"version"}
SCHEDULE_KEYS = {"slug", "timezone", "active", "parameters"}
TIMING_KEYS = {"cron": {"cron"}, "interval": {"interval", "anchor_date"}, "rrule": {"rrule"}}
WORK_POOL_KEYS = {"name", "job_variables"}
CONCURRENCY_KEYS = {"limit", "collision_strategy"}
STEP_KEYS = {"id", "requires"}
NEW_YORK = ZoneInfo("America/New_York")
JOB_VARIABLES = ProcessWorker.get_default_base_job_template()["variables"]["properties"].keys()


def load(name: str) -> dict[str, Any]:
    """What a file says, anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text("utf-8"))
    return loaded


def list_faults(content: dict[str, Any]) -> Iterator[str]:
    """What Prefect would ignore, guess or find out in a run: keys and parameters nobody knows."""
    yield from _compare("file", content.keys(), TOP_KEYS)
    for deployment in content["deployments"]:
        name = deployment.get("name")
        yield from _compare(name, deployment.keys(), DEPLOYMENT_KEYS, OPTIONAL_KEYS)
        yield from _compare(name, deployment["work_pool"].keys(), WORK_POOL_KEYS)
        yield from _compare(name, deployment["work_pool"]["job_variables"], set(), JOB_VARIABLES)
        yield from _compare(name, deployment["concurrency_limit"].keys(), CONCURRENCY_KEYS)
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        known = inspect.signature(flow.fn).parameters.keys()
        yield from _compare(name, deployment["parameters"], set(), known)
        for schedule in deployment["schedules"]:
            timing = TIMING_KEYS[next(iter(TIMING_KEYS.keys() & schedule.keys()))]
            yield from _compare(name, schedule.keys(), SCHEDULE_KEYS | timing)
            yield from _compare(name, schedule["parameters"], set(), known)


def _compare(name: str, keys: Any, needed: Any, optional: Any = frozenset()) -> Iterator[str]:
    yield from (f"{name}: {key} is unknown" for key in sorted({*keys} - needed - {*optional}))
    yield from (f"{name}: {key} is missing" for key in sorted(needed - {*keys}))


@pytest.fixture(params=FLOWS)
def content(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


@pytest.fixture
def deployments(content: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = content["deployments"]
    return made


def test_file_says_nothing_that_prefect_would_ignore(content: dict[str, Any]) -> None:
    assert [*list_faults(content)] == []


MISSPELT: list[tuple[tuple[str | int, ...], str]] = [
    ((), "deployment"),
    (("deployments", 0), "schedule"),
    (("deployments", 0, "parameters"), "offlne"),
    (("deployments", 0, "schedules", 0), "anchor_date"),  # of another kind of schedule
    (("deployments", 0, "schedules", 0, "parameters"), "block"),  # of the other flow
    (("deployments", 0, "work_pool"), "work_queue"),
    (("deployments", 0, "work_pool", "job_variables"), "image"),  # of another kind of worker
    (("deployments", 0, "concurrency_limit"), "strategy"),
]


@pytest.mark.parametrize(("place", "key"), MISSPELT)
def test_key_that_prefect_would_ignore_is_found(place: tuple[str | int, ...], key: str) -> None:
    content = load("prefect.yaml")
    mapping: Any = content
    for part in place:
        mapping = mapping[part]
    mapping[key] = None
    faults = [*list_faults(content)]
    assert faults
    assert all(fault.endswith(f": {key} is unknown") for fault in faults), faults


def test_deployments_are_named_and_their_entrypoints_are_the_flows(
    request: pytest.FixtureRequest, deployments: list[dict[str, Any]]
) -> None:
    flows = {
        each["name"]: load_flow_from_entrypoint(each["entrypoint"]).name for each in deployments
    }
    assert flows == FLOWS[request.node.callspec.params["content"]]


def test_deployments_run_one_at_a_time_on_the_pool(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        assert deployment["work_pool"]["name"] == "zoompool"
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        variables = deployment["work_pool"]["job_variables"]["env"]
        assert variables["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
        assert all(isinstance(value, str) for value in variables.values())


def test_parameters_and_tags_name_the_cab(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        cab = "yellow" if deployment["name"].endswith("_yellow") else "green"
        assert deployment["parameters"]["cab"] == cab
        kind = UNSCHEDULED.get(deployment["name"], cab)
        assert {"nyc-taxi-duration", kind} <= {*deployment["tags"]}


def test_parameters_are_ones_the_flow_takes(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        asked = ASKED.get(flow.name, {})
        for given in (asked, *[each["parameters"] for each in deployment["schedules"]]):
            flow.validate_parameters({**deployment["parameters"], **given})


def test_production_keeps_nothing_where_the_code_is_pulled_to() -> None:
    for deployment in load("deployment.yaml")["deployments"]:
        parameters = deployment["parameters"]
        for name in ("data_dir", "models_dir"):
            assert parameters[name].startswith("{{ $TAXI_DURATION_DIRECTORY }}/")
        variables = deployment["work_pool"]["job_variables"]["env"]
        assert variables["MLFLOW_TRACKING_URI"] == "{{ $MLFLOW_TRACKING_URI }}"


def test_all_but_what_people_ask_for_have_a_schedule(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        assert len(deployment["schedules"]) == (deployment["name"] not in UNSCHEDULED)


def test_schedules_are_off_until_somebody_turns_them_on(deployments: list[dict[str, Any]]) -> None:
    for schedule in (each for deployment in deployments for each in deployment["schedules"]):
        assert schedule["active"] is False
        assert schedule["slug"]  # without one a later deploy could not tell which it changes


FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def list_occurrences(schedule: dict[str, Any], count: int) -> list[datetime]:
    """When Prefect's server will run a schedule, from 2026 on, in New York."""
    RawScheduleConfig.model_validate(schedule)
    created = DeploymentScheduleCreate(**_schedule_config_to_deployment_schedule(schedule))
    kept: Any = TypeAdapter(SCHEDULE_TYPES).validate_python(created.schedule.model_dump())
    return [each.astimezone(NEW_YORK) for each in asyncio.run(kept.get_dates(count, start=FIRST))]


def test_every_month_has_its_run(deployments: list[dict[str, Any]]) -> None:
    for schedule in (each for deployment in deployments for each in deployment["schedules"]):
        runs = list_occurrences(schedule, 60)
        months = Counter(Month.of(run) for run in runs)
        assert {*months} >= {*Month.of(runs[-1]).window(Month.of(runs[-1]).since(Month(2026, 1)))}
        assert all(run.hour in (6, 7) for run in runs), "also in summer"
        if "interval" not in schedule:
            assert {*months.values()} == {1}
            assert all(15 <= run.day <= 21 for run in runs), "two weeks after a month is due"


def test_a_run_trains_on_the_newest_months_of_the_day_it_is_scheduled_for(
    deployments: list[dict[str, Any]],
) -> None:
    for schedule in (each for deployment in deployments for each in deployment["schedules"]):
        options = LocalOptions(**schedule["parameters"])
        for run in list_occurrences(schedule, 14):
            plan = make_plan(options, run.astimezone(UTC).date())
            assert plan.months == Month.of(run).shift(-3).window(4)
            assert plan.validation.published_by <= run.date()


def test_no_two_schedules_of_a_file_start_at_the_same_moment(
    deployments: list[dict[str, Any]],
) -> None:
    runs = Counter(
        run
        for deployment in deployments
        for schedule in deployment["schedules"]
        for run in list_occurrences(schedule, 40)
    )
    assert {*runs.values()} == {1}


def test_steps_exist_and_take_their_arguments(content: dict[str, Any]) -> None:
    for phase in ("build", "push", "pull"):
        for step in content[phase] or []:
            ((path, arguments),) = step.items()
            module, _, name = path.rpartition(".")
            signature = inspect.signature(getattr(importlib.import_module(module), name))
            signature.bind(**{key: arguments[key] for key in arguments.keys() - STEP_KEYS})
