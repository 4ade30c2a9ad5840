"""Explain: which documents a batch came from."""

from dataclasses import dataclass, replace
from pathlib import Path

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.renamed import renamed_parameters
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.reading.row_source import RowSource
from climbstream.loader.reading.shard_cache import ShardCache

from .replay import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens of one document in a row of a batch."""

    row: int
    """Number of the row in the global batch. Rank r of W has the rows whose lane modulo W is r."""
    lane: int
    cluster: str
    epoch: int
    """Number of times the lane had served all its rows before."""
    shard: int
    document: int
    """Row of the document in the shard."""
    first: int
    """First token of the document in this row, counted from the start of the document."""
    tokens: int
    """Number of tokens of the document in this row."""
    id: str | None = None
    """Id in the corpus; None: the document is not in the catalogue, or there is no catalogue."""
    origin: str | None = None


@renamed_parameters(cache="cache_dir")
def explain_step(
    replay: Replay, step: int, row: int | None = None, cache_dir: Path | None = None
) -> list[Piece]:
    """List the pieces of the batch of step ``step``; only those of row ``row``, if it is given.

    Shards of these rows are cached in ``cache_dir``; by default in the user's cache folder.

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
    """Add id and origin of the documents from the catalogue, if the shards lie in a folder."""
    folder = replay.shards.base.folder
    if folder is None:
        return pieces
    located = {name: replay.shards.locate(name) for name in {piece.cluster for piece in pieces}}
    places = [(*located[piece.cluster][piece.shard], piece.document) for piece in pieces]
    rows = look_up(folder, {*places})
    origins = [rows.get(place, (None, None)) for place in places]
    return [
        replace(piece, id=name, origin=origin)
        for piece, (name, origin) in zip(pieces, origins, strict=True)
    ]
