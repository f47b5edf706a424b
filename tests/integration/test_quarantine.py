"""What is quarantined on a node, end to end at the agent. docs/quarantine.md."""

import json
import os
import pathlib
import secrets
import signal
import stat
import uuid

import control
import pytest
from fake_kubelet import FakeKubelet, pod
from lab import run, wait_for
from test_agent_processes import TD, agent  # noqa: F401

ID = f"spiffe://{TD}/root"
VERB_SERIALS = 5
DIGEST = "sha256:" + "0123456789abcdef" * 4


def quarantine(agent, *argv, check=True):
    return run(
        agent.postern, "quarantine", argv[0], "--config", agent.dir / "agent.yaml", *argv[1:], check=check
    )


def listed(agent):
    doc = json.loads(quarantine(agent, "list", "--json").stdout)
    assert doc["scope"] == "this node only"
    return doc


def test_identity_stops_at_once_and_comes_back(agent):
    agent.write_entries({"root": "unix:uid:0", "other": "unix:uid:0"})
    agent.start()
    assert agent.identity() == ID
    p = quarantine(agent, "add", "--reason", "stolen laptop", ID)
    assert "this node only" in p.stdout and "stolen laptop" in p.stdout
    # the other identity of the same caller stays, and is its first one now
    assert agent.identity() == f"spiffe://{TD}/other"
    quarantine(agent, "add", f"spiffe://{TD}/other")
    refused = agent.fetch()
    assert refused.returncode != 0 and "PermissionDenied" in refused.stderr + refused.stdout
    quarantine(agent, "remove", ID)
    assert agent.identity() == ID


def test_open_stream_is_ended(agent):
    agent.start()
    watch = agent.lab.start("watch", [agent.postern, "svid", "watch", "--socket", agent.socket])
    wait_for("the first SVID", lambda: ID in watch.out())
    quarantine(agent, "add", ID)
    wait_for("PermissionDenied", lambda: "PermissionDenied" in watch.out() + watch.err())


def test_survives_restarts(agent):
    agent.start()
    quarantine(agent, "add", "--for", "2h", "--reason", "why not", ID)
    quarantine(agent, "add", "serial:0A:BC")
    before = listed(agent)
    f = agent.state / "quarantine"
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o600
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.p.wait()
    agent.start()
    assert listed(agent) == before
    assert agent.identity() is None
    assert agent.events("quarantine_restored")
    # a service that is started again knows it too, and the keeper goes on refusing
    os.kill(agent.children()["postern-agent-service"], signal.SIGKILL)
    agent.wait_event("service_restarted")
    wait_for("an answer", lambda: "PermissionDenied" in (lambda p: p.stdout + p.stderr)(agent.fetch()))
    quarantine(agent, "remove", "serial:abc")
    after = listed(agent)
    assert [x["subject"] for x in after["items"]] == [ID] and after["version"] > before["version"]


def test_each_change_is_told_with_the_version_after_it(agent):
    agent.start()
    versions = []
    for order in ("add", "remove"):
        quarantine(agent, order, ID)
        versions.append(listed(agent)["version"])
    wait_for("each to be told", lambda: [x["version"] for x in agent.events("quarantine")] == versions)
    agent.process.stop()
    shown = run(agent.postern, "journal", "show", "--json", "--dir", agent.state / "journal").stdout.splitlines()
    told = [x for x in map(json.loads, shown) if x["event"] == "quarantine"]
    assert [(x["change"], x["version"]) for x in told] == list(zip(("added", "removed"), versions, strict=True))


def test_time_limit(agent):
    agent.start()
    quarantine(agent, "add", "--for", "1s", ID)
    wait_for("the end of it", lambda: agent.identity() == ID)
    assert listed(agent)["items"] == []
    wait_for("both to be told", lambda: [e["change"] for e in agent.events("quarantine")] == ["added", "over"])


