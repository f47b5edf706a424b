"""A permissive port of an intercepted listener, behind real rules: clients that have joined and clients that have not, of a
workload that speaks first; and then the file says strict. docs/permissive.md."""

import contextlib
import signal
import socket

from interception import World, start_script
from lab import in_netns, wait_for
from node import UIDS, Proxy, spiffe_id

UID = UIDS["server"]

# Says who its client is, and then whatever it is told.
GREETS = r"""
import socket, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 8080))
s.listen(64)
print("ready", flush=True)
def serve(c):
    try:
        c.sendall(b"hello\n")
        while data := c.recv(4096):
            c.sendall(data)
    except OSError:
        pass
    c.close()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def sidecar(node, world, policy):
    admin = node.lab.private_dir("admin-sidecar", UID) / "admin.sock"
    (node.conf / "policy.yaml").write_text(policy)
    conf = node.conf / "sidecar.yaml"
    conf.write_text(
        f"kind: Proxy\nlevel: 1\nname: sidecar\nidentity: {{socket: 'unix:{node.socket}'}}\npolicy: policy.yaml\n"
        "listeners:\n  - name: in\n    direction: inbound\n    capture: intercepted\n    address: 0.0.0.0:15006\n"
        "    ports: [{port: 8080, protocol: tcp, mode: permissive, plaintext_wait: 100ms}]\n"
        f"admin: {{socket: {admin}, allow_uids: [0, {UID}]}}\n"
    )
    p = Proxy(node, "sidecar", node.lab.start("sidecar", [node.postern, "proxy", conf], netns=world.app, uid=UID), admin, conf)
    p.wait_identity()
    return p


def test_until_the_file_says_strict(node, build):
    world = World(node.lab, build)
    start_script(world, "greets", GREETS)
    node.start_agent()
    p = sidecar(
        node,
        world,
        "kind: Policy\nlevel: 1\nrules:\n"
        f"  - name: near\n    action: ALLOW\n    from:\n      - ip_blocks: [{world.peer4}/32]\n"
        f"  - name: joined\n    action: ALLOW\n    from:\n      - principals: [{spiffe_id('client')}]\n",
    )
    assert p.wait_event("permissive_ports")["ports"] == "in:8080"
    world.intercept("--proxy-uid", str(UID), "--inbound-mode", "redirect")
    node.netns = world.peer
    node.start_proxy(
        "client",
        "  - name: out\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:9000\n"
        f"    to: '{world.app4}:8080'\n    identities: [{spiffe_id('server')}]\n",
    )

    def connect(host, port):
        with in_netns(world.peer):
            return socket.create_connection((host, port), timeout=20)

    def greeted(s):
        return s.recv(6) == b"hello\n"

    def echoes(s):
        s.sendall(b"a")
        return s.recv(1) == b"a"

    with contextlib.ExitStack() as stack:
        plain, joined = (stack.enter_context(connect(*to)) for to in ((world.app4, 8080), ("127.0.0.1", 9000)))
        assert greeted(plain) and echoes(plain) and greeted(joined) and echoes(joined)
        port = p.status()["permissive"][0]
        assert (port["listener"], port["port"], port["open"], port["mtls_connections"]) == ("in", 8080, 1, 1)
        # One that begins with TLS ends with it: no way from a handshake that failed to plaintext.
        with connect(world.app4, 8080) as s:
            s.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
            with contextlib.suppress(ConnectionResetError):
                assert not s.recv(100).startswith(b"hello")
        # The file: what is open in plaintext ends, what has an identity stays.
        p.conf.write_text(p.conf.read_text().replace("mode: permissive, plaintext_wait: 100ms", "mode: strict"))
        p.process.send_signal(signal.SIGHUP)
        p.wait_event("reloaded")
        plain.settimeout(20)
        try:
            assert plain.recv(1) == b"", "plaintext goes on"
        except ConnectionResetError:
            pass
        assert p.wait_event("connection", transport="plaintext")["reason"] == "policy_changed"
        assert echoes(joined) and p.status()["permissive"] == []
        with connect(world.app4, 8080) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert not s.recv(100).startswith(b"hello")
        with connect("127.0.0.1", 9000) as s:
            assert greeted(s)
    wait_for("the strict port's refusal", lambda: p.events("handshake_failed") or p.events("connection", reason="handshake"))
