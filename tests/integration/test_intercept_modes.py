"""postern intercept: whose traffic is left alone, what is refused, TPROXY, and ways past it that do not lead
past it. All without the data plane: tests/lib/interception.py."""

import json
import socket
import struct
import sys

import pytest
from interception import IN, OUT, PROXY_UID, REFUSED, WHO, World, by_peer, connected, redirected, start_script, tcp_segment, works
from lab import in_netns, run

OUTBOUND_CANARY = (("127.15.0.9", 15009), ("::1", 15009))


@pytest.fixture
def world(lab, build):
    return World(lab, build)


# --- exemptions ---
def test_users_that_are_left_alone(world):
    world.proxy()
    options = ("--exclude-uids", "64790-64799,64801")
    world.apply(*options)
    for theirs in (world.peer4, world.peer6):
        for uid, alone in ((64790, True), (64799, True), (64801, True), (64800, False), (64789, False)):
            want = by_peer(80) if alone else redirected(OUT, theirs, 80)
            assert world.ask(world.app, theirs, 80, uid=uid) == want, uid
    world.check(*options)
    world.check("--exclude-uids", "64790-64799", want=1)


def test_only_what_is_named(world):
    world.proxy()
    options = ("--include-outbound-ports", "80", "--include-outbound-cidrs", f"10.1.0.0/16,{world.peer6}")
    world.apply(*options)
    assert world.ask(world.app, world.peer4, 80) == redirected(OUT, world.peer4, 80)
    assert world.ask(world.app, world.peer4, 81) == by_peer(81)
    assert world.ask(world.app, world.peer6, 81) == redirected(OUT, world.peer6, 81)
    world.check(*options)
    for host, port in OUTBOUND_CANARY:
        assert world.ask(world.app, host, port, uid=PROXY_UID) == redirected(OUT, host, port)


@pytest.mark.parametrize("options", [(), ("--exclude-outbound-cidrs", "127.0.0.0/8,::/0"), ("--inbound-mode", "tproxy")])
def test_the_canary_is_captured_although_it_is_the_proxys(world, options):
    world.proxy()
    world.apply(*options)
    for host, port in OUTBOUND_CANARY:
        for uid in (PROXY_UID, PROXY_UID + 1):
            assert world.ask(world.app, host, port, uid=uid) == redirected(OUT, host, port)
        assert world.ask(world.app, host, port + 7) == REFUSED
    world.check(*options)


# --- what is refused ---
NOT_SENT = (REFUSED, "PermissionError")  # the sender hears of it at once, or by the answer


def udp(world, ns, host, port=5353, uid=None):
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(5)\n"
        "try:\n"
        "    s.connect((sys.argv[1], int(sys.argv[2])))\n"
        "    s.send(b'?')\n"
        "    print(s.recv(100).decode())\n"
        "except OSError as e:\n"
        "    print(type(e).__name__)\n"
    )
    return run(*world.lab.argv_in([sys.executable, "-c", ask, host, str(port)], ns, uid)).stdout.strip()


def test_udp_is_dropped(world):
    options = ("--udp", "drop", "--exclude-uids", "64790")
    p = world.apply(*options)
    assert "neither leaves nor arrives" in p.stderr
    for mine, theirs in ((world.app4, world.peer4), (world.app6, world.peer6)):
        assert udp(world, world.app, theirs) in NOT_SENT
        assert udp(world, world.app, theirs, uid=PROXY_UID) == "udp:?"
        assert udp(world, world.app, theirs, uid=64790) == "udp:?"
        assert udp(world, world.peer, mine) == REFUSED
        assert udp(world, world.app, mine) == "udp:?", "over loopback it passes"
    world.check(*options)
    options = ("--udp", "drop", "--udp-ports", "5353", "--exclude-inbound-ports", "5353")
    world.apply(*options)
    for mine, theirs in ((world.app4, world.peer4), (world.app6, world.peer6)):
        assert udp(world, world.app, theirs) == "udp:?"
        assert udp(world, world.peer, mine) == "udp:?"
    world.check(*options)


def ping(world, host):
    p = run(*world.lab.argv_in([sys.executable, "-c", PING, host], world.app))
    return p.stdout.strip()


PING = r"""
import socket, sys
v6 = ":" in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 58 if v6 else 1)
s.settimeout(30)
if not v6:
    echo = b"\x08\x00\xf7\xfd\x00\x01\x00\x01"
else:
    echo = b"\x80\x00\x00\x00\x00\x01\x00\x01"
try:
    s.sendto(echo, (sys.argv[1], 0))
    while True:
        data = s.recv(100)
        kind = data[0] if v6 else data[20]
        if kind in (0, 129):
            print("answered")
            break
        if kind in (3, 1):
            print("refused")
            break
except OSError as e:
    print(type(e).__name__)
"""


