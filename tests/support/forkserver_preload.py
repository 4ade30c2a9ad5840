"""The server that forks the processes of engines, with slow modules imported beforehand.

Python starts one such server in a process, with the modules that the first engine asks for. A test
process has many engines, and all later ones would have each of their processes import what it needs
by itself: two seconds of a core for a build, six for a proxy.
"""

import multiprocessing
from multiprocessing import forkserver

from climbstream.loader.core.engines.local import _start_servers

BUILD = (
    "climbstream.builder.appender",
    "climbstream.builder.exporter.mixture",
    "climbstream.builder.exporter.shards",
    "climbstream.builder.importer.pipeline",
    "climbstream.builder.pipeline",
)
SEARCH = (
    "climbstream.search.experiments.proxy",
    "transformers.models.llama.modeling_llama",
)
_preloaded: set[str] = set()


def preload(modules: tuple[str, ...]) -> None:
    """Import ``modules``, and those of earlier calls, for all processes that start from now on."""
    if _preloaded.issuperset(modules):
        return
    _preloaded.update(modules)
    forkserver._forkserver._stop()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *sorted(_preloaded)])
    _start_servers()
