"""Explain: which documents a batch came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.formats.manifest import DOCUMENTS, cluster_folder, load_index
from climbstream.loader.reading.row_source import RowSource
from climbstream.loader.reading.shard_cache import ShardCache

from .replay import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens of one document in a row of a batch."""

    row: int
    """Of the global batch. Rank r of W has those whose lane leaves r when divided by W."""
    lane: int
    cluster: str
    epoch: int
    """How often the lane had been gone through before."""
    shard: int
    document: int
    """Its row in the shard."""
    first: int
    """Its first token in the row, counted within the document,"""
    tokens: int
    """and how many follow one another from there."""
    id: str | None
    """As in the corpus; None: the catalogue does not list it, or there is none."""
    origin: str | None


def explain_step(
    replay: Replay, step: int, row: int | None = None, cache: Path | None = None
) -> list[Piece]:
    """List what the batch of step ``step`` was made of; of row ``row`` alone, if one is given.

    Opens the shards of these rows, in the folder ``cache`` or else the user's.

    Raises:
        UsageError: There is no such step or row.
        IntegrityError: A shard is missing or damaged.
    """
    steps = replay.step(step)
    if row is not None and not 0 <= row < len(steps.rows):
        raise UsageError(f"step {step} has rows 0 to {len(steps.rows) - 1}, not {row}")
    rows = range(len(steps.rows)) if row is None else [row]
    state, store = replay.settings, ShardCache(cache)
    streams: dict[int, RowSource] = {}
    found: list[dict[str, Any]] = []
    for number in rows:
        cluster, visit, within = steps.rows[number].tolist()
        _, lane, shard, epoch, _ = steps.visits[visit].tolist()
        if cluster not in streams:
            entry = replay.manifest.clusters[cluster]
            streams[cluster] = RowSource(
                entry.name,
                cluster_folder(replay.directory, entry.name),
                load_index(replay.directory, replay.manifest, entry),
                store,
                seq_len=state.seq_len,
                pack=state.pack,
                part=state.part,
                seed=state.seed,
            )
        _, packed = streams[cluster].packed(shard, epoch)
        for document, first, tokens in packed.pieces[
            packed.ends[within] : packed.ends[within + 1]
        ].tolist():
            found.append(
                {
                    "row": number,
                    "lane": lane,
                    "cluster": replay.names[cluster],
                    "epoch": epoch,
                    "shard": shard,
                    "document": document,
                    "first": first,
                    "tokens": tokens,
                }
            )
    places = {(f["cluster"], f["shard"], f["document"]) for f in found}
    known = look_up(Path(str(replay.directory)) / DOCUMENTS, places)
    pieces = []
    for fields in found:
        name, origin = known.get(
            (fields["cluster"], fields["shard"], fields["document"]), (None, None)
        )
        pieces.append(Piece(**fields, id=name, origin=origin))
    return pieces
