"""pki: an ordinary certificate authority for tests: leaves of any kind of key, intermediates, revocation lists."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def new_key(kind="ec"):
    return {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def subject(cn=None, ou=()):
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, o) for o in ou]
    if cn:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, cn))
    return x509.Name(parts)


def write(path, data, mode=0o600, uid=None):
    """As a whole: a reader sees the old file or this one."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    os.chmod(new, mode)
    if uid is not None:
        os.chown(new, uid, uid)
    os.rename(new, path)
    return path


class Leaf:
    def __init__(self, cert, key, chain=()):
        self.cert, self.key, self.chain = cert, key, list(chain)

    @property
    def cert_pem(self):
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in [self.cert, *self.chain])

    def key_pem(self, passphrase=None):
        how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)

    def p12(self, passphrase=None):
        how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return pkcs12.serialize_key_and_certificates(b"web", self.key, self.cert, self.chain or None, how)

    @property
    def serial(self):
        return self.cert.serial_number

    def write(self, directory, name, uid=None):
        """NAME.pem and NAME-key.pem."""
        cert = write(directory / f"{name}.pem", self.cert_pem, 0o644, uid)
        return cert, write(directory / f"{name}-key.pem", self.key_pem(), 0o600, uid)


class Ca:
    def __init__(self, name="root", parent=None, uri=None, path_length=None):
        self.name, self.parent = name, parent
        self.key = new_key()
        self.cert = self._sign(
            subject(name), self.key.public_key(), parent or self, now() - DAY, now() + 365 * DAY,
            [
                (x509.BasicConstraints(ca=True, path_length=path_length), True),
                (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True),
                *([(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)] if uri else []),
            ],
        )

    def _sign(self, name, public_key, issuer, not_before, not_after, extensions):
        b = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(subject(issuer.name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
        for ext, critical in extensions:
            b = b.add_extension(ext, critical)
        return b.sign(issuer.key, hashes.SHA256())

    @property
    def pem(self):
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self):
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def leaf(self, dns=(), uris=(), ips=(), cn=None, ou=(), kind="ec", eku=BOTH, life=DAY, public_key=None, signs=False):
        key = None if public_key else new_key(kind)
        names = [x509.DNSName(d) for d in dns] + [x509.UniformResourceIdentifier(u) for u in uris]
        names += [x509.IPAddress(ipaddress.ip_address(i)) for i in ips]
        extensions = [(x509.BasicConstraints(ca=False, path_length=None), True)]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), not cn and not ou))
        if signs:
            usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
            extensions.append((usage, True))
        if eku:
            extensions.append((x509.ExtendedKeyUsage(eku), False))
        cert = self._sign(subject(cn, ou), public_key or key.public_key(), self, now() - DAY / 24, now() + life, extensions)
        return Leaf(cert, key, [self.cert] if self.parent else [])

    def svid(self, uri, **kw):
        """A leaf as SPIFFE wants it."""
        return self.leaf(uris=[uri], signs=True, **kw)

    def crl(self, *revoked, last=None, next_=None):
        b = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(subject(self.name))
            .last_update(last or now() - DAY / 24)
            .next_update(next_ or now() + DAY)
        )
        for leaf in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(leaf.serial).revocation_date(now() - DAY / 24)
            b = b.add_revoked_certificate(entry.build())
        return b.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
