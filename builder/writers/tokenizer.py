"""The tokenizer of a build: a tokenizer in the format of Hugging Face, or one that is trained."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sample import Sample, draw_sample
from climbstream.builder.end_token import EOS
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError, RemoteError
from climbstream.loader.core.files import COPY_FIRST, refuse_url, write_bytes
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.manifest import TOKENIZER
from climbstream.loader.storage.hub import check_contact

logger = get_logger(__name__)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer that is trained on ``texts``; its token 0 is `EOS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """Load a tokenizer: a ``tokenizer.json``, a folder that contains one, or a name on the Hub.

    Raises:
        InvalidDataError: There is no such tokenizer, or it cannot be loaded.
        RemoteError: The Hub cannot be reached, and the cache of the Hub has no such tokenizer.
    """
    refuse_url(name, COPY_FIRST)
    path = Path(name)
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        return Tokenizer.from_file(str(path)) if path.exists() else _from_hub(name)
    except RemoteError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise InvalidDataError(
            f"{name} is not a tokenizer: {error}; name a tokenizer.json, its folder, or a name on "
            "the Hub"
        ) from None


def _from_hub(name: str) -> Tokenizer:
    """Load the tokenizer ``name`` from the Hub or, if the Hub cannot be reached, from its cache."""
    try:
        check_contact()
    except RemoteError:
        kept = try_to_load_from_cache(name, TOKENIZER)
        if not isinstance(kept, str):
            raise
        return Tokenizer.from_file(kept)
    return Tokenizer.from_pretrained(name)


def token_dtype(vocab_size: int) -> str:
    """Return the smallest type for ids below ``vocab_size``, ``uint16`` or ``uint32``."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def fit_tokenizer(
    engine: Engine,
    partitions: Sequence[Partition],
    path: Path,
    folder: Path,
    settings: BuildSettings,
) -> Tokenizer:
    """Return the tokenizer in the file ``path``; if there is no such file, make it first.

    The tokenizer is the one that ``settings`` name. If they name none, a task trains it on a sample
    that other tasks write to ``folder``.
    """
    if not path.exists() and settings.tokenizer:
        _write(load_tokenizer(settings.tokenizer), path)
    elif not path.exists():
        logger.info(f"train a tokenizer of {settings.vocab_size:,} tokens")
        sample = draw_sample(engine, partitions, folder, settings)
        for _ in engine.run(_train, [(sample, path, settings.vocab_size)]):
            pass
    return Tokenizer.from_file(str(path))


def _train(task: tuple[Sample, Path, int]) -> None:
    sample, path, vocab_size = task
    _write(train_tokenizer(sample.texts(), vocab_size), path)


def _write(tokenizer: Tokenizer, path: Path) -> None:
    write_bytes(path, tokenizer.to_str(pretty=True).encode())
