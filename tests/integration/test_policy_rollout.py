"""Policies that are pushed to the agent, staged and taken back. docs/policy-rollout.md."""

import array
import concurrent.futures
import contextlib
import json
import os
import signal
import socket

import control
import pytest
from lab import admin_ask, free_port, run, wait_for
from node import ALLOW_CLIENT, TD, UIDS, spiffe_id
from servers import TcpServer, echo
from test_state import Subscriber

PUSH, ROLLBACK, STATUS = 7, 10, 11
RULES = int(os.environ.get("POSTERN_TEST_RULES", "5000"))  # 100,000 takes a release build
DENY_ALL = "kind: Policy\nlevel: 1\nrules: []\n"
BROKEN = "kind: Policy\nlevel: 1\nrules:\n  - name: x\n    action: PERMIT\n"


class Mesh:
    """A client's and two servers' proxies, all told by the agent; one server's is the canary."""

    def __init__(self, node, ports, proxies):
        self.node, self.ports, self.proxies = node, ports, proxies

    def policy(self, *args, check=True):
        return run(
            self.node.postern, "agent", "policy", *args, "--config", self.node.conf / "agent.yaml", check=check
        )

    def push(self, text, *args, check=True):
        path = self.node.conf / "pushed.yaml"
        path.write_text(text.format(td=TD))
        return self.policy("push", path, *args, check=check)

    def status(self):
        return json.loads(self.policy("status", "--json").stdout)

    def works(self, name):
        try:
            with self.node.inside():
                s = socket.create_connection(("127.0.0.1", self.ports[name]), timeout=20)
            with s:
                s.sendall(b"a")
                return s.recv(10) == b"a"
        except (ConnectionResetError, BrokenPipeError):
            return False

    def lets_in(self):
        return {name for name in self.ports if self.works(name)}

    def kill_agent(self):
        self.node.agent.p.send_signal(signal.SIGKILL)
        self.node.agent.p.wait()

    def all_connected(self):
        return len(json.loads(admin_ask(self.node.run / "agent-admin.sock", "proxies"))["proxies"]) == 3


@pytest.fixture
def mesh(node):
    with contextlib.ExitStack() as stack:
        (node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
        node.start_agent(extra="state:\n  policy: policy.yaml\n")
        target = stack.enter_context(TcpServer(node.netns, echo))
        tls = {"plain": free_port(), "canary": free_port()}
        ports = {name: free_port() for name in tls}
        told = "state:\n  from: agent\n"
        proxies = [
            node.server_side(tls["plain"], target.port, policy=None, extra=told),
            node.server_side(tls["canary"], target.port, policy=None, extra=told + "  labels: [ring=canary]\n"),
            node.start_proxy(
                "client",
                "".join(
                    f"  - name: to-{n}\n    direction: outbound\n    capture: explicit\n"
                    f"    address: 127.0.0.1:{ports[n]}\n    to: 127.0.0.1:{tls[n]}\n"
                    f"    identities: [{spiffe_id('server')}]\n    protocol: tcp\n"
                    for n in tls
                ),
                policy=None,
                extra=told,
            ),
        ]
        for p in proxies:
            wait_for("its state", lambda p=p: p.status()["state"]["connected"])
        yield Mesh(node, ports, dict(zip(("plain", "canary", "client"), proxies, strict=True)))


def test_stage_promote_rollback(mesh):
    assert mesh.lets_in() == {"plain", "canary"}
    mesh.push(DENY_ALL, "--label", "ring=canary", "--comment", "nobody", "--wait", "20")
    assert mesh.lets_in() == {"plain"}
    st = mesh.status()
    assert (st["in_force"], st["staged"], st["stage"]) == (0, 1, "label=ring=canary")
    assert st["generations"][0]["comment"] == "nobody" and st["generations"][0]["by"]
    assert {(tuple(p["labels"]), p["policy"]) for p in st["told"]["proxies"]} == {((), 0), (("ring=canary",), 1)}
    # While it is under way: back, at once, everywhere.
    mesh.policy("rollback", "--wait", "20")
    assert mesh.lets_in() == {"plain", "canary"} and mesh.status()["staged"] == 0
    assert "nothing is staged" in mesh.policy("promote", check=False).stderr

    mesh.push(DENY_ALL, "--to", f"spiffe://{TD}/nobody", "--wait", "20")
    assert mesh.lets_in() == {"plain", "canary"}
    mesh.policy("stage", "--to", f"spiffe://{TD}/server", "--percent", "100", "--wait", "20")
    assert mesh.lets_in() == set()
    assert {p["policy"] for p in mesh.status()["told"]["proxies"] if p["name"] == "client"} == {0}
    mesh.policy("promote", "--wait", "20")
    assert mesh.status()["in_force"] == 2 and {p["policy"] for p in mesh.status()["told"]["proxies"]} == {2}
    # The file changes meanwhile, and does not hold before it is rolled back to.
    (mesh.node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD) + "# again\n")
    mesh.policy("rollback", "--wait", "20")
    assert mesh.lets_in() == {"plain", "canary"} and mesh.status()["in_force"] == 0
    assert "nothing to go back to" in mesh.policy("rollback", check=False).stderr
    mesh.policy("rollback", "2", "--wait", "20")
    assert mesh.lets_in() == set()


