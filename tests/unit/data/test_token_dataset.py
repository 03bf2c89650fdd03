"""TokenDataset: sequences and their next tokens from a mapped file."""

import pickle

import numpy as np
import pytest
import torch

from hpresil.base.errors import DataError
from hpresil.data.tokens import TokenDataset
from hpresil.data.writer import TokenWriter


def corpus(path, count, vocabulary=1000):
    with TokenWriter(path, vocabulary=vocabulary) as writer:
        writer.append(np.arange(count) % vocabulary)
    return path


@pytest.mark.parametrize(
    ("count", "seq_len", "samples"), [(2, 1, 1), (9, 8, 1), (16, 8, 1), (17, 8, 2), (1000, 7, 142)]
)
def test_there_are_as_many_samples_as_whole_sequences_with_targets(tmp_path, count, seq_len, samples):
    assert len(TokenDataset(corpus(tmp_path / "c", count), seq_len)) == samples


def test_targets_are_the_inputs_one_token_later(tmp_path):
    data = TokenDataset(corpus(tmp_path / "c", 100), seq_len=8)
    inputs, targets = data[2]
    assert inputs.tolist() == list(range(16, 24))
    assert targets.tolist() == list(range(17, 25))
    assert inputs.dtype == targets.dtype == torch.int64


def test_a_batch_is_its_samples_stacked(tmp_path):
    data = TokenDataset(corpus(tmp_path / "c", 100), seq_len=8)
    inputs, targets = data.batch([5, 0, 5])
    assert torch.equal(inputs, torch.stack([data[5][0], data[0][0], data[5][0]]))
    assert torch.equal(targets, torch.stack([data[5][1], data[0][1], data[5][1]]))
    assert inputs.is_contiguous()
    assert targets.is_contiguous()


def test_every_sample_can_be_iterated(tmp_path):
    data = TokenDataset(corpus(tmp_path / "c", 100), seq_len=8)
    assert len(list(data)) == len(data) == 12


@pytest.mark.parametrize("index", [12, -1, 10**9])
def test_a_sample_that_is_not_there_is_an_index_error(tmp_path, index):
    with pytest.raises(IndexError, match=f"sample {index} is not one of the 12"):
        TokenDataset(corpus(tmp_path / "c", 100), seq_len=8)[index]


def test_tokens_of_four_bytes_keep_their_values(tmp_path):
    data = TokenDataset(corpus(tmp_path / "c", 70_000, vocabulary=100_000), seq_len=69_999)
    assert data[0][1][-1] == 69_999
    assert data.vocabulary == 100_000


def test_a_pickled_data_set_holds_the_path_and_not_the_tokens(tmp_path):
    data = TokenDataset(corpus(tmp_path / "c", 70_000), seq_len=8)
    raw = pickle.dumps(data)
    assert len(raw) < 1000
    assert torch.equal(pickle.loads(raw)[3][0], data[3][0])


@pytest.mark.parametrize("seq_len", [0, -8, 2.5, True, None])
def test_a_sequence_length_that_cannot_be_is_refused(tmp_path, seq_len):
    with pytest.raises(DataError, match="seq_len must be a positive whole number"):
        TokenDataset(corpus(tmp_path / "c", 100), seq_len)


@pytest.mark.parametrize("count", [0, 1, 8])
def test_a_file_shorter_than_a_sequence_and_its_targets_is_refused(tmp_path, count):
    with pytest.raises(DataError, match=f"holds {count} tokens, one sequence of 8 and its targets needs 9"):
        TokenDataset(corpus(tmp_path / "c", count), seq_len=8)


def test_a_truncated_file_is_refused(tmp_path):
    path = corpus(tmp_path / "c", 100)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="truncated: expected 268 bytes for 100 tokens, found 259"):
        TokenDataset(path, seq_len=8)
