"""The size of a Llama decoder."""

from __future__ import annotations

from dataclasses import dataclass

from hpresil.base.errors import ConfigError

BYTE_VOCABULARY = 257  # 256 byte values and the end of a document


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes and constants of one decoder; the defaults are 3.2 million parameters.

    Attributes:
        vocabulary: Number of token ids.
        dim: Width of the residual stream; a multiple of ``heads``, with an even quotient.
        layers: Number of blocks.
        heads: Attention heads of a block.
        hidden: Width inside the SwiGLU feed-forward.
        max_seq_len: Longest sequence in tokens; the rotary table has this many rows.
        dropout: Probability after the embedding and at the end of each residual branch.
        rope_theta: Base of the rotary wavelengths.
        norm_eps: Added to the mean square in RMSNorm.
    """

    vocabulary: int = BYTE_VOCABULARY
    dim: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 688
    max_seq_len: int = 64
    dropout: float = 0.1
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dim", "layers", "heads", "hidden", "max_seq_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.dim % self.heads or self.dim // self.heads % 2:
            raise ConfigError(f"dim {self.dim} must be an even multiple of heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), not {self.dropout}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads
