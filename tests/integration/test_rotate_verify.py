"""The questions of `postern rotate`: which certificate is served, and HTTP hooks. docs/rotation-actions.md, cases V.

Most of it drives postern-rotate-run itself, so that no rotation is needed for a question."""

import datetime
import hashlib
import http.server
import os
import pathlib
import socket
import ssl
import threading
import time

import pytest
import runner
import tls_servers
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lab import PATIENCE_S, wait_for
from rotating import Rotating, root_agent
from servers import TcpServer


def make_cert(path, name="localhost", ca=None):
    """A certificate with its key in one file, self-signed or below ca; (digest, (cert, key))."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca[0].subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(ca is None, None), True)
        .sign(ca[1] if ca else key, hashes.SHA256())
    )
    pem = cert.public_bytes(Encoding.PEM)
    path.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (path.parent / f"{path.name}.crt").write_bytes(pem)
    return hashlib.sha256(cert.public_bytes(Encoding.DER)).digest(), (cert, key)


class TlsServer(TcpServer):
    """Shows the certificate that `pem` names at the moment."""

    def __init__(self, pem, before=None, **kw):
        self.pem, self.before, self.names = pem, before, []
        self.kw = kw
        super().__init__(None, self.talk)

    def talk(self, conn):
        if self.before is not None and not self.before(conn):
            return
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(self.pem)
        for k, v in self.kw.items():
            setattr(ctx, k, v)
        ctx.sni_callback = lambda s, name, c: self.names.append(name)
        with ctx.wrap_socket(conn, server_side=True) as s:
            self.got = s.recv(100)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """TcpServer in this very namespace."""
    import contextlib

    import servers

    monkeypatch.setattr(servers, "in_netns", lambda n: contextlib.nullcontext())


class Questions:
    def __init__(self, lab, build):
        self.dir, self.build, self.runner = lab.private_dir("questions"), build, None

    def start(self, output):
        conf = self.dir / "rotate.yaml"
        conf.write_text(
            "kind: Rotate\nlevel: 1\nidentity: {socket: 'unix:/nowhere'}\noutputs:\n- name: o\n  directory: /nowhere\n"
            "  layout: nginx\n" + output
        )
        conf.chmod(0o644)
        self.runner = runner.Runner(self.build, conf)
        return self.runner

    def verify(self, url, want, old=None, timeout="2s", extra=""):
        if self.runner is not None:
            assert self.runner.end() == 0
        r = self.start(f"  verify: {{url: '{url}', timeout: {timeout}{extra}}}\n")
        return r.done(r.verify(0, want, old))

    def http(self, action):
        if self.runner is not None:
            assert self.runner.end() == 0
        r = self.start(f"  after:\n  - {action}\n")
        return r.done(r.run(0, 0))


@pytest.fixture
def questions(lab, build):
    q = Questions(lab, build)
    yield q
    if q.runner is not None and q.runner.p.poll() is None:
        q.runner.end()


# --- verdicts --------------------------------------------------------------------------------------


def test_verdicts(questions, lab):
    a, _ = make_cert(lab.dir / "a.pem")
    b, _ = make_cert(lab.dir / "b.pem")
    c = hashlib.sha256(b"c").digest()
    with TlsServer(lab.dir / "a.pem") as s:
        url = f"tls://127.0.0.1:{s.port}"
        d = questions.verify(url, a)
        assert (d["outcome"], d["verdict"], d["tries"], d["seen"]) == ("done", "served", 1, a)
        d = questions.verify(url, b, old=a, timeout="300ms")
        assert (d["verdict"], d["seen"]) == ("old", a) and d["tries"] > 1
        d = questions.verify(url, b, old=c, timeout="300ms")
        assert (d["verdict"], d["seen"]) == ("other", a)
        # Nothing is believed and nothing sent: this certificate leads nowhere, and has another name.
        assert s.got == b""
    d = questions.verify(url, a, timeout="300ms")
    assert d["verdict"] == "unreachable" and "Connection refused" in d["text"]


def test_until_it_is_served(questions, lab):
    a, _ = make_cert(lab.dir / "a.pem")
    b, _ = make_cert(lab.dir / "b.pem")
    with TlsServer(lab.dir / "a.pem") as s:
        r = questions.start(f"  verify: {{url: 'tls://127.0.0.1:{s.port}', timeout: 30s}}\n")
        job = r.verify(0, b, a)
        wait_for("some tries", lambda: s.accepted >= 3)
        s.pem = lab.dir / "b.pem"
        d = r.done(job)
        assert d["verdict"] == "served" and d["tries"] >= 3


def test_server_name_and_old_tls(questions, lab):
    a, _ = make_cert(lab.dir / "a.pem")
    with TlsServer(lab.dir / "a.pem", maximum_version=ssl.TLSVersion.TLSv1_2) as s:
        assert questions.verify(f"tls://localhost:{s.port}", a)["verdict"] == "served"
        assert s.names == ["localhost"]
        assert questions.verify(f"tls://127.0.0.1:{s.port}", a, extra=", server_name: db.example")["verdict"] == "served"
        assert questions.verify(f"tls://127.0.0.1:{s.port}", a)["verdict"] == "served"
        assert s.names == ["localhost", "db.example", None]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_that_wants_a_certificate(questions, lab, version):
    a, _ = make_cert(lab.dir / "a.pem")

    with TlsServer(lab.dir / "a.pem", maximum_version=version, verify_mode=ssl.CERT_REQUIRED) as s:
        assert questions.verify(f"tls://127.0.0.1:{s.port}", a)["verdict"] == "served"


def stall(conn):
    while conn.recv(65536):
        pass


def garbage(conn):
    conn.sendall(os.urandom(4096))
    stall(conn)


def silence(conn):
    stall(conn)


def trickle(conn):
    """A TLS record that never ends."""
    conn.sendall(b"\x16\x03\x03\x40\x00")
    try:
        while True:
            conn.sendall(b"\x00")
            time.sleep(0.02)
    except OSError:
        pass


@pytest.mark.parametrize("scheme", ["tls", "tls+postgres", "tls+mysql"])
@pytest.mark.parametrize("talk", [garbage, silence, trickle, lambda conn: None], ids=["garbage", "silence", "trickle", "end"])
def test_verify_garbage(questions, scheme, talk):
    with TcpServer(None, talk) as s:
        begun = time.monotonic()
        d = questions.verify(f"{scheme}://127.0.0.1:{s.port}", bytes(32), timeout="500ms")
        assert d["outcome"] == "done" and d["verdict"] == "unreachable" and d["text"], d
        assert time.monotonic() - begun < 20


def test_cancelled(questions):
    with TcpServer(None, silence) as s:
        r = questions.start(f"  verify: {{url: 'tls://127.0.0.1:{s.port}', timeout: 1h}}\n")
        job = r.verify(0, bytes(32))
        wait_for("the connection", lambda: s.accepted == 1)
        r.cancel(job)
        assert r.done(job)["outcome"] == "cancelled"
        # And with the daemon gone a question ends with the runner.
        r.verify(0, bytes(32))
        wait_for("the connection", lambda: s.accepted == 2)
        assert r.end() == 0


def probes():
    found = []
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"postern-rotate-probe" in (p / "cmdline").read_bytes():
                found.append((int(p.name), (p / "status").read_text()))
        except OSError:
            pass
    return found


def test_probe_confined(questions):
    """Nobody, without privileges, under a filter; and its own port only (Landlock, where the kernel has it)."""
    with TcpServer(None, silence) as s:
        r = questions.start(f"  verify: {{url: 'tls://127.0.0.1:{s.port}', timeout: 1h}}\n")
        job = r.verify(0, bytes(32))
        wait_for("the connection", lambda: s.accepted == 1)
        mine = [t for _, t in probes() if f"PPid:\t{r.p.pid}\n" in t]
        assert len(mine) == 1
        for line in ("Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Seccomp:\t2", "NoNewPrivs:\t1"):
            assert line in mine[0], mine[0]
        assert "CapEff:\t0000000000000000" in mine[0] and "CapBnd:\t0000000000000000" in mine[0]
        r.cancel(job)
        r.done(job)


# --- databases -------------------------------------------------------------------------------------


def digest_of(path):
    return hashlib.sha256(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)).digest()


def serve_files(lab, uid):
    """A certificate that a database's user may read."""
    d = lab.private_dir("certs", uid)
    make_cert(d / "both.pem")
    text = (d / "both.pem").read_bytes()
    at = text.index(b"-----BEGIN PRIVATE")
    (d / "tls.crt").write_bytes(text[:at])
    (d / "tls.key").write_bytes(text[at:])
    for f in d.iterdir():
        os.chown(f, uid, uid)
        f.chmod(0o600)
    return d


