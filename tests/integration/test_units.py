"""The units that are installed: how exposed they are, and that what they forbid is not needed."""

import json
import os
import re
import shutil
import subprocess

import pytest
import units
from lab import admin_ask, free_port, run, wait_for
from node import UIDS
from test_service_manager import Manager
from units import Unit

pytestmark = pytest.mark.skipif(units.TOOL is None, reason="no systemd-analyze here")

# What issue and documentation promise.
EXPOSURE = {
    "postern-agent.service": 3.5,
    "postern-gateway@.service": 2.0,
    "postern-intercept.service": 2.0,
    "postern-proxy@.service": 2.0,
    "postern-rotate@.service": 2.0,
}


@pytest.fixture
def unit(build):
    return lambda name: Unit(build / "packaging" / name)


@pytest.fixture
def manager(lab):
    m = Manager(lab)
    # What the leak checker does at the end is no unit's business.
    m.env["ASAN_OPTIONS"] = "detect_leaks=0"
    m.env["WATCHDOG_USEC"] = "30000000"
    yield m
    m.s.close()


@pytest.mark.parametrize("name", EXPOSURE)
def test_exposure(unit, name):
    p = run(units.TOOL, "security", "--offline=true", "--no-pager", unit(name).path)
    level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", p.stdout)[1])
    assert level <= EXPOSURE[name]


def test_exposure_can_be_too_much(unit, tmp_path):
    """The measure itself: a unit without its restrictions is worse than allowed."""
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    p = run(units.TOOL, "security", "--offline=true", "--no-pager", bare)
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", p.stdout)[1]) > 9


def test_units_are_understood(build, tmp_path):
    """Nothing that systemd would ignore with a warning."""
    for f in [*(build / "packaging").glob("*.service"), *(build.parent / "packaging" / "systemd").glob("*.socket")]:
        if not f.exists():
            continue
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", f.read_text())
        text = text.replace("User=postern-proxy", "User=root").replace("User=postern-rotate", "User=root")
        copy = tmp_path / f.name.replace("@", "@x")
        copy.write_text(text.replace("%i", "x"))
    for f in tmp_path.iterdir():
        p = subprocess.run(
            [units.TOOL, "verify", "--man=no", "--recursive-errors=no", f], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )  # fmt: skip
        told = [x for x in p.stderr.splitlines() if str(f) in x or f.name in x]
        assert not told, told


