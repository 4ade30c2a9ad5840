"""A stand-in for SLURM: ``sbatch``, ``squeue`` and ``scancel`` that start real processes.

Its state is a folder, ``FAKE_SLURM``, with a file for each job. Run as a program, this file is the
command by whose name it was called.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "scancel")


class FakeSlurm:
    """The jobs of a stand-in, and the folder of its commands for ``PATH``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = folder / "bin"
        self.commands.mkdir(parents=True)
        for name in COMMANDS:
            path = self.commands / name
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
            path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process finds the commands."""
        path = f"{self.commands}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "FAKE_SLURM": str(self.folder)}

    def running(self) -> dict[str, int]:
        """Return the process of each job that runs."""
        return {job: pid for job, (_, pid) in _jobs(self.folder).items()}

    def submitted(self) -> int:
        """Return how many jobs were submitted."""
        return len([*self.folder.glob("*.job")])

    def end(self) -> None:
        """Kill all jobs."""
        for pid in self.running().values():
            os.killpg(pid, signal.SIGKILL)


def sbatch(folder: Path, *arguments: str) -> int:
    """Start the jobs of an array."""
    script = Path(arguments[-1])
    text = script.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    array = 100 + len([*folder.glob("*.sh")])
    copy = folder / f"{array}.sh"
    shutil.copy(script, copy)
    copy.chmod(0o755)
    first, last = map(int, options["array"].split("-"))
    (output,) = shlex.split(options["output"])
    for index in range(first, last + 1):
        log = output.replace("%A", str(array)).replace("%a", str(index)).replace("%%", "%")
        variables = {"SLURM_ARRAY_JOB_ID": str(array), "SLURM_ARRAY_TASK_ID": str(index)}
        with Path(log).open("ab") as file:
            process = subprocess.Popen(
                [copy],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        (folder / f"{array}_{index}.job").write_text(f"{options['job-name']} {process.pid}")
    sys.stdout.write(f"{array}\n")
    return 0


def squeue(folder: Path, *arguments: str) -> int:
    """List the jobs of a name."""
    for job, (name, _) in _jobs(folder).items():
        if f"--name={name}" in arguments:
            sys.stdout.write(f"{job} RUNNING None\n")
    return 0


def scancel(folder: Path, *arguments: str) -> int:
    """End the jobs of a name."""
    for name, pid in _jobs(folder).values():
        if f"--name={name}" in arguments:
            os.killpg(pid, signal.SIGTERM)
    return 0


def _jobs(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the name and the process of each job that runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.job")):
        name, pid = path.read_text().split()
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
            found[path.stem] = name, int(pid)
    return found


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](Path(os.environ["FAKE_SLURM"]), *sys.argv[2:]))