@pytest.mark.skipif(bool(tls_servers.missing("postgres")), reason=str(tls_servers.missing("postgres")))
def test_postgres(questions, lab):
    import pwd

    d = serve_files(lab, pwd.getpwnam("postgres").pw_uid)
    pg = tls_servers.Postgres(lab, d, "tls.crt", "tls.key")
    assert questions.verify(f"tls+postgres://127.0.0.1:{pg.port}", digest_of(d / "tls.crt"))["verdict"] == "served"
    assert questions.verify(f"tls+postgres://127.0.0.1:{pg.port}", bytes(32), timeout="200ms")["verdict"] == "other"
    assert questions.verify(f"tls://127.0.0.1:{pg.port}", bytes(32), timeout="200ms")["verdict"] == "unreachable"


@pytest.mark.skipif(bool(tls_servers.missing("mariadb")), reason=str(tls_servers.missing("mariadb")))
def test_mariadb(questions, lab):
    import pwd

    d = serve_files(lab, pwd.getpwnam("mysql").pw_uid)
    db = tls_servers.MariaDB(lab, d)
    want = digest_of(d / "tls.crt")
    assert questions.verify(f"tls+mysql://127.0.0.1:{db.port}", want)["verdict"] == "served"
    # Over its socket too: the probe becomes the socket's owner.
    assert questions.verify(f"tls+mysql://unix:{db.socket}", want)["verdict"] == "served"


