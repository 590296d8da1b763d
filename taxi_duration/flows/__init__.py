"""The Prefect flows, their options, tasks and server."""
