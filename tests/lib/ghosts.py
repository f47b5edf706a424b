"""ghosts: one command line, run by ghostunnel itself or by the gateway that is made of it.

The real one is $POSTERN_GHOSTUNNEL, a path; where it is not set its half of the scenarios is skipped. No agent is
needed: everything goes by ordinary certificates, in a namespace of the test's own."""

import os
import socket
import ssl
import subprocess

from gateway import Ca
from lab import free_port, in_netns, wait_for
from servers import TcpServer

REAL = os.environ.get("POSTERN_GHOSTUNNEL", "")
UID = 48191


class Place:
    """Certificates, sockets and processes of one scenario."""

    def __init__(self, lab, build, real):
        self.lab, self.real = lab, real
        self.postern = build / "proxy" / "postern"
        self.netns = lab.netns("ghost")
        self.dir = lab.private_dir("ghost", UID)
        self.ca = Ca(self.dir, "ca", UID)
        self.other = Ca(self.dir, "other", UID)
        self.n = 0

    def pair(self, name, ca=None, **names):
        """--cert, --key, --cacert of a new certificate."""
        cert, key = (ca or self.ca).issue(name, **names)
        return ["--cert", cert, "--key", key, "--cacert", self.ca.pem]

    def convert(self, *flags, options=()):
        line = " ".join("'" + str(f).replace("'", "'\\''") + "'" for f in flags)
        return subprocess.run(
            [str(self.postern), "gateway", "--from-ghostunnel", line, *map(str, options)],
            capture_output=True, text=True, timeout=30, cwd=self.dir, check=False,
        )  # fmt: skip

    def start(self, *flags, options=(), wait=True, env=None, activated=None):
        """The process, when it listens. options: what our converter is told besides. activated: a socket for it."""
        self.n += 1
        flags = [str(f) for f in flags]
        if self.real:
            argv = [REAL, *flags]
        else:
            made = self.convert(*flags, options=options)
            assert made.returncode == 0, made.stderr
            conf = self.dir / f"made{self.n}.yaml"
            conf.write_text(made.stdout)
            argv = [self.postern, "gateway", conf]
        kw = {}
        if activated is not None:
            fd, name = activated
            argv = ["bash", "-c", f'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec "$@"', "bash", *argv]
            kw["pass_fds"] = [fd]
        p = self.lab.start(f"{'ghostunnel' if self.real else 'gateway'}{self.n}", argv, netns=self.netns, uid=UID,
                           env={**os.environ, **(env or {})}, cwd=self.dir, **kw)  # fmt: skip
        if wait:
            where = flags[flags.index("--listen") + 1]
            wait_for("it to listen", lambda: self.listens(p, where))
        return p

    def listens(self, p, where):
        assert p.alive(), p.err()[-2000:] + p.out()[-2000:]
        if where.startswith("systemd:"):
            return self.real or '"started"' in p.err()
        with self.connect(where):
            return True

    def connect(self, where, timeout=15):
        if str(where).startswith("unix:"):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(timeout)
            try:
                s.connect(str(where)[5:])
            except OSError:
                s.close()
                raise
            return s
        host, port = str(where).rsplit(":", 1)
        with in_netns(self.netns):
            return socket.create_connection((host, int(port)), timeout=timeout)

    def context(self, cert=None, key=None, ca=None):
        c = ssl.create_default_context(cafile=str((ca or self.ca).pem))
        c.check_hostname = True
        if cert is not None:
            c.load_cert_chain(str(cert), str(key))
        return c

    def tls(self, where, context, name="localhost"):
        s = self.connect(where)
        try:
            return context.wrap_socket(s, server_hostname=name)
        except OSError:
            s.close()
            raise

    def client(self, name, ca=None, **names):
        """The context of a client with a new certificate."""
        return self.context(*(ca or self.ca).issue(name, **names))

    def address(self):
        return f"127.0.0.1:{free_port()}"


def says(s, data=b"ping"):
    """Whether what is sent comes back; the peer's refusal is no answer."""
    try:
        s.sendall(data)
        got = b""
        while len(got) < len(data):
            chunk = s.recv(65536)
            if not chunk:
                return False
            got += chunk
        return got == data
    except OSError:
        return False


class TlsServer(TcpServer):
    """Echoes, over TLS, to clients of `ca`; where ca is None, to anybody."""

    def __init__(self, place, cert, key, ca=None):
        self.c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.c.load_cert_chain(str(cert), str(key))
        if ca is not None:
            self.c.load_verify_locations(str(ca.pem))
            self.c.verify_mode = ssl.CERT_REQUIRED
        self.peers = []
        super().__init__(place.netns, self._echo)

    def _echo(self, conn):
        with self.c.wrap_socket(conn, server_side=True) as s:
            self.peers.append(s.getpeercert())
            while data := s.recv(65536):
                s.sendall(data)


__all__ = ["Place", "REAL", "TlsServer", "UID", "says"]
