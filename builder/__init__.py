r"""Turn a corpus into clusters and token shards, and shards into other trainers' formats.

`build` clusters a corpus and writes its shards. `dry_run` shows what `build` would leave out.
`append` adds documents to shards that `build` wrote. `import_corpus` writes shards of a corpus that
is already clustered. `export_shards` converts shards for other trainers. Each of these functions is
imported only when it is first used.

>>> import json, tempfile
>>> from pathlib import Path
>>> from climbstream.builder import export_shards, import_corpus
>>> folder = Path(tempfile.mkdtemp())
>>> rows = [{"text": f"story {n}", "cluster": n % 2} for n in range(6)]
>>> _ = (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
>>> manifest = import_corpus([str(folder / "rows.jsonl")], folder / "shards", workers=1)
>>> [(cluster.name, cluster.documents) for cluster in manifest.clusters]
[('c00', 3), ('c01', 3)]
>>> _ = export_shards(str(folder / "shards"), folder / "tables", "parquet", workers=1)
>>> sorted(path.name for path in (folder / "tables").glob("*/*.parquet"))
['cluster_0_000.tokenized.parquet', 'cluster_1_000.tokenized.parquet']
"""

from typing import TYPE_CHECKING

from climbstream.loader.core.lazy import load_on_use
from climbstream.loader.core.version import __version__ as __version__

if TYPE_CHECKING:
    from .appender import append
    from .exporter.shards import export_shards
    from .importer.pipeline import import_corpus
    from .importer.settings import ImportSettings
    from .pipeline import build, dry_run
    from .settings import BuildSettings

__all__ = [
    "BuildSettings",
    "ImportSettings",
    "append",
    "build",
    "dry_run",
    "export_shards",
    "import_corpus",
]

_HOMES = {
    "BuildSettings": "settings",
    "ImportSettings": "importer.settings",
    "append": "appender",
    "build": "pipeline",
    "dry_run": "pipeline",
    "export_shards": "exporter.shards",
    "import_corpus": "importer.pipeline",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
