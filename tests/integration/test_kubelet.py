"""Which pods run here: the process that asks the node's kubelet, and what becomes of its answers.
docs/kubernetes.md, cases K. What a caller then gets is test_containers.py's."""

import json
import os
import secrets
import signal
import time

import pytest
from fake_kubelet import Authority, FakeKubelet, pod
from lab import admin_ask, wait_for

UID = "8a29688e-514a-4962-b00b-693a9768948f"
STATIC_UID = "0123456789abcdef0123456789abcdef"


def container_id():
    return secrets.token_hex(32)


class Kubernetes:
    """An agent beside a kubelet of ours."""

    def __init__(self, node, **kw):
        self.node = node
        self.dir = node.lab.private_dir("kubelet")
        self.kubelet = FakeKubelet(self.dir / "pki", **kw)
        self.token_file = self.dir / "token"
        self.token_file.write_text("secret-1\n")
        self.token_file.chmod(0o600)
        self.kubelet.set_pods(pod(UID, containers=[("app", container_id(), "img", "sha256:" + "ab" * 32)]))

    def start(self, kubelet=None, more="", wait=True):
        keys = {
            "address": f"127.0.0.1:{self.kubelet.port}",
            "ca_file": self.kubelet.authority.crt,
            "token_file": self.token_file,
            **(kubelet or {}),
        }
        text = "kubernetes:\n  poll: 1s\n" + more + "  kubelet:\n"
        text += "".join(f"    {k}: {v}\n" for k, v in keys.items() if v is not None)
        self.node.start_agent(extra=text, env={**os.environ, "POSTERN_SANDBOX_KILL": "1"})
        if wait:
            self.wait(lambda s: s["fetched"])

    def status(self):
        return json.loads(admin_ask(self.node.run / "agent-admin.sock", "status"))["kubernetes"]

    def wait(self, condition, what="the kubelet's pods"):
        return wait_for(what, lambda: condition(self.status()), 15)

    def wait_error(self, words):
        def seen():
            error = self.status().get("last_error", "")
            return words in error and error

        return wait_for(f"an error that says '{words}'", seen, 20)

    def events(self, event):
        found = []
        for line in self.node.agent.err().splitlines():
            try:
                o = json.loads(line)
            except ValueError:
                continue
            if o.get("event") == event:
                found.append(o)
        return found


@pytest.fixture
def make(node):
    made = []

    def one(**kw):
        made.append(Kubernetes(node, **kw))
        return made[-1]

    yield one
    for k in made:
        k.kubelet.close()


# --- who may tell ------------------------------------------------------------------------------------
def test_wrong_authority_is_not_believed(make):
    k = make()
    other = Authority(k.dir / "other", "other-ca")
    k.start({"ca_file": other.crt}, wait=False)
    assert "is not believed" in k.wait_error("certificate")
    assert k.status()["pods"] == 0 and k.status()["fetched"] is None
    assert k.kubelet.asked == [], "the token went to somebody who was not believed"


def test_certificate_for_another_name(make):
    k = make(san="DNS:node-1")
    k.start({"server_name": "node-2"}, wait=False)
    k.wait_error("is not believed")
    assert k.kubelet.asked == []


def test_certificate_by_name(make):
    k = make(san="DNS:node-1")
    k.start({"server_name": "node-1"})
    assert k.status()["pods"] == 1


def test_insecure_has_to_be_said_and_is_loud(make):
    k = make(san="DNS:elsewhere")
    k.start({"ca_file": None, "insecure": "true"})
    assert k.status()["insecure"] is True
    assert k.events("kubelet_insecure")


def test_plaintext(make):
    k = make(tls=False, token=None)
    k.start({"ca_file": None, "token_file": None, "plaintext": "true"})
    assert k.status()["plaintext"] is True and k.status()["pods"] == 1
    assert k.events("kubelet_plaintext")


def test_another_nodes_kubelet(make):
    k = make()
    k.start(more="  node_name: another\n", wait=False)
    k.wait_error("pods on node vm")
    assert k.status()["pods"] == 0


