"""Stream tokens from clustered shards, by mixture weights that may change during a run.

A corpus is split into clusters (groups of similar documents), and each cluster is stored as shards.

- `ShardDirectory` opens a folder or URL of shards, which are in the MDS format. `Manifest` lists
  the clusters in it.
- A `Mixture` holds one weight per cluster.
- A `Schedule` holds the changes of weights that are known before the run. A `WeightsLog` records
  all changes of weights. An `Agreement` makes all ranks apply a change at the same step.
- `MixtureLoader` returns batches; `MixtureDataset` passes them to a `DataLoader` of torch.
- A `LoaderState` is the position from which a run resumes.
- `ClusterLoss`, `append_metrics`, `write_metrics` and `TensorBoardWriter` report the losses and
  other numbers of a trainer. `say_ends` logs which clusters will be used up before the run ends.
- `audit_run` and `explain_step` tell what a run served, from the `Replay` of its steps.
- `as_streams` makes shards usable in mosaicml-streaming.

Each of these names is imported only when it is first used, so that reading a manifest does not
import torch.
"""

from .core.lazy import load_on_use
from .core.version import __version__ as __version__

TYPE_CHECKING = False  # importing typing is slow, and Ctrl-C during the import shows a traceback
if TYPE_CHECKING:
    from .audit.auditor import audit_run
    from .audit.explain import explain_step
    from .audit.replay import Replay
    from .dataset import MixtureDataset
    from .formats.directory import ShardDirectory
    from .formats.manifest import Manifest
    from .formats.mixture import Mixture
    from .loader import MixtureLoader
    from .monitoring.cluster_loss import ClusterLoss
    from .monitoring.metrics import TensorBoardWriter, append_metrics, say_ends, write_metrics
    from .mosaic import as_streams
    from .state import LoaderState
    from .weights.agreement import Agreement
    from .weights.log import WeightsLog
    from .weights.schedule import Schedule

__all__ = [
    "Agreement",
    "ClusterLoss",
    "LoaderState",
    "Manifest",
    "Mixture",
    "MixtureDataset",
    "MixtureLoader",
    "Replay",
    "Schedule",
    "ShardDirectory",
    "TensorBoardWriter",
    "WeightsLog",
    "append_metrics",
    "as_streams",
    "audit_run",
    "explain_step",
    "say_ends",
    "write_metrics",
]

_HOMES = {
    "Agreement": "weights.agreement",
    "ClusterLoss": "monitoring.cluster_loss",
    "LoaderState": "state",
    "Manifest": "formats.manifest",
    "Mixture": "formats.mixture",
    "MixtureDataset": "dataset",
    "MixtureLoader": "loader",
    "Replay": "audit.replay",
    "Schedule": "weights.schedule",
    "ShardDirectory": "formats.directory",
    "TensorBoardWriter": "monitoring.metrics",
    "WeightsLog": "weights.log",
    "append_metrics": "monitoring.metrics",
    "as_streams": "mosaic",
    "audit_run": "audit.auditor",
    "explain_step": "audit.explain",
    "say_ends": "monitoring.metrics",
    "write_metrics": "monitoring.metrics",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
