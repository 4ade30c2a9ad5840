"""Base model: a trained model from which other models continue, as the proxies of CLIMB do.

The base model learns once what each proxy would otherwise have to learn again. So a few tokens per
proxy are enough for the mixture to change the score by more than chance does
(docs/decisions/proxies.md has the figures).
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import COPY_FIRST, hash_file, hash_json, read_json, refuse_url
from climbstream.loader.core.typed import short
from climbstream.loader.formats.manifest import TOKENIZER, Manifest
from climbstream.loader.formats.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "max_position")
"""Prefixes of the names of the configuration values that determine the size of a model."""
_LARGEST = 1 << 26
"""Largest value that is accepted under such a name."""


def load_model(folder: str | Path) -> "PreTrainedModel":
    """Load a causal language model in Hugging Face's format, in float32 on the CPU.

    Raises:
        UsageError: ``folder`` has no ``config.json``.
        InvalidDataError: The model cannot be loaded.
    """
    refuse_url(folder, COPY_FIRST)
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(
            f"{folder} has no model: name a folder with config.json and model parameters"
        )
    _check_config(Path(folder) / "config.json")
    # These imports take seconds; a caller that needs only `hash_model` should not wait for them.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()  # transformers would show a progress bar for each proxy
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    except Exception as error:  # with an invalid configuration, the library may raise any error
        reason = str(error).strip().partition("\n")[0]
        raise InvalidDataError(f"the model in {folder} cannot be loaded: {reason}") from None
    model.config.use_cache = False
    return cast("PreTrainedModel", model)


def load_base(folder: str | Path, vocab_size: int, seq_len: int) -> "PreTrainedModel":
    """Load the base model, as `load_model` does, and check that it can be trained further.

    Raises:
        UsageError: ``folder`` holds no model, or the model has fewer than ``vocab_size`` ids, or
            it cannot read rows of ``seq_len`` tokens.
    """
    model = load_model(folder)
    if model.config.vocab_size < vocab_size:
        raise UsageError(
            f"the model in {folder} knows {model.config.vocab_size:,} tokens, and the shards have "
            f"{vocab_size:,}; train a model on these shards, or build the shards with the model's "
            "tokenizer"
        )
    if (most := getattr(model.config, "max_position_embeddings", seq_len)) < seq_len:
        raise UsageError(
            f"the model in {folder} reads {most:,} tokens at most, and a row has {seq_len:,}; "
            "take shorter rows"
        )
    model.train()
    return model


def _check_config(path: Path) -> None:
    """Check that a Hugging Face configuration is safe to load.

    Raises:
        InvalidDataError: The file holds no JSON object, or a value that determines the size of the
            model is not a whole number from 1 to `_LARGEST`.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise InvalidDataError(f"{path} is not a JSON object with the configuration of a model")
    for name, value in config.items():
        if name.startswith(_SIZES) and not (type(value) is int and 0 < value <= _LARGEST):
            raise InvalidDataError(
                f"{path}: {name} is {short(value)}; it should be a whole number from 1 to "
                f"{_LARGEST:,}"
            )


def check_base(folder: str | Path | None, directory: str | Path, seq_len: int) -> None:
    """Check, before training, that the base model in ``folder`` can be trained on ``directory``.

    If ``folder`` is None, nothing is checked.

    Raises:
        UsageError: `load_base` refused the model. Or ``folder`` holds a tokenizer whose vocabulary
            differs from that of the shards.
    """
    if folder is None:
        return
    load_base(folder, Manifest.load(directory).vocab_size, seq_len)
    if (Path(folder) / TOKENIZER).is_file():
        theirs = read_tokenizer(directory).get_vocab()
        if read_tokenizer(folder).get_vocab() != theirs:
            raise UsageError(
                f"the tokenizer in {folder} is not that of the shards in {directory}: the same ids "
                "mean other text; train a model on these shards, or build the shards with the "
                "model's tokenizer"
            )


def hash_model(folder: str | Path) -> str:
    """Return a hash of the model parameters and the configuration in ``folder``."""
    kept = [p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".bin")]
    return hash_json([hash_file(path) for path in [Path(folder) / "config.json", *sorted(kept)]])