def test_users_and_directories(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    packaging = os.path.join(os.path.dirname(__file__), "..", "..", "packaging")
    run("systemd-sysusers", f"--root={root}", os.path.abspath(f"{packaging}/sysusers.conf"))
    passwd = (root / "etc" / "passwd").read_text()
    assert re.search(r"^postern-proxy:.*:/(usr/)?sbin/nologin$", passwd, re.M)
    assert re.search(r"^postern-rotate:", passwd, re.M)
    assert re.search(r"^postern:", (root / "etc" / "group").read_text(), re.M)
    if shutil.which("systemd-tmpfiles"):
        run("systemd-tmpfiles", f"--root={root}", "--create", os.path.abspath(f"{packaging}/tmpfiles.conf"))
        assert (root / "etc" / "postern" / "gateway").stat().st_mode & 0o777 == 0o750


# A maintainer script with a `systemctl` that writes down what it is told, and a /run in which systemd seems to run.
SCRIPT = """mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/bin && cat >/run/bin/systemctl <<'END'
#!/bin/sh
echo "$@" >>/run/told
END
chmod 755 /run/bin/systemctl; PATH=/run/bin:$PATH sh "$@" >&2; status=$?; cat /run/told 2>/dev/null; exit $status"""


def maintain(name, *args):
    script = os.path.join(os.path.dirname(__file__), "..", "..", "packaging", "debian", f"postern.{name}")
    p = run("unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", os.path.abspath(script), *args)
    return [line.split() for line in p.stdout.splitlines()]


def test_a_removal_leaves_nothing_running():
    """The agent too, which holds the root's key, and not before those that ask it; the socket would start it again."""
    told = maintain("prerm", "remove")
    assert all(line[0] == "stop" for line in told)
    stopped = [unit for line in told for unit in line[1:]]
    assert set(stopped) == {
        "postern-gateway@*.service", "postern-proxy@*.service", "postern-rotate@*.service", "postern-intercept.service",
        "postern-agent.socket", "postern-agent.service",
    }  # fmt: skip
    assert stopped[-2:] == ["postern-agent.socket", "postern-agent.service"]
    assert maintain("prerm", "upgrade", "2") == []


def test_an_upgrade_restarts_by_the_new_units():
    told = maintain("postinst", "configure", "1")
    assert told[0] == ["--system", "daemon-reload"]
    assert told[1][0] == "try-restart" and {"postern-agent.service", "postern-gateway@*.service"} <= set(told[1])
    assert maintain("postinst", "configure", "") == [], "the first installation starts nothing"


def kernel_says(pid):
    text = open(f"/proc/{pid}/status", encoding="ascii", errors="replace").read()
    return {k: v.strip() for k, v in re.findall(r"^(\w+):(.*)$", text, re.M)}


def test_agent_runs_as_its_unit(node, unit, manager):
    """Under the unit's bounding set and filter (which kills here): it starts, issues, rotates, is reloaded, ends."""
    node.write_entries()
    node.write_agent()
    agent = node.lab.start(
        "agent-unit", unit("postern-agent.service").argv([node.postern, "agent", node.conf / "agent.yaml"]), env=manager.env
    )
    wait_for("its readiness or end", lambda: not agent.alive() or '"ready"' in agent.err())
    assert agent.alive(), agent.err()[-3000:]
    assert manager.hear().startswith("READY=1")
    fetch = [node.postern, "svid", "fetch", "--socket", node.socket]
    assert "spiffe://test.example/client" in node.lab.run_in(fetch, uid=UIDS["client"], check=True).stdout
    for verb in ("prepare", "activate"):
        node.lab.run_in([node.postern, "ca", verb, "--config", node.conf / "agent.yaml"], check=True)
    node.write_entries(extra="  - id: more\n    spiffe_id: spiffe://test.example/more\n    selectors: ['unix:uid:0']\n")
    wait_for("the new entry", lambda: "test.example/more" in node.lab.run_in(fetch, uid=0).stdout)
    seen = kernel_says(agent.pid)
    assert int(seen["Seccomp_filters"]) == 2, "the unit's and its own"
    assert seen["NoNewPrivs"] == "1"
    keeper = admin_ask(node.run / "agent-admin.sock", "status")
    assert '"key_memory":"memfd_secret"' in keeper
    assert agent.stop() == 0, agent.err()[-3000:]


def test_proxy_runs_as_its_unit(node, unit, manager):
    node.start_agent()
    uid = UIDS["client"]
    admin = node.lab.private_dir("admin-unit", uid) / "admin.sock"
    conf = node.conf / "unit.yaml"
    conf.write_text(
        f"kind: Proxy\nlevel: 1\nidentity: {{socket: 'unix:{node.socket}'}}\nlisteners:\n"
        f"  - {{name: out, direction: outbound, capture: explicit, address: '127.0.0.1:{free_port()}',\n"
        f"     to: '127.0.0.1:{free_port()}', identities: ['spiffe://test.example/server']}}\n"
        f"admin: {{socket: {admin}, allow_uids: [0, {uid}]}}\n"
    )
    argv = unit("postern-proxy@.service").argv([node.postern, "proxy", conf], uid)
    process = node.lab.start("proxy-unit", argv, netns=node.netns, env=manager.env)
    wait_for("its readiness or end", lambda: not process.alive() or '"ready"' in process.err())
    assert process.alive(), process.err()[-3000:]
    assert manager.hear() == "READY=1\nSTATUS=Serving\n"
    seen = kernel_says(process.pid)
    assert int(seen["Seccomp_filters"]) == 2, "the unit's and its own"
    assert seen["CapBnd"] == "0" * 16
    assert json.loads(admin_ask(admin, "status"))["hardening"]["uid"] == uid
    process.send_signal(1)
    assert manager.hear().startswith(("RELOADING=1", "WATCHDOG=1"))
    assert process.stop() == 0, process.err()[-3000:]


def test_interception_runs_as_its_unit(lab, build, unit, manager):
    tool = [build / "libexec" / "postern-intercept", "--watch", "--proxy-uid", "1", "--inbound-mode", "tproxy"]
    process = lab.start("intercept-unit", unit("postern-intercept.service").argv(tool), netns=lab.netns("rules"), env=manager.env)
    wait_for("its readiness or end", lambda: not process.alive() or '"watching"' in process.err())
    assert process.alive(), process.err()[-3000:]
    assert manager.hear() == "READY=1\nSTATUS=The rules are in force\n"
    seen = kernel_says(process.pid)
    assert int(seen["Seccomp_filters"]) == 2, "the unit's and its own"
    assert int(seen["CapBnd"], 16) == int(seen["CapEff"], 16) == 1 << 12
    assert process.stop() == 0, process.err()[-3000:]
    assert manager.hear().startswith("STOPPING=1")
