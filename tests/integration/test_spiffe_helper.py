"""postern rotate --from-spiffe-helper: what is printed runs, and leaves files where spiffe-helper left them."""

import base64
import json
import os
import shutil
import signal
import stat

from lab import wait_for
from node import TD
from rotating import root_agent


class Helper:
    def __init__(self, node, text):
        self.node, self.dir = node, node.lab.private_dir("helper")
        self.certs = self.dir / "certs"
        self.conf, self.rotate = self.dir / "helper.conf", self.dir / "rotate.yaml"
        self.certs.mkdir()
        self.conf.write_text(
            f'agent_address = "{node.socket}"\ncert_dir = "certs"\nsvid_file_name = "svid.pem"\n'
            'svid_key_file_name = "svid_key.pem"\nsvid_bundle_file_name = "svid_bundle.pem"\n' + text
        )

    def convert(self, *argv):
        return self.node.lab.run_in(
            [self.node.postern, "rotate", "--from-spiffe-helper", self.conf, *argv], cwd=self.dir, with_hosts=False
        )

    def start(self, *child, convert=()):
        p = self.convert(*convert)
        assert p.returncode == 0, p.stderr
        self.rotate.write_text(p.stdout)
        assert self.node.lab.run_in([self.node.postern, "check", self.rotate]).returncode == 0
        argv = [self.node.postern, "rotate", self.rotate, *(["--", *child] if child else [])]
        return self.node.lab.start("rotate", argv)


def test_refusals_are_told(node):
    h = Helper(node, 'key_file_mode = 0444\nhint = "x"\nlog_level = "debug"\n')
    p = h.convert()
    assert p.returncode == 1 and p.stdout == ""
    for word in ("'key_file_mode' is 0444", "--spiffe-id", "'log_level' is no key", f"{h.conf}:6:1"):
        assert word in p.stderr
    h.conf.write_text('cert_dir = "a')
    assert "a string that does not end" in h.convert().stderr
    assert h.convert("--executable", "relative").returncode == 2
    assert h.convert("--spiffe-id", "http://x").returncode == 2


def test_files_and_a_reload_command(node):
    root_agent(node)
    h = Helper(node, f'cmd = "touch"\ncmd_args = "{node.lab.dir}/helper/reloaded"\nkey_file_mode = 0400\njwt_bundle_file_name = "bundle.json"\n')
    for name in ("svid.pem", "svid_key.pem", "svid_bundle.pem"):
        (h.certs / name).write_text("what spiffe-helper left")
    h.start()
    wait_for("the command to be run", lambda: (h.dir / "reloaded").exists())
    for name, mode, word in (
        ("svid.pem", 0o644, "BEGIN CERTIFICATE"),
        ("svid_key.pem", 0o400, "BEGIN PRIVATE KEY"),
        ("svid_bundle.pem", 0o644, "BEGIN CERTIFICATE"),
    ):
        assert word in (h.certs / name).read_text()
        assert stat.S_IMODE((h.certs / name).stat().st_mode) == mode
        assert os.readlink(h.certs / name) == f"..data/{name}"
    sets = json.loads((h.certs / "bundle.json").read_text())
    assert list(sets) == [TD] and json.loads(base64.b64decode(sets[TD], validate=True))["keys"]


def test_child(node):
    root_agent(node)
    h = Helper(node, 'cmd = "sh"\ncmd_args = "-c \\"trap \'echo usr1\' USR1; while :; do sleep 0.05; done\\""\nrenew_signal = "SIGUSR1"\n')
    p = h.start("sh", "-c", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done")
    assert h.rotate.read_text().splitlines()[0].endswith(
        "-- 'sh' '-c' 'trap '\\''echo usr1'\\'' USR1; while :; do sleep 0.05; done'"
    )
    wait_for("the child", lambda: "up" in p.out())
    first = (h.certs / "svid.pem").read_bytes()
    # Its shell takes SIGHUP too, so the agent pushes the next one: its entry's life is changed.
    node.write_entries("30m", uids={"root": 0, "client": 48101})
    node.agent.send_signal(signal.SIGHUP)
    wait_for("another certificate", lambda: (h.certs / "svid.pem").read_bytes() != first, timeout=40)
    wait_for("SIGUSR1", lambda: "usr1" in p.out())


def test_pid_file(node):
    root_agent(node)
    h = Helper(node, 'pid_file_name = "server.pid"\nrenew_signal = "SIGUSR2"\n')
    assert "--executable" in h.convert().stderr
    exe = h.dir / "server"
    shutil.copy("/bin/sleep", exe)
    server = node.lab.start("server", [exe, "1000"])
    (h.dir / "server.pid").write_text(f"{server.pid}\n")
    p = h.start(convert=["--executable", str(exe)])
    assert server.p.wait(20) == -signal.SIGUSR2
    events = [json.loads(x) for x in p.err().splitlines() if x.startswith("{")]
    assert [e["state"] for e in events if e["event"] == "action"] == ["done"]
