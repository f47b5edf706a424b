"""The commands for people: check, version, help, and what they say when they are used wrongly."""

import re
import subprocess

import pytest
from lab import ROOT


def postern(build, *argv):
    return subprocess.run([build / "proxy" / "postern", *argv], capture_output=True, text=True, timeout=60, check=False)


def test_version(build):
    p = postern(build, "version")
    assert p.returncode == 0
    assert re.search(r"^postern \d+\.\d+\.\d+ \(commit \S+\)$", p.stdout, re.M), p.stdout
    assert re.search(r"^feature level \d+$", p.stdout, re.M)
    for library in ("OpenSSL 3.", "libevent ", "nghttp2 ", "llhttp ", "libyaml "):
        assert library in p.stdout, p.stdout


def test_no_role_and_unknown_role(build):
    assert postern(build).returncode == 2
    p = postern(build, "prox")
    assert p.returncode == 2 and "prox" in p.stderr and "usage" in p.stderr
    assert postern(build, "help").returncode == 0


@pytest.mark.parametrize("example", sorted(p.name for p in (ROOT / "config" / "examples").iterdir() if p.is_file()))
def test_every_example_is_valid(build, example):
    p = postern(build, "check", ROOT / "config" / "examples" / example)
    assert p.returncode == 0, p.stderr
    assert "ok" in p.stdout


