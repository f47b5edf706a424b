"""The agent as a whole: its processes, their ends, its files. docs/privilege-separation.md, cases P."""

import hashlib
import json
import os
import pathlib
import random
import signal
import socket
import stat
import subprocess

import pytest
from lab import children_of, run, wait_for

TD = "agent.example"
ROLES = {"postern-keeper": 0, "postern-attestor": 1 << 19, "postern-agent-service": 0}
UIDS = {"postern-keeper": 64601, "postern-attestor": 64602, "postern-agent-service": 64603}


class Agent:
    """One agent with its files; `entries` is {id: selector}."""

    def __init__(self, lab, build):
        self.lab, self.postern = lab, build / "proxy" / "postern"
        self.dir = lab.private_dir("agent")
        self.socket = self.dir / "run" / "agent.sock"
        self.state = self.dir / "state"
        self.starts = 0
        self.process = None
        self.write_entries({"root": "unix:uid:0"})
        self.write_config()

    def write_config(self, extra=""):
        (self.dir / "agent.yaml").write_text(
            f"kind: Agent\nlevel: 1\ntrust_domain: {TD}\nsocket: {self.socket}\nstate_dir: {self.state}\n"
            f"entries: entries.yaml\n{extra}"
        )

    def write_entries(self, entries, extra=""):
        text = "kind: Entries\nlevel: 1\nentries:\n"
        for name, selector in entries.items():
            text += f'  - id: {name}\n    spiffe_id: spiffe://{TD}/{name}\n    selectors: ["{selector}"]\n'
        (self.dir / "entries.yaml").write_text(text + extra)

    def start(self, wait=True, argv=(), **kw):
        # In tests a system call that is not on a process's list ends it: nothing is missing unseen.
        kw["env"] = {**os.environ, "POSTERN_SANDBOX_KILL": "1", **kw.get("env", {})}
        self.starts += 1
        self.process = self.lab.start(
            f"agent{self.starts}", [self.postern, "agent", *argv, self.dir / "agent.yaml"], **kw
        )
        if wait:
            self.wait_event("ready")
        return self.process

    def events(self, event):
        found = []
        for line in self.process.err().splitlines():
            try:
                o = json.loads(line)
            except ValueError:
                continue
            if o.get("event") == event:
                found.append(o)
        return found

    def wait_event(self, event, n=1):
        def seen():
            assert self.process.alive(), f"ended with {self.process.p.returncode}: {self.process.err()[-3000:]}"
            return len(self.events(event)) >= n

        wait_for(f"the agent's {event}", seen)
        return self.events(event)[-1]

    def wait_end(self):
        return self.process.p.wait(30)

    def children(self):
        return children_of(self.process.pid)

    def fetch(self, uid=0):
        return run(
            *self.lab.argv_in([self.postern, "svid", "fetch", "--socket", self.socket], uid=uid), check=False
        )

    def identity(self, uid=0):
        p = self.fetch(uid)
        for line in p.stdout.splitlines():
            if line.startswith("identity"):
                return line.split()[1]
        return None


@pytest.fixture
def agent(lab, build):
    return Agent(lab, build)


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}