def test_damaged_file_is_no_empty_set(agent):
    agent.start()
    quarantine(agent, "add", ID)
    agent.process.stop()
    f = agent.state / "quarantine"
    f.write_bytes(f.read_bytes()[:-3])
    agent.start(wait=False)
    assert agent.wait_end() != 0
    (failed,) = agent.events("agent_failed")
    assert str(f) in failed["where"] and "damaged" in failed["error"]


@pytest.mark.parametrize(
    "argv, text",
    [
        (["add"], "usage"),
        (["add", "nginx:1.22"], "nothing that can be quarantined"),
        (["add", "--for", "0s", ID], "expected TIME"),
        (["add", "--for", "2", ID], "expected TIME"),
        (["add", "serial:xyz"], "hexadecimal"),
        (["add", f"spiffe://{TD}"], "names a whole trust domain"),
        (["add", "--reason", "x" * 257, ID], "longer than"),
        (["remove", ID], "not quarantined"),
        (["list", ID], "usage"),
        (["forget", ID], "usage"),
    ],
)
def test_wrong_orders(agent, argv, text):
    agent.start()
    p = quarantine(agent, *argv, check=False)
    assert p.returncode == 2 and text in p.stderr
    assert listed(agent)["items"] == []


def test_full_disk_stops_issuing_and_says_that_it_is_not_saved(agent):
    """The state directory takes no new file: the order is in force, and whoever gave it learns what it is worth."""
    agent.start()
    # os_write_file_atomic has to make a file there
    run("chattr", "+i", agent.state, check=False)
    try:
        (agent.state / "probe").write_text("")
        pytest.skip("no immutable flag on this file system")
    except PermissionError:
        pass
    try:
        p = quarantine(agent, "add", ID, check=False)
        assert p.returncode == 1 and "after a restart" in p.stderr
        assert agent.identity() is None
        assert agent.events("quarantine_not_saved")
    finally:
        run("chattr", "-i", agent.state)
    quarantine(agent, "add", ID)
    assert [x["subject"] for x in listed(agent)["items"]] == [ID]


def test_digest_alone(agent):
    """No container here has this image: nobody else is hit."""
    agent.start()
    quarantine(agent, "add", f"registry.example/app@{DIGEST}")
    assert [x["subject"] for x in listed(agent)["items"]] == [DIGEST]
    assert agent.identity() == ID


def test_serials_before_a_bad_one_are_in_force(agent):
    """They stood in the set, and were shown, but neither keeper nor proxies nor the file had them."""
    agent.start()
    quarantine(agent, "add", DIGEST)
    with pytest.raises(control.Refused, match="hexadecimal"):
        control.ask(agent.state / "control.sock", VERB_SERIALS, args=[DIGEST, "0a01,0a02", "0a03,x,0a04"])
    assert listed(agent)["items"][0]["serials"] == 3
    assert all(f'"{x}"' in (agent.state / "quarantine").read_text() for x in ("0a01", "0a02", "0a03"))


# --- an image -------------------------------------------------------------------------------------------
class Pod:
    """A place in this machine's cgroups such as a kubelet gives to a container, and that kubelet.

    Under `kubelet/`, where a kubelet is told to work that is a container itself: a real one of this machine removes what
    it does not know right under `kubepods/`, and did so while this test ran."""

    def __init__(self, agent, digest):
        self.uid = str(uuid.uuid4())
        self.container = secrets.token_hex(32)
        pki = agent.dir / "pki"
        self.kubelet = FakeKubelet(pki)
        token = agent.dir / "token"
        token.write_text("secret-1\n")
        token.chmod(0o600)
        self.kubelet.set_pods(pod(self.uid, containers=[("app", self.container, "img", digest)]))
        self.config = (
            f"kubernetes:\n  poll: 1s\n  node_name: vm\n  kubelet:\n    address: 127.0.0.1:{self.kubelet.port}\n"
            f"    ca_file: {self.kubelet.authority.crt}\n    token_file: {token}\n"
        )
        self.made = []
        for top in cgroup_tops():
            place = top
            for part in ("kubelet", "kubepods", "besteffort", f"pod{self.uid}", self.container):
                place = place / part
                try:
                    place.mkdir()
                    self.made.append(place)
                except FileExistsError:
                    pass

    def run(self, *argv):
        """A process that is in the container as far as the kernel says."""
        tasks = [p / "cgroup.procs" for p in self.made if p.name == self.container]
        enter = "".join(f"echo $$ > {t} && " for t in tasks)
        return run("/bin/sh", "-c", enter + 'exec "$@"', "sh", *argv, check=False)

    def close(self):
        self.kubelet.close()
        for place in reversed(self.made):
            try:
                place.rmdir()
            except OSError:
                pass  # somebody else's pod is there too


