"""Unmodified servers behind a gateway's `server` listener, their ordinary clients at a `client` listener: nginx,
PostgreSQL, Redis and MariaDB, over TCP and over Unix sockets, with SVIDs and with certificates of an ordinary CA."""

import json
import subprocess

import pytest
import tls_servers
from lab import admin_ask, free_port, run, wait_for
from node import TD, UIDS, spiffe_id

POLICY = f"""kind: Policy
level: 1
rules:
  - name: clients
    action: ALLOW
    from: [{{principals: ["{spiffe_id("client")}"]}}]
"""


class Gateway:
    """A gateway process under one of the node's identities, with a directory of its own for Unix sockets."""

    def __init__(self, node, name, listeners, more="", identity=True):
        self.uid = UIDS[name]
        self.dir = node.lab.private_dir(f"gateway-{name}", self.uid, 0o755)
        self.admin = self.dir / "admin.sock"
        own = f"identity: {{socket: 'unix:{node.socket}'}}\n" if identity else ""
        conf = node.conf / f"gateway-{name}.yaml"
        (node.conf / "gateway-policy.yaml").write_text(POLICY)
        conf.write_text(
            f"kind: Gateway\nlevel: 1\nname: {name}\n{own}{more}listeners:\n{listeners(self.dir)}"
            f"admin:\n  socket: {self.admin}\n  allow_uids: [0]\n"
        )
        self.process = node.lab.start(f"gateway-{name}", [node.postern, "gateway", conf], uid=self.uid)

        def ready():
            assert self.process.alive(), self.process.err()[-3000:]
            return admin_ask(self.admin, "ready").strip() != "" and '"event":"ready"' in self.said() if identity else self.started()

        wait_for(f"the gateway of {name}", ready)

    def said(self):
        return (self.process.out() + self.process.err()).replace(" ", "")

    def started(self):
        return '"event":"started"' in self.said()

    def status(self):
        return json.loads(admin_ask(self.admin, "status"))


def pair(node, to, name="client"):
    """`to` is where the server is. Returns (port, socket path, gateways): where its clients go."""
    tls, plain = free_port(), free_port()
    server = Gateway(
        node,
        "server",
        lambda d: f"  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '{to}'}}\n",
        more="policy: gateway-policy.yaml\n",
    )
    target = f"to: '127.0.0.1:{tls}', identities: ['{spiffe_id('server')}']"
    client = Gateway(
        node,
        name,
        lambda d: f"  - {{name: tcp, type: client, address: '127.0.0.1:{plain}', {target}}}\n"
        f"  - {{name: unix, type: client, address: 'unix:{d}/.s.PGSQL.5432', socket: {{mode: '0666'}}, {target}}}\n",
    )
    return plain, client.dir / ".s.PGSQL.5432", (server, client)


def need(*what):
    """`./dev` installs them all: one that is not there is a missing install step, and no reason to skip."""
    assert tls_servers.missing(*what) is None


@pytest.fixture
def agent(node):
    node.start_agent()
    return node


def curl(*argv):
    return run("curl", "-sS", "--max-time", "10", *argv, check=False)


def test_nginx(agent):
    need("nginx")
    nginx = tls_servers.Nginx(agent.lab, None)
    port, path, _ = pair(agent, f"127.0.0.1:{nginx.port}")
    assert curl(f"http://127.0.0.1:{port}/").stdout == "hello"
    assert curl("--unix-socket", path, "http://any/").stdout == "hello"
    # Many on one connection, and a large body on each.
    many = curl("--parallel", *[f"http://127.0.0.1:{port}/big?[1-20]", "-o", "/dev/null", "-w", "%{size_download}\n"])
    assert many.stdout.split() == [str(tls_servers.Nginx.BIG)] * 20


def test_postgresql(agent):
    need("postgres")
    postgres = tls_servers.Postgres(agent.lab, None)
    port, path, _ = pair(agent, f"unix:{postgres.dir}/.s.PGSQL.{postgres.port}")
    psql = [tls_servers.POSTGRES.parent / "psql", "-U", "postgres", "-At"]
    rows = "select count(*), sum(n) from generate_series(1, 200000) n"
    for host in (["-h", "127.0.0.1", "-p", port], ["-h", path.parent, "-p", "5432"]):
        assert run(*psql, *host, "-c", rows).stdout.strip() == "200000|20000100000"
    # COPY in and out: bulk both ways.
    copied = run(*psql, "-h", "127.0.0.1", "-p", port, "-c", "create table t (n int)", "-c", "\\copy t from stdin", "-c", "select sum(n) from t",
                 input="".join(f"{i}\n" for i in range(50000)))  # fmt: skip
    assert copied.stdout.split()[-1] == str(sum(range(50000)))
    # Sessions beside each other, as a pool has them.
    pgbench = [tls_servers.POSTGRES.parent / "pgbench", "-h", "127.0.0.1", "-p", port, "-U", "postgres"]
    run(*pgbench, "-i", "-q", "postgres", timeout=120)
    ran = run(*pgbench, "-n", "-c", "8", "-j", "2", "-t", "20", "-S", "postgres", timeout=120)
    assert "number of transactions actually processed: 160/160" in ran.stdout, ran.stdout + ran.stderr