def ended(pid):
    """Its number may be somebody else's soon: any state but running counts."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# --- what each process may ---------------------------------------------------------------------------
def test_refused_entries_leave_digests_alone(agent):
    """The keeper refuses entries that ask for no digest: those of before, which do, gave nobody anything from then on."""
    digest = hashlib.sha256(pathlib.Path(agent.postern).read_bytes()).hexdigest()
    agent.write_entries({"app": f"unix:sha256:{digest}"})
    agent.write_config("attestation: {executable_max: 1GiB}\n")
    agent.start()
    mine = f"spiffe://{TD}/app"
    wait_for("the digest", lambda: agent.identity() == mine)
    (agent.dir / "entries.yaml").write_text(
        'kind: Entries\nlevel: 1\nentries:\n  - {id: x, spiffe_id: "spiffe://other.example/x", selectors: ["unix:uid:0"]}\n'
    )
    agent.wait_event("entries_refused")
    assert agent.identity() == mine
    agent.write_entries({"root": "unix:uid:0"})
    wait_for("entries that are good", lambda: agent.identity() == f"spiffe://{TD}/root")


def test_each_process_is_confined(agent):
    agent.start()
    children = agent.children()
    assert set(children) == set(ROLES), children
    for name, pid in children.items():
        s = status_of(pid)
        assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1", name
        assert int(s["CapEff"], 16) == int(s["CapPrm"], 16) == ROLES[name], name
        assert s["Uid"].split() == [str(UIDS[name])] * 4 and s["Gid"].split() == [str(UIDS[name])] * 4, name
        assert s["Groups"] == "", name
        # not dumpable: its files in /proc belong to root
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0, name
        # no descriptor beside channels, its own, and standard ones
        shown = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        journal = f"{agent.state}/journal/"
        held = [x for x in shown if str(agent.state) in x]
        assert held == [] or (name == "postern-keeper" and all(x.startswith(journal) for x in held)), (name, held)
    own = status_of(agent.process.pid)
    assert int(own["CapEff"], 16) & ~(1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8) == 0
    assert own["NoNewPrivs"] == "1" and own["Seccomp"] == "2"
    # the keeper maps no parser
    maps = pathlib.Path(f"/proc/{children['postern-keeper']}/maps").read_text()
    for library in ("libyaml", "libevent", "nghttp2", "protobuf", "jansson", "libssl"):
        assert library not in maps


def test_report_in_the_log_is_true(agent):
    agent.start()
    pids = {f"postern-{e['process']}".replace("postern-service", "postern-agent-service"): e for e in
            agent.events("process_confined")}
    for name, pid in agent.children().items():
        e, s = pids[name], status_of(pid)
        assert e["pid"] == pid and str(e["uid"]) == s["Uid"].split()[0]
        assert e["seccomp"] is (s["Seccomp"] == "2") and e["no_new_privs"] is (s["NoNewPrivs"] == "1")
        assert int(e["capabilities"], 16) == int(s["CapPrm"], 16)


def test_not_root(agent):
    uid = 48950
    agent.dir.chmod(0o777)
    agent.lab.private_dir("agent", uid)
    agent.start(uid=uid)
    assert agent.events("not_separated")
    for name, pid in agent.children().items():
        s = status_of(pid)
        assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1" and int(s["CapPrm"], 16) == 0, name
        assert s["Uid"].split() == [str(uid)] * 4
    assert agent.identity() == f"spiffe://{TD}/root"


# --- ends --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_orderly_end(agent, signo):
    agent.start()
    children = agent.children()
    assert agent.process.stop(signo) == 0
    assert not agent.socket.exists()
    assert all(ended(pid) for pid in children.values())


@pytest.mark.parametrize("victim", ["postern-keeper", "postern-attestor"])
def test_keeper_or_attestor_killed(agent, victim):
    agent.start()
    children = agent.children()
    os.kill(children[victim], signal.SIGKILL)
    assert agent.wait_end() == 1
    failed = agent.events("agent_failed")[-1]
    assert victim.removeprefix("postern-") in failed["error"] and "signal 9" in failed["error"], failed
    assert all(ended(pid) for pid in children.values())
    assert not agent.socket.exists()
    agent.start()
    assert agent.identity() == f"spiffe://{TD}/root"


def test_service_killed_is_restarted(agent):
    agent.start()
    before = agent.children()
    os.kill(before["postern-agent-service"], signal.SIGKILL)
    agent.wait_event("service_restarted")
    wait_for("an identity from the new service", lambda: agent.identity() == f"spiffe://{TD}/root")
    after = agent.children()
    assert after["postern-keeper"] == before["postern-keeper"]
    assert after["postern-attestor"] == before["postern-attestor"]
    s = status_of(after["postern-agent-service"])
    assert s["Seccomp"] == "2" and s["Uid"].split() == [str(UIDS["postern-agent-service"])] * 4


def test_service_that_always_dies_ends_the_agent(agent):
    agent.start()
    seen = set()
    while agent.process.alive() and len(seen) < 10:
        pid = agent.children().get("postern-agent-service")
        if pid is None or pid in seen:
            continue
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for("its end", lambda p=pid: ended(p))
    assert agent.wait_end() == 1
    assert "again and again" in agent.events("agent_failed")[-1]["error"]


@pytest.mark.parametrize(
    "misdeed",
    ["printf nonsense >&3", r"printf '\041\000\000\000\020\000\000\000\0\0\0\0\0\0\0\0' >&3", "exec 3>&-"],
    ids=["garbage", "what it may not say", "hangup"],
)
def test_service_that_misbehaves_is_replaced(agent, build, misdeed):
    """It breaks its protocol with the supervisor once: it is killed, the next one serves, the keeper stays."""
    libexec = agent.dir / "libexec"
    libexec.mkdir()
    for name in ("postern-keeper", "postern-attestor", "postern-loader"):
        (libexec / name).symlink_to(build / "libexec" / name)
    ready = r"\002\000\000\000\020\000\000\000\0\0\0\0\0\0\0\0"
    fake = libexec / "postern-agent-service"
    fake.write_text(
        f"#!/bin/sh\nif [ -e {libexec}/done ]; then exec {build}/libexec/postern-agent-service; fi\n"
        f": >{libexec}/done\nprintf '{ready}' >&3\n"
        f"while [ ! -e {libexec}/now ]; do sleep 0.02; done\n{misdeed}\nexec sleep 1000\n"
    )
    fake.chmod(0o755)
    agent.start(env={"POSTERN_LIBEXEC": str(libexec)})
    keeper = agent.children()["postern-keeper"]
    (libexec / "now").touch()
    agent.wait_event("service_restarted")
    assert agent.events("process_killed")
    wait_for("an identity from the new service", lambda: agent.identity() == f"spiffe://{TD}/root")
    assert agent.children()["postern-keeper"] == keeper
    assert agent.process.stop() == 0


def test_supervisor_killed(agent):
    agent.start()
    children = agent.children()
    agent.process.send_signal(signal.SIGKILL)
    agent.wait_end()
    wait_for("the others to end", lambda: all(ended(pid) for pid in children.values()))
    assert agent.socket.exists()  # nobody was left to remove it
    agent.start()
    assert agent.identity() == f"spiffe://{TD}/root"


def test_killed_at_any_moment_and_started_again(agent):
    """From the first system call of the first start on: what is left must never stop the next start."""
    rng = random.Random(7)
    for i in range(12):
        agent.start(wait=False)
        # a moment in the start, by how far it has come, not by time alone
        until = rng.choice(["process_confined", "root_made", "entries_loaded", "ready", None])
        if until is not None:
            wait_for(
                f"{until} or the end",
                lambda u=until: agent.events(u) or agent.events("ready") or not agent.process.alive(),
            )
        children = agent.children()
        agent.process.send_signal(signal.SIGKILL)
        agent.wait_end()
        wait_for("all to end", lambda c=children: all(ended(pid) for pid in c.values()))
        assert not agent.events("agent_failed"), (i, agent.events("agent_failed"))
    agent.start()
    assert agent.identity() == f"spiffe://{TD}/root"
    assert not (agent.state / "ca.new").exists()


def test_root_is_kept(agent):
    agent.start()
    cert = (agent.state / "ca" / "state").read_bytes()
    assert agent.process.stop() == 0
    agent.start()
    assert (agent.state / "ca" / "state").read_bytes() == cert
    mode = stat.S_IMODE((agent.state / "ca" / "state").stat().st_mode)
    assert mode == 0o600 and stat.S_IMODE(agent.state.stat().st_mode) == 0o700


def test_half_made_root_is_removed(agent):
    (agent.state / "ca.new").mkdir(parents=True)
    agent.state.chmod(0o700)
    (agent.state / "ca.new" / "root.key").write_bytes(b"half")
    (agent.state / "ca.new" / "state").write_bytes(b"half")
    agent.start()
    assert agent.events("state_cleaned") and not (agent.state / "ca.new").exists()


def test_half_written_state_is_removed(agent):
    agent.start()
    assert agent.process.stop() == 0
    before = (agent.state / "ca" / "state").read_bytes()
    (agent.state / "ca" / "state.new").write_bytes(before[:100])
    agent.start()
    assert not (agent.state / "ca" / "state.new").exists()
    assert (agent.state / "ca" / "state").read_bytes() == before


def make_old_layout(state, td=TD):
    """The root as releases before ca/state kept it."""
    ca = state / "ca"
    ca.mkdir(parents=True)
    state.chmod(0o700)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", ca / "key.pem"]
    ext = ["basicConstraints=critical,CA:true,pathlen:1", "keyUsage=critical,keyCertSign,cRLSign"]
    ext += [f"subjectAltName=URI:spiffe://{td}"]
    add = [a for e in ext for a in ("-addext", e)]
    run("openssl", "req", "-x509", "-new", *key, "-subj", "/O=Postern", "-days", "30", *add, "-out", ca / "cert.pem")
    run("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", ca / "key.pem", "-outform", "DER", "-out", ca / "root.key")
    run("openssl", "x509", "-in", ca / "cert.pem", "-outform", "DER", "-out", ca / "root.crt")
    (ca / "root.key").chmod(0o600)
    (ca / "root.crt").chmod(0o644)
    (ca / "key.pem").unlink()
    (ca / "cert.pem").unlink()
    return (ca / "root.crt").read_bytes()


def test_old_layout_is_taken_over(agent):
    """The root of an earlier release stays the root, also if the agent was killed while it moved."""
    root = make_old_layout(agent.state)
    (agent.state / "ca" / "state.new").write_bytes(b"half")
    agent.start()
    assert agent.events("state_migrated") and not agent.events("root_made")
    assert [p.name for p in (agent.state / "ca").iterdir()] == ["state"]
    assert root in (agent.state / "ca" / "state").read_bytes()
    assert agent.process.stop() == 0
    (agent.state / "ca" / "root.key").write_bytes(b"left")  # killed between the two steps
    agent.start()
    assert not (agent.state / "ca" / "root.key").exists()
    assert agent.identity() == f"spiffe://{TD}/root"


# --- refusals ----------------------------------------------------------------------------------------
def failure(agent, status, *words):
    agent.start(wait=False)
    assert agent.wait_end() == status, agent.process.err()
    e = agent.events("agent_failed")[-1]
    text = json.dumps(e)
    assert all(w in text for w in words), e
    assert not agent.children()
    return e


def test_read_only_state_directory(agent):
    mount = agent.dir / "ro"
    mount.mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro,mode=0700", "none", mount)
    try:
        agent.state = mount / "state"
        agent.write_config()
        assert "advice" in failure(agent, 1, "Read-only file system", "state")
    finally:
        run("umount", mount)


def test_full_disk(agent):
    mount = agent.dir / "full"
    mount.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", mount)
    try:
        with open(mount / "filler", "wb", buffering=0) as f, pytest.raises(OSError, match="No space"):
            while True:
                f.write(b"x" * 4096)
        agent.state = mount / "state"
        agent.write_config()
        assert "advice" in failure(agent, 1, "No space left")
        (mount / "filler").unlink()
        agent.start()  # with room again, the left-overs do not matter
        agent.process.stop()
    finally:
        run("umount", "-l", mount)


def test_key_that_others_can_read(agent):
    agent.start()
    agent.process.stop()
    key = agent.state / "ca" / "state"
    before = key.read_bytes()
    key.chmod(0o644)
    assert "advice" in failure(agent, 2, "mode 0644", str(agent.state / "ca"))
    key.chmod(0o600)
    key.write_bytes(before[:50])
    assert "advice" in failure(agent, 2, "state file is cut")
    assert key.read_bytes() == before[:50]
    key.write_bytes(before)
    agent.start()


def test_second_agent_on_the_same_state_or_socket(agent, lab):
    first = agent.start()
    socket_path, state = agent.socket, agent.state
    agent.socket = agent.dir / "run" / "other.sock"
    agent.write_config()
    failure(agent, 1, "another agent uses this state directory")
    agent.socket, agent.state = socket_path, agent.dir / "state2"
    agent.write_config()
    failure(agent, 1, "somebody answers")
    agent.process = first
    agent.state = state
    assert first.alive() and agent.identity() == f"spiffe://{TD}/root"


def test_socket_in_a_directory_of_everybody(agent):
    d = agent.dir / "open"
    d.mkdir()
    d.chmod(0o777)
    agent.socket = d / "s"
    agent.write_config()
    failure(agent, 1, "mode 0777")


def test_bad_entries_at_the_start(agent):
    agent.write_entries({"root": "unix:uid:0"}, "  - id: broken\n    spiffe: x\n")
    failure(agent, 2, "entries.yaml")
    assert any("spiffe" in json.dumps(e) for e in agent.events("entries_refused"))


def test_entry_of_another_trust_domain(agent):
    agent.write_entries({}, '  - id: o\n    spiffe_id: spiffe://other.example/x\n    selectors: ["unix:uid:0"]\n')
    failure(agent, 2, "other.example", TD)


# --- SIGHUP ------------------------------------------------------------------------------------------
def test_reload(agent):
    agent.start()
    agent.write_entries({"first": "unix:uid:0", "root": "unix:uid:48951"})
    agent.process.send_signal(signal.SIGHUP)
    e = agent.wait_event("entries_loaded", 2)
    assert (e["entries"], e["added"], e["removed"], e["changed"]) == (2, 1, 0, 1)
    assert agent.identity() == f"spiffe://{TD}/first"
    assert agent.identity(48951) == f"spiffe://{TD}/root"


@pytest.mark.parametrize(
    "bad",
    [
        "kind: Entries\nlevel: 1\nentries:\n  - {id: a}\n",
        "kind: Entries\nlevel: 1\nentries: &a [*a]\n",
        "kind: Policy\nlevel: 1\n",
        'kind: Entries\nlevel: 1\nentries:\n  - {id: a, spiffe_id: "spiffe://other/x", selectors: ["unix:uid:0"]}\n',
        "\0\0\0",
        "",
    ],
    ids=["missing", "alias", "kind", "domain", "nul", "empty"],
)
def test_reload_of_a_bad_file_keeps_the_old_entries(agent, bad):
    agent.start()
    (agent.dir / "entries.yaml").write_text(bad)
    agent.process.send_signal(signal.SIGHUP)
    wait_for("the refusal", lambda: agent.events("entries_refused"))
    assert agent.identity() == f"spiffe://{TD}/root"
    agent.write_entries({"again": "unix:uid:0"})
    agent.process.send_signal(signal.SIGHUP)
    wait_for("the new one", lambda: agent.identity() == f"spiffe://{TD}/again")


def test_reload_without_a_file(agent):
    agent.start()
    (agent.dir / "entries.yaml").unlink()
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_event("entries_kept")
    assert agent.identity() == f"spiffe://{TD}/root"


# --- callers -----------------------------------------------------------------------------------------
def test_path_selector(agent):
    agent.write_entries({"by-path": f"unix:path:{os.path.realpath(agent.postern)}"})
    agent.start()
    assert agent.identity() == f"spiffe://{TD}/by-path"
    assert agent.identity(48952) == f"spiffe://{TD}/by-path"
    copy = agent.dir / "postern-copy"
    copy.write_bytes(agent.postern.read_bytes())
    copy.chmod(0o755)
    p = run(copy, "svid", "fetch", "--socket", agent.socket, check=False)
    assert p.returncode != 0 and "PermissionDenied" in p.stderr + p.stdout


def test_one_uid_cannot_use_up_the_agent(agent):
    """Far more connections than one uid may have: the rest is closed, others are served, and it ends with them."""
    uid, allowed, tried = 48954, 300, 420
    agent.write_entries({"root": "unix:uid:0", "other": f"unix:uid:{uid}"})
    agent.write_config(f"limits:\n  connections_per_uid: {allowed}\n")
    agent.start()
    held = []
    for _ in range(tried):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(agent.socket))
        held.append(s)

    def n_closed():
        n = 0
        for s in held:
            s.setblocking(False)
            try:
                n += s.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                n += 1
        return n

    wait_for("the ones too many to be closed", lambda: n_closed() >= tried - allowed)
    assert n_closed() == tried - allowed
    agent.wait_event("caller_refused")
    assert agent.identity(uid) == f"spiffe://{TD}/other"
    for s in held:
        s.close()
    wait_for("room again", lambda: agent.identity() == f"spiffe://{TD}/root")


def test_kernel_without_peer_pidfd(agent):
    agent.start(argv=["--attest-fallback"])
    assert agent.identity() == f"spiffe://{TD}/root"
    assert agent.identity(48953) is None


def test_readiness_is_told_to_the_service_manager(agent):
    path = agent.dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(30)
        agent.start(env={"NOTIFY_SOCKET": str(path)})
        assert s.recv(100) == b"READY=1\nSTATUS=Issuing\n"
        agent.process.send_signal(signal.SIGHUP)
        assert s.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert s.recv(100) == b"READY=1\n"
        agent.process.send_signal(signal.SIGTERM)
        assert s.recv(100) == b"STOPPING=1\n"
    assert agent.wait_end() == 0


def test_signs_of_life_while_the_supervisor_turns(agent):
    """A supervisor that is stopped gives none: the manager would end it."""
    path = agent.dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(30)
        agent.start(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"})
        assert s.recv(100).startswith(b"READY=1\n")
        for _ in range(3):
            assert s.recv(100) == b"WATCHDOG=1\n"
        agent.process.send_signal(signal.SIGSTOP)
        s.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                s.recv(100)
        agent.process.send_signal(signal.SIGCONT)
        s.settimeout(30)
        assert s.recv(100) == b"WATCHDOG=1\n"


def test_handle_for_outside_tools(build, lab):
    """tests/handles/agent: up answers, identities are as documented, down leaves nothing."""
    handle = pathlib.Path(__file__).resolve().parent.parent / "handles" / "agent"
    sock = lab.dir / "handle" / "s"
    env = {**os.environ, "POSTERN_BUILD": str(build)}
    subprocess.run([handle, "up", "--socket", sock, "--ttl", "2m"], env=env, check=True, timeout=90)
    try:
        want = {0: "first", 1001: "server", 1002: "client"}
        for uid, name in want.items():
            p = run(*lab.argv_in([build / "proxy" / "postern", "svid", "fetch", "--socket", sock], uid=uid))
            assert f"spiffe://example.org/{name}" in p.stdout
        p = run(*lab.argv_in([build / "proxy" / "postern", "svid", "fetch", "--socket", sock], uid=1003), check=False)
        assert p.returncode != 0
    finally:
        subprocess.run([handle, "down", "--socket", sock], env=env, check=True, timeout=60)
    assert not sock.exists()
