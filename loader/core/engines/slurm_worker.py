"""SLURM worker: the program of a SLURM job, which runs tasks from a task folder.

It is called as ``python -m climbstream.loader.core.engines.slurm_worker FOLDER``, and runs until
the command that made the folder ends. Tasks run in a separate process, the only worker of a
`LocalEngine`. So if a task hangs or takes too much memory, only this process ends, not the job.
"""

import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from climbstream.loader.core.console import duration
from climbstream.loader.core.log import get_logger, show_messages
from climbstream.loader.core.signals import raised_stop, unwind_on_signals
from climbstream.loader.core.streams import keep_streams

from .batches import run_batch
from .local import LocalEngine
from .packed import pack, unpack
from .task_folder import Answer, Facts, TaskFolder, Work
from .versions import version_differences, versions_here

logger = get_logger(__name__)

BATCH = 2.0
"""Time that a batch of tasks should take, in seconds; after it, no further task is begun."""
_PAUSES = 0.05, 2.0
"""Shortest and longest time between two looks for tasks, in seconds."""
MEMORY = "give the jobs more memory, such as SBATCH_MEM_PER_CPU=4G, and run the same command again"


def main() -> None:
    """Run the tasks of the folder that the command line names, and exit."""
    keep_streams()
    unwind_on_signals()
    show_messages()
    try:
        code = work(TaskFolder(Path(sys.argv[1])))
    except BaseException:  # a library may have turned `Stopped` into another exception
        if (stopped := raised_stop()) is None:
            raise
        code = stopped.exit_code
    os._exit(code)  # not sys.exit, which would wait for threads


def work(folder: TaskFolder) -> int:
    """Run tasks from ``folder`` until the command has ended; return the exit code of the job."""
    if not folder.driver.exists():
        logger.error(
            f"node {platform.node()} does not see {folder.path}; either the command that made it "
            "has ended, or this node does not mount the file system of --out under the same path"
        )
        return 2
    job, facts = _name(), folder.facts()
    if different := version_differences(facts.versions, versions_here()):
        folder.refuse(
            job, f"job {job} on node {platform.node()} has other versions: {', '.join(different)}"
        )
        return 2
    os.environ.update(facts.environment)
    try:
        with (
            folder.enter(job, facts.beat),
            LocalEngine(1, preload=facts.preload, remedy=MEMORY) as engine,
        ):
            for batch, tasks in _batches(folder, job, facts):
                try:
                    answer = _run(engine, tasks)
                except BaseException:  # SLURM or the user ends this job
                    folder.put_back(batch, job)
                    raise
                folder.answer(batch, job, answer)
    except FileNotFoundError:
        logger.info(f"{folder.path} is gone: the command has ended, and so does this job")
    return 0


def _name() -> str:
    """Return a name for this job, with a random part.

    So the job has another name if SLURM starts it again.
    """
    number = os.environ.get("SLURM_ARRAY_JOB_ID", platform.node())
    place = os.environ.get("SLURM_ARRAY_TASK_ID", os.getpid())
    return f"{number}_{place}-{secrets.token_hex(3)}"


def _batches(folder: TaskFolder, job: str, facts: Facts) -> Iterator[tuple[str, Work]]:
    """Yield (name, tasks) of one batch after the other, until the command shows no sign of life."""
    command = folder.command()
    pause = _PAUSES[0]
    while (silent := command.silent()) < facts.patience:
        if taken := folder.take(job):
            yield taken
            pause = _PAUSES[0]
        else:
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])
    logger.warning(f"the command has given no sign of life for {duration(silent)}; this job ends")


def _run(engine: LocalEngine, tasks: Work) -> Answer:
    """Run a batch in the process of ``engine``; return its results, or the error of its task.

    Raises:
        Stopped: A signal ends this job.
    """
    try:
        [(_, answer)] = engine.run(run_packed, [tasks], lambda _, error: Answer(lost=str(error)))
    except Exception as error:
        if stopped := raised_stop():
            raise stopped from None
        return Answer(error=error)  # raised by a task
    return answer


def run_packed(tasks: Work) -> Answer:
    """Run a batch in this process; return its results and the time that it took."""
    function, parts = unpack(tasks.packed)
    results, seconds = run_batch(function, parts, BATCH)
    return Answer(pack(results), seconds)


if __name__ == "__main__":
    main()
