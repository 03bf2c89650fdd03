"""Who belongs to the job, on the network: mutual TLS 1.3 with one identity for all agents.

Two ways to come by that identity:

* the job's secret, a file that all nodes have. The key (Ed25519, RFC 8032) is derived from it with HKDF
  (RFC 5869), and so is the self-signed certificate, byte for byte: it is its own only authority. Its dates
  are as far apart as the format allows, because clocks of nodes may differ by hours.
* certificates of the user's own: a certificate, its key, and the authority that signs those of the others.

The secret never appears on a command line, in the environment, in a log or in a message.
"""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.errors import ConfigError

MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
PURPOSE = b"hpresil agent identity 1"
ALWAYS = (datetime.datetime(1970, 1, 1), datetime.datetime(9999, 12, 31))


@dataclass(frozen=True)
class Credentials:
    """What proves that an agent belongs to the job; PEM texts."""

    certificate: bytes
    key: bytes
    authority: bytes

    def server(self) -> ssl.SSLContext:
        """Return the settings for accepting connections."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client(self) -> ssl.SSLContext:
        """Return the settings for making connections."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # nodes are known by the job's identity, wherever they are
        context.verify_mode = ssl.CERT_REQUIRED
        fd = os.memfd_create("hpresil-identity", os.MFD_CLOEXEC)  # the library reads files only
        try:
            os.write(fd, self.key + self.certificate)
            # A key with a passphrase is an error; without one given here the library would ask the terminal.
            context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
            context.load_verify_locations(cadata=self.authority.decode())
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"certificate, key and authority do not go together: {error}") from None
        finally:
            os.close(fd)
        return context


def from_files(certificate: Path, key: Path, authority: Path) -> Credentials:
    """Return the user's own. Raises ConfigError if a file cannot be read."""
    try:
        return Credentials(certificate.read_bytes(), key.read_bytes(), authority.read_bytes())
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error


def from_secret(secret: bytes) -> Credentials:
    """Return what follows from the job's secret; equal secrets give equal credentials."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise ConfigError(
            f"several nodes need the package cryptography ({error}): pip install 'hpresil[nodes]', or give "
            "certificates of your own with --tls-files"
        ) from error

    seed = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=PURPOSE).derive(secret)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hpresil job")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ALWAYS[0])
        .not_valid_after(ALWAYS[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(certificate, private, certificate)


def read_secret(path: Path) -> bytes:
    """Return the job's secret from its file.

    Raises:
        ConfigError: there is none, others may read it, or it is too short or long to be one.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
    except OSError as error:
        raise ConfigError(
            f"the job's secret {path} cannot be read: {error.strerror}; copy it from the first node (it is "
            "made there), and name it with HPRESIL_SECRET_FILE"
        ) from error
    try:
        found = os.fstat(fd).st_mode
        if not stat.S_ISREG(found):
            raise ConfigError(f"the job's secret {path} is not a file")
        mode = stat.S_IMODE(found)
        if mode & 0o077:
            raise ConfigError(f"the job's secret {path} has mode {mode:o}: others can read it; chmod 600 it")
        secret = os.read(fd, MAX_SECRET_BYTES + 1)
    finally:
        os.close(fd)
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ConfigError(
            f"the job's secret {path} has {len(secret)} bytes; it must have {MIN_SECRET_BYTES} to "
            f"{MAX_SECRET_BYTES}, for example: head -c 32 /dev/urandom > {path}"
        )
    return secret


def make_secret(path: Path) -> None:
    """Write a new secret, mode 0600, unless there is one. Nobody ever sees a part of it."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(32))
            os.link(new, path)
        except FileExistsError:
            pass  # another process was faster, or an earlier job
        finally:
            os.unlink(new)
    except OSError as error:
        raise ConfigError(
            f"the job's secret {path} cannot be written: {error.strerror}; make it yourself and name it with "
            f"HPRESIL_SECRET_FILE, for example: (umask 077; head -c 32 /dev/urandom > FILE)"
        ) from error