def test_nothing_leaves_past_the_capture(world):
    """The guard of what leaves: with the capture gone, TCP is refused and not sent."""
    world.proxy()
    options = ("--drop-all", "--exclude-outbound-ports", "81")
    world.apply(*options)
    for theirs in (world.peer4, world.peer6):
        assert world.ask(world.app, theirs, 80) == redirected(OUT, theirs, 80)
        assert world.ask(world.app, theirs, 81) == by_peer(81)
        assert world.ask(world.app, theirs, 80, uid=PROXY_UID) == by_peer(80)
        assert udp(world, world.app, theirs) in NOT_SENT
        assert ping(world, theirs) in ("refused", "PermissionError"), theirs
    for mine in (world.app4, world.app6):
        assert world.ask(world.peer, mine, 80) == redirected(IN, mine, 80)
        assert udp(world, world.peer, mine) == "udp:?", "what comes in is not its matter, nor the answer"
    world.check(*options)
    world.nft("flush chain inet postern outbound")
    for theirs in (world.peer4, world.peer6):
        assert world.ask(world.app, theirs, 80) == REFUSED
        assert world.ask(world.app, theirs, 80, uid=PROXY_UID) == by_peer(80)


def test_what_was_open_is_refused_too(world):
    before = connected(world.peer, world.app, world.peer4, 7000)
    assert works(*before)
    world.apply("--drop-all")
    assert not works(*before)


PUSH = r"""
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
s.sendall(b"x" * 300000)
s.close()
"""


def test_the_rest_of_a_closed_connection_still_leaves(world):
    """A socket that was closed with bytes unsent has no owner any more that a rule could ask for."""
    world.apply("--drop-all")
    with in_netns(world.peer):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind((world.peer4, 7000))
        listener.listen()
    with listener:
        run(*world.lab.argv_in([sys.executable, "-c", PUSH, world.peer4, "7000"], world.app, PROXY_UID))
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(10)
            total = 0
            while data := conn.recv(65536):
                total += len(data)
    assert total == 300000


# --- TPROXY ---
TRANSPARENT = r"""
import json, selectors, socket, sys
TRANSPARENT = {socket.AF_INET: (socket.SOL_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}
s = selectors.DefaultSelector()
port, keep = int(sys.argv[1]), sys.argv[2] == "keep"
for family in TRANSPARENT:
    l = socket.socket(family)
    l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    l.setsockopt(*TRANSPARENT[family], 1)
    if family == socket.AF_INET6:
        l.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    l.bind(("", port))
    l.listen(64)
    s.register(l, selectors.EVENT_READ)
print("ready", flush=True)
n = 0
while True:
    for key, _ in s.select():
        c, source = key.fileobj.accept()
        n += 1
        said = {"accepted": n, "source": source[0], "to": list(c.getsockname()[:2])}
        u = socket.socket(c.family)
        u.settimeout(30)
        if keep:
            u.setsockopt(*TRANSPARENT[c.family], 1)
            u.bind((source[0], 0))
        try:
            if said["to"][1] != 15010:
                u.connect(c.getsockname()[:2])
                said["workload"] = json.loads(u.makefile().read() or "null")
        except OSError as e:
            said["workload"] = type(e).__name__
        c.sendall(json.dumps(said).encode())
        c.close()
        u.close()
"""

@pytest.fixture
def transparent(world):
    """A proxy that keeps its clients' addresses, with CAP_NET_RAW and no more, before a workload."""
    start_script(world, "who", WHO)
    start_script(world, "transparent", TRANSPARENT, str(IN), "keep", uid=PROXY_UID, caps="+net_raw")
    return world


TPROXY = ("--inbound-mode", "tproxy")


def test_the_workload_sees_its_client(transparent):
    world = transparent
    p = world.apply(*TPROXY, "--exclude-inbound-ports", "8081")
    assert "sees its clients' addresses" in p.stderr
    n = 0
    for mine, theirs in ((world.app4, world.peer4), (world.app6, world.peer6)):
        for _ in range(3):
            n += 1
            got = world.ask(world.peer, mine, 8080)
            assert got["source"] == theirs and got["to"] == [mine, 8080]
            assert got["workload"] == {"seen": theirs, "port": 8080}
            assert got["accepted"] == n, "what the proxy dials is not captured again"
        assert world.ask(world.peer, mine, 8081) == {"seen": theirs, "port": 8081}
        # A port where nobody listens is refused by the workload's host, after the proxy took it.
        n += 1
        assert world.ask(world.peer, mine, 9)["workload"] == REFUSED
    world.check(*TPROXY, "--exclude-inbound-ports", "8081")


