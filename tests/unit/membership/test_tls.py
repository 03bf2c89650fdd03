"""The identity of a job's agents: from a secret, or from certificates of the user's own."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from at_the_door import HOST, door, eventually, run
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hpresil.base.errors import ConfigError
from hpresil.membership import tls
from hpresil.membership.door import call

SECRET = b"0123456789abcdef"


def written(path: Path, data: bytes = SECRET, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


class Authority:
    """Signs certificates, as a user's own would."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
        self.certificate = self._sign(self.name, self.key, days=1, ca=True)

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, *, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=9))
        builder = builder.not_valid_after(now + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def files(self, directory: Path, name: str, *, days: int = 1, passphrase: bytes = b"") -> list[Path]:
        """Write certificate, key and authority of a node."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else None
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            hidden or serialization.NoEncryption(),
        )
        parts = [self._sign(subject, key, days, ca=False), private, self.certificate]
        return [written(directory / f"{name}.{i}", part) for i, part in enumerate(parts)]


async def enter(server: tls.Credentials, client: tls.Credentials) -> None:
    async with door(credentials=server) as (port, refusals):
        try:
            reader, writer = await call(HOST, port, client, 5.0)
        except ConfigError:
            await eventually(lambda: refusals.counts["stranger"] > 0)
            raise
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.transport.abort()
        assert not refusals.counts


def test_equal_secrets_give_equal_identities_and_others_do_not() -> None:
    assert tls.from_secret(SECRET) == tls.from_secret(bytes(SECRET))
    assert tls.from_secret(SECRET).certificate != tls.from_secret(SECRET + b"\n").certificate
    run(lambda: enter(tls.from_secret(SECRET), tls.from_secret(SECRET)))


def test_another_secret_is_refused_on_both_ends() -> None:
    with pytest.raises(ConfigError, match=r"does not belong to this job.*the secrets .* differ"):
        run(lambda: enter(tls.from_secret(SECRET), tls.from_secret(b"x" * 32)))


def test_neither_the_secret_nor_its_key_can_be_read_from_the_certificate() -> None:
    made = tls.from_secret(SECRET)
    assert SECRET not in made.certificate
    assert b"PRIVATE" not in made.certificate + made.authority


def test_clocks_of_nodes_do_not_matter_to_a_job_with_a_secret() -> None:
    found = x509.load_pem_x509_certificate(tls.from_secret(SECRET).certificate)
    assert found.not_valid_before_utc.year <= 1970
    assert found.not_valid_after_utc.year == 9999


def test_certificates_of_the_users_own_let_in_who_has_one(tmp_path: Path) -> None:
    authority = Authority()
    one, two = (tls.from_files(*authority.files(tmp_path, name)) for name in ("one", "two"))
    run(lambda: enter(one, two))


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    one = tls.from_files(*Authority().files(tmp_path, "one"))
    two = tls.from_files(*Authority().files(tmp_path, "two"))
    with pytest.raises(ConfigError, match="does not belong to this job"):
        run(lambda: enter(one, two))


@pytest.mark.parametrize("expired", ["one", "two"])
def test_a_certificate_that_is_not_valid_any_more_is_refused(tmp_path: Path, expired: str) -> None:
    authority = Authority()
    one, two = (
        tls.from_files(*authority.files(tmp_path, name, days=-1 if name == expired else 1))
        for name in ("one", "two")
    )
    with pytest.raises(ConfigError, match="job"):
        run(lambda: enter(one, two))


def test_files_that_do_not_go_together_are_an_error(tmp_path: Path) -> None:
    authority = Authority()
    one, two = authority.files(tmp_path, "one"), authority.files(tmp_path, "two")
    locked = authority.files(tmp_path, "locked", passphrase=b"secret")
    noise = written(tmp_path / "noise", b"\xff\xfe")
    for files in ([one[0], two[1], one[2]], [one[0], one[1], noise], [noise, one[1], one[2]], locked):
        with pytest.raises(ConfigError, match="do not go together"):
            tls.from_files(*files).server()
    with pytest.raises(ConfigError, match="none cannot be read: No such file"):
        tls.from_files(tmp_path / "none", one[1], one[2])


# --------------------------------------------------------------------------- the secret's file


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    old = os.umask(0)
    try:
        tls.make_secret(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    made = tls.read_secret(path)
    assert len(made) == 32
    tls.make_secret(path)
    assert tls.read_secret(path) == made
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=f"has mode {mode:o}.*chmod 600"):
        tls.read_secret(written(tmp_path / "secret", mode=mode))


@pytest.mark.parametrize("size", [0, 15, 4097])
def test_a_secret_too_short_or_too_long_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match=f"has {size} bytes; it must have 16 to 4096"):
        tls.read_secret(written(tmp_path / "secret", b"x" * size))


def test_no_secret_and_what_is_no_file_are_errors_that_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*copy it from the first node"):
        tls.read_secret(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is not a file"):
            tls.read_secret(path)
    with pytest.raises(ConfigError, match=r"cannot be written.*HPRESIL_SECRET_FILE"):
        tls.make_secret(tmp_path / "none" / "secret")


def test_contexts_can_be_made_many_times_and_leave_no_descriptors() -> None:
    made = tls.from_secret(SECRET)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        made.server()
        made.client()
    assert len(os.listdir("/proc/self/fd")) <= before
