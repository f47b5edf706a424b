"""A proxy behind real rules: whether it knows that it is captured, and clients' addresses that are kept."""

import contextlib
import json
import pathlib
import re
import socket
import struct

import pytest
from interception import REFUSED, WHO, World, start_script, with_caps
from lab import in_netns, run, wait_for
from node import ALLOW_CLIENT, UIDS, Proxy, spiffe_id

UID = UIDS["server"]
MODES = ("redirect", "tproxy")


class Pod:
    """A workload on port 8080 that says who its client is, its sidecar, and another machine's client."""

    def __init__(self, node, build):
        self.node = node
        self.world = World(node.lab, build)
        start_script(self.world, "who", WHO)
        node.start_agent()

    def sidecar(self, mode, canary="on", caps="+net_raw", wait=True, uid=UID, extra=""):
        node, lab = self.node, self.node.lab
        admin = lab.private_dir("admin-sidecar", UID) / "admin.sock"
        (node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td="test.example"))
        conf = node.conf / "sidecar.yaml"
        transparent = "    transparent: true\n" if mode == "tproxy" else ""
        conf.write_text(
            f"kind: Proxy\nlevel: 1\nname: sidecar\nidentity: {{socket: 'unix:{node.socket}'}}\npolicy: policy.yaml\n"
            "listeners:\n"
            "  - {name: out4, direction: outbound, capture: intercepted, address: '127.0.0.1:15001'}\n"
            "  - {name: out6, direction: outbound, capture: intercepted, address: '[::1]:15001'}\n"
            "  - name: in\n    direction: inbound\n    capture: intercepted\n    address: '[::]:15006'\n"
            f"{transparent}    ports: [{{port: 8081, protocol: http}}]\n"
            f"interception: {{canary: {canary}, interval: 200ms}}\n"
            f"admin: {{socket: {admin}, allow_uids: [0, {UID}]}}\nlog: {{level: debug}}\n{extra}"
        )
        argv = [node.postern, "proxy", conf]
        argv, uid = (with_caps(argv, uid, caps), None) if mode == "tproxy" and caps else (argv, uid)
        p = Proxy(node, "sidecar", lab.start("sidecar", argv, netns=self.world.app, uid=uid), admin, conf)
        if wait:
            p.wait_identity()
        return p

    def rules(self, mode, *options, want=0):
        return self.world.intercept("--proxy-uid", str(UID), "--inbound-mode", mode, *options, want=want)

    def client(self, to, port):
        """A proxy on the other machine by which the server is reached at `to`."""
        self.node.netns = self.world.peer
        host = f"[{to}]" if ":" in to else to
        text = (
            "  - name: out\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:9000\n"
            f"    to: '{host}:{port}'\n    identities: [{spiffe_id('server')}]\n"
        )
        return self.node.start_proxy("client", text)


@pytest.fixture
def pod(node, build):
    return Pod(node, build)


def ask(ns, host, port, data=b""):
    with in_netns(ns):
        s = socket.create_connection((host, port), timeout=10)
    with s:
        if data:
            s.sendall(data)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
        return got


def checks(p):
    return {(c["check"], c["family"]): c["ok"] for c in p.status()["capture"]["checks"]}


def becomes(p, ready):
    def is_so():
        assert p.process.alive(), p.process.err()[-3000:]
        return p.status()["ready"] is ready

    wait_for(f"the sidecar to be {'ready' if ready else 'not ready'}", is_so)


@pytest.mark.parametrize("mode", MODES)
def test_ready_only_while_it_is_captured(pod, mode):
    p = pod.sidecar(mode)
    inbound = "inbound" if mode == "tproxy" else "guard"
    every = {(c, f) for c in ("outbound", inbound) for f in ("ipv4", "ipv6")}
    wait_for("the want of rules to be noticed", lambda: len(p.events("capture_lost")) >= 4)
    assert p.status()["ready"] is False
    pod.rules(mode)
    becomes(p, True)
    assert checks(p) == dict.fromkeys(every, True)
    metrics = p.metrics()
    assert 'postern_capture_ok{check="outbound",family="ipv6"} 1' in metrics and "postern_ready 1" in metrics
    for harm, lost in (
        ("flush ruleset", every),
        ("flush chain inet postern outbound_rest", {("outbound", "ipv4"), ("outbound", "ipv6")}),
        ("flush chain inet postern outbound", {("outbound", "ipv4"), ("outbound", "ipv6")}),
        (f"flush chain inet postern {'inbound' if mode == 'tproxy' else 'guard'}", {(inbound, "ipv4"), (inbound, "ipv6")}),
    ):
        pod.world.nft(harm)
        becomes(p, False)
        wait_for(f"what '{harm}' takes away", lambda lost=lost: {c for c, ok in checks(p).items() if not ok} == lost)
        assert "postern_ready 0" in p.metrics()
        pod.rules(mode)
        becomes(p, True)
    assert p.events("capture_back")
    assert p.process.stop() == 0