def test_refused_push_changes_nothing(mesh):
    mesh.push(DENY_ALL, "--label", "ring=canary", "--wait", "20")
    p = mesh.push(BROKEN, check=False)
    assert p.returncode == 1 and f"{mesh.node.conf}/pushed.yaml:5:13: " in p.stderr, p.stderr
    p = mesh.push("kind: Policy\nlevel: 99\nrules: []\n", check=False)
    assert p.returncode == 1 and "needs feature level 99" in p.stderr
    p = mesh.push(DENY_ALL, "--label", "ring", check=False)
    assert p.returncode == 2 and "names no proxies" in p.stderr
    st = mesh.status()
    assert (st["in_force"], st["staged"], len(st["generations"])) == (0, 1, 1)
    assert sorted(os.listdir(mesh.node.state / "policies")) == ["1.policy", "index"]
    assert mesh.lets_in() == {"plain"}


def nested(name):
    """What parses, and does not compile: patterns nested too deeply."""
    patterns = ", ".join(f"'spiffe://{TD}/{'a' * n}*'" for n in range(1, 60))
    return (
        "kind: Policy\nlevel: 1\nrules:\n  - {{name: first, action: ALLOW, to: [{{ports: [1]}}]}}\n"
        f"  - name: {name}\n    action: ALLOW\n    from: [{{{{principals: [{patterns}]}}}}]\n"
    )


def test_what_proxies_could_not_compile_is_refused_whole(mesh):
    p = mesh.push(nested("deep"), "--wait", "20", check=False)
    assert p.returncode == 1, p.stderr
    assert f"{mesh.node.conf}/pushed.yaml:5:5: rule 'deep': pattern '" in p.stderr, p.stderr
    assert p.stderr.count("contained in too many others") == 1 and "not pushed, 1 error" in p.stderr, p.stderr
    assert mesh.status()["generations"] == [] and mesh.lets_in() == {"plain", "canary"}
    # And the agent's own file.
    (mesh.node.conf / "policy.yaml").write_text(nested("own").replace("{{", "{").replace("}}", "}"))
    wait_for("it to be refused", lambda: "/policy.yaml:5:5" in mesh.node.agent.err())
    assert mesh.lets_in() == {"plain", "canary"}


def test_older_proxy_is_named(node):
    """It refuses what the loader took: an older binary, by its feature level."""
    (node.conf / "policy.yaml").write_text(ALLOW_CLIENT.format(td=TD))
    node.write_entries(uids={**UIDS, "root": 0})
    node.start_agent(extra="state:\n  policy: policy.yaml\n")
    mesh = Mesh(node, {}, {})
    wait_for("the agent's state", lambda: mesh.status()["state_generation"] > 0)
    sub = first = None
    while first is None:
        sub = Subscriber(node)
        first = sub.first()
    sub.say(generation=first.generation)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pushed = pool.submit(mesh.push, DENY_ALL.replace("level: 1", "level: 2"), "--wait", "60", check=False)
        told = sub.next()
        sub.say(generation=first.generation, refused=told.generation, error="policy:1:1: needs feature level 2")
        p = pushed.result()
    assert p.returncode == 1 and "does not run it: policy:1:1: needs feature level 2" in p.stderr, p.stderr
    shown = mesh.policy("status").stdout
    assert "the agent's file, refuses generation 1: policy:1:1: needs feature level 2" in shown, shown