# --- as whom it is asked -----------------------------------------------------------------------------
def test_token_is_read_again_for_every_question(make):
    k = make()
    k.start()
    assert k.kubelet.asked[-1][:2] == ("/pods", "Bearer secret-1")
    # As Kubernetes does it: a link that is exchanged.
    other = k.dir / "token-2"
    other.write_text("secret-2")
    link = k.dir / "link"
    link.symlink_to(other)
    k.kubelet.token = "secret-2"
    k.wait_error("401")
    link.replace(k.token_file)
    k.wait(lambda s: "last_error" not in s, "the new token to be taken")
    assert k.kubelet.asked[-1][1] == "Bearer secret-2"


def test_client_certificate(make, node):
    clients = Authority(node.lab.private_dir("clients"), "client-ca")
    crt, key = clients.issue("postern-node", usage="clientAuth")
    k = make(client_ca=clients.crt)
    key.chmod(0o600)
    k.start({"token_file": None, "cert_file": crt, "key_file": key})
    assert k.kubelet.asked[-1] == ("/pods", None, "postern-node")


def test_token_with_a_line_break_inside(make):
    k = make()
    k.token_file.write_text("secret-1\r\nX-Evil: 1")
    k.start(wait=False)
    k.wait_error("holds bytes that no token has")
    assert k.kubelet.asked == []


def test_missing_and_foreign_files(make):
    k = make()
    k.token_file.unlink()
    k.start(wait=False)
    k.wait_error("the token cannot be opened")
    k.token_file.write_text("secret-1")
    os.chown(k.token_file, 48999, 48999)
    k.wait_error("others may write")
    os.chown(k.token_file, 0, 0)
    k.wait(lambda s: s["pods"] == 1)


# --- answers that are none ---------------------------------------------------------------------------
def raw(data):
    def mode(handler):
        handler.wfile.write(data)
        handler.close_connection = True

    return mode


