"""mesh: the demo's three workloads, their sidecars and one node agent, on this machine.

Each workload is a network namespace with unmodified programs; its sidecar runs in the same namespace
under a numeric uid of its own, by which the agent tells the sidecars apart.
"""

import json
import pathlib
import sys

from lab import Lab, admin_ask, run, wait_for

TRUST_DOMAIN = "demo.example"
WORKLOADS = ("frontend", "orders", "ledger")
SIDECAR_UID = {"frontend": 47101, "orders": 47102, "ledger": 47103}
APP_UID = {"frontend": 47201, "orders": 47202, "ledger": 47203, "outside": 47204}
HTTP_PORT = 8080
TICKER_PORT = 7000
UNLISTED_PORT = 7001

# A raw TCP service that speaks first, then answers each line: what a mail or database server does.
TICKER = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"ticker ready " + sys.argv[2].encode() + b"\\n")
        for line in self.rfile:
            self.wfile.write(b"tick " + line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = __import__("socket").AF_INET6
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""

POLICY = """kind: Policy
level: 1
rules:
  - name: frontend-reads-orders
    action: ALLOW
    target:
      principals: [spiffe://{td}/orders]
    from:
      - principals: [spiffe://{td}/frontend]
    to:
      - ports: [{http}]
        methods: [GET, HEAD]
        paths: ["/orders*"]
{ticker_rule}  - name: orders-writes-ledger
    action: ALLOW
    target:
      principals: [spiffe://{td}/ledger]
    from:
      - principals: [spiffe://{td}/orders]
    to:
      - ports: [{http}]
"""
TICKER_RULE = """  - name: frontend-takes-the-ticker
    action: ALLOW
    target:
      principals: [spiffe://{td}/orders]
    from:
      - principals: [spiffe://{td}/frontend]
    to:
      - ports: [{ticker}]
"""


class Mesh:
    def __init__(self, build, ttl="2m", lab=None):
        self.build = pathlib.Path(build).resolve()
        self.postern = self.build / "proxy" / "postern"
        self.ttl = ttl
        self.lab = lab or Lab("demo")
        self.ns = {}
        self.ip4 = {}
        self.ip6 = {}
        self.sidecar = {}
        self.agent = None
        self.switch = None
        self.conf = self.lab.private_dir("conf")
        self.run_dir = self.lab.private_dir("run")

    # --- configuration files ---
    def write_policy(self, ticker=True):
        words = {"td": TRUST_DOMAIN, "http": HTTP_PORT, "ticker": TICKER_PORT}
        rule = TICKER_RULE.format(**words) if ticker else ""
        tmp = self.conf / "policy.yaml.new"
        tmp.write_text(POLICY.format(ticker_rule=rule, **words))
        tmp.rename(self.conf / "policy.yaml")

    def write_files(self):
        entries = ["kind: Entries", "level: 1", "entries:"]
        for w in WORKLOADS:
            entries += [
                f"  - id: {w}",
                f"    spiffe_id: spiffe://{TRUST_DOMAIN}/{w}",
                f'    selectors: ["unix:uid:{SIDECAR_UID[w]}"]',
                f"    ttl: {self.ttl}",
            ]
        (self.conf / "entries.yaml").write_text("\n".join(entries) + "\n")
        (self.conf / "agent.yaml").write_text(
            f"""kind: Agent
level: 1
trust_domain: {TRUST_DOMAIN}
socket: {self.run_dir}/agent.sock
state_dir: {self.lab.dir}/state
entries: entries.yaml
ca:
  source: self
  key_at_rest: plain
admin:
  socket: {self.run_dir}/agent-admin.sock
  allow_uids: [0]
"""
        )
        mesh = ["kind: Mesh", "level: 1", "unlisted: deny", "services:"]
        for w in WORKLOADS:
            ports = [f"      - port: {HTTP_PORT}", "        protocol: http"]
            for port in (TICKER_PORT, UNLISTED_PORT):
                ports += [f"      - port: {port}", "        protocol: tcp"]
            mesh += [
                f"  - name: {w}",
                f'    addresses: ["{self.ip4[w]}", "{self.ip6[w]}"]',
                "    ports:",
                *ports,
                f"    identities: [spiffe://{TRUST_DOMAIN}/{w}]",
                "    transport: direct",
            ]
        (self.conf / "mesh.yaml").write_text("\n".join(mesh) + "\n")
        self.write_policy()
        for w in WORKLOADS:
            (self.conf / f"{w}.yaml").write_text(
                f"""kind: Proxy
level: 1
name: {w}
identity:
  socket: unix:{self.run_dir}/agent.sock
  key: csr
mesh: mesh.yaml
policy: policy.yaml
listeners:
  - name: outbound
    direction: outbound
    capture: intercepted
    address: 127.0.0.1:15001
  - name: outbound6
    direction: outbound
    capture: intercepted
    address: "[::1]:15001"
  - name: inbound
    direction: inbound
    capture: intercepted
    address: "[::]:15006"
    ports:
      - port: {HTTP_PORT}
        protocol: http
admin:
  socket: {self.admin_socket(w)}
  allow_uids: [0]
"""
            )

    def admin_socket(self, w):
        return self.lab.dir / f"admin-{w}" / "admin.sock"

    # --- up ---
    def up(self):
        hosts_todo = {}
        for w in WORKLOADS + ("outside",):
            self.ns[w] = self.lab.netns(w, hosts="# written below, when every address is known\n")
            hosts_todo[w] = pathlib.Path("/etc/netns") / self.ns[w] / "hosts"
        self.switch, addresses = self.lab.bridge_net("net", [self.ns[w] for w in self.ns])
        lines = "127.0.0.1 localhost\n::1 localhost\n"
        for w in self.ns:
            self.ip4[w], self.ip6[w] = addresses[self.ns[w]]
            lines += f"{self.ip4[w]} {w}\n"
        for path in hosts_todo.values():
            path.write_text(lines)
        self.write_files()
        self.start_agent()
        self.start_workloads()
        for w in WORKLOADS:
            self.start_sidecar(w)
        for w in WORKLOADS:
            wait_for(f"the {w} sidecar's identity", lambda w=w: self.status(w)["identity"]["spiffe_id"])

    def start_agent(self):
        self.agent = self.lab.start("agent", [self.postern, "agent", self.conf / "agent.yaml"])
        wait_for("the agent's socket", self._agent_ready)

    def _agent_ready(self):
        if not self.agent.alive():
            raise_from = self.agent.err().strip().splitlines()[-1:] or ["no output"]
            sys.exit(f"the agent ended: {raise_from[0]}")
        return (self.run_dir / "agent.sock").exists() and '"ready"' in self.agent.err() + self.agent.out()

    def start_workloads(self):
        for w in WORKLOADS:
            site = self.lab.private_dir(f"site-{w}", APP_UID[w])
            (site / "orders").write_text(f"order 17 from {w}: {self.marker(w)}\n")
            self.lab.start(
                f"http-{w}",
                ["/usr/bin/python3", "-m", "http.server", str(HTTP_PORT), "--bind", "::", "--directory", site],
                netns=self.ns[w],
                uid=APP_UID[w],
            )
            for port in (TICKER_PORT, UNLISTED_PORT):
                self.lab.start(
                    f"ticker-{w}-{port}",
                    ["/usr/bin/python3", "-c", TICKER, str(port), self.marker(w)],
                    netns=self.ns[w],
                    uid=APP_UID[w],
                )
            for port in (HTTP_PORT, TICKER_PORT, UNLISTED_PORT):
                wait_for(f"{w}'s own server on port {port}", lambda w=w, port=port: self._listens(w, port))

    def _listens(self, w, port):
        out = self.lab.run_in(["ss", "-Hltn", f"sport = :{port}"], netns=self.ns[w], with_hosts=False).stdout
        return str(port) in out

    def marker(self, w):
        """A text that must never be seen on the wire; new in every run."""
        return f"{self.lab.prefix}-secret-of-{w}"

    def start_sidecar(self, w):
        self.lab.private_dir(f"admin-{w}", SIDECAR_UID[w])
        uid = SIDECAR_UID[w]
        self.sidecar[w] = self.lab.start(
            f"sidecar-{w}", [self.postern, "proxy", self.conf / f"{w}.yaml"], netns=self.ns[w], uid=uid
        )
        wait_for(f"the {w} sidecar's admin socket", lambda: self.admin_socket(w).exists() or self._gone(w))
        run(
            "nsenter", f"--net=/run/netns/{self.ns[w]}", "--",
            self.postern, "intercept", "--outbound-port", "15001", "--inbound-port", "15006", "--proxy-uid", uid,
        )

    def _gone(self, w):
        if not self.sidecar[w].alive():
            sys.exit(f"the {w} sidecar ended: {self.sidecar[w].err().strip().splitlines()[-1:]}")
        return False

    # --- looking ---
    def status(self, w):
        return json.loads(admin_ask(self.admin_socket(w), "status"))

    def log_events(self, w, event):
        """The JSON lines of one kind that a sidecar has written so far."""
        found = []
        p = self.sidecar[w]
        for line in (p.out() + p.err()).splitlines():
            try:
                o = json.loads(line)
            except ValueError:
                continue
            if o.get("event") == event:
                found.append(o)
        return found

    def curl(self, w, url, *options):
        """curl as the application would run it: under its own uid, with the namespace's hosts file."""
        return self.lab.run_in(
            ["setpriv", f"--reuid={APP_UID[w]}", f"--regid={APP_UID[w]}", "--clear-groups", "--",
             "curl", "-sS", "--max-time", "10", *options, url],
            netns=self.ns[w],
        )