# --- HTTP ------------------------------------------------------------------------------------------


class Http:
    """Notes requests; answers with `status`."""

    def __init__(self, status=204, tls=None, unix=None, headers=()):
        outer = self
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(status)
                for k, v in headers:
                    self.send_header(k, v)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

            def log_message(self, *args):
                pass

            def address_string(self):
                return "-"

        if unix:

            class Server(http.server.ThreadingHTTPServer):
                address_family = socket.AF_UNIX

                def server_bind(self):
                    self.socket.bind(self.server_address)
                    self.server_name, self.server_port = "-", 0

            self.server = Server(unix, Handler)
        else:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.load_cert_chain(tls)
            self.server.socket = ctx.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def test_http(questions):
    with Http() as s:
        d = questions.http(
            f"http: {{method: PUT, url: 'http://127.0.0.1:{s.port}/reload?x=1', headers: ['X-Token: s3'], body: '{{}}'}}"
        )
        assert (d["outcome"], d["http_status"]) == ("done", 204)
        method, path, headers, body = s.requests[0]
        assert (method, path, body) == ("PUT", "/reload?x=1", b"{}")
        assert headers["X-Token"] == "s3" and headers["Host"] == f"127.0.0.1:{s.port}" and headers["Connection"] == "close"
        d = questions.http(f"http: {{url: 'http://localhost:{s.port}/', expect: ['200']}}")
        assert d["outcome"] == "failed" and d["text"] == "the answer's status is 204"


def test_http_unix(questions, lab):
    """As the socket's owner: nobody else may write to it."""
    d = lab.private_dir("app", 48105, 0o755)
    with Http(status=200, unix=str(d / "app.sock")) as s:
        os.chown(d / "app.sock", 48105, 48105)
        (d / "app.sock").chmod(0o600)
        assert questions.http(f"http: {{url: 'http://unix:{d}/app.sock:/r'}}")["outcome"] == "done"
        assert s.requests[0][:2] == ("POST", "/r") and s.requests[0][2]["Host"] == "localhost"


