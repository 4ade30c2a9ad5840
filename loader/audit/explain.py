"""Explain: which documents a batch came from."""

from dataclasses import dataclass, replace
from pathlib import Path

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.renamed import renamed_parameters
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.formats.manifest import DOCUMENTS
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
    id: str | None = None
    """As in the corpus; None: the catalogue does not list it, or there is none."""
    origin: str | None = None


@renamed_parameters(cache="cache_dir")
def explain_step(
    replay: Replay, step: int, row: int | None = None, cache_dir: Path | None = None
) -> list[Piece]:
    """List what the batch of step ``step`` was made of; of row ``row`` alone, if one is named.

    Opens the shards of these rows, in the folder ``cache_dir`` or else the user's.

    Raises:
        UsageError: There is no such step or row.
        IntegrityError: A shard is missing or damaged.
    """
    steps = replay.step(step)
    if row is not None and not 0 <= row < len(steps.rows):
        raise UsageError(f"step {step} has rows 0 to {len(steps.rows) - 1}, not {row}")
    rows = range(len(steps.rows)) if row is None else [row]
    cache = ShardCache(cache_dir)
    sources: dict[str, RowSource] = {}
    pieces: list[Piece] = []
    for number in rows:
        cluster, visit, within = steps.rows[number].tolist()
        _, lane, shard, epoch, _ = steps.visits[visit].tolist()
        name = replay.names[cluster]
        if name not in sources:
            sources[name] = RowSource(replay.shards, name, replay.settings.run, cache)
        _, packed = sources[name].packed(shard, epoch)
        begin, end = packed.ends[within : within + 2]
        pieces += [
            Piece(
                row=number,
                lane=lane,
                cluster=name,
                epoch=epoch,
                shard=shard,
                document=document,
                first=first,
                tokens=tokens,
            )
            for document, first, tokens in packed.pieces[begin:end].tolist()
        ]
    return _with_origins(replay, pieces)


def _with_origins(replay: Replay, pieces: list[Piece]) -> list[Piece]:
    """Add what the catalogue says of the documents, where it lies in a folder."""
    folder = replay.shards.base.folder
    if folder is None:
        return pieces
    located = {name: replay.shards.locate(name) for name in {piece.cluster for piece in pieces}}
    places = [(*located[piece.cluster][piece.shard], piece.document) for piece in pieces]
    rows = look_up(folder / DOCUMENTS, {*places})
    origins = [rows.get(place, (None, None)) for place in places]
    return [
        replace(piece, id=name, origin=origin)
        for piece, (name, origin) in zip(pieces, origins, strict=True)
    ]