def test_somebody_who_answers_in_its_place(pod):
    """Without rules the canary's address is this machine's: whoever listens there is taken for nobody else."""
    pod.rules("redirect")
    p = pod.sidecar("redirect")
    becomes(p, True)
    with in_netns(pod.world.app):
        fake = socket.create_server(("0.0.0.0", 15009))
    with fake:
        pod.world.nft("flush chain inet postern outbound")
        fake.settimeout(0.1)

        def lost_to_it():
            with contextlib.suppress(TimeoutError):
                fake.accept()[0].close()
            return p.events("capture_lost", check="outbound", family="ipv4")

        lost = wait_for("the loss", lost_to_it)
        assert "somebody else" in lost[-1]["error"]
    assert p.status()["ready"] is False


def test_nothing_without_it(pod):
    p = pod.sidecar("redirect", canary="off")
    becomes(p, True)
    assert p.status()["capture"] is None
    assert "postern_capture" not in p.metrics()


def test_an_application_that_dials_the_canary(pod):
    """It is captured as anything else, and told nothing."""
    pod.rules("redirect")
    p = pod.sidecar("redirect")
    becomes(p, True)
    for host in ("127.15.0.9", "::1"):
        assert ask(pod.world.app, host, 15009) == b""
    assert p.status()["ready"] is True


@pytest.mark.parametrize("mode", MODES)
def test_from_outside(pod, mode):
    """Whoever reaches port 15010 of the workload's address is captured, and told whether the proxy is ready; without
    rules nobody listens there."""
    p = pod.sidecar(mode)
    for mine in (pod.world.app4, pod.world.app6):
        assert pod.world.ask(pod.world.peer, mine, 15010) == REFUSED
    pod.rules(mode)
    becomes(p, True)
    question = b"GET /ready HTTP/1.1\r\nHost: sidecar\r\n\r\n"
    for mine in (pod.world.app4, pod.world.app6):
        wait_for("the answer", lambda mine=mine: ask(pod.world.peer, mine, 15010, question).startswith(b"HTTP/1.1 200 OK"))
    before = p.status()["capture"]["from_outside"]
    assert before >= 2 and f"postern_capture_from_outside_total {before}" in p.metrics()
    # It is alive, and not ready: what it can see by itself is gone, but for what brings this question.
    pod.world.nft("flush chain inet postern outbound_rest")
    wait_for("the other answer", lambda: ask(pod.world.peer, pod.world.app4, 15010, question).startswith(b"HTTP/1.1 503 "))
    assert p.status()["ready"] is False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_whose_address_the_workload_sees(pod, mode, family):
    world = pod.world
    mine, theirs = (world.app4, world.peer4) if family == "ipv4" else (world.app6, world.peer6)
    pod.rules(mode)
    p = pod.sidecar(mode)
    becomes(p, True)
    pod.client(mine, 8080)
    for _ in range(3):
        seen = json.loads(ask(world.peer, "127.0.0.1", 9000))["seen"]
        assert seen == (theirs if mode == "tproxy" else mine)
    # Who does not show the client's identity is not let in, whatever its address.
    with in_netns(world.peer):
        plain = socket.create_connection((mine, 8080), timeout=10)
    with plain:
        plain.sendall(b"x" * 100)
        with pytest.raises(OSError):
            while plain.recv(100):
                pass
            raise ConnectionResetError("ended")
    caps = {k: int(v, 16) for k, v in (
        line.split(":") for line in pathlib.Path(f"/proc/{p.process.pid}/status").read_text().splitlines() if line.startswith("Cap")
    )}  # fmt: skip
    want = 1 << 13 if mode == "tproxy" else 0  # CAP_NET_RAW, and nothing else
    assert caps["CapPrm"] == caps["CapEff"] == want and caps["CapAmb"] == caps["CapInh"] == 0