def test_https(questions, lab):
    _, ca = make_cert(lab.dir / "ca.pem", "ca")
    make_cert(lab.dir / "leaf.pem", "localhost", ca)
    make_cert(lab.dir / "other.pem", "elsewhere.example", ca)
    ca_file = lab.dir / "ca.pem.crt"
    with Http(tls=lab.dir / "leaf.pem") as s:
        d = questions.http(f"http: {{url: 'https://localhost:{s.port}/', ca_file: {ca_file}}}")
        assert d["outcome"] == "done", d
        d = questions.http(f"http: {{url: 'https://localhost:{s.port}/', ca_file: {lab.dir}/other.pem.crt}}")
        assert d["outcome"] == "failed" and "not believed" in d["text"], d
    with Http(tls=lab.dir / "other.pem") as s:
        d = questions.http(f"http: {{url: 'https://localhost:{s.port}/', ca_file: {ca_file}}}")
        assert d["outcome"] == "failed" and "not believed" in d["text"] and s.requests == [], d


def test_http_redirect(questions):
    with Http() as other, Http(status=307, headers=[("Location", f"http://127.0.0.1:{other.port}/x")]) as s:
        d = questions.http(f"http: {{url: 'http://127.0.0.1:{s.port}/'}}")
        assert d["outcome"] == "failed" and d["http_status"] == 307 and other.requests == []


def endless_head(conn):
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\r\n")
    try:
        while True:
            conn.sendall(b"A: " + b"b" * 1000 + b"\r\n")
    except OSError:
        pass


def says(text):
    def talk(conn):
        conn.recv(65536)
        conn.sendall(text)

    return talk


@pytest.mark.parametrize(
    "talk, why",
    [
        (endless_head, "no HTTP/1.1"),
        (says(b"HTTP/1.1 200 OK\n\n"), "no HTTP/1.1"),
        (says(b"SSH-2.0-x\r\n"), "no HTTP/1.1"),
        (says(b"HTTP/1.1 200 OK\r\nA: b"), "ended the connection"),
        (says(b""), "ended the connection"),
        (silence, "in time"),
        (trickle, "no HTTP/1.1"),
    ],
)
def test_http_bad_answers(questions, talk, why):
    with TcpServer(None, talk) as s:
        d = questions.http(f"http: {{url: 'http://127.0.0.1:{s.port}/'}}\n    timeout: 700ms")
        assert d["outcome"] == ("timed_out" if talk is silence else "failed") and why in d["text"], d


# --- all of it -------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(tls_servers.missing("nginx")), reason=str(tls_servers.missing("nginx")))
def test_told_by_the_daemon(node, lab):
    """A server that is never reloaded shows the old certificate; the daemon says so everywhere."""
    root_agent(node)
    rot = Rotating(node, "  layout: nginx\n")
    assert rot.run("--once").returncode == 0
    first = digest_of(rot.files / "fullchain.pem")
    nginx = tls_servers.Nginx(lab, rot.files)
    verify = f"  verify: {{url: 'tls://127.0.0.1:{nginx.port}', timeout: 3s}}\n"  # the last try has 1.4 s
    hup = f"  after: [{{signal: {{pid_file: {nginx.pid_file}, executable: {nginx.executable}}}}}]\n"
    rot.write("  layout: nginx\n" + verify)
    rot.start()
    e = rot.wait_event("verified")
    assert e["verdict"] == "old" and e["seen_sha256"] == first.hex() and e["level"] == "error"
    assert rot.status()["verify"]["verdict"] == "old"
    assert 'postern_rotate_served{output="web"} 0' in rot.metrics()
    p = rot.run("--status")
    assert p.returncode == 1 and f"verify tls://127.0.0.1:{nginx.port} old" in p.stdout
    rot.write("  layout: nginx\n" + hup + verify.replace("3s", "20s"))
    rot.renew()
    e = rot.wait_event("verified", verdict="served")
    assert e["generation"] == rot.generation() and e["took_ms"] < PATIENCE_S * 1000
    assert rot.status()["verify"]["verdict"] == "served"
    m = rot.metrics()
    assert 'postern_rotate_served{output="web"} 1' in m and 'postern_rotate_verified_total{output="web",verdict="old"} 1' in m
    assert rot.run("--status").returncode == 0
