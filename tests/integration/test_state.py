"""Files that change under a running agent, and the State stream. docs/state-stream.md."""

import json
import os
import time

import pytest
from lab import admin_ask, run, wait_for
from node import TD, UIDS, spiffe_id
from rawgrpc import WORKLOAD, Raw, frame


def agent_events(node, event, **want):
    found = []
    for line in node.agent.err().splitlines():
        try:
            o = json.loads(line)
        except ValueError:
            continue
        if o.get("event") == event and all(o.get(k) == v for k, v in want.items()):
            found.append(o)
    return found


def entries(ids):
    text = "kind: Entries\nlevel: 1\nentries:\n"
    for name, uid in ids.items():
        text += f'  - id: {name}\n    spiffe_id: {spiffe_id(name)}\n    selectors: ["unix:uid:{uid}"]\n'
    return text


def identity(node, uid):
    p = run(*node.lab.argv_in([node.postern, "svid", "fetch", "--socket", node.socket], uid=uid), check=False)
    for line in p.stdout.splitlines():
        if line.startswith("identity"):
            return line.split()[1]
    return None


def generations(node):
    return [e["generation"] for e in agent_events(node, "entries_loaded")]


# --- watching ----------------------------------------------------------------------------------------
def test_entries_in_place_and_by_rename(node):
    node.start_agent()
    assert identity(node, 48990) is None
    (node.conf / "entries.yaml").write_text(entries({**UIDS, "new": 48990}))
    wait_for("the second set", lambda: len(generations(node)) == 2, 3)
    assert identity(node, 48990) == spiffe_id("new")
    other = node.conf / ".entries.yaml.swp"
    other.write_text(entries({**UIDS, "newer": 48990}))
    other.rename(node.conf / "entries.yaml")
    wait_for("the third set", lambda: len(generations(node)) == 3, 3)
    assert identity(node, 48990) == spiffe_id("newer")


def test_entries_as_a_config_map_is_mounted(node):
    """entries.yaml -> ..data/entries.yaml, and ..data is a link that is exchanged."""

    def release(n, ids):
        d = node.conf / f"..v{n}"
        d.mkdir()
        (d / "entries.yaml").write_text(entries(ids))
        link = node.conf / "..data_tmp"
        link.symlink_to(d.name)
        link.rename(node.conf / "..data")

    release(1, UIDS)
    (node.conf / "entries.yaml").symlink_to("..data/entries.yaml")
    node.start_agent()
    release(2, {**UIDS, "new": 48990})
    wait_for("the second set", lambda: len(generations(node)) == 2, 3)
    assert identity(node, 48990) == spiffe_id("new")
    (node.conf / "..v2" / "entries.yaml").write_text(entries(UIDS))  # behind two links
    wait_for("the third set", lambda: len(generations(node)) == 3, 3)
    assert identity(node, 48990) is None


def test_link_in_the_middle_of_the_path(node):
    for n in (1, 2):
        (node.conf / f"v{n}").mkdir()
        (node.conf / f"v{n}" / "entries.yaml").write_text(entries({**UIDS, f"new{n}": 48990}))
    (node.conf / "now").symlink_to("v1")
    node.write_agent()
    conf = node.conf / "agent.yaml"
    conf.write_text(conf.read_text().replace("entries: entries.yaml", "entries: now/entries.yaml"))
    (node.conf / "entries.yaml").write_text("not read")
    node.start_agent()
    assert identity(node, 48990) == spiffe_id("new1")
    (node.conf / "next").symlink_to("v2")
    (node.conf / "next").rename(node.conf / "now")
    wait_for("the second set", lambda: len(generations(node)) == 2, 3)
    assert identity(node, 48990) == spiffe_id("new2")


def test_entry_removed_ends_its_stream_within_a_second(node):
    node.start_agent()
    watch = node.lab.start(
        "watch", [node.postern, "svid", "watch", "--socket", node.socket], uid=UIDS["client"]
    )
    wait_for("the first identity", lambda: spiffe_id("client") in watch.out())
    (node.conf / "entries.yaml").write_text(entries({"server": UIDS["server"]}))
    changed = time.monotonic()
    wait_for("PermissionDenied", lambda: "PermissionDenied" in watch.out() + watch.err(), 5)
    assert time.monotonic() - changed < 1.5