def test_root_becomes_the_user_that_rules_know(pod):
    """As in a pod, where a capability reaches no user but root: uid 0 with four of them, and one is left."""
    pod.rules("tproxy")
    p = pod.sidecar("tproxy", caps="+net_raw,+setuid,+setgid,+setpcap", uid=0, extra=f"run_as: {UID}\n")
    becomes(p, True)
    status = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{p.process.pid}/status").read_text().splitlines() if ":" in line
    )
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"].split() == []
    for name, want in (("CapPrm", 1 << 13), ("CapEff", 1 << 13), ("CapBnd", 1 << 13), ("CapAmb", 0), ("CapInh", 0)):
        assert int(status[name], 16) == want, name
    pod.client(pod.world.app4, 8080)
    assert json.loads(ask(pod.world.peer, "127.0.0.1", 9000))["seen"] == pod.world.peer4


def test_requests_come_from_the_client_too(pod):
    world = pod.world
    pod.rules("tproxy")
    becomes(pod.sidecar("tproxy"), True)
    pod.client(world.app4, 8081)
    server = (
        "import http.server, socketserver, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n"
        "        body = self.client_address[0].encode()\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def log_message(self, *a):\n"
        "        pass\n"
        "class S(http.server.ThreadingHTTPServer):\n"
        "    def server_bind(self):\n"  # without a look at DNS
        "        socketserver.TCPServer.server_bind(self)\n"
        "s = S((sys.argv[1], 8081), H)\n"
        "print('ready', flush=True)\n"
        "s.serve_forever()\n"
    )
    world.lab.processes[[x.name for x in world.lab.processes].index("who")].stop()
    start_script(world, "http", server, world.app4)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = ask(world.peer, "127.0.0.1", 9000, head)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(world.peer4.encode()), answer


def test_transparent_without_the_capability(pod):
    p = pod.sidecar("tproxy", caps=None, wait=False)
    assert p.process.p.wait(20) == 1
    said = p.events("start_failed")[-1]
    assert "transparent" in said["error"] and "CAP_NET_RAW" in said["advice"]


def test_the_rules_of_the_other_mode(pod):
    """Nothing is taken for what it is not."""
    p = pod.sidecar("tproxy", canary="off")
    pod.rules("redirect")
    assert_refused(pod, p, "not_redirected")


def assert_refused(pod, p, reason):
    with pytest.raises(ConnectionResetError):
        ask(pod.world.peer, pod.world.app4, 8080)
    p.wait_event("connection", reason=reason)


def test_a_loopback_destination_that_nobody_named(pod):
    """However it came to the listener: services on loopback rely on nobody else getting there."""
    p = pod.sidecar("redirect", canary="off")
    pod.world.nft(
        "table ip other { chain c { type nat hook output priority -90; ip daddr 127.0.0.1 tcp dport 8080 redirect to :15006; }; }"
    )
    with pytest.raises(ConnectionResetError):
        ask(pod.world.app, "127.0.0.1", 8080)
    p.wait_event("connection", reason="loopback")


def test_a_reset_client_is_no_reason_to_keep_its_port(pod):
    """Many connections of one client in turn and at once: each gets a port, and none ends another's."""
    world = pod.world
    pod.rules("tproxy")
    becomes(pod.sidecar("tproxy"), True)
    pod.client(world.app4, 8080)
    for _ in range(5):
        batch = []
        with in_netns(world.peer):
            batch = [socket.create_connection(("127.0.0.1", 9000), timeout=10) for _ in range(8)]
        for n, s in enumerate(batch):
            with s:
                if n % 2:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                assert json.loads(s.makefile().read())["seen"] == world.peer4


def test_status_names_the_capability(pod):
    pod.rules("tproxy")
    p = pod.sidecar("tproxy")
    text = run(pod.node.postern, "status", "--hardening", "--socket", p.admin).stdout
    assert re.search(r"^capabilities +0x2000$", text, re.M), text
