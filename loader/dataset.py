"""MixtureDataset: a loader as a data set of torch, for trainers that want a `DataLoader`.

    data = DataLoader(MixtureDataset(loader), batch_size=None)

``batch_size=None``, because the loader gives whole batches. Nothing is asked for ahead, so the
state is that of the last batch that was returned. It stays so only where nobody between trainer
and `DataLoader` asks ahead: accelerate's ``prepare`` does, by one batch.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from climbstream.loader.core.errors import UsageError
from climbstream.loader.reading.collator import Batch

from .loader import MixtureLoader


class MixtureDataset(IterableDataset[Batch]):
    """The batches of ``loader``; each new iteration continues where the last one ended.

    It is stateful as torchdata means it, so a ``StatefulDataLoader`` saves and loads it too.
    """

    def __init__(self, loader: MixtureLoader) -> None:
        self.loader = loader

    def __repr__(self) -> str:
        return f"MixtureDataset({self.loader!r})"

    def __iter__(self) -> Iterator[Batch]:
        """Give batches.

        Raises:
            UsageError: This is a worker process.
        """
        if get_worker_info() is not None:
            _refuse_workers()
        # A generator could not be asked by two threads, and the loader itself would be taken for an
        # iterator with a state of its own.
        return chain(self.loader)

    def __getstate__(self) -> NoReturn:
        """Refuse to be sent to a worker process, before it starts."""
        _refuse_workers()

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned; see `MixtureLoader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of ``state``; see `MixtureLoader.load_state_dict`."""
        self.loader.load_state_dict(state)


def _refuse_workers() -> NoReturn:
    raise UsageError(
        "a MixtureDataset was given to worker processes, where nothing is to be gained: rows are "
        "gathered in this process faster than a worker can hand them over; "
        "make the DataLoader with num_workers=0"
    )
