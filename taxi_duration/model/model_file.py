"""model.skops: feature set, alpha and the fitted scikit-learn pipeline of a model; no pickle."""

from __future__ import annotations

import io
import json
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel


def dump_model(model: DurationModel) -> bytes:
    """A model's file, which has the same bytes whenever and wherever the model is written.

    skops numbers what it finds, and names its files, by addresses in memory; and it dates them.
    """
    import skops.io  # here, since it takes most of a second

    numbers, names = count(1), dict[str, str]()

    def renumber(node: dict[str, Any]) -> dict[str, Any]:
        if "__id__" in node:
            # Each its own: whether equal strings are one object differs between processes.
            node["__id__"] = next(numbers)
            if "file" in node:
                suffix = Path(node["file"]).suffix
                node["file"] = names.setdefault(node["file"], f"{len(names)}{suffix}")
        return node

    stable = io.BytesIO()
    with (
        ZipFile(io.BytesIO(skops.io.dumps(_to_state(model)))) as dumped,
        ZipFile(stable, "w") as written,
    ):
        schema = json.loads(dumped.read("schema.json"), object_hook=renumber)
        contents = {new: dumped.read(old) for old, new in names.items()}
        contents["schema.json"] = json.dumps(schema).encode()
        for name, content in contents.items():
            written.writestr(ZipInfo(name), content, ZIP_DEFLATED)  # dated 1980
    return stable.getvalue()


def read_model(content: bytes) -> DurationModel:
    """The model of such a file; nothing in it is run: it holds numbers, names and known types."""
    import skops.io

    return _from_state(skops.io.loads(content, trusted=[]))


def _to_state(model: DurationModel) -> dict[str, Any]:
    features = model.features
    return {
        "features": {
            "name": features.name,
            "terms": list(features.terms),
            "alphas": list(features.alphas),
            "bounds": list(features.bounds) if features.bounds else None,
        },
        "alpha": model.alpha,
        "pipeline": model.pipeline,
    }


def _from_state(state: dict[str, Any]) -> DurationModel:
    features = state["features"]
    bounds = features["bounds"]
    feature_set = FeatureSet(
        features["name"],
        tuple(features["terms"]),
        tuple(features["alphas"]),
        (bounds[0], bounds[1]) if bounds else None,
    )
    return DurationModel.from_pipeline(feature_set, state["alpha"], state["pipeline"])
