"""Unmodified servers behind a gateway's `server` listener, their ordinary clients at a `client` listener: nginx,
PostgreSQL, Redis and MariaDB, over TCP and over Unix sockets, with SVIDs and with certificates of an ordinary CA."""

import subprocess

import pytest
import tls_servers
from gateway import HOST, Ca, start_gateway
from lab import free_port, run, wait_for
from node import ALLOW_CLIENT, TD, UIDS, spiffe_id


def pair(node, to, name="client"):
    """`to` is where the server is. Returns (port, socket path, gateway at the server): where its clients go."""
    tls, plain = free_port(), free_port()
    sockets = node.lab.private_dir("gateway-sockets", UIDS[name])
    path = sockets / ".s.PGSQL.5432"
    server = start_gateway(
        node,
        "server",
        f"listeners:\n  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '{to}'}}\n",
        identity="server",
        policy=ALLOW_CLIENT,
        netns=HOST,
    )
    target = f"to: '127.0.0.1:{tls}', identities: ['{spiffe_id('server')}']"
    start_gateway(
        node,
        name,
        f"listeners:\n  - {{name: tcp, type: client, address: '127.0.0.1:{plain}', {target}}}\n"
        f"  - {{name: unix, type: client, address: 'unix:{path}', socket: {{mode: '0666'}}, {target}}}\n",
        identity=name,
        netns=HOST,
    )
    return plain, path, server


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
    port, _, server = pair(agent, f"127.0.0.1:{redis.port}", name="stranger")
    p = run("redis-cli", "-p", port, "ping", check=False)
    assert "PONG" not in p.stdout
    wait_for("the refusal in the log", lambda: server.events("connection", reason="policy_denied", peer_id=spiffe_id("stranger")))
    # And the same with the identity that may.
    assert run("redis-cli", "-p", redis.port, "ping").stdout.strip() == "PONG"


def test_postgresql_with_an_ordinary_authority(node):
    """No agent, no SPIFFE: files alone, names in certificates, and the names decide."""
    need("postgres")
    certs = node.lab.private_dir("certs")
    ca = Ca(certs, uid=UIDS["stranger"])  # whom gateways without an identity of the agent run as
    postgres = tls_servers.Postgres(node.lab, None)
    tls, plain, wrong = free_port(), free_port(), free_port()

    def files(name):
        cert, key = ca.issue(name, dns=[name])
        return f"trust: [{{name: company, ca: {ca.pem}}}]\ncredentials: [{{name: own, cert: {cert}, key: {key}}}]\nlisteners:\n"

    start_gateway(
        node,
        "server",
        files("db.example")
        + f"  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{postgres.port}', credentials: [own],"
        f" trust: company, allow: {{dns: [app.example]}}}}\n",
        netns=HOST,
    )
    leg = f"to: '127.0.0.1:{tls}', credentials: [own], trust: company"
    client = start_gateway(
        node,
        "client",
        files("app.example") + f"  - {{name: out, type: client, address: '127.0.0.1:{plain}', {leg}, server_name: db.example}}\n"
        f"  - {{name: wrong, type: client, address: '127.0.0.1:{wrong}', {leg}, server_name: other.example}}\n",
        netns=HOST,
    )
    psql = [tls_servers.POSTGRES.parent / "psql", "-U", "postgres", "-At", "-h", "127.0.0.1", "-c", "select 7"]
    assert run(*psql, "-p", plain).stdout.strip() == "7"
    assert run(*psql, "-p", wrong, check=False).returncode != 0
    said = client.process.out() + client.process.err()
    assert "other.example" in said and TD not in said
