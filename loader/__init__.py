"""Stream tokens out of clustered shards by live mixture weights.

The reader owns the contract, so the formats live here: `Manifest` and MDS shards on disk,
`Mixture` and `WeightsLog` for the weights, `LoaderState` for resuming. `MixtureLoader` joins
them, and `MixtureDataset` hands it to a `DataLoader` of torch. Names load on first use: reading a
manifest does not import torch.
"""

from .core.lazy import load_on_use
from .core.version import __version__ as __version__

TYPE_CHECKING = False  # typing takes a while to load, in which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from .dataset import MixtureDataset
    from .formats.manifest import Manifest
    from .formats.mixture import Mixture
    from .loader import MixtureLoader
    from .state import LoaderState
    from .weights.agreement import Agreement
    from .weights.log import WeightsLog
    from .weights.schedule import Schedule

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
    "Agreement": "weights.agreement",
    "LoaderState": "state",
    "Manifest": "formats.manifest",
    "Mixture": "formats.mixture",
    "MixtureDataset": "dataset",
    "MixtureLoader": "loader",
    "Schedule": "weights.schedule",
    "WeightsLog": "weights.log",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
