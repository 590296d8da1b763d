"""Predict over HTTP: `TAXI_MODEL=models/green/2023-01-1a2b3c4d uvicorn examples.serve:app`.

POST /predict takes a list of trips with the TLC's columns, times as ISO text without a zone:
[{"lpep_pickup_datetime": "2023-02-01T08:30:00", "PULocationID": 74, "DOLocationID": 75,
  "trip_distance": 1.4}]
"""

import os
from typing import Any

import pandas as pd
from fastapi import FastAPI, HTTPException

from taxi_duration import DataError, ModelError
from taxi_duration.registry.resolve import find_model

found = find_model(os.environ["TAXI_MODEL"])  # a directory, or whatever names one in MLflow
model, model_id = found.model, found.model_id
app = FastAPI(title="NYC taxi trip duration")


@app.post("/predict")
def predict(trips: list[dict[str, Any]]) -> dict[str, Any]:
    """Minutes, one a trip; other columns are ignored, and zones may be unknown."""
    if not trips:
        raise HTTPException(422, "the list of trips is empty: give at least one.")
    try:
        minutes = model.predict(pd.DataFrame(trips))
    except (DataError, ModelError) as error:
        raise HTTPException(422, str(error)) from error
    return {"minutes": minutes.tolist(), "model_id": model_id}


@app.get("/health")
def health() -> dict[str, str]:
    """Which model answers."""
    return {"model_id": model_id}
