"""Explain: find the documents from which the rows of a batch came."""

from dataclasses import dataclass, replace
from pathlib import Path

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.renamed import renamed_parameters
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.mds.reader import ShardView
from climbstream.loader.reading.row_source import RowSource
from climbstream.loader.reading.shard_cache import ShardCache

from .replay import Replay

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive tokens of one document in a row of a batch."""

    row: int
    """Number of the row in the global batch, from 0."""
    lane: int
    """Lane (virtual rank) that served the row. Of W ranks, rank r has the lanes for which ``lane``
    modulo W is r."""
    cluster: str
    epoch: int
    """Epoch of the cluster in this lane, from 0."""
    shard: int
    """Position of the shard in the index of the cluster, from 0."""
    document: int
    """Position of the document in the shard, from 0."""
    first: int
    """Position of the piece's first token in the document, from 0."""
    tokens: int
    """Number of tokens of the piece."""
    id: str | None = None
    """Id of the document in the corpus; None: there is no catalogue, or it lacks the document."""
    origin: str | None = None
    """Where the document came from, as the catalogue says; None: as for ``id``."""
    text: str | None = None
    """Text of the piece, if it was asked for."""


@renamed_parameters(cache="cache_dir")
def explain_step(
    replay: Replay,
    step: int,
    row: int | None = None,
    cache_dir: Path | None = None,
    *,
    text: bool = False,
) -> list[Piece]:
    """Return the pieces of documents that make up the batch of step ``step``.

    This is the batch that brought the run to step ``step``: after it, `MixtureLoader.step` is
    ``step``. So the first batch of a run is that of step 1.

    With ``row``, only the pieces of this row of the batch are returned. The shards that contain
    them are fetched into ``cache_dir``; default: the user's cache folder. With ``text``, each piece
    has its text, including the token that ends the document.

    Raises:
        UsageError: There is no such step or row, or no tokenizer for the ``text``.
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
        view, packed = sources[name].packed(shard, epoch)
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
                text=_text(replay.shards, name, view, document, first, tokens) if text else None,
            )
            for document, first, tokens in packed.pieces[begin:end].tolist()
        ]
    return _with_origins(replay, pieces)


def _text(
    shards: ShardDirectory, cluster: str, view: ShardView, document: int, first: int, tokens: int
) -> str:
    """Return the text of ``tokens`` tokens of a document, from its token ``first`` on."""
    ids = view.document(document, shards.index(cluster).dtype)[first : first + tokens]
    return shards.tokenizer().decode(ids.tolist(), skip_special_tokens=False)


def _with_origins(replay: Replay, pieces: list[Piece]) -> list[Piece]:
    """Return ``pieces`` with id and origin from the catalogue.

    If the shards are not in a local folder, the pieces are returned unchanged, and the log says so.
    """
    folder = replay.shards.base.folder
    if folder is None:
        logger.info(
            f"id and origin are only looked up in a local folder, and not in {replay.shards}; name "
            "a local copy that has the folder documents/ with --shards DIR"
        )
        return pieces
    located = (replay.shards.locate(piece.cluster, piece.shard) for piece in pieces)
    places = [(*place, piece.document) for place, piece in zip(located, pieces, strict=True)]
    rows = look_up(folder, {*places})
    origins = [rows.get(place, (None, None)) for place in places]
    return [
        replace(piece, id=name, origin=origin)
        for piece, (name, origin) in zip(pieces, origins, strict=True)
    ]
