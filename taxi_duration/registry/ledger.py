"""The log of promotions in an MLflow store: tags of the registered model, beside its aliases.

Who writes first finishes what a killed process began, so a change of champion is made once and
told once, whatever dies between its steps. With a sqlite store one process writes at a time.

Not guaranteed: that two machines which change the champion of one server at the same moment both
stay in the log. They may write one event over another; the alias is one of theirs then, and if the
log ends with the other, the next to write records the alias as set elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from taxi_duration.registry.mlflow_store import MODEL_ID

# isort: split
# The line above sets what mlflow reads when it is imported.
import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from taxi_duration.data.schema import Cab
from taxi_duration.registry.promotions import (
    BEGUN,
    DONE,
    DROPPED,
    Event,
    add_what_is_seen,
    begin_event,
    find_champion,
    make_elsewhere,
    read_events,
    replay,
    write_event,
)
from taxi_duration.registry.tracking import CHAMPION, REGISTERED_MODEL, TRAINING, name_alias

PAGE = 1000
"""How many results are asked for at a time."""


@dataclass
class Ledger:
    """The promotions of one cab type, as one look at the store found them.

    Args:
        champion: the version that the alias names, unless it is another cab type's.
        versions: all of the registered model, by number.
    """

    client: mlflow.MlflowClient
    cab: Cab
    events: list[Event]
    champion: str | None
    versions: dict[str, ModelVersion]

    @classmethod
    def read(cls, client: mlflow.MlflowClient, cab: Cab) -> Ledger:
        """Look at the store, and change nothing.

        Raises:
            SourceError: a tag of the log is no event.
        """
        aliases, tags = dict[str, Any](), dict[str, str]()
        for found in client.search_registered_models(f"name = '{REGISTERED_MODEL}'"):
            aliases, tags = found.aliases, found.tags
        versions = {str(each.version): each for each in search_versions(client)}
        ledger = cls(client, cab, read_events(cab.name, tags), None, versions)
        number = aliases.get(name_alias(CHAMPION, cab))
        if number is not None and not ledger._is_of_another(str(number)):
            ledger.champion = str(number)
        return ledger

    @property
    def stack(self) -> list[str | None]:
        """The champions that rollbacks can go back to, the present one last."""
        return replay(self.events)

    def identify(self, version: str | None) -> str | None:
        """The model id of a version; None if this pipeline did not log it, or it is gone."""
        found = self.versions.get(version or "")
        return identify(self.client, found) if found else None

    def find_training(self, version: str | None) -> str | None:
        """What a version's training is called, whoever it was judged against."""
        found = self.versions.get(version or "")
        return found.tags.get(TRAINING) if found else None

    def is_same_training(self, version: str | None, training: str | None) -> bool:
        """Whether a version is of a training; not if that is unknown."""
        return training is not None and self.find_training(version) == training

    def list_shown(self) -> list[Event]:
        """The log as it is true now, with what was set elsewhere and is not recorded yet."""
        return add_what_is_seen(self.events, self.champion, self.identify(self.champion))

    def settle(self) -> Event | None:
        """Finish what was begun, and record what was set elsewhere.

        What was begun is dropped if another champion was set since, or its version is deleted.

        Returns:
            The event that was finished, if there was one.
        """
        finished = None
        for event in [event for event in self.events if event.state == BEGUN]:
            if self.champion != event.version:
                if self.champion != event.previous or event.version not in self.versions:
                    self._write(replace(event, state=DROPPED))
                    continue
                self._crown(event.version)
            finished = replace(event, state=DONE)
            self._write(finished)
        recorded = find_champion(self.events)
        if self.champion != recorded:
            model_id = self.identify(self.champion)
            self._write(make_elsewhere(self.events, self.champion, recorded, model_id))
        return finished

    def record(self, kind: str, version: str, reason: str) -> Event:
        """Make a version champion: begun, alias, done. The ledger must be settled."""
        model_id = self.identify(version)
        event = begin_event(self.events, kind, version, self.champion, model_id, reason)
        self._write(event)
        self._crown(version)
        done = replace(event, state=DONE)
        self._write(done)
        return done

    def _write(self, event: Event) -> None:
        self.client.set_registered_model_tag(REGISTERED_MODEL, *write_event(self.cab.name, event))
        others = [each for each in self.events if each.number != event.number]
        self.events = sorted([*others, event], key=lambda each: each.number)

    def _crown(self, version: str) -> None:
        alias = name_alias(CHAMPION, self.cab)
        self.client.set_registered_model_alias(REGISTERED_MODEL, alias, version)
        self.champion = version

    def _is_of_another(self, version: str) -> bool:
        model_id = self.identify(version)
        return model_id is not None and not model_id.startswith(f"{self.cab.name}/")


def identify(client: mlflow.MlflowClient, version: ModelVersion) -> str | None:
    """The model id of a version, or of the run that a person registered on MLflow's page."""
    if MODEL_ID in version.tags or not version.run_id:
        return version.tags.get(MODEL_ID)
    try:
        tags: dict[str, str] = client.get_run(version.run_id).data.tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return tags.get(MODEL_ID)


def search_versions(client: mlflow.MlflowClient, also: str = "") -> Iterator[ModelVersion]:
    """The versions of the registered model, `also` a condition on them."""
    return search_all(client.search_model_versions, f"name = '{REGISTERED_MODEL}'{also}")


def search_all(search: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
    """What a search of MLflow finds, page after page."""
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token, **named)
        yield from page
        token = page.token
        if not token:
            return
