"""The commands ``climb import`` and ``climb export``: what others clustered, and others read."""

from pathlib import Path
from typing import Any

import click

from climbstream.loader.cli import json_option, show, text_table
from climbstream.loader.clusters import load_clusters
from climbstream.loader.mixture import Mixture

from .engine import ENGINES
from .export import BLENDS, LAYOUTS, export_shards
from .import_settings import ImportSettings
from .imported import import_corpus


@click.command("import")
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Shard directory.")
@click.option("--cluster", help="Column of the cluster.  [default: cluster_id, cluster, or folder]")
@click.option("--folders", is_flag=True, help="A file's folder is its cluster.")
@click.option("--use", type=click.Choice(["tokens", "text"]), help="[default: tokens if there are]")
@click.option("--tokens", default="tokens", show_default=True, help="Column of token ids.")
@click.option("--text", default="text", show_default=True, help="Column of text.")
@click.option("--tokenizer", help="Hugging Face tokenizer, of the tokens or for the text.")
@click.option("--vocab-size", type=int, help="Token ids are below this.")
@click.option("--eos-id", type=int, help="Token that ends a document; -1: none.")
@click.option("--license", help="A licence to note beside those that the corpus states.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", help="Where tasks run.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@json_option
def import_(
    sources: tuple[str, ...],
    out: Path,
    engine: str,
    workers: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Turn SOURCES, a corpus that is clustered already, into token shards.

    A source is a file, folder, glob or URL of parquet, jsonl, csv or arrow, or a data set of the
    Hub (hub:NAME or hub:NAME@CONFIG): NVIDIA's ClimbLab and ClimbMix, their mirrors, or any other
    whose rows or folders say the cluster. An import that was interrupted goes on when the same
    command is run again.
    """
    settings = ImportSettings(**given)
    manifest = import_corpus(sources, out, settings, workers=workers, engine=engine)
    words = {info.name: ", ".join(info.terms[:5]) for info in load_clusters(out)}
    rows = [
        (c.name, words.get(c.name, ""), f"{c.documents:,}", f"{c.tokens:,}")
        for c in manifest.clusters
    ]
    text = text_table(("cluster", "words", "documents", "tokens"), rows, left=2)
    about = f"{out} · licence: {manifest.license} · report: {out / 'report.html'}"
    show(manifest.to_json(), f"{text}\n\n{about}", as_json=as_json)


@click.command()
@click.argument("directory")
@click.option("--to", type=click.Choice(LAYOUTS), required=True, help="Layout.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--mixture", type=click.Path(path_type=Path), help="[default: token shares]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@json_option
def export(
    directory: str, to: str, out: Path, mixture: Path | None, workers: int | None, as_json: bool
) -> None:
    """Write the shard directory DIRECTORY, a folder or URL, as other trainers read it.

    parquet is the layout of ClimbLab and jsonl that of ClimbMix; megatron writes .bin and .idx, and
    the words of --data-path for a mixture; mosaic writes the YAML of streams for a mixture alone.
    """
    weights = Mixture.load(mixture) if mixture else None
    text = export_shards(directory, out, to, weights, workers=workers)
    value = {"out": str(out), "to": to, "file": str(out / BLENDS[to]) if text else None}
    show({**value, "mixture": text}, text or str(out), as_json=as_json)
