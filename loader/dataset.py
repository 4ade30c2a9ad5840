"""MixtureDataset: a loader as a data set of torch, for trainers that need a `DataLoader`.

    data = DataLoader(MixtureDataset(loader), batch_size=None)

``batch_size=None`` is needed because the loader returns whole batches. With another value, the
`DataLoader` would stack several batches into one, so the data set raises `UsageError`. The Trainer
of transformers makes a `DataLoader` that stacks batches, unless a subclass overrides the method
``get_train_dataloader``.

The data set fetches no batch before it is asked for. So its state is the position after the last
batch that the trainer got. Some libraries fetch batches ahead of the trainer; for example,
accelerate's ``prepare`` fetches one batch ahead. Then the state also counts the batches that were
fetched but not used yet.
"""

import sys
from collections.abc import Iterator
from itertools import chain
from types import FrameType
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from climbstream.loader.core.errors import UsageError
from climbstream.loader.reading.collator import Batch

from .loader import MixtureLoader


class WorkersError(UsageError):
    """A `MixtureDataset` is used in a worker process of a `DataLoader`.

    The argument of the constructor is ignored. If a worker raises an error, torch makes an error of
    the same class in the main process, and passes it the traceback of the worker. This long text
    would hide the message.
    """

    def __init__(self, _traceback: str = "") -> None:
        super().__init__(
            "a MixtureDataset was given to worker processes, which gains nothing: this process "
            "gathers rows faster than a worker can hand them over; make the DataLoader with "
            "num_workers=0"
        )


class MixtureDataset(IterableDataset[Batch]):
    """The batches of a `MixtureLoader` as an iterable data set of torch.

    A new iteration does not start again: it continues after the last batch returned. The methods
    ``state_dict`` and ``load_state_dict`` are those that torchdata expects, so a
    ``StatefulDataLoader`` saves and loads the state of the loader.
    """

    def __init__(self, loader: MixtureLoader) -> None:
        self.loader = loader

    def __repr__(self) -> str:
        return f"MixtureDataset({self.loader!r})"

    def __len__(self) -> int:
        """Return the number of batches of the whole run; see `MixtureLoader.__len__`.

        Raises:
            TypeError: The run does not end.
        """
        return len(self.loader)

    def __bool__(self) -> bool:
        return True  # without this method, a data set without length would raise

    def __iter__(self) -> Iterator[Batch]:
        """Return an iterator of batches.

        Raises:
            UsageError: The data set is used in a worker process, or by a `DataLoader` that would
                stack several batches into one.
        """
        if get_worker_info() is not None:
            raise WorkersError
        if _is_stacked(sys._getframe(1)):
            raise UsageError(
                "this DataLoader has a batch_size, so it would stack whole batches of "
                f"{self.loader.batch_rows // self.loader.world_size} rows each; make it "
                "DataLoader(MixtureDataset(loader), batch_size=None). For the Trainer of "
                "transformers, write this method in a subclass: def get_train_dataloader(self): "
                "return DataLoader(self.train_dataset, batch_size=None), as in "
                "examples/huggingface_trainer.py; set max_steps to the number of steps, and "
                "fields=['labels']"
            )
        # A generator cannot be used by two threads. The loader itself is not returned, because
        # torch would call the loader's state methods.
        return chain(self.loader)

    def __getstate__(self) -> NoReturn:
        """Raise `UsageError`, so that no worker process is started with this data set."""
        raise WorkersError

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned; see `MixtureLoader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of ``state``; see `MixtureLoader.load_state_dict`."""
        self.loader.load_state_dict(state)


def _is_stacked(frame: FrameType | None) -> bool:
    """Whether a `DataLoader` that stacks batches is among the callers of ``frame``.

    A `DataLoader` does not tell its data set whether it stacks, so the call stack is searched.
    Without this check, stacked batches would cause an error later, inside a model.
    """
    while frame is not None:
        if getattr(frame.f_locals.get("self"), "__dict__", {}).get("auto_collation"):
            return True
        frame = frame.f_back
    return False