def test_others_may_write_the_file(node):
    """One clear error, and the old set stays; when it is mended it is taken."""
    node.start_agent()
    path = node.conf / "entries.yaml"
    other = node.conf / "next.yaml"
    other.write_text(entries({**UIDS, "evil": 48990}))
    other.chmod(0o666)
    other.rename(path)
    e = wait_for("the refusal", lambda: agent_events(node, "entries_kept"), 3)[-1]
    assert "others may write" in e["error"] and e["where"] == str(path) and "0666" in e["error"], e
    assert identity(node, 48990) is None and identity(node, UIDS["client"]) == spiffe_id("client")
    os.chown(path, 48990, 48990)
    path.chmod(0o644)
    wait_for("the second refusal", lambda: "owner 48990" in agent_events(node, "entries_kept")[-1]["error"], 3)
    assert identity(node, 48990) is None
    os.chown(path, 0, 0)
    wait_for("the second set", lambda: len(generations(node)) == 2, 3)
    assert identity(node, 48990) == spiffe_id("evil")
    assert len(agent_events(node, "entries_kept")) <= 3  # told once for each change, not for each look


def test_file_away_and_back(node):
    node.start_agent()
    path = node.conf / "entries.yaml"
    text = path.read_text()
    path.unlink()
    wait_for("the error", lambda: agent_events(node, "entries_kept"), 3)
    assert identity(node, UIDS["client"]) == spiffe_id("client")
    path.write_text(text)
    wait_for("the second set", lambda: len(generations(node)) == 2, 3)


# --- the stream, by hand -----------------------------------------------------------------------------
SUBSCRIBE = "/postern.v1.State/Subscribe"
POLICY = """kind: Policy
level: 1
rules:
  - name: everyone
    action: ALLOW
    to: [{ports: [80]}]
  - name: for-root
    action: ALLOW
    target: {principals: [spiffe://TD/root]}
  - name: for-other
    action: DENY
    target: {principals: [spiffe://TD/other]}
""".replace("TD", TD)
MESH = """kind: Mesh
level: 1
services:
  - name: one
    addresses: [10.0.0.1]
    identities: [spiffe://TD/server]
""".replace("TD", TD)


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """{number: [values]}"""
    found, at = {}, 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            b = data[at]
            at += 1
            n |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return n

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            n = number()
            value, at = data[at : at + n], at + n
        found.setdefault(key >> 3, []).append(value)
    return found


class Snapshot:
    def __init__(self, data):
        f = fields(data)
        self.generation, self.deny_version = f[1][0], f.get(2, [0])[0]
        self.documents = {
            name: json.loads(fields(f[n][0])[2][0]) if n in f else None
            for n, name in ((5, "policy"), (6, "mesh"), (7, "modes"))
        }
        self.deny = [(d[1][0], d[2][0].decode()) for d in map(fields, f.get(8, []))]

    def rules(self):
        return [r["name"] for r in self.documents["policy"]["rules"]]


class Subscriber:
    def __init__(self, node, **say):
        self.raw = Raw(node.socket)
        self.stream = self.raw.open(SUBSCRIBE, body=self.message(**say), end=False)

    @staticmethod
    def message(name="by hand", generation=0, deny_version=0, refused=0, error=""):
        m = field(1, name) + field(3, 1) + field(4, generation) + field(5, deny_version)
        return frame(m + (field(7, refused) + field(8, error) if refused else b""))

    def say(self, **kw):
        self.raw.h2.send_data(self.stream.id, self.message(**kw))
        self.raw.flush()

    def next(self, timeout=60):
        return Snapshot(self.stream.next(timeout))

    def first(self, timeout=60):
        """The first snapshot; None if the service has not been told itself yet: a client asks again then."""
        while not self.stream.messages and not self.stream.ended:
            assert self.raw.pump(timeout), f"no answer within {timeout} s"
        if self.stream.messages:
            return self.next()
        assert self.stream.status == 14, (self.stream.status, self.stream.text)
        return None

    def ended(self, timeout=60):
        self.stream.wait_end(timeout)
        return self.stream.status


