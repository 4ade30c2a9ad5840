"""Stream tokens out of clustered shards by live mixture weights.

The reader owns the contract, so the formats live here: `Manifest` and MDS shards on disk,
`Mixture` and `WeightsLog` for the weights, `LoaderState` for resuming. `MixtureLoader` joins
them, and `MixtureDataset` hands it to a `DataLoader` of torch. Names load on first use: reading a
manifest does not import torch.
"""

from typing import TYPE_CHECKING

from .lazy import load_on_use

if TYPE_CHECKING:
    from .agree import Agreement
    from .dataset import MixtureDataset
    from .loader import MixtureLoader
    from .manifest import Manifest
    from .mixture import Mixture
    from .schedule import Schedule
    from .state import LoaderState
    from .weights import WeightsLog

__all__ = [
    "Agreement",
    "LoaderState",
    "Manifest",
    "Mixture",
    "MixtureDataset",
    "MixtureLoader",
    "Schedule",
    "WeightsLog",
]

_HOMES = {
    "Agreement": "agree",
    "LoaderState": "state",
    "Manifest": "manifest",
    "Mixture": "mixture",
    "MixtureDataset": "dataset",
    "MixtureLoader": "loader",
    "Schedule": "schedule",
    "WeightsLog": "weights",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