def test_wait_names_who_does_not_come(mesh):
    canary = mesh.proxies["canary"].process.p
    canary.send_signal(signal.SIGSTOP)
    try:
        p = mesh.push(DENY_ALL, "--wait", "2", check=False)
        assert p.returncode == 1, p.stderr
        assert [f"pid {canary.pid}) does not run it yet" in x for x in p.stderr.splitlines()] == [True], p.stderr
        shown = mesh.policy("status").stdout
        assert shown.count("waits for generation 1: ") == 1 and shown.count("): generation 1") == 2, shown
    finally:
        canary.send_signal(signal.SIGCONT)
    wait_for("it to come", lambda: {x["policy"] for x in mesh.status()["told"]["proxies"]} == {1}, 20)


def test_many_rules(mesh):
    """From the command to all proxies, and back; one too many is one error."""
    head = "kind: Policy\nlevel: 1\nrules:\n"
    rules = "".join(
        f"  - name: rule-{i}\n    action: ALLOW\n    target: {{{{principals: ['spiffe://{TD}/server']}}}}\n"
        f"    from: [{{{{principals: ['spiffe://{TD}/ns/n/sa/a{i}']}}}}]\n    to: [{{{{ports: [{1 + i % 60000}]}}}}]\n"
        for i in range(RULES)
    )
    mesh.push(head + rules, "--wait", "55")
    assert mesh.lets_in() == set()
    assert {p.status()["state"]["rules"] for n, p in mesh.proxies.items() if n != "client"} == {RULES}
    mesh.policy("rollback", "--wait", "55")
    assert mesh.lets_in() == {"plain", "canary"}
    p = mesh.push(head + "".join(f"- {{{{name: r{i}, action: ALLOW}}}}\n" for i in range(131073)), check=False)
    assert p.returncode == 1 and p.stderr.count("too large to be told to proxies") == 1, p.stderr[:2000]
    assert "at most 131072 elements" in p.stderr and mesh.status()["in_force"] == 0


def test_survives_kill(mesh):
    mesh.push(DENY_ALL, "--wait", "20")
    mesh.push(ALLOW_CLIENT, "--label", "ring=canary", "--wait", "20")
    generation = mesh.status()["state_generation"]
    mesh.kill_agent()
    (mesh.node.state / "policies" / "3.policy").write_text("half")
    mesh.node.start_agent()
    wait_for("the proxies", mesh.all_connected, 20)
    assert mesh.lets_in() == {"canary"}
    st = mesh.status()
    assert (st["in_force"], st["staged"], st["state_generation"]) == (1, 2, generation)
    assert not (mesh.node.state / "policies" / "3.policy").exists()


def test_damaged_generation_is_not_told(mesh):
    mesh.push(DENY_ALL, "--wait", "20")
    mesh.kill_agent()
    (mesh.node.state / "policies" / "1.policy").write_text(ALLOW_CLIENT.format(td=TD))
    mesh.node.start_agent()
    assert mesh.lets_in() == set()
    st = mesh.policy("status", check=False)
    assert "cannot be read" in st.stdout, st.stdout + st.stderr
    assert '"pushed_policy_unusable"' in mesh.node.agent.err()
    p = mesh.push(ALLOW_CLIENT, "--percent", "1", check=False)
    assert p.returncode == 1 and "not what was pushed" in p.stderr
    mesh.policy("rollback", "files")
    wait_for("the file to hold", lambda: mesh.lets_in() == {"plain", "canary"}, 20)


def test_descriptors(mesh):
    path = mesh.node.state / "control.sock"

    def send(request, *fds):
        with control.connect(path) as s:
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            s.sendmsg([request], passed)
            return control.receive(s)

    push = control.request(PUSH, ["/f", "", "", "x"])
    r, w = os.pipe()
    try:
        for request, fds in ((push, ()), (control.request(STATUS), (r,))):
            with pytest.raises(control.Refused, match="no request of this version"):
                send(request, *fds)
        with pytest.raises(control.Refused, match="no regular file"):
            send(push, r)
    finally:
        os.close(r)
        os.close(w)
    with pytest.raises(control.Refused, match="generation 2 beside it"):
        send(control.request(ROLLBACK, ["x"], number=2))
    huge = mesh.node.conf / "huge"
    with open(huge, "wb") as f:
        f.truncate((64 << 20) + 1)
    with open(huge, "rb") as f, pytest.raises(control.Refused, match="larger than 64 MiB"):
        send(push, f.fileno())
    assert mesh.status()["generations"] == []
