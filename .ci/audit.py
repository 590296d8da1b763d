"""Report what pip-audit knows of the locked requirements; a finding does not fail the build.

pip-audit calls a requirement that its database could not be asked about "skipped" and says that no
vulnerability was found. Here it is said how many were looked up at all.
"""

import json
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements.lock"


def main() -> None:
    """Print one line on how many were looked up, and one for each finding."""
    command = [
        sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-f", "json",
        "--progress-spinner", "off", "-r", REQUIREMENTS,
    ]  # fmt: skip
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(audit.stdout)["dependencies"]
    except ValueError:
        print(f"audit: pip-audit could not run: {audit.stderr.strip().splitlines()[-1:]}")
        return
    looked_up = [each for each in found if "skip_reason" not in each]
    print(f"audit: {len(looked_up)} of {len(found)} locked requirements could be looked up")
    for each in looked_up:
        for flaw in each["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
            print(f"audit: {each['name']} {each['version']}: {flaw['id']}, fixed in {fixed}")


if __name__ == "__main__":
    main()
