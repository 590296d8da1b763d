"""What an operator asks of a deployed pipeline: its health, and alerts."""
