"""rogue: certificates that the agent would never issue, signed with its own root key.

Root may read the agent's state directory; an attacker may not. With the real root behind them, what a
proxy refuses here it refuses because of what the certificate says, not because of who signed it.
"""

import contextlib
import datetime
import pathlib
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def utcnow():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def der_values(data):
    """Everything in the bytes that may be a DER SEQUENCE of 48 bytes or more."""
    for at in range(len(data) - 48):
        if data[at] != 0x30:
            continue
        n_length = data[at + 1] & 0x7F if data[at + 1] > 0x80 else 0
        if n_length > 2 or (n_length == 0 and data[at + 1] < 48):
            continue
        n = int.from_bytes(data[at + 2 : at + 2 + n_length], "big") if n_length else data[at + 1]
        if at + 2 + n_length + n <= len(data):
            yield data[at : at + 2 + n_length + n]


class Authority:
    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    @classmethod
    def of_agent(cls, state_dir):
        """The agent's root, from its state directory: whatever the form of its files, DER stands in them."""
        keys, certs = [], []
        for f in (f for f in pathlib.Path(state_dir).rglob("*") if f.is_file()):
            for der in der_values(f.read_bytes()):
                with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
                    keys.append(serialization.load_der_private_key(der, None))
                with contextlib.suppress(ValueError):
                    certs.append(x509.load_der_x509_certificate(der))
        for cert in certs:
            for key in keys:
                if cert.public_key() == key.public_key():
                    return cls(cert, key)
        raise AssertionError(f"no root in {state_dir}, or it is sealed")

    @classmethod
    def new(cls, trust_domain):
        """A root of somebody else's."""
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "elsewhere")])
        now = utcnow()
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(key_usage(ca=True), True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        return cls(cert, key)

    def leaf(self, *ids, not_before=None, not_after=None, ca=False, cert_sign=False, eku=None, san=True):
        """(certificate, key) with these URI SANs; the defaults make a proper SVID."""
        key = new_key()
        now = utcnow()
        b = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")]))
            .issuer_name(self.cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - DAY)
            .not_valid_after(not_after or now + DAY)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(key_usage(ca=cert_sign), True)
            .add_extension(
                x509.ExtendedKeyUsage(eku or [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    self.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                False,
            )
        )
        if san:
            b = b.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(i) for i in ids]), False)
        return b.sign(self.key, hashes.SHA256()), key


def key_usage(ca):
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_pem(directory, name, cert, key, *chain):
    path = pathlib.Path(directory) / f"{name}.pem"
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for c in (cert, *chain):
        data += c.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(data)
    return path


def client_context(pem=None, max_version=ssl.TLSVersion.TLSv1_3):
    """A TLS client that does not judge the server: the server's judgement is what is tested."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    ctx.maximum_version = max_version
    if pem is not None:
        ctx.load_cert_chain(pem)
    return ctx


def server_context(pem):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(pem)
    ctx.verify_mode = ssl.CERT_NONE
    return ctx