@pytest.fixture
def state(node):
    """A node whose agent tells a policy and a mesh map; root has an identity."""
    (node.conf / "policy.yaml").write_text(POLICY)
    (node.conf / "mesh.yaml").write_text(MESH)
    node.write_entries(uids={**UIDS, "root": 0})
    node.start_agent(extra="state:\n  policy: policy.yaml\n  mesh: mesh.yaml\n")
    return node


def proxies(node):
    return json.loads(admin_ask(node.run / "agent-admin.sock", "proxies"))


def test_snapshot_is_for_the_caller(state):
    first = Subscriber(state).next()
    assert first.generation == 1 and first.deny == []
    assert first.rules() == ["everyone", "for-root"]
    assert first.documents["mesh"]["services"][0]["name"] == "one"
    assert first.documents["modes"] is None


def test_without_identity_or_metadata(state):
    state.write_entries(uids=UIDS)  # root has none any more
    wait_for("the second set", lambda: len(generations(state)) == 2, 3)
    assert Subscriber(state).ended() == 7  # PermissionDenied
    s = Raw(state.socket).open(SUBSCRIBE, metadata=(), body=Subscriber.message(), end=False)
    assert s.wait_end().status == 3
    bad = (WORKLOAD[0], "no")
    assert Raw(state.socket).open(SUBSCRIBE, metadata=(bad,), body=Subscriber.message()).wait_end().status == 3


def test_no_message_of_ours(state):
    s = Raw(state.socket).open(SUBSCRIBE, body=frame(b"\x0a\xff"), end=False)
    assert s.wait_end(5).status == 3
    sub = Subscriber(state)
    sub.next()
    sub.raw.h2.send_data(sub.stream.id, frame(b"\x0a\xff"))
    sub.raw.flush()
    assert sub.ended() == 3
    assert proxies(state)["proxies"] == []


def test_identity_that_goes_ends_it(state):
    sub = Subscriber(state)
    sub.next()
    state.write_entries(uids=UIDS)
    changed = time.monotonic()
    assert sub.ended() == 7
    assert time.monotonic() - changed < 1.5


def test_identity_that_comes_brings_its_rules(state):
    sub = Subscriber(state)
    sub.next()
    (state.conf / "entries.yaml").write_text(
        entries({**UIDS, "root": 0})
        + f'  - id: other\n    spiffe_id: {spiffe_id("other")}\n    selectors: ["unix:uid:0"]\n'
    )
    again = sub.next()
    assert again.rules() == ["everyone", "for-root", "for-other"] and again.generation == 1


def test_pushed_within_a_second(state):
    sub = Subscriber(state)
    first = sub.next()
    changed = time.monotonic()
    (state.conf / "policy.yaml").write_text(POLICY.replace("for-root", "renamed"))
    second = sub.next()
    assert time.monotonic() - changed < 1.0
    assert second.generation == first.generation + 1 and second.rules() == ["everyone", "renamed"]
    run(state.postern, "quarantine", "add", "--config", state.conf / "agent.yaml", spiffe_id("stranger"))
    third = sub.next(1.0)
    assert third.deny == [(1, spiffe_id("stranger"))] and third.deny_version > second.deny_version
    assert third.generation == second.generation
    run(state.postern, "quarantine", "remove", "--config", state.conf / "agent.yaml", spiffe_id("stranger"))
    assert sub.next(1.0).deny == []


def test_bad_file_keeps_what_was_told(state):
    sub = Subscriber(state)
    first = sub.next()
    (state.conf / "policy.yaml").write_text("kind: Policy\nlevel: 1\nrules:\n  - nam: x\n")
    e = wait_for("the error", lambda: agent_events(state, "document_refused"), 3)[0]
    assert e["where"].endswith("policy.yaml:4:5"), e

    def refused():  # the supervisor logs it, then tells the service
        status = json.loads(admin_ask(state.run / "agent-admin.sock", "status"))["state"]
        return status if status["policy"]["failed"] > 0 else None

    status = wait_for("its count in the status", refused)
    assert status["policy"]["failed"] == 1 and "policy.yaml:4:5" in status["policy"]["last_error"]
    assert status["generation"] == first.generation and status["mesh"]["last_error"] is None
    assert 'document_loaded_ok{document="policy"} 0' in admin_ask(state.run / "agent-admin.sock", "metrics")
    assert Subscriber(state).next().rules() == first.rules()
    (state.conf / "policy.yaml").write_text(POLICY.replace("for-root", "mended"))
    assert sub.next().rules() == ["everyone", "mended"]


