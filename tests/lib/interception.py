"""interception: two namespaces on a switch, `app`, whose traffic is captured, and `peer`.

Instead of a proxy stands a listener that answers each connection with what SO_ORIGINAL_DST says, so that
what rules do is seen without any of the data plane."""

import json
import pathlib
import select
import socket
import struct
import subprocess
import sys

from lab import in_netns, run, wait_for

PROXY_UID = 64711
OUT, IN = 15001, 15006

LISTENER = r"""
import json, selectors, socket, struct, sys
s = selectors.DefaultSelector()
for host, port in (a.rsplit(",", 1) for a in sys.argv[1:]):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    l = socket.socket(family)
    l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        l.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    l.bind((host, int(port)))
    l.listen(64)
    s.register(l, selectors.EVENT_READ, int(port))
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.bind(("::", 5353))
s.register(u, selectors.EVENT_READ, None)
print("ready", flush=True)
while True:
    for key, _ in s.select():
        if key.data is None:
            data, who = u.recvfrom(100)
            u.sendto(b"udp:" + data, who)
            continue
        c, _ = key.fileobj.accept()
        original = None
        try:
            if c.family == socket.AF_INET:
                port, host = struct.unpack("!2xH4s8x", c.getsockopt(socket.SOL_IP, 80, 16))
            else:
                port, host = struct.unpack("!2xH4x16s4x", c.getsockopt(socket.IPPROTO_IPV6, 80, 28))
            original = [socket.inet_ntop(c.family, host), port]
            if original == list(c.getsockname()[:2]):
                original = None  # tracked by the kernel, and left as it was
        except OSError:
            pass
        c.sendall(json.dumps({"port": key.data, "original": original}).encode())
        c.close()
"""

ASK = r"""
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as s:
        print(s.makefile().read())
except OSError as e:
    print(type(e).__name__)
"""


class World:
    def __init__(self, lab, build):
        self.lab = lab
        self.tool = build / "libexec" / "postern-intercept"
        self.app = lab.netns("app")
        self.peer = lab.netns("peer")
        _, addresses = lab.bridge_net("net", [self.app, self.peer])
        self.app4, self.app6 = addresses[self.app]
        self.peer4, self.peer6 = addresses[self.peer]
        self.listen("peer", self.peer, [f"{h},{p}" for h in ("0.0.0.0", "::") for p in (80, 81, 8100, OUT, IN)])
        self.listen("workload", self.app, [f"{h},{p}" for h in ("0.0.0.0", "::") for p in (80, 81)])

    def listen(self, name, ns, where, uid=None):
        p = self.lab.start(name, [sys.executable, "-c", LISTENER, *where], netns=ns, uid=uid)
        wait_for(f"the listener {name}", lambda: "ready" in p.out() or p.err())
        assert "ready" in p.out(), p.err()
        return p

    def proxy(self, inbound=True):
        """What stands where the sidecar would. Its UDP socket is the workload's: so it has none."""
        script = LISTENER.replace('u.bind(("::", 5353))', 'u.bind(("::", 0))')
        where = [f"127.0.0.1,{OUT}", f"::1,{OUT}", *([f"0.0.0.0,{IN}", f"::,{IN}"] if inbound else [])]
        p = self.lab.start("proxy", [sys.executable, "-c", script, *where], netns=self.app, uid=PROXY_UID)
        wait_for("the proxy's listeners", lambda: "ready" in p.out() or p.err())
        assert "ready" in p.out(), p.err()
        return p

    def intercept(self, *options, want=0, uid=None, netns=None):
        argv = self.lab.argv_in([self.tool, *options], netns or self.app, uid)
        p = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert "Sanitizer" not in p.stderr and "runtime error" not in p.stderr, p.stderr
        assert p.returncode == want, f"exit {p.returncode}: {p.stderr}"
        return p

    def apply(self, *options):
        return self.intercept("--proxy-uid", str(PROXY_UID), *options)

    def check(self, *options, want=0):
        return self.intercept("--check", "--proxy-uid", str(PROXY_UID), *options, want=want)

    def ask(self, ns, host, port, uid=None):
        """Who answers a connection: a dict of the listener, or the name of an exception."""
        argv = self.lab.argv_in([sys.executable, "-c", ASK, host, str(port)], ns, uid)
        text = run(*argv).stdout.strip()
        return json.loads(text) if text.startswith("{") else text

    def ask_inside(self, cgroup, host, port):
        """The same from inside a cgroup."""
        enter = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
        argv = self.lab.argv_in([sys.executable, "-c", enter + ASK, host, str(port)], self.app)
        text = run(*argv).stdout.strip()
        return json.loads(text) if text.startswith("{") else text

    def intercept_rc(self, *options):
        argv = self.lab.argv_in([self.tool, *options], self.app)
        return subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode

    def nft(self, command):
        """Without the nft program, which nothing here needs: the library alone, in a child."""
        script = (
            "import ctypes, sys\n"
            "l = ctypes.CDLL('libnftables.so.1')\n"
            "l.nft_ctx_new.restype = ctypes.c_void_p\n"
            "sys.exit(-l.nft_run_cmd_from_buffer(ctypes.c_void_p(l.nft_ctx_new(0)), sys.argv[1].encode()))\n"
        )
        p = run(*self.lab.argv_in([sys.executable, "-c", script, command], self.app))
        return p.stdout