BAD = {
    "unknown key": ("kind: Policy\nlevel: 1\nrules:\n  - nam: x\n    action: ALLOW\n", r":4:5: .*nam.*did you mean.*name"),
    "wrong type": ("kind: Mesh\nlevel: 1\nservices: 7\n", r":3:11: .*expected"),
    "duplicate key": ("kind: Mesh\nlevel: 1\nunlisted: deny\nunlisted: deny\n", r":4:1: "),
    "out of range": (
        "kind: Mesh\nlevel: 1\nservices:\n  - name: a\n    addresses: [10.0.0.1]\n    ports: [{port: 70000}]\n"
        "    identities: [spiffe://a/b]\n",
        r":6:\d+: .*70000",
    ),
    "higher level": ("kind: Mesh\nlevel: 99\n", r":2:8: .*99"),
    "no kind": ("level: 1\n", r"kind"),
    "unknown kind": ("kind: Polcy\nlevel: 1\n", r":1:7: .*did you mean.*Policy"),
    "not YAML": ("kind: [\n", r":\d+:\d+: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_says_where_and_what(build, tmp_path, name):
    text, want = BAD[name]
    f = tmp_path / "bad.yaml"
    f.write_text(text)
    p = postern(build, "check", f)
    assert p.returncode == 2
    assert re.search(re.escape(str(f)) + want, p.stderr, re.S) or re.search(want, p.stderr, re.S), p.stderr
    assert str(f) in p.stderr


def test_all_errors_at_once(build, tmp_path):
    f = tmp_path / "bad.yaml"
    f.write_text("kind: Mesh\nlevel: 1\nunlisted: maybe\nfoo: 1\nbar: 2\n")
    p = postern(build, "check", f)
    lines = [line for line in p.stderr.splitlines() if "bad.yaml:" in line]
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5"], p.stderr


def test_run_with_a_bad_file_does_not_start(build, tmp_path):
    f = tmp_path / "proxy.yaml"
    f.write_text("kind: Proxy\nlevel: 1\nlisteners: []\nworkrs: 1\n")
    for role in ("proxy", "agent"):
        p = postern(build, role, f)
        assert p.returncode == 2 and str(f) in p.stderr, (role, p.returncode, p.stderr)
    p = postern(build, "proxy", tmp_path / "absent.yaml")
    assert p.returncode == 2 and "absent.yaml" in p.stderr


# --- which agent or proxy is meant: the same words everywhere ------------------------------------------
ASK = {
    "status": ("status",),
    "agent proxies": ("agent", "proxies"),
}
ORDER = {
    "ca": ("ca", "show"),
    "quarantine": ("quarantine", "list"),
    "journal": ("journal", "verify"),
}


@pytest.mark.parametrize("name", ORDER)
def test_control_socket_is_named_in_the_same_words(build, tmp_path, name):
    p = postern(build, *ORDER[name], "--control", tmp_path / "none.sock")
    assert p.returncode == 1 and "none.sock" in p.stderr, p.stderr
    p = postern(build, *ORDER[name], "--config", tmp_path / "none.yaml")
    assert p.returncode == 2 and "none.yaml" in p.stderr, p.stderr
    p = postern(build, *ORDER[name], "--socket", tmp_path / "none.sock")
    assert p.returncode == 2 and "'--socket' is no option" in p.stderr, p.stderr
    assert "--control PATH" in p.stderr and "--socket PATH" not in p.stderr, p.stderr


@pytest.mark.parametrize("name", ASK)
def test_admin_socket_is_named_in_the_same_words(build, tmp_path, monkeypatch, name):
    p = postern(build, *ASK[name], "--socket", tmp_path / "none.sock")
    assert p.returncode == 1 and "none.sock" in p.stderr, p.stderr
    p = postern(build, *ASK[name], "--config", tmp_path / "none.yaml")
    assert p.returncode == 2 and "none.yaml" in p.stderr, p.stderr
    conf = tmp_path / "agent.yaml"
    (tmp_path / "entries.yaml").write_text("kind: Entries\nlevel: 1\nentries: []\n")
    text = f"kind: Agent\nlevel: 1\ntrust_domain: a.example\nsocket: {tmp_path}/a.sock\n"
    text += f"state_dir: {tmp_path}/s\nentries: entries.yaml\n"
    conf.write_text(text)
    p = postern(build, *ASK[name], "--config", conf)
    assert p.returncode == 2 and "admin.socket" in p.stderr, p.stderr
    conf.write_text(text + f"admin:\n  socket: {tmp_path}/named.sock\n")
    p = postern(build, *ASK[name], "--config", conf)
    assert p.returncode == 1 and "named.sock" in p.stderr, p.stderr
    monkeypatch.setenv("POSTERN_ADMIN_SOCKET", str(tmp_path / "env.sock"))
    p = postern(build, *ASK[name])
    assert p.returncode == 1 and "env.sock" in p.stderr, p.stderr
    p = postern(build, *ASK[name], "--control", tmp_path / "none.sock")
    assert p.returncode == 2 and "--socket PATH" in p.stderr, p.stderr


def test_help_and_the_manual_list_every_command(build):
    shown = set(re.findall(r"^  (\w+)", postern(build, "help").stdout, re.M))
    manual = set(re.findall(r"^\.Cm (\w+)", (ROOT / "docs" / "man" / "postern.1").read_text().split(".Sh DESC")[0], re.M))
    assert shown <= manual and {"agent", "ca", "quarantine", "journal", "entries", "svid", "bundle"} <= shown


# Every command, and the manual page that has its options.
PAGES = {
    "postern-agent.8": ("agent",) + tuple(f"agent policy {c}" for c in ("push", "stage", "promote", "rollback", "status")),
    "postern-proxy.8": ("proxy",),
    "postern-gateway.8": ("gateway", "gateway --from-ghostunnel"),
    "postern-rotate.8": ("rotate", "rotate --from-spiffe-helper"),
    "postern-intercept.8": ("intercept",),
    "postern-inject.1": ("inject", "uninject"),
    "postern-svid.1": ("svid fetch", "svid watch", "svid show", "svid validate", "bundle show"),
    "postern-policy.1": ("policy",) + tuple(f"policy {c}" for c in ("explain", "lint", "diff", "test", "fmt", "replay", "suggest", "convert")),
    "postern.1": (
        ("agent attest", "agent proxies", "agent readiness", "check", "status", "readiness", "ca show", "version")
        + ("journal verify", "journal show", "audit verify", "entries lint", "quarantine add")
    ),
}
COMMANDS = tuple(c for commands in PAGES.values() for c in commands)


def test_help_of_every_command(build):
    """Asked for, the usage is an answer; given where something else was asked for, a mistake."""
    roles = re.findall(r"^  (\w+)", postern(build, "help").stdout, re.M)
    for command in (*dict.fromkeys(roles), *COMMANDS):
        for word in ("--help",) if command.startswith("policy ") else ("--help", "-h"):
            p = postern(build, *command.split(), word)
            assert p.returncode == 0 and "usage:" in p.stdout and not p.stderr, (command, word, p)
    p = postern(build, "status", "--hlep")
    assert p.returncode == 2 and "--hlep" in p.stderr and "usage:" in p.stderr and not p.stdout


def options_of(build, command):
    """Of its usage: what the lines say that show how to call it, and the names in front of what they mean."""
    lines = postern(build, *command.split(), "--help").stdout.splitlines()
    uses = [line for line in lines if re.match(r"usage:|      +postern ", line)]
    names = [line.strip().split("  ")[0] for line in lines if line.startswith("  -")]
    return set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", "\n".join(uses + names))) - {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_the_manual_has_the_options_of_its_commands(build, page):
    text = (ROOT / "docs" / "man" / page).read_text()
    # `.Fl -config`, `.Op Fl f Ar file`, `Fl -cpu`: each word behind Fl is an option without its first dash.
    written = {"-" + o for o in re.findall(r"\bFl (-?[a-z][\w-]*)", text)} - {"--help"}
    said = set().union(*(options_of(build, c) for c in PAGES[page]))
    assert not said - written, f"{page} is silent on them"
    if page == "postern-policy.1":  # its usages name the most used ones and point here
        return
    assert not written - set().union(*(options_of(build, c) for c in COMMANDS)), f"{page} has what no command says"


WRONG = ("agent", "proxy", "gateway", "rotate", "check", "ca", "svid fetch", "bundle", "journal verify", "audit verify", "status")
WRONG += ("agent attest", "agent proxies", "agent policy status", "readiness", "entries lint", "quarantine list", "inject", "version")


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_line_says_what_is_wrong_with_it(build, command):
    """The option or word, and then the usage; nothing is done."""
    p = postern(build, *command.split(), "--no-such", "x")
    assert p.returncode == 2 and "'--no-such' is no option" in p.stderr and "usage:" in p.stderr and not p.stdout, p
    p = postern(build, *command.split(), *["word"] * 4)
    if command not in ("check", "audit verify"):  # these take any number
        assert p.returncode == 2 and "'word' is one word too many" in p.stderr and not p.stdout, p


def test_values_follow_or_are_joined(build, tmp_path):
    for line in (["--socket", tmp_path / "a.sock"], [f"--socket={tmp_path}/a.sock"]):
        p = postern(build, "status", *line)
        assert p.returncode == 1 and "a.sock" in p.stderr, p
    for line, said in ((["--socket"], "expected PATH"), (["--json=yes"], "takes no value")):
        p = postern(build, "status", *line)
        assert p.returncode == 2 and said in p.stderr, p
    p = postern(build, "svid", "fetch", "--timeout", "3601")
    assert p.returncode == 2 and "--timeout '3601': expected a number up to 3600" in p.stderr, p
    p = postern(build, "quarantine", "add", "--for", "0h", "spiffe://a/b")
    assert p.returncode == 2 and "--for '0h': expected TIME" in p.stderr, p


def test_proxy_from_its_environment(build):
    """What is wrong is told as of a file, by the variable's name; without the variable nothing starts."""
    for text, said in (("kind: Proxy\nlevel: 1\nlisteners: 3\n", r"\$POSTERN_X:3:12: "), (None, r"\$POSTERN_X:1:1: ")):
        env = {"PATH": "/usr/bin:/bin"} | ({"POSTERN_X": text} if text else {})
        p = subprocess.run(
            [build / "proxy" / "postern", "proxy", "--env", "POSTERN_X"], capture_output=True, text=True, timeout=60, check=False, env=env
        )
        assert p.returncode == 2 and re.search(said, p.stderr), p.stderr
    assert postern(build, "proxy", "--env").returncode == 2
