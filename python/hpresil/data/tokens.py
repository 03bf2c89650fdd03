"""`TokenDataset`: fixed-length sequences of a memory-mapped token file, each with its next tokens.

Problem: every worker reads the same tokens in its own order, and a restarted one must be reading again
at once.

Design: the file is mapped, so opening costs nothing and all workers of a node share one copy in the page
cache. Sample ``i`` is ``tokens[i*seq_len : i*seq_len + seq_len + 1]``: the inputs are all but the last of
these, the targets all but the first. Samples do not overlap but for that one token; the tokens after the
last whole sample are never used. The path is the file itself, the OUT of ``hpresil data build``.

Not guaranteed: documents are not kept apart, a sample may hold the end of one and the start of the next.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch

from hpresil.base.errors import DataError
from hpresil.data.format import open_tokens


class TokenDataset:
    """A map-style data set over a token file.

    Args:
        path: The token file.
        seq_len: Tokens of one sequence, at least 1.

    Attributes:
        vocabulary: Every token is below this.
        fingerprint: 32 hex digits that depend on the content of the file and on nothing else.

    Raises:
        DataError: The file is missing, empty, truncated, foreign, of another format version, or shorter
            than one sequence and its targets; or ``seq_len`` is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], seq_len: int) -> None:
        if isinstance(seq_len, bool) or not isinstance(seq_len, int) or seq_len < 1:
            raise DataError(f"seq_len must be a positive whole number, got {seq_len!r}")
        header, self._tokens = open_tokens(path)
        if header.tokens < seq_len + 1:
            raise DataError(
                f"{path} holds {header.tokens} tokens, one sequence of {seq_len} and its targets needs "
                f"{seq_len + 1}; choose a smaller seq_len or build it from more text"
            )
        self.path = os.fspath(path)
        self.seq_len = seq_len
        self.vocabulary = header.vocabulary
        self.fingerprint = header.fingerprint

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self.seq_len

    def __getitem__(self, index: SupportsIndex) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of one sample: int64, each of shape (seq_len,)."""
        inputs, targets = self.batch([operator.index(index)])
        return inputs[0], targets[0]

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of several samples: int64, each of shape (len(indices), seq_len)."""
        rows = np.empty((len(indices), self.seq_len + 1), np.int64)
        for row, index in zip(rows, indices, strict=True):
            if not 0 <= index < len(self):
                raise IndexError(f"sample {index} is not one of the {len(self)} of {self.path}")
            begin = index * self.seq_len
            row[:] = self._tokens[begin : begin + self.seq_len + 1]
        both = torch.from_numpy(rows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def __reduce__(self) -> tuple[type[TokenDataset], tuple[str, int]]:
        """Another process maps the file itself; without this, pickling would copy all tokens."""
        return type(self), (self.path, self.seq_len)

    def __repr__(self) -> str:
        return f"TokenDataset({self.path!r}, seq_len={self.seq_len}): {len(self)} samples"