def test_tproxy_refuses_what_it_does_not_take(transparent):
    world = transparent
    before = connected(world.app, world.peer, world.app4, 7000)
    assert works(*before)
    world.apply(*TPROXY)
    assert not works(*before)
    for mine in (world.app4, world.app6):
        assert world.ask(world.peer, mine, IN) == REFUSED
        assert world.ask(world.peer, mine, OUT) == REFUSED
        assert world.ask(world.app, mine, IN) == REFUSED
        assert world.ask(world.app, mine, 8080) == {"seen": mine, "port": 8080}, "loopback is as it is"
        canary = world.ask(world.app, "127.0.0.1" if "." in mine else "::1", 15010)
        assert canary["to"][1] == 15010, "the inbound canary is captured over loopback"
    # The machine's own connections still get their answers.
    assert world.ask(world.app, world.peer4, 80, uid=PROXY_UID) == by_peer(80)
    assert world.ask(world.app, world.peer6, 80, uid=PROXY_UID) == by_peer(80)


def test_tproxy_without_a_listener_fails_closed(world):
    world.apply(*TPROXY)
    for mine in (world.app4, world.app6):
        assert world.ask(world.peer, mine, 80) == REFUSED


def test_a_listener_that_is_not_transparent_gets_nothing(world):
    world.proxy()
    world.apply(*TPROXY)
    assert world.ask(world.peer, world.app4, 80) == REFUSED


def test_answers_find_back_or_the_check_says_so(transparent):
    world = transparent
    world.apply(*TPROXY)
    for v, family in (("-4", "IPv4"), ("-6", "IPv6")):
        run("ip", "-n", world.app, v, "rule", "del", "pref", "15006")
        p = world.check(*TPROXY, want=1)
        assert f"missing:    {family}" in p.stderr
        world.apply(*TPROXY)
        run("ip", "-n", world.app, v, "route", "flush", "table", "15006")
        world.check(*TPROXY, want=1)
        world.apply(*TPROXY)
        world.check(*TPROXY)
    # Another mode and the removal leave nothing of it.
    for leave in (lambda: world.apply(), lambda: world.intercept("--remove")):
        world.apply(*TPROXY)
        leave()
        for v in ("-4", "-6"):
            assert "15006" not in run("ip", "-n", world.app, v, "rule", "list").stdout
            routes = run("ip", "-n", world.app, v, "route", "list", "table", "15006", check=False)
            assert "local" not in routes.stdout


def test_a_clients_port_in_use_ends_nobody_elses_connection(world):
    """The proxy's connection from the client's address may get the port of another one of that client to the
    same port of the workload. Its SYN must not reach that one's socket, whose answer would end it."""
    server, client = hold(world)
    taken = client.getsockname()[1]
    collide = (
        "import socket, sys\n"
        "s = socket.socket()\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.setsockopt(socket.SOL_IP, 19, 1)\n"
        "s.bind((sys.argv[1], int(sys.argv[2])))\n"
        "s.settimeout(0.3)\n"
        "try:\n"
        "    s.connect((sys.argv[3], 7001))\n"
        "    print('connected')\n"
        "except OSError as e:\n"
        "    print(type(e).__name__)\n"
    )
    argv = [sys.executable, "-c", collide, world.peer4, str(taken), world.app4]
    said = run(*world.lab.argv_in(argv, world.app)).stdout.strip()
    assert said == "TimeoutError", said
    assert works(server, client), "and the other connection goes on"


def hold(world):
    """A connection of a client's to port 7001 that the transparent listener's place took."""
    world.apply(*TPROXY, "--inbound-port", "15016")
    with in_netns(world.app):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_IP, 19, 1)
        listener.bind(("", 15016))
        listener.listen()
    with in_netns(world.peer):
        client = socket.create_connection((world.app4, 7001), timeout=30)
    with listener:
        server, _ = listener.accept()
    assert server.getsockname() == (world.app4, 7001)
    server.settimeout(30)
    return server, client


# --- ways past it ---
@pytest.fixture(params=["redirect", "tproxy"])
def mode(request, world):
    """Both, with what would answer if something came through."""
    if request.param == "redirect":
        world.proxy()
    else:
        start_script(world, "transparent", TRANSPARENT, str(IN), "no", uid=PROXY_UID, caps="+net_raw")
    return ("--inbound-mode", request.param)


def captured(answer, host, port):
    return answer in (redirected(IN, host, port), None, {}) or answer.get("to") == [host, port]


def test_ipv4_in_ipv6_addresses(world, mode):
    if mode[1] == "tproxy":
        world.proxy(inbound=False)
    world.apply(*mode)
    assert world.ask(world.app, f"::ffff:{world.peer4}", 80)["original"] == [world.peer4, 80]
    assert captured(world.ask(world.peer, f"::ffff:{world.app4}", 80), world.app4, 80)


