"""go-spiffe v2 as it is, where Go is there and its modules can be had: a client, a peer, a user of both."""

import os
import re
import shutil
import signal
import subprocess

import clients
import pytest
from lab import free_port, wait_for
from node import TD, UIDS, spiffe_id
from servers import TcpServer, echo


@pytest.fixture
def gospiffe(lab):
    """Where any uid may read it."""
    program = lab.private_dir("go") / "gospiffe"
    shutil.copy(clients.built("go-2.1") / "gospiffe", program)
    program.chmod(0o755)
    return program


class Peers:
    """gospiffe processes beside the node, each under the uid of the identity that it is to have."""

    def __init__(self, node, program):
        self.node, self.program, self.started = node, program, 0

    def start(self, who, what, *argv):
        self.started += 1
        argv = [self.program, what, self.node.socket, *argv]
        return self.node.lab.start(f"go-{what}{self.started}", argv, netns=self.node.netns, uid=UIDS[who])

    def serve(self, who, peer):
        p = self.start(who, "serve", spiffe_id(peer))

        def listening():
            assert p.alive(), p.out() + p.err()
            return re.search(r"^listening (\S+)$", p.out(), re.M)

        return p, wait_for("go-spiffe to listen", listening)[1]

    def call(self, who, peer, address, text):
        argv = [self.program, "call", self.node.socket, spiffe_id(peer), address, text]
        p = self.node.lab.run_in(argv, netns=self.node.netns, uid=UIDS[who], timeout=60, with_hosts=False)
        return p.stdout + p.stderr

    def serial(self, who, peer, address, text):
        """The serial of the certificate that the peer showed; the bytes came back, from that peer."""
        out = self.call(who, peer, address, text)
        m = re.fullmatch(rf"echo {text} from {re.escape(spiffe_id(peer))} ([0-9a-f]+)\n", out)
        assert m, out
        return m[1]


@pytest.fixture
def peers(node, gospiffe):
    return Peers(node, gospiffe)


def updates(watch):
    """[(ID, serial, how many identities)] of a watch's lines."""
    return re.findall(r"^update (\S+) ([0-9a-f]+) (\d+)$", watch.out(), re.M)


def wait_serials(watch, n, timeout=40):
    def seen():
        assert watch.alive(), watch.out() + watch.err()
        return len({serial for _, serial, _ in updates(watch)}) >= n

    wait_for(f"{n} SVIDs", seen, timeout)


def test_go_spiffe(gospiffe, agent):
    agent.start(ttl="10s")
    out = agent.lab.run_in([gospiffe, "fetch", agent.socket, TD], timeout=90, with_hosts=False)
    assert out.stdout.splitlines() == [
        f"spiffe://{TD}/first internal",
        f"spiffe://{TD}/second ",
        "authorities 1",
        "rotated",
    ], out.stdout + out.stderr


def test_go_spiffe_is_denied(gospiffe, agent):
    agent.start()
    out = agent.lab.run_in([gospiffe, "fetch", agent.socket, TD], uid=agent.nobody, timeout=90, with_hosts=False)
    assert out.returncode == 1 and "PermissionDenied" in out.stdout, out.stdout + out.stderr


def test_watch_over_rotations(node, peers):
    """Each message is a whole one, and each is a new SVID that its own bundle bears out."""
    node.start_agent(ttl="10s")
    watch = peers.start("client", "watch")
    wait_serials(watch, 3)
    seen = updates(watch)
    assert {(spiffe_id, n) for spiffe_id, _, n in seen} == {("spiffe://test.example/client", "1")}
    assert len({serial for _, serial, _ in seen}) == len(seen), "the same SVID was pushed twice"
    assert "error" not in watch.out(), watch.out()


def test_two_peers(node, peers):
    """Mutual TLS from either's source: the one that is expected, and nobody else, on either side."""
    node.start_agent(ttl="10s")
    server, address = peers.serve("server", "client")
    first = peers.serial("client", "server", address, "hello")
    wait_for("another SVID of the server", lambda: peers.serial("client", "server", address, "again") != first, 30)
    assert "echo" not in peers.call("stranger", "server", address, "hello")
    wait_for("the server's refusal", lambda: "refused" in server.out() and "stranger" in server.out())
    assert "echo" not in peers.call("client", "stranger", address, "hello")


