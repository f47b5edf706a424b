"""hbone_mesh: one sidecar and its peers in namespaces of their own, below one root, with identities as Istio writes them.

The sidecar (workload `postern`) stands in the node's namespace with an HBONE listener and a captured outbound side;
peers get namespaces `alpha` and `beta`. The agent's authority is an intermediate of a root that the test holds, so
that whoever the test makes certificates for (or a ztunnel's CA server) is in the same mesh.
"""

import errno
import hashlib
import os
import socket
import threading

from lab import PATIENCE_S, in_netns, run
from node import TD
from ztunnel import DISK, identity, make_authority

MIB = 1 << 20
UID = 48120
POSTERN = identity("postern", TD)
ALPHA, BETA = identity("alpha", TD), identity("beta", TD)

POLICY = f"""kind: Policy
level: 1
rules:
  - name: alpha-everything
    action: ALLOW
    from:
      - principals: ["{ALPHA}"]
    to:
      - ports: [8080, 8082, 8083]
  - name: alpha-reads
    action: ALLOW
    from:
      - principals: ["{ALPHA}"]
    to:
      - ports: [8081]
        methods: [GET]
        paths: ["/pub*"]
"""


class HboneMesh:
    def __init__(self, node):
        self.node, self.lab = node, node.lab
        self.ns = {"postern": node.netns, "alpha": self.lab.netns("alpha"), "beta": self.lab.netns("beta")}
        _, addresses = self.lab.bridge_net("net", list(self.ns.values()))
        self.ip = {name: addresses[ns][0] for name, ns in self.ns.items()}
        self.ip6 = {name: addresses[ns][1] for name, ns in self.ns.items()}
        self.root = make_authority(node, TD)
        self.proxy = None

    def start_agent(self):
        node = self.node
        (node.conf / "entries.yaml").write_text(
            f"kind: Entries\nlevel: 1\nentries:\n  - id: postern\n    spiffe_id: {POSTERN}\n"
            f'    selectors: ["unix:uid:{UID}"]\n    ttl: 1h\n'
        )
        (node.conf / "agent.yaml").write_text(
            f"kind: Agent\nlevel: 1\ntrust_domain: {TD}\nsocket: {node.socket}\nstate_dir: {node.state}\n"
            f"entries: entries.yaml\nadmin:\n  socket: {node.run}/agent-admin.sock\n  allow_uids: [0]\n{DISK}"
        )
        node.start_agent()

    def services(self, transport="hbone", extra=""):
        """Both peers, by this transport; a service's further lines are indented by four."""
        text = "kind: Mesh\nlevel: 1\nservices:\n"
        for name in ("alpha", "beta"):
            text += f"  - name: {name}\n    addresses: ['{self.ip[name]}', '{self.ip6[name]}']\n"
            text += f"    identities: ['{identity(name, TD)}']\n    transport: {transport}\n{extra}"
        return text

    def start(self, mesh=None, policy=POLICY, hbone="    address: '[::]:15008'\n", extra=""):
        """The sidecar. Programs in the node's namespace, other than it, are captured."""
        if self.node.agent is None:
            self.start_agent()
        listeners = (
            f"  - name: hbone\n    direction: inbound\n    capture: hbone\n{hbone}"
            "    ports:\n      - {port: 8081, protocol: http}\n"
            "  - name: out\n    direction: outbound\n    capture: intercepted\n    address: 127.0.0.1:15001\n"
            "  - name: out6\n    direction: outbound\n    capture: intercepted\n    address: '[::1]:15001'\n"
        )
        self.proxy = self.node.start_proxy(
            "postern", listeners, policy=policy, mesh=mesh or self.services(), uid=UID, extra=extra
        )
        self.lab.run_in(
            [self.node.postern, "intercept", "--proxy-uid", UID, "--no-inbound"], netns=self.node.netns, check=True
        )
        return self.proxy

    def restart_with(self, mesh):
        """Another mesh map, by a reload."""
        path = self.proxy.conf.with_name(self.proxy.conf.stem + "-mesh.yaml")
        path.write_text(mesh)
        run("kill", "-HUP", self.proxy.process.pid)

    def at(self, name):
        """Context: this thread's new sockets are this workload's."""
        return in_netns(self.ns[name])


def sessions(m, direction):
    name = f'postern_hbone_sessions_total{{direction="{direction}"}} '
    (line,) = [x for x in m.proxy.metrics().splitlines() if x.startswith(name)]
    return int(float(line.removeprefix(name)))


def talk(connect, data, timeout=PATIENCE_S):
    """Connects, sends, ends, and reads to the end: what came, or that it was reset (as early as may be)."""
    try:
        with connect() as s:
            s.settimeout(timeout)
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            got = b""
            while chunk := s.recv(1 << 16):
                got += chunk
            return got
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    except OSError as e:
        if e.errno == errno.ENOTCONN:
            return "reset"
        raise


def pour(s, n):
    """n MiB there and back at once: whether the same came back."""
    piece = os.urandom(MIB)
    sent, got = hashlib.sha256(), hashlib.sha256()

    def send():
        for _ in range(n):
            s.sendall(piece)
            sent.update(piece)
        s.shutdown(socket.SHUT_WR)

    t = threading.Thread(target=send)
    t.start()
    total = 0
    while chunk := s.recv(1 << 18):
        got.update(chunk)
        total += len(chunk)
    t.join()
    return total == n * MIB and sent.digest() == got.digest()