@pytest.mark.parametrize("flags", [0x03, 0x06, 0x22, 0x0A, 0xC2, 0x00, 0x3F])
def test_odd_flags_open_nothing(world, flags):
    """SYN with FIN, RST, URG, PSH, ECE and CWR; none; all: whatever the kernel makes of it, the workload does not
    hear of it."""
    world.proxy()
    world.apply()
    seen = "table inet other { chain c { type filter hook input priority 10; tcp dport 80 counter; }; }"
    world.nft(seen)
    with in_netns(world.peer):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        done = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with raw, done:
        raw.sendto(tcp_segment(world.peer4, world.app4, 40000 + flags, 80, flags), (world.app4, 0))
        done.settimeout(30)
        done.sendto(b"?", (world.app4, 5353))  # whatever was sent before has arrived by its answer
        assert done.recv(100) == b"udp:?"
    assert "tcp dport 80 counter packets 0 bytes 0" in world.nft("list table inet other")


def test_untracked_connections_are_not_let_in(world):
    """Somebody's rule that keeps a port out of connection tracking makes a way past translation."""
    world.proxy()
    world.apply()
    world.nft("table inet other { chain c { type filter hook prerouting priority -300; tcp dport 80 notrack; }; }")
    with in_netns(world.peer):
        s = socket.socket()
    with s:
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.connect((world.app4, 80))


def fragments(source, target, payload, at):
    """An IPv4 packet of protocol TCP in two pieces."""
    for offset, piece, more in ((0, payload[:at], 0x2000), (at, payload[at:], 0)):
        yield struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(piece), 0x7777, more | offset // 8, 64, 6, 0,
            socket.inet_aton(source), socket.inet_aton(target),
        ) + piece  # fmt: skip


def test_a_syn_in_fragments(world, mode):
    """It is put together before the rules see it: the listener gets it, or nobody."""
    world.apply(*mode)
    seen = "table inet other { chain c { type filter hook input priority 10; tcp dport 80 ct status & dnat == 0 counter; }; }"
    if mode[1] == "redirect":
        world.nft(seen)
    syn = tcp_segment(world.peer4, world.app4, 40001, 80, 0x02, b"\x02\x04\x05\xb4")
    with in_netns(world.peer):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        answers = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw, answers:
        answers.settimeout(30)
        for packet in fragments(world.peer4, world.app4, syn, 8):
            raw.sendto(packet, (world.app4, 0))
        while True:  # a SYN-ACK (of the listener's), or a reset
            data = answers.recv(200)[20:]
            if struct.unpack("!HH", data[:4]) == (80, 40001):
                break
    assert data[13] in (0x12, 0x14, 0x04)
    if mode[1] == "redirect":
        assert "counter packets 0 bytes 0" in world.nft("list table inet other")


def test_a_simultaneous_open_is_a_connection_like_any_other(world, mode):
    """A SYN from outside to the very port from which the application is connecting: it crosses in the network
    with the application's own, which is on its way to the proxy."""
    world.apply(*mode, "--outbound-port", "15999")  # where nobody answers, nor resets
    world.nft("table inet other { chain c { type filter hook input priority -10; tcp dport 15999 drop; }; }")
    with in_netns(world.app):
        app = socket.socket()
        app.bind((world.app4, 41000))
        app.setblocking(False)
    with in_netns(world.peer):
        peer = socket.socket()
        peer.bind((world.peer4, 42000))
        peer.settimeout(5)
    with app, peer:
        assert app.connect_ex((world.peer4, 42000)) == 115
        try:
            peer.connect((world.app4, 41000))
            answer = json.loads(peer.makefile().read() or "{}")
        except OSError:
            answer = None
        assert answer is None or captured(answer, world.app4, 41000), answer
        assert app.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 2, "still SYN_SENT"


def test_fast_open(world, mode):
    """Bytes on the SYN go where the SYN goes."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", encoding="ascii") as f:
        if int(f.read()) & 1 == 0:
            pytest.skip("no TCP fast open here")
    world.apply(*mode)
    with in_netns(world.peer):
        s = socket.socket()
    with s:
        s.settimeout(5)
        try:
            s.sendto(b"hello", socket.MSG_FASTOPEN, (world.app4, 80))
            answer = json.loads(s.makefile().read() or "{}")
        except OSError:
            answer = None
        assert answer is None or captured(answer, world.app4, 80), answer


@pytest.mark.parametrize("options", [(), ("--inbound-mode", "tproxy"), ("--udp", "drop", "--drop-all")])
def test_in_a_minimal_root(world, options):
    """Without /etc/protocols, as in a small image, every rule is still understood, and listed as it was asked for."""
    script = 'mount --bind /dev/null /etc/protocols; "$@" && shift && exec "$0" --check "$@"'
    line = ["--proxy-uid", str(PROXY_UID), *options]
    argv = world.lab.argv_in(["unshare", "-m", "sh", "-c", script, world.tool, world.tool, *line], world.app)
    assert "those asked for" in run(*argv).stdout
