"""Certificates of a test's own authority, valid for an hour."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Certificate:
    """A certificate with its key, as files.

    Attributes:
        file: The certificate.
        key_file: Its private key.
    """

    def __init__(self, directory: Path, name: str) -> None:
        """Take the names of two files in a directory."""
        self.file = directory / f"{name}.pem"
        self.key_file = directory / f"{name}-key.pem"

    def for_serving(self, callers: "Authority | None" = None) -> ssl.SSLContext:
        """A context to serve with; only to callers of an authority, if one is given."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.file, self.key_file)
        if callers:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(callers.file)
        return context


class Authority:
    """An authority that nobody trusts but who is given its file.

    Attributes:
        file: Its own certificate.
    """

    def __init__(self, directory: Path, name: str) -> None:
        """Make an authority.

        Args:
            directory: An existing directory for its files.
            name: Its name; two in one directory need two.
        """
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        is_authority = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key, is_authority)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(self, host: str) -> Certificate:
        """Issue a certificate for an address or a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(host)])
        signed = self._sign(_name(host), key, names)
        certificate = Certificate(self._directory, f"{self.file.stem}-{host}")
        certificate.file.write_bytes(signed.public_bytes(Encoding.PEM))
        certificate.key_file.write_bytes(key.private_bytes(*_PEM))
        return certificate

    def trusted(self) -> ssl.SSLContext:
        """A context to call with, that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.file)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=True)
            .sign(self._key, SHA256())
        )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
