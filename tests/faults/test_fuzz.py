"""Mangled files of every format: none is an internal error, none is waited for."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_20_seconds_of_mangled_files_of_every_format_find_nothing(tmp_path):
    command = [sys.executable, str(BENCH / "fuzz.py"), "--minutes=0.34", "--seed=1"]
    done = subprocess.run(
        [*command, f"--keep={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    header, *rows = [line.split() for line in done.stdout.split("\n") if line]
    assert (header[0], rows[-1][0]) == ("format", "all")
    assert len(rows) == 44
    for *name, cases, failures, _ in rows:
        assert int(cases.replace(",", "")) > 0, name
        assert failures == "0", name
