"""gateway: gateways beside a node's agent, or on their own; certificates of an ordinary CA; and what
stands behind and before them on Unix sockets.
"""

import datetime
import ipaddress
import os
import pathlib
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lab import wait_for
from node import TD, UIDS, Proxy

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Ca:
    """An ordinary authority, and what it signs, as PEM files in `dir`."""

    def __init__(self, dir, name="ca", uid=None):
        self.dir, self.name, self.uid = pathlib.Path(dir), name, uid
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self._write(f"{name}.pem", self.cert.public_bytes(serialization.Encoding.PEM))

    def _write(self, name, data, mode=0o644):
        path = self.dir / name
        new = path.with_suffix(path.suffix + ".new")
        new.write_bytes(data)
        new.chmod(mode)
        if self.uid is not None:
            os.chown(new, self.uid, self.uid)
        new.rename(path)
        return path

    def issue(self, name, cn=None, ou=None, dns=(), uri=(), ip=(), days=1):
        """(certificate, key) files; the names go into the subject's alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
        subject += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou)] if ou else []
        names = [x509.DNSName(n) for n in dns] + [x509.UniformResourceIdentifier(u) for u in uri]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ip]
        b = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + days * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        )
        if names:
            b = b.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
        cert = b.sign(self.key, hashes.SHA256())
        pem = cert.public_bytes(serialization.Encoding.PEM)
        der_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(f"{name}.pem", pem), self._write(f"{name}-key.pem", der_key, 0o600)


def client_context(ca, cert=None, key=None, alpn=None):
    """What an ordinary TLS client goes by."""
    c = ssl.create_default_context(cafile=str(ca.pem))
    if cert is not None:
        c.load_cert_chain(str(cert), str(key))
    if alpn:
        c.set_alpn_protocols(alpn)
    return c


def server_context(ca, cert, key):
    """An ordinary TLS server that demands a certificate of `ca`."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(str(cert), str(key))
    c.load_verify_locations(str(ca.pem))
    c.verify_mode = ssl.CERT_REQUIRED
    return c


def connect(node, where, timeout=20):
    """A client's socket: to a port of the node's own address, or to a Unix socket's path."""
    if isinstance(where, int):
        with node.inside():
            return socket.create_connection(("127.0.0.1", where), timeout=timeout)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(str(where))
    return s


class Gateway(Proxy):
    def wait_ready(self, timeout=20):
        def ready():
            if not self.process.alive():
                raise AssertionError(f"{self.name} ended {self.process.p.returncode}: {self.process.err()[-3000:]}")
            return self.status()["ready"]

        return wait_for(f"{self.name} to be ready", ready, timeout)

    def listener(self, name):
        return next(one for one in self.status()["listeners"] if one["name"] == name)

    def rewrite(self, change):
        """Gives the file another text."""
        self.conf.write_text(change(self.conf.read_text()))


HOST = ""  # where the test itself is


def start_gateway(node, name, body, identity=None, policy=None, uid=None, wait=True, netns=None, env=None, isolation="none"):
    """`body`: listeners and all that is not said here. identity: the agent's identity of that name
    (see node.UIDS) is taken, and the process runs as its user; None: the file has none. netns: the node's own; HOST."""
    node.proxies += 1
    uid = uid if uid is not None else UIDS[identity] if identity else UIDS["stranger"]
    tag = f"{name}{node.proxies}"
    admin_dir = node.lab.private_dir(f"admin-{tag}", uid)
    conf = node.conf / f"{tag}.yaml"
    text = f"kind: Gateway\nlevel: 1\nname: {name}\n"
    if identity:
        text += f"identity:\n  socket: unix:{node.socket}\n  key_isolation: {isolation}\n"
    if policy is not None:
        (node.conf / f"{tag}-policy.yaml").write_text(policy.format(td=TD))
        text += f"policy: {tag}-policy.yaml\n"
    conf.write_text(text + f"admin:\n  socket: {admin_dir}/admin.sock\n  allow_uids: [0, {uid}]\n" + body)
    process = node.lab.start(tag, [node.postern, "gateway", conf], netns=node.netns if netns is None else netns or None, uid=uid, **({"env": env} if env else {}))
    g = Gateway(node, name, process, admin_dir / "admin.sock", conf)
    g.policy_path = node.conf / f"{tag}-policy.yaml"
    if wait:
        g.wait_ready()
    return g