def cgroup2_mount():
    for d in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if (pathlib.Path(d) / "cgroup.procs").exists() and (pathlib.Path(d) / "cgroup.controllers").exists():
            return pathlib.Path(d)
    return None


REFUSED = "ConnectionRefusedError"


def by_peer(port):
    return {"port": port, "original": None}


def redirected(listener, host, port):
    return {"port": listener, "original": [host, port]}


def connected(server_ns, client_ns, host, port, dial=None):
    """Both ends of a connection, and the listener."""
    with in_netns(server_ns):
        listener = socket.create_server((host, port))
    with in_netns(client_ns):
        client = socket.create_connection(dial or (host, port), timeout=30)
    with listener:
        server, _ = listener.accept()
    server.settimeout(30)
    return server, client


def works(server, client):
    """Whether a byte comes through. One that does not is answered by a reset, or by nothing."""
    try:
        client.sendall(b"a")
        ready, _, _ = select.select([server, client], [], [], 5)
        return server in ready and server.recv(1) == b"a"
    except OSError:
        return False


def tcp_segment(source, target, sport, dport, flags, options=b""):
    options += bytes(-len(options) % 4)
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, (20 + len(options)) // 4 << 4, flags, 1024, 0, 0) + options
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(head))
    total = sum(struct.unpack(f"!{len(pseudo + head) // 2}H", pseudo + head))
    total = (total >> 16) + (total & 0xFFFF)
    check = ~(total + (total >> 16)) & 0xFFFF
    return head[:16] + struct.pack("!H", check) + head[18:]


def with_caps(argv, uid, caps):
    """Under a uid that keeps these capabilities (`+net_raw`) and can have no others."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps=-all,{caps}",
            f"--ambient-caps=-all,{caps}", f"--bounding-set=-all,{caps}", "--", *argv]  # fmt: skip


WHO = r"""
import json, socket, sys, threading
def serve(host, port):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, port))
    s.listen(64)
    def loop():
        while True:
            c, who = s.accept()
            try:
                c.sendall(json.dumps({"seen": who[0], "port": port}).encode())
            except OSError:
                pass  # it was reset meanwhile
            c.close()
    threading.Thread(target=loop, daemon=True).start()
for host in ("0.0.0.0", "::"):
    for port in (8080, 8081):
        serve(host, port)
print("ready", flush=True)
threading.Event().wait()
"""


def start_script(world, name, script, *args, uid=None, caps=None):
    argv = [sys.executable, "-c", script, *args]
    if caps is not None:
        argv, uid = with_caps(argv, uid, caps), None
    p = world.lab.start(name, argv, netns=world.app, uid=uid)
    wait_for(name, lambda: "ready" in p.out() or p.err())
    assert "ready" in p.out(), p.err()
    return p
