"""Judge pip-audit's JSON report on standard input: fails for a known vulnerability, for no other.

Where its data cannot be reached the report is empty, or says of each package that it is not found.
"""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Print what is known; 1 where that is a vulnerability, 3 where nothing was looked up."""
    try:
        packages = json.loads(sys.stdin.read())["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        packages = []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        sys.stdout.write("ci: SKIPPED pip-audit: its data cannot be reached from here\n")
        return 3
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in audited
        for vulnerability in package["vulns"]
    ]
    sys.stdout.writelines(f"ci: vulnerable: {line}\n" for line in found)
    sys.stdout.write(
        f"ci: pip-audit: {len(found)} known vulnerabilities in {len(audited)} packages, "
        f"{len(packages) - len(audited)} not looked up\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