def test_redis(agent):
    need("redis")
    redis = tls_servers.Redis(agent.lab)
    port, path, _ = pair(agent, f"127.0.0.1:{redis.port}")
    big = "x" * 300_000
    assert run("redis-cli", "-p", port, "-x", "set", "big", input=big).stdout.strip() == "OK"
    assert run("redis-cli", "-s", path, "get", "big").stdout.rstrip("\n") == big
    # A subscriber waits in silence, and then is told.
    with subprocess.Popen(["redis-cli", "-p", str(port), "subscribe", "news"], stdout=subprocess.PIPE, text=True) as subscriber:
        try:
            assert [subscriber.stdout.readline().strip() for _ in range(3)] == ["subscribe", "news", "1"]
            assert run("redis-cli", "-s", path, "publish", "news", "hello").stdout.strip() == "1"
            assert [subscriber.stdout.readline().strip() for _ in range(3)] == ["message", "news", "hello"]
        finally:
            subscriber.kill()


def test_mariadb(agent):
    """It speaks first: nothing on the way may wait for the client."""
    need("mariadb")
    mariadb = tls_servers.MariaDB(agent.lab, None)
    run("mariadb", "--no-defaults", f"--socket={mariadb.socket}", "-uroot", "-e", "create user u@'%' identified by 'p'; grant all on *.* to u@'%'")
    port, path, _ = pair(agent, f"127.0.0.1:{mariadb.port}")
    client = ["mariadb", "--no-defaults", "--skip-ssl", "-uu", "-pp", "-N", "-B"]
    assert run(*client, "-h", "127.0.0.1", "-P", port, "-e", "select 40 + 2").stdout.strip() == "42"
    assert run(*client, f"--socket={path}", "-e", "select repeat('y', 100000)").stdout.strip() == "y" * 100000


def test_a_stranger_reaches_none_of_them(agent):
    need("redis")
    redis = tls_servers.Redis(agent.lab)
    port, _, (server, _) = pair(agent, f"127.0.0.1:{redis.port}", name="stranger")
    p = run("redis-cli", "-p", port, "ping", check=False)
    assert "PONG" not in p.stdout
    wait_for("the refusal in the log", lambda: "policy_denied" in server.said() and spiffe_id("stranger") in server.said())
    # And the same with the identity that may.
    assert run("redis-cli", "-p", redis.port, "ping").stdout.strip() == "PONG"


def ordinary(directory, owner):
    """A CA as any company has one, and two certificates of it with names and no SPIFFE ID."""
    def openssl(*argv):
        return run("openssl", *argv, cwd=directory)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=any CA", "-days", "2",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name in ("db.example", "app.example"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        run("chown", str(owner[name]), directory / f"{name}.key")


def test_postgresql_with_an_ordinary_authority(node):
    """No agent, no SPIFFE: files alone, names in certificates, and the names decide."""
    need("postgres")
    certs = node.lab.private_dir("certs")
    ordinary(certs, {"db.example": UIDS["server"], "app.example": UIDS["client"]})
    postgres = tls_servers.Postgres(node.lab, None)
    tls, plain, wrong = free_port(), free_port(), free_port()
    trust = f"trust: [{{name: company, ca: {certs}/ca.pem}}]\n"

    def credentials(name):
        return f"credentials: [{{name: own, cert: {certs}/{name}.pem, key: {certs}/{name}.key}}]\n"

    Gateway(
        node,
        "server",
        lambda d: f"  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{postgres.port}', credentials: [own],"
        f" trust: company, allow: {{dns: [app.example]}}}}\n",
        more=trust + credentials("db.example"),
        identity=False,
    )
    leg = f"to: '127.0.0.1:{tls}', credentials: [own], trust: company"
    client = Gateway(
        node,
        "client",
        lambda d: f"  - {{name: out, type: client, address: '127.0.0.1:{plain}', {leg}, server_name: db.example}}\n"
        f"  - {{name: wrong, type: client, address: '127.0.0.1:{wrong}', {leg}, server_name: other.example}}\n",
        more=trust + credentials("app.example"),
        identity=False,
    )
    psql = [tls_servers.POSTGRES.parent / "psql", "-U", "postgres", "-At", "-h", "127.0.0.1", "-c", "select 7"]
    assert run(*psql, "-p", plain).stdout.strip() == "7"
    assert run(*psql, "-p", wrong, check=False).returncode != 0
    assert "other.example" in client.said() and TD not in client.said()
