"""Proxy models: Hugging Face Llama decoders in a few sizes."""

from typing import TYPE_CHECKING, NamedTuple

from climbstream.loader.core.errors import UsageError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


class _Shape(NamedTuple):
    layers: int
    width: int
    heads: int


SIZES = {
    "tiny": _Shape(2, 64, 4),
    "mini": _Shape(4, 128, 4),
    "small": _Shape(8, 256, 8),
    "medium": _Shape(12, 512, 8),
    "large": _Shape(12, 768, 12),
    "xlarge": _Shape(24, 1024, 16),
}
"""Shape of each model by name. With a vocabulary of 1,024, the models have, in this order, 0.2, 1,
7, 38, 90 and 310 million parameters. One core of a laptop trains ``tiny`` at 30,000 tokens per
second."""


def make_model(size: str, vocab_size: int, seq_len: int, seed: int) -> "LlamaForCausalLM":
    """Return a new model whose parameters are drawn at random from ``seed``.

    Raises:
        UsageError: ``size`` is not a name in `SIZES`.
    """
    if size not in SIZES:
        raise UsageError(f"there is no model {size!r}; the models are {', '.join(SIZES)}")
    # These imports take seconds; a caller that needs only `SIZES` should not wait for them.
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    shape = SIZES[size]
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.width * 11 // 32 * 8,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=seq_len,
        tie_word_embeddings=True,
        use_cache=False,
        # With the usual 0.02, the parameters of such narrow models start too small. Training would
        # spend the first 300,000 tokens to make them larger.
        initializer_range=shape.width**-0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