def cgroup_tops():
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, _ = line.split(maxsplit=3)
        if kind == "cgroup2" or (kind == "cgroup" and "cpuset" not in where):
            found.append(pathlib.Path(where))
    return found


def test_image_stops_issuing_and_names_its_certificates(agent):
    one = Pod(agent, DIGEST)
    try:
        agent.write_entries({"app": "k8s:ns:shop", **{f"more{i}": "k8s:ns:shop" for i in range(39)}})
        agent.write_config(one.config)
        agent.start()

        def fetch():
            return one.run(agent.postern, "svid", "fetch", "--socket", agent.socket)

        p = wait_for("the pod's identity", lambda: (lambda p: p.returncode == 0 and p)(fetch()))
        serial = next(x.split()[1] for x in p.stdout.splitlines() if x.startswith("serial"))
        assert f"spiffe://{TD}/app" in p.stdout
        for _ in range(6):  # more than one request to the supervisor takes
            assert fetch().returncode == 0
        p = quarantine(agent, "add", "--for", "1h", f"img@{DIGEST}")
        assert "certificate" in p.stdout
        (item,) = listed(agent)["items"]
        shown = [json.loads(x) for x in run(
            agent.postern, "journal", "show", "--json", "--dir", agent.state / "journal"
        ).stdout.splitlines()]  # fmt: skip
        issued = [x for x in shown if x["event"] == "issued"]
        assert item["serials"] == len(issued) >= 240 and serial.rjust(32, "0") in {x["serial"] for x in issued}
        assert {x["image_digest"] for x in issued} == {DIGEST} and issued[0]["pod_uid"] == one.uid
        assert issued[0]["container_id"] == one.container
        assert [x["subject"] for x in shown if x["event"] == "quarantine"] == [DIGEST]
        text = (agent.state / "quarantine").read_text()
        assert all(f'"subject":"{x["serial"].lstrip("0")}"' in text.replace('"0', '"') for x in issued)
        p = fetch()
        assert p.returncode != 0 and "PermissionDenied" in p.stdout + p.stderr
        quarantine(agent, "remove", DIGEST)
        assert listed(agent)["items"] == []
        assert fetch().returncode == 0
    finally:
        one.close()


def test_token_of_before(agent):
    """The identity's own token, judged by another caller of the same agent."""
    agent.write_entries({"root": "unix:uid:0", "other": "unix:uid:0"})
    agent.start()
    svid = [agent.postern, "svid"]
    where = ["--socket", agent.socket, "--audience", "somebody"]
    token = run(*svid, "fetch", "--jwt", "--raw", "--id", ID, *where).stdout.strip()
    assert run(*svid, "validate", token, *where).returncode == 0
    quarantine(agent, "add", ID)
    refused = wait_for(
        "the refusal", lambda: (lambda p: p.returncode != 0 and p)(run(*svid, "validate", token, *where, check=False))
    )
    assert "quarantined" in refused.stderr + refused.stdout
    none = run(*svid, "fetch", "--jwt", "--raw", "--id", ID, *where, check=False)
    assert none.returncode != 0 and "PermissionDenied" in none.stderr + none.stdout


def test_leftovers_of_a_kill_are_removed(agent):
    agent.start()
    quarantine(agent, "add", ID)
    agent.process.stop()
    (agent.state / "quarantine.aB3xY9").write_text("half")
    agent.start()
    assert not (agent.state / "quarantine.aB3xY9").exists()
    assert [x["subject"] for x in listed(agent)["items"]] == [ID]
