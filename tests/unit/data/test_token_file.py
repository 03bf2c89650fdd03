"""Token files: what is written is read, and what is no whole token file is refused when it is opened."""

import os
import struct
import zlib

import numpy as np
import pytest

from hpresil.base.errors import ConfigError, DataError
from hpresil.data.format import BLOCK_BYTES, HEADER, open_tokens, read_header, verify
from hpresil.data.writer import TokenWriter

PER_BLOCK = BLOCK_BYTES // 2


def write(path, tokens, *, vocabulary=257, force=False):
    with TokenWriter(path, vocabulary=vocabulary, force=force) as writer:
        writer.append(np.asarray(tokens))
    return path


def write_and_fail(path, error):
    with TokenWriter(path, vocabulary=257, force=True) as writer:
        writer.append(np.arange(10))
        raise error


@pytest.mark.parametrize("count", [0, 1, PER_BLOCK - 1, PER_BLOCK, PER_BLOCK + 1, 3 * PER_BLOCK + 5])
def test_what_is_written_is_read_and_verified(tmp_path, count):
    tokens = np.random.default_rng(count).integers(0, 257, count)
    path = write(tmp_path / "corpus", tokens)
    header, found = open_tokens(path)
    assert np.array_equal(found, tokens)
    assert (header.tokens, header.vocabulary, header.blocks) == (count, 257, -(-count // PER_BLOCK))
    assert path.stat().st_size == header.file_bytes
    assert verify(path) == header
    assert os.listdir(tmp_path) == ["corpus"]


def test_the_file_does_not_depend_on_the_pieces_it_is_written_in(tmp_path):
    tokens = np.random.default_rng(1).integers(0, 257, PER_BLOCK * 2 + 100)
    whole = write(tmp_path / "whole", tokens)
    with TokenWriter(tmp_path / "pieces", vocabulary=257) as writer:
        for piece in np.array_split(tokens, [1, 7, 1000, PER_BLOCK - 1, PER_BLOCK + 3]):
            writer.append(piece)
    assert whole.read_bytes() == (tmp_path / "pieces").read_bytes()


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path):
    path = write(tmp_path / "corpus", [0, 65536, 99_999], vocabulary=100_000)
    header, found = open_tokens(path)
    assert header.token_bytes == 4
    assert found.tolist() == [0, 65536, 99_999]


def test_the_fingerprint_depends_on_the_content_alone(tmp_path):
    one, same, other = (
        write(tmp_path / n, t) for n, t in [("a", [1, 2, 3]), ("b", [1, 2, 3]), ("c", [1, 2, 4])]
    )
    assert read_header(one).fingerprint == read_header(same).fingerprint
    assert read_header(one).fingerprint != read_header(other).fingerprint


@pytest.mark.parametrize("token", [257, -1])
def test_a_token_outside_of_the_vocabulary_is_refused_and_nothing_is_left(tmp_path, token):
    with pytest.raises(DataError, match=f"token {token} is not between 0 and 256"):
        write(tmp_path / "corpus", [1, token, 2])
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / "corpus", KeyboardInterrupt)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_replacement_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "corpus", [1, 2, 3])
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_and_fail(path, RuntimeError)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["corpus"]


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = write(tmp_path / "corpus", [1, 2, 3])
    with pytest.raises(ConfigError, match="exists already; choose another name, or pass --force"):
        write(path, [4])
    write(path, [4, 5], force=True)
    assert open_tokens(path)[1].tolist() == [4, 5]


def test_a_target_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"):
        write(tmp_path, [1], force=True)
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        write(tmp_path / "nowhere" / "corpus", [1])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        write(tmp_path / "pipe", [1], force=True)
    with pytest.raises(ConfigError, match="between 1 and 2"):
        write(tmp_path / "corpus", [1], vocabulary=0)


@pytest.mark.parametrize("kept", [1, 7])
def test_a_file_too_short_for_the_magic_is_foreign(tmp_path, kept):
    path = write(tmp_path / "corpus", range(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="not a token file"):
        open_tokens(path)


@pytest.mark.parametrize("kept", [8, 63])
def test_a_file_that_ends_in_the_header_is_truncated(tmp_path, kept):
    path = write(tmp_path / "corpus", range(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"truncated: expected a header of 64 bytes, found {kept}"):
        open_tokens(path)


@pytest.mark.parametrize("kept", [64, 65, 263, 267])
def test_a_file_that_ends_in_the_body_is_truncated(tmp_path, kept):
    path = write(tmp_path / "corpus", range(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"truncated: expected 268 bytes for 100 tokens, found {kept}"):
        open_tokens(path)


def test_a_file_with_bytes_after_its_end_is_refused(tmp_path):
    path = write(tmp_path / "corpus", range(100))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="too long: expected 268 bytes for 100 tokens, found 269"):
        open_tokens(path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "corpus").touch()
    with pytest.raises(DataError, match="is empty; build one with: hpresil data build"):
        open_tokens(tmp_path / "corpus")


def test_a_foreign_file_is_refused_with_the_way_to_build_one(tmp_path):
    (tmp_path / "corpus").write_text("Call me Ishmael. " * 100)
    with pytest.raises(
        DataError, match=r"not a token file \(it begins with b'Call me '\); build one with: hpresil"
    ):
        open_tokens(tmp_path / "corpus")


def test_a_file_whose_line_ends_were_converted_is_foreign(tmp_path):
    path = write(tmp_path / "corpus", range(100))
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    with pytest.raises(DataError, match="not a token file"):
        open_tokens(path)


def test_another_format_version_is_refused(tmp_path):
    path = write(tmp_path / "corpus", range(100))
    raw = bytearray(path.read_bytes())
    raw[8:12] = struct.pack("<I", 9)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="token file format 9, this hpresil reads 1"):
        open_tokens(path)


@pytest.mark.parametrize("place", range(12, 64))
def test_a_flipped_bit_in_the_header_is_noticed(tmp_path, place):
    path = write(tmp_path / "corpus", range(100))
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged header"):
        open_tokens(path)


def test_a_header_that_makes_no_sense_is_refused_though_its_checksum_is_right(tmp_path):
    path = write(tmp_path / "corpus", range(100))
    fields = list(HEADER.unpack(path.read_bytes()[:64]))
    fields[2] = 3
    raw = HEADER.pack(*fields)[:-4]
    path.write_bytes(raw + struct.pack("<I", zlib.crc32(raw)) + path.read_bytes()[64:])
    with pytest.raises(DataError, match="makes no sense"):
        open_tokens(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the token file .*No such file.*hpresil data build"):
        open_tokens(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a directory; pass the token file itself"):
        open_tokens(tmp_path)


def test_verify_names_the_tokens_of_the_first_damaged_block(tmp_path):
    path = write(tmp_path / "corpus", np.zeros(3 * PER_BLOCK + 10, int))
    raw = bytearray(path.read_bytes())
    raw[HEADER.size + BLOCK_BYTES + 5] ^= 1
    raw[HEADER.size + 3 * BLOCK_BYTES] ^= 1
    path.write_bytes(raw)
    open_tokens(path)
    with pytest.raises(DataError, match=f"2 of 4 blocks .* tokens {PER_BLOCK} to {2 * PER_BLOCK - 1}"):
        verify(path)


def test_verify_notices_damage_in_the_list_of_checksums(tmp_path):
    path = write(tmp_path / "corpus", range(100))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="list of block checksums is damaged"):
        verify(path)
