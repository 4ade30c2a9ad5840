"""SLURM jobs: submit, count and cancel the jobs of a task folder, with the commands of SLURM.

All jobs of a task folder have the same name, and are found by this name. So no job is missed, even
if a process was killed before SLURM told it the ids of its jobs.
"""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import ClimbError, UsageError
from climbstream.loader.core.log import get_logger

from .task_folder import TaskFolder

logger = get_logger(__name__)

_ARRAY = 1000
"""Largest number of jobs in one SLURM array; the default limit of SLURM is 1,001."""
_TIMEOUT = 120.0
"""Longest time that a command of SLURM may take, in seconds."""
_GRACE = 20.0
"""Longest wait for cancelled jobs to end, in seconds."""
_LOOK = 0.5
_WORKER = "climbstream.loader.core.engines.slurm_worker"


class Jobs(Protocol):
    """Interface to the jobs of a task folder: this process or the user submits them."""

    def check(self) -> None:
        """Raise `UsageError` if jobs cannot be submitted from this machine."""

    def submit(self, name: str, count: int) -> None:
        """Submit ``count`` jobs called ``name``, or tell the user how to submit them."""

    def left(self, name: str) -> dict[str, str] | None:
        """Return the states of the jobs called ``name`` that wait or run, by number of the job.

        None: the states are unknown.
        """

    def cancel(self, name: str) -> None:
        """End all jobs called ``name``."""


class SubmittedJobs:
    """Jobs that this process submits with ``sbatch``."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder

    def check(self) -> None:
        """Raise `UsageError` if a command of SLURM is not on the PATH."""
        for command in ("sbatch", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise UsageError(
                    f"--engine slurm needs SLURM's command {command}, which is not on the PATH of "
                    "this machine; run this command where it is, or add --slurm-print to submit "
                    "the jobs yourself"
                )

    def submit(self, name: str, count: int) -> None:
        """Submit ``count`` jobs called ``name``, in arrays of at most 1,000 jobs.

        Raises:
            UsageError: SLURM refuses the jobs.
        """
        for first in range(0, count, _ARRAY):
            part = min(_ARRAY, count - first)
            script = _write_script(self._folder, name, part)
            done = _call("sbatch", "--parsable", script)
            if done.returncode:
                raise UsageError(
                    f"sbatch refuses {counted(part, 'job')}: {done.stderr.strip()}; set its "
                    "options with environment variables, such as SBATCH_PARTITION=NAME and "
                    "SBATCH_TIMELIMIT=12:00:00"
                )
            logger.info(
                f"SLURM: array {done.stdout.strip()} of {counted(part, 'job')}, called {name}"
            )

    def left(self, name: str) -> dict[str, str] | None:
        """Return the states of the jobs called ``name`` that wait or run, by number of the job.

        None: the states are unknown, because ``squeue`` failed.
        """
        done = _call("squeue", "--noheader", "--array", f"--name={name}", "--format=%i %T %r")
        if done.returncode:
            logger.warning(f"squeue does not answer: {done.stderr.strip()}")
            return None
        lines = (
            line.strip().removesuffix(" None").split(" ", 1) for line in done.stdout.split("\n")
        )
        states = {line[0]: line[1] for line in lines if len(line) > 1}
        return {job: state for job, state in states.items() if not state.startswith("COMPLET")}

    def cancel(self, name: str) -> None:
        """Cancel all jobs called ``name``, and wait up to 20 s until they have ended."""
        done = _call("scancel", f"--name={name}")
        if not done.returncode and self._have_ended(name):
            return
        logger.warning(
            f"jobs of SLURM may be left: {done.stderr.strip() or 'they have not ended'}; "
            f"scancel --name={name} cancels them"
        )

    def _have_ended(self, name: str) -> bool:
        """Wait up to 20 s until no job called ``name`` is left; return whether they have ended."""
        last = time.monotonic() + _GRACE
        while self.left(name):
            if time.monotonic() > last:
                return False
            time.sleep(_LOOK)
        return True


class PrintedJobs:
    """Jobs that the user submits; the script for them is printed."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder

    def check(self) -> None:
        """Do nothing: this process submits no jobs, so any machine will do."""

    def submit(self, name: str, count: int) -> None:
        """Print the script that submits ``count`` jobs called ``name``."""
        arrays = -(-count // _ARRAY)
        script = _write_script(self._folder, name, min(count, _ARRAY))
        text = Path(script).read_text(encoding="utf-8")
        times = "" if arrays == 1 else f", {arrays} times"
        logger.info(f"submit this script{times}: sbatch {script}\n\n{text}")

    def left(self, name: str) -> dict[str, str] | None:
        """Return None: the states are unknown, because SLURM need not be on this machine."""
        del name
        return None

    def cancel(self, name: str) -> None:
        """Do nothing: the jobs end by themselves when their folder is gone."""
        del name


def _write_script(folder: TaskFolder, name: str, count: int) -> str:
    """Write the script for an array of ``count`` jobs called ``name``; return its path."""
    output = str(folder.logs).replace("%", "%%") + "/%A_%a.log"
    command = [sys.executable, "-P", "-m", _WORKER, str(folder.path)]
    script = folder.path / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        f"#SBATCH --job-name={name}\n"
        f"#SBATCH --array=0-{count - 1}\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --cpus-per-task=1\n"
        "#SBATCH --mem-per-cpu=2G\n"
        "#SBATCH --open-mode=append\n"
        f"#SBATCH --output={shlex.quote(output)}\n"
        f"exec {shlex.join(command)}\n"
    )
    return str(script)


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM, and return how it ended.

    The command runs in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Raises:
        ClimbError: The command has not ended after 120 s.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ClimbError(
            f"{command[0]} has not ended after {_TIMEOUT:.0f} s; see the state of SLURM (sinfo)"
        ) from None