def test_nothing_before_every_file_was_good(node):
    """An absent policy would be taken for the newest one."""
    (node.conf / "policy.yaml").write_text("kind: Policy\n")
    node.write_entries(uids={"root": 0})
    node.start_agent(extra="state:\n  policy: policy.yaml\n")
    assert Subscriber(node).ended() == 14
    (node.conf / "policy.yaml").write_text(POLICY)
    wait_for("the policy", lambda: proxies(node)["generation"] == 1, 3)
    assert Subscriber(node).next().rules() == ["everyone", "for-root"]


def test_generation_is_of_the_content(state):
    assert Subscriber(state).next().generation == 1
    (state.conf / "policy.yaml").write_text(POLICY + "  - {name: more, action: DENY, to: [{ports: [1]}]}\n")
    wait_for("the second policy", lambda: proxies(state)["generation"] == 2, 3)
    assert Subscriber(state).next().generation == 2
    state.agent.stop()
    state.start_agent()
    assert Subscriber(state).next().generation == 2
    state.agent.stop()
    (state.conf / "policy.yaml").write_text(POLICY)
    state.start_agent()
    assert Subscriber(state).next().generation == 3


def test_new_service_is_told_all(state):
    assert Subscriber(state).next().generation == 1
    pid = next(
        p["pid"]
        for p in json.loads(admin_ask(state.run / "agent-admin.sock", "status"))["processes"]
        if p["role"] == "service"
    )
    os.kill(pid, 9)
    wait_for("a new service", lambda: agent_events(state, "service_restarted"), 5)
    again = wait_for("its answer", lambda: Subscriber(state).first())
    assert again.generation == 1 and again.rules() == ["everyone", "for-root"]


def test_who_runs_what(state):
    sub = Subscriber(state, name="one")
    sub.next()
    sub.say(name="one", generation=1)
    other = Subscriber(state, name="two\x1b[2J")
    other.next()
    other.say(name="two\x1b[2J", refused=1, error="policy.yaml:5: no such port")
    wait_for("both have said so", lambda: all(p["said"] for p in proxies(state)["proxies"]) and
             sum(p["generation"] + p["refused_generation"] for p in proxies(state)["proxies"]) == 2)
    listed = {p["name"]: p for p in proxies(state)["proxies"]}
    assert listed["one"]["generation"] == 1 and listed["one"]["error"] is None
    assert listed["one"]["identity"] == spiffe_id("root") and listed["one"]["uid"] == 0
    assert listed["one"]["pid"] == os.getpid()
    refused = listed["two?[2J"]
    assert refused["generation"] == 0 and refused["error"] == "policy.yaml:5: no such port"
    assert agent_events(state, "state_refused")[0]["error"] == refused["error"]
    shown = run(state.postern, "agent", "proxies", "--config", state.conf / "agent.yaml").stdout
    assert "generation 1, deny list" in shown and "2 proxies" in shown and "no such port" in shown
    as_json = run(state.postern, "agent", "proxies", "--json", "--socket", state.run / "agent-admin.sock").stdout
    assert len(json.loads(as_json)["proxies"]) == 2
    assert 'subscribers 2' in admin_ask(state.run / "agent-admin.sock", "metrics")
    sub.raw.close()
    wait_for("one is gone", lambda: len(proxies(state)["proxies"]) == 1)


def test_slow_reader_gets_the_newest_only(state):
    """It takes nothing while the state changes; the agent holds one message for it, not all."""
    sub = Subscriber(state)
    sub.next()
    for n in range(2, 12):
        filler = "".join(f"  - {{name: r{n}-{i}, action: DENY, to: [{{ports: [1], paths: [/{'x' * 200}]}}]}}\n" for i in range(400))
        (state.conf / "policy.yaml").write_text(POLICY + filler)
        wait_for("the next policy", lambda n=n: len(agent_events(state, "document_loaded", document="policy")) == n, 5)
    got = [sub.next()]
    while got[-1].generation != 11:
        got.append(sub.next())
    assert len(got) <= 4, [s.generation for s in got]
