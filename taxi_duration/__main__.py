"""`python -m taxi_duration COMMAND`."""

import sys

from taxi_duration.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