def test_beside_our_proxies(node, peers):
    """Either half of a pair may be go-spiffe's: what our proxies show and demand, another's library takes."""
    node.start_agent()
    with TcpServer(node.netns, echo) as workload:
        tls = free_port()
        inbound = node.server_side(tls, workload.port)
        peers.serial("client", "server", f"127.0.0.1:{tls}", "inwards")
        assert "echo" not in peers.call("stranger", "server", f"127.0.0.1:{tls}", "hello")
        denied = inbound.wait_event("connection", reason="policy_denied")
        assert denied["peer_id"] == spiffe_id("stranger"), denied
        assert workload.accepted == 1

    _, address = peers.serve("server", "client")
    plain = free_port()
    node.client_side(plain, address.rpartition(":")[2])
    call = ["nc", "-N", "-w", "20", "127.0.0.1", str(plain)]
    p = node.lab.run_in(call, netns=node.netns, with_hosts=False, input="outwards")
    assert p.stdout == "outwards", p.stderr


RESTARTS = int(os.environ.get("POSTERN_TEST_RESTARTS", "10"))


class Sources:
    """A program with an X509Source and a JWTSource, which the test asks."""

    def __init__(self, node, program):
        argv = node.lab.argv_in([program, "sources", node.socket, "audience"], netns=node.netns, uid=UIDS["client"])
        pipe = subprocess.PIPE
        self.p = subprocess.Popen([str(a) for a in argv], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        assert self.p.stdout.readline() == "ready\n"

    def ask(self, what):
        self.p.stdin.write(what + "\n")
        self.p.stdin.flush()
        return self.p.stdout.readline().split()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.p.kill()
        self.p.wait()
        self.p.stdin.close()
        self.p.stdout.close()


@pytest.mark.parametrize("version", ["go-2.1", "go-newest"])
def test_sources_survive_restarts(node, version, lab):
    """kill -9 and orderly ends, in turn: neither source ever is without an answer that its bundle bears out, but for
    tokens while the agent is away, and each follows every agent. POSTERN_TEST_RESTARTS=100 for a hundred."""
    program = lab.private_dir("go") / "gospiffe"
    shutil.copy(clients.built(version) / "gospiffe", program)
    program.chmod(0o755)
    node.start_agent()
    with Sources(node, program) as sources:
        client = spiffe_id("client")
        assert sources.ask("jwt")[0] == client
        for i in range(RESTARTS):
            before = sources.ask("x509")
            assert before[0] == client, before
            node.agent.stop(signal.SIGTERM if i % 2 else signal.SIGKILL)
            assert sources.ask("x509") == before
            assert sources.ask("jwt")[0] == "error"
            node.start_agent()

            def followed(before=before):
                answer = sources.ask("x509")
                assert answer[0] == client, answer  # at no moment without
                return answer != before

            wait_for(f"an SVID of agent {i + 2}", followed, 40, interval=0.1)
            wait_for(f"a token of agent {i + 2}", lambda: sources.ask("jwt")[0] == client, 40, interval=0.1)


def test_agent_killed_again_and_again(node, peers):
    """A source, and a watch, outlive five agents, and follow each of them."""
    node.start_agent(ttl="10s")
    watch = peers.start("client", "watch")
    _, address = peers.serve("server", "client")
    wait_serials(watch, 1)
    for i in range(5):
        before = len({serial for _, serial, _ in updates(watch)})
        old = peers.serial("client", "server", address, f"before{i}")
        node.agent.stop(signal.SIGKILL)
        node.start_agent()
        wait_serials(watch, before + 1)

        def followed(i=i, old=old):
            return peers.serial("client", "server", address, f"after{i}") != old

        wait_for("an SVID of the new agent at the server", followed, 30)
