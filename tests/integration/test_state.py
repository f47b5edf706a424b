"""Files that change under a running agent, and the State stream. docs/state-stream.md."""

import json
import os
import time

from lab import run, wait_for
from node import TD, UIDS, spiffe_id


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
