"""Runs, versions and the champion in MLflow.

What is set here is read when mlflow is imported, which only modules of this package do.
"""

import os

# It reports its own use over the network unless told not to.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It prints the address of a run, password and all.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Repeating is the task's business: mlflow's own seven retries take over four minutes, and a request
# repeated blindly may be carried out twice.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