def endless(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    piece = b"[" * 65536
    while True:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def stalled(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.flush()
    handler.connection.settimeout(30)
    handler.rfile.read(1)


BAD_ANSWERS = {
    "401": (lambda k: lambda h: k.send(h, 401, b"Unauthorized"), "status 401"),
    "403": (lambda k: lambda h: k.send(h, 403, b"Forbidden"), "nodes/proxy"),
    "503": (lambda k: lambda h: k.send(h, 503, b""), "status 503"),
    "garbage": (lambda k: raw(b"\x16\x03\x01\x00\xff\r\n" * 100), "HTTP/1.1"),
    "cut": (lambda k: raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"), "the kubelet"),
    "two lengths": (
        lambda k: raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
        "two lengths",
    ),
    "no list": (lambda k: lambda h: k.send(h, 200, b'{"kind":"Status","apiVersion":"v1"}'), "no list of pods"),
    "no json": (lambda k: lambda h: k.send(h, 200, b"<html>"), "no JSON"),
    "deep": (lambda k: lambda h: k.send(h, 200, b"[" * 100000), "nested deeper"),
    "huge": (lambda k: endless, "larger than"),
    "stalled": (lambda k: stalled, "did not answer within"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer_keeps_the_last_good_list(make, name):
    k = make()
    k.start()
    mode, says = BAD_ANSWERS[name]
    k.kubelet.mode = mode(k.kubelet)
    k.wait_error(says)
    state = k.status()
    assert state["pods"] == 1 and state["failed"] >= 1 and state["restarts"] == 0
    k.wait(lambda s: s["age_seconds"] >= 1, "its age to show")
    k.kubelet.mode = None
    k.wait(lambda s: "last_error" not in s, "the kubelet to be well again")


def test_kubelet_is_away_and_comes_back(make):
    k = make()
    k.start()
    k.kubelet.close()
    k.wait_error("no connection")
    assert k.status()["pods"] == 1
    metrics = admin_ask(k.node.run / "agent-admin.sock", "metrics")
    assert "postern_agent_kubelet_ok 0" in metrics and "postern_agent_pods 1" in metrics
    failures = k.events("kubelet_failed")
    assert len(failures) == 1, "one line when it begins to fail, not one a question"


# --- lists -------------------------------------------------------------------------------------------
def test_chunked_and_changing_lists(make):
    k = make()
    k.kubelet.mode = lambda h: k.kubelet.send(h, 200, k.kubelet.body(), chunked=True)
    k.start()
    k.kubelet.set_pods(*(pod(f"{i:032x}", name=f"p-{i}") for i in range(200)))
    k.wait(lambda s: s["pods"] == 200)
    k.kubelet.set_pods()
    k.wait(lambda s: s["pods"] == 0)


def test_odd_pods_are_left_out_and_told(make):
    k = make()
    odd = pod("../../etc", name="odd")
    k.kubelet.set_pods(pod(UID), odd, pod(STATIC_UID, ns="kube-system", name="etcd-vm"))
    k.start()
    state = k.status()
    assert (state["pods"], state["left_out"]) == (2, 1)
    assert "pod shop/odd" in state["first_left_out"]
    assert k.events("pods_left_out")


# --- the process -------------------------------------------------------------------------------------
def kubelet_process(k):
    processes = json.loads(admin_ask(k.node.run / "agent-admin.sock", "status"))["processes"]
    found = [p for p in processes if p["role"] == "kubelet"]
    return found[0] if found else None


def test_process_is_confined(make):
    k = make()
    k.start()
    p = kubelet_process(k)
    assert p["uid"] == 64604 and p["caps"] == "0" and p["no_new_privs"] and not p["dumpable"]
    assert p["seccomp"] == {"list": "kubelet"} and p["landlock_abi"] > 0
    fds = {os.readlink(f"/proc/{p['pid']}/fd/{f}") for f in os.listdir(f"/proc/{p['pid']}/fd")}
    assert not [f for f in fds if str(k.dir) in f], "no file stays open between questions"


def test_process_is_started_again_and_pods_stay(make):
    k = make()
    k.start()
    before = kubelet_process(k)
    k.kubelet.mode = raw(b"")
    os.kill(before["pid"], signal.SIGKILL)
    k.wait(lambda s: s["restarts"] == 1, "another process")
    assert k.status()["pods"] == 1, "what is known is not forgotten with the process"
    k.kubelet.mode = None
    k.wait(lambda s: "last_error" not in s, "its first list")
    assert kubelet_process(k)["pid"] != before["pid"]
    assert k.node.agent.alive()


def test_stop_does_not_wait_for_a_slow_kubelet(make):
    k = make()
    k.start()
    k.kubelet.mode = stalled
    n = len(k.kubelet.asked)
    wait_for("a question that hangs", lambda: len(k.kubelet.asked) > n)
    began = time.monotonic()
    assert k.node.agent.stop() == 0
    assert time.monotonic() - began < 4 and not k.events("process_killed")


HOSTILE = """#!/usr/bin/python3
import socket, struct
control = socket.socket(fileno=3)
kind = struct.unpack("I", control.recv(65536)[:4])[0]  # START_KUBELET; KUBELET_WANT is the next
control.setblocking(True)
open("{mark}", "a").write("x")
while True:
    control.send(struct.pack("IIQ", kind + {more}, 16, 0))
"""


@pytest.mark.parametrize("more", [1, 2, 77])
def test_process_in_somebody_elses_hands(make, build, more):
    """It asks without end, or says what it must not: it is ended, and nobody else is."""
    k = make()
    libexec, mark = k.dir / "libexec", k.dir / "mark"
    libexec.mkdir()
    for helper in (build / "libexec").iterdir():
        (libexec / helper.name).symlink_to(helper)
    fake = libexec / "postern-kubelet"
    fake.unlink()
    fake.write_text(HOSTILE.format(mark=mark, more=more))
    fake.chmod(0o755)
    mark.touch()
    mark.chmod(0o666)
    os.environ["POSTERN_LIBEXEC"] = str(libexec)
    try:
        k.start(wait=False)
    finally:
        del os.environ["POSTERN_LIBEXEC"]
    wait_for("its third start", lambda: len(mark.read_text()) >= 3, 20)
    assert k.node.agent.alive()
    assert len(k.kubelet.asked) == 0
    k.wait(lambda s: s["restarts"] >= 2, "its restarts to show")
    assert len(k.events("process_killed")) >= 2
    assert len(k.node.agent.err().splitlines()) < 60, "it can fill the log"


def test_no_kubelet_no_process(node):
    node.start_agent()
    status = json.loads(admin_ask(node.run / "agent-admin.sock", "status"))
    assert "kubernetes" not in status
    assert not [p for p in status["processes"] if p["role"] == "kubelet"]
