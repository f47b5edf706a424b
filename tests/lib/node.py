"""node: one agent and some proxies with explicit listeners, in one network namespace of their own.

What most integration tests stand on: identities by uid, a client-side proxy (plain in, mTLS out) and a
server-side proxy (mTLS in, plain out) in front of a server that the test plays itself.
"""

import json

from lab import admin_ask, in_netns, log_events, wait_for

TD = "test.example"
UIDS = {"client": 48101, "server": 48102, "stranger": 48103}

ALLOW_CLIENT = """kind: Policy
level: 1
rules:
  - name: client-may
    action: ALLOW
    from:
      - principals: [spiffe://{td}/client]
"""


def spiffe_id(name):
    return f"spiffe://{TD}/{name}"


class Proxy:
    def __init__(self, node, name, process, admin, conf):
        self.node, self.name, self.process, self.admin, self.conf = node, name, process, admin, conf

    def status(self):
        return json.loads(admin_ask(self.admin, "status"))

    def metrics(self):
        return admin_ask(self.admin, "metrics")

    def events(self, event, **want):
        return log_events(self.process.out() + self.process.err(), event, **want)

    def wait_event(self, event, timeout=10, **want):
        return wait_for(f"{self.name}: {event} {want}", lambda: self.events(event, **want), timeout)[-1]

    def wait_identity(self, timeout=20):
        def has():
            if not self.process.alive():
                raise AssertionError(f"{self.name} ended {self.process.p.returncode}: {self.process.err()[-3000:]}")
            return self.status()["identity"]["spiffe_id"]

        return wait_for(f"{self.name}'s identity", has, timeout)


class Node:
    def __init__(self, lab, build):
        self.lab, self.build = lab, build
        self.postern = build / "proxy" / "postern"
        self.netns = lab.netns("node")
        self.conf = lab.private_dir("conf")
        self.run = lab.private_dir("run")
        self.socket = self.run / "agent.sock"
        self.state = lab.dir / "state"
        self.agent = None
        self.agents = 0
        self.proxies = 0

    # --- agent ---
    def write_entries(self, ttl="1h", extra="", uids=None):
        text = "kind: Entries\nlevel: 1\nentries:\n"
        for name, uid in (uids or UIDS).items():
            text += (
                f"  - id: {name}\n    spiffe_id: {spiffe_id(name)}\n"
                f'    selectors: ["unix:uid:{uid}"]\n    ttl: {ttl}\n'
            )
        (self.conf / "entries.yaml").write_text(text + extra)

    def write_agent(self, extra=""):
        (self.conf / "agent.yaml").write_text(
            f"kind: Agent\nlevel: 1\ntrust_domain: {TD}\nsocket: {self.socket}\nstate_dir: {self.state}\n"
            f"entries: entries.yaml\nca:\n  source: self\n  key_at_rest: plain\n"
            f"admin:\n  socket: {self.run}/agent-admin.sock\n  allow_uids: [0]\n{extra}"
        )

    def start_agent(self, ttl="1h", extra="", wait=True, **kw):
        if not (self.conf / "entries.yaml").exists():
            self.write_entries(ttl)
        if not (self.conf / "agent.yaml").exists():
            self.write_agent(extra)
        self.agents += 1
        self.agent = self.lab.start(f"agent{self.agents}", [self.postern, "agent", self.conf / "agent.yaml"], **kw)
        if wait:
            self.wait_agent()
        return self.agent

    def wait_agent(self):
        def ready():
            assert self.agent.alive(), self.agent.err()[-3000:]
            return '"event":"ready"' in (self.agent.err() + self.agent.out()).replace(" ", "")

        wait_for("the agent to be ready", ready)

    # --- proxies ---
    def start_proxy(self, name, listeners, policy=ALLOW_CLIENT, mesh=None, extra="", uid=None, wait=True, socket=None, key="auto"):
        self.proxies += 1
        uid = UIDS[name] if uid is None else uid
        tag = f"{name}{self.proxies}"
        admin_dir = self.lab.private_dir(f"admin-{tag}", uid)
        conf = self.conf / f"{tag}.yaml"
        text = f"kind: Proxy\nlevel: 1\nname: {name}\nidentity:\n  socket: unix:{socket or self.socket}\n  key: {key}\n"
        if policy is not None:
            (self.conf / f"{tag}-policy.yaml").write_text(policy.format(td=TD))
            text += f"policy: {tag}-policy.yaml\n"
        if mesh is not None:
            (self.conf / f"{tag}-mesh.yaml").write_text(mesh)
            text += f"mesh: {tag}-mesh.yaml\n"
        text += "listeners:\n" + listeners
        text += f"admin:\n  socket: {admin_dir}/admin.sock\n  allow_uids: [0, {uid}]\n" + extra
        conf.write_text(text)
        process = self.lab.start(tag, [self.postern, "proxy", conf], netns=self.netns, uid=uid)
        proxy = Proxy(self, name, process, admin_dir / "admin.sock", conf)
        proxy.policy_path = self.conf / f"{tag}-policy.yaml"
        if wait:
            proxy.wait_identity()
        return proxy

    def server_side(self, listen, to, protocol="tcp", **kw):
        return self.start_proxy(
            "server",
            f"  - name: in\n    direction: inbound\n    capture: explicit\n    address: 127.0.0.1:{listen}\n"
            f"    to: 127.0.0.1:{to}\n    protocol: {protocol}\n",
            **kw,
        )

    def client_side(self, listen, to, expect=("server",), name="client", protocol="tcp", **kw):
        ids = ", ".join(spiffe_id(e) for e in expect)
        return self.start_proxy(
            name,
            f"  - name: out\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:{listen}\n"
            f"    to: 127.0.0.1:{to}\n    identities: [{ids}]\n    protocol: {protocol}\n",
            **kw,
        )

    def inside(self):
        """Context: this thread's new sockets are in the node's namespace."""
        return in_netns(self.netns)
