"""A decoder of the Llama kind: RMSNorm before each branch, rotary positions, SwiGLU, tied embedding.

Written for reading and for equal bits: plain float32 operations that are deterministic on the CPU
for a given thread count, no operation whose result depends on where a tensor lies in memory.
All randomness (initial weights, dropout) comes from torch's default generator.

Sources: Touvron et al. 2023 (arXiv 2302.13971); Su et al. 2021 (rotary, arXiv 2104.09864);
Shazeer 2020 (SwiGLU, arXiv 2002.05202); Zhang and Sennrich 2019 (RMSNorm, arXiv 1910.07467).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpresil.recipes.llama.config import LlamaConfig


def rotary_table(length: int, head_dim: int, theta: float) -> Tensor:
    """Return cosines and sines of every (position, pair), shape (2, length, head_dim / 2), float32.

    Pair ``i`` turns by ``position * theta ** (-2 i / head_dim)``; computed in float64.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float64), theta**-exponents)
    return torch.stack((angles.cos(), angles.sin())).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + head_dim / 2]) of each position by its angles.

    Args:
        x: Queries or keys, shape (batch, heads, length, head_dim).
        table: What `rotary_table` returned, at least ``length`` rows.
    """
    cosine, sine = table[:, : x.shape[-2]]
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class RMSNorm(nn.Module):
    """Divide by the root of the mean square over the last dimension, times a learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (…, dim)."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Attend within ``x`` of shape (batch, length, dim), each position to itself and earlier ones."""
        batch, length, dim = x.shape
        heads = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, table), rotate(key, table), value, is_causal=True
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.hidden, bias=False)
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape (…, dim) to the same shape."""
        out: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Return the residual stream after this layer, shape (batch, length, dim)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), table))
        out: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return out


class Llama(nn.Module):
    """The decoder; its output layer is the embedding (one parameter under two names)."""

    rotary: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocabulary, bias=False)
        self.output.weight = self.embedding.weight
        table = rotary_table(config.max_seq_len, config.head_dim, config.rope_theta)
        self.register_buffer("rotary", table, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights; branches that end in the residual stream start smaller with depth."""
        into_residual = 0.02 / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                small = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                nn.init.normal_(parameter, std=into_residual if small else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at every position.

        Args:
            tokens: Token ids, shape (batch, length), int64, length at most ``config.max_seq_len``.

        Returns:
            Shape (batch, length, vocabulary), float32.
        """
        if tokens.shape[1] > self.config.max_seq_len:
            raise ValueError(f"{tokens.shape[1]} tokens; the model takes {self.config.max_seq_len}")
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.rotary)
        logits: Tensor = self.output(self.norm(x))
        return logits
