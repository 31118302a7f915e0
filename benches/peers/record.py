"""Rows for benches/record: each with the commit, the processor and the command that made it."""

import csv
import os
import pathlib
import platform
import subprocess
import sys

from turns import ROOT


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def plain(argument):
    """Returns an argument without the folders of this machine: below the repository, or by its last name."""
    path = pathlib.Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def append(path, rows):
    """Appends `rows`, dictionaries with the same keys, to the CSV file `path`, which gets a header when it is new."""
    git = ["git", "rev-parse", "--short", "--verify", "--quiet", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    script = pathlib.Path(sys.argv[0]).resolve().relative_to(ROOT)
    tail = {
        "commit": commit.stdout.strip(),
        "processor": f"{processor()} ({os.cpu_count()} cores)",
        "command": " ".join(["python", str(script), *map(plain, sys.argv[1:])]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *tail], lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(row | tail for row in rows)
