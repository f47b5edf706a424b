"""owned_gateway: a gateway with certificates of its own, from files or a token, and who calls it."""

import contextlib
import os
import signal
import socket
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from lab import free_port, run, wait_for
from node import UIDS, Proxy
from pki import Ca, new_key, write
from servers import TcpServer, echo

PIN = "7310-gateway"
MODULES = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
]
UID = UIDS["server"]


class Gateway(Proxy):
    """One gateway with listeners as given, beside an echo server."""

    def __init__(self, node, text, name="gateway", wait=True, uid=UID):
        self.dir = node.lab.private_dir(f"{name}-admin", uid)
        conf = node.conf / f"{name}.yaml"
        conf.write_text(
            f"kind: Gateway\nlevel: 1\nname: {name}\n{text}\nadmin:\n  socket: {self.dir}/admin.sock\n  allow_uids: [0, {uid}]\n"
        )
        process = node.lab.start(name, [node.postern, "gateway", conf], netns=node.netns, uid=uid)
        super().__init__(node, name, process, self.dir / "admin.sock", conf)
        if wait:
            wait_for(f"{name} to listen", self.answers)

    def answers(self):
        assert self.process.alive(), self.process.err()[-3000:]
        return self.status()["pid"]

    def credential(self, name, kind="credentials"):
        return next(c for c in self.status()[kind] if c["name"] == name)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def refused(self, **want):
        return self.wait_event("handshake_failed", **want)


@pytest.fixture
def world(node):
    """A directory that the gateway's user may read, an authority, and a server behind."""

    class World:
        pass

    w = World()
    w.node, w.dir, w.ca = node, node.conf, Ca()
    with TcpServer(node.netns, echo) as server:
        w.server = server
        yield w


def server_text(world, credentials, more="", trust=None, allow="{any: true}", names=("web",), crl="", port=None):
    """The text of a server listener that shows `names` to callers of the authority."""
    write(world.dir / "ca.pem", (trust or world.ca).pem, 0o644)
    port = port or free_port()
    return port, (
        f"credentials:\n{credentials}trust:\n  - {{name: partners, ca: ca.pem{crl}}}\n"
        f"listeners:\n  - name: in\n    type: server\n    address: 127.0.0.1:{port}\n    to: 127.0.0.1:{world.server.port}\n"
        f"    credentials: [{', '.join(names)}]\n    trust: partners\n    allow: {allow}\n{more}"
    )


def client_context(world, leaf=None, **kw):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.load_verify_locations(cadata=world.ca.pem.decode())
    for k, v in kw.items():
        setattr(ctx, k, v)
    if leaf is not None:
        path = world.node.lab.dir / f"caller-{leaf.serial}.pem"
        path.write_bytes(leaf.key_pem() + leaf.cert_pem)
        ctx.load_cert_chain(path)
    return ctx


@contextlib.contextmanager
def connected(world, port, ctx, name="web.example"):
    with world.node.inside():
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    with raw, ctx.wrap_socket(raw, server_hostname=name) as s:
        yield s


def exchange(world, port, ctx, name="web.example"):
    """The echo, or how it was refused."""
    try:
        with connected(world, port, ctx, name) as s:
            s.sendall(b"marker")
            got = s.recv(100)
            return got.decode() if got else "closed"
    except ssl.SSLError as e:
        return f"alert {e.reason}"
    except ConnectionError as e:
        return type(e).__name__


def shown(world, port, ctx, name="web.example"):
    """The serial of the certificate that the gateway shows."""
    with connected(world, port, ctx, name) as s:
        return int(s.getpeercert()["serialNumber"], 16)


class Token:
    def __init__(self, lab, uid):
        self.module = next(m for m in MODULES if os.path.exists(m))
        base = lab.private_dir("token")
        self.dir, self.conf, self.pin, self.uid = base / "tokens", base / "softhsm2.conf", base / "pin", uid
        self.dir.mkdir(mode=0o700)
        self.conf.write_text(f"directories.tokendir = {self.dir}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.env = dict(os.environ, SOFTHSM2_CONF=str(self.conf))
        run("softhsm2-util", "--init-token", "--free", "--label", "gw", "--so-pin", "so-pin-1", "--pin", PIN, env=self.env)
        self.write_pin(PIN)

    def write_pin(self, pin):
        write(self.pin, pin.encode() + b"\n", 0o600, self.uid)

    def make_key(self, kind, label, key_id):
        """A key pair in the token; its public half."""
        key = new_key(kind)
        pem = write(
            self.dir.parent / f"{label}-{key_id}.pem",
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
        run("softhsm2-util", "--import", pem, "--token", "gw", "--label", label, "--id", key_id, "--pin", PIN, env=self.env)
        pem.unlink()
        for root, dirs, files in os.walk(self.dir):
            for name in [root, *(os.path.join(root, f) for f in dirs + files)]:
                os.chown(name, self.uid, self.uid)
        return key.public_key()

    def text(self, cert, key):
        return (
            f"  - name: {key}\n    cert: {cert}\n    pkcs11:\n      module: {self.module}\n      token: gw\n      key: {key}\n"
            f"      pin_file: {self.pin}\n      token_paths: [{self.dir}]\n      environment: ['SOFTHSM2_CONF={self.conf}']\n"
        )
