"""Fixtures of the integration tests, and an agent whose callers are told apart by uid."""

import importlib.util
import pathlib
import signal
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("integration_conftest", HERE.parent / "integration" / "conftest.py")
_integration = importlib.util.module_from_spec(_spec)
sys.modules["integration_conftest"] = _integration
_spec.loader.exec_module(_integration)
build, lab, node = _integration.build, _integration.lab, _integration.node

from node import TD  # noqa: E402


@pytest.fixture
def agent(node):
    return Agent(node)


class Agent:
    """An agent whose entries for this process (uid 0) a test chooses; uid 48109 has none."""

    nobody = 48109

    def __init__(self, node):
        self.node, self.lab, self.socket = node, node.lab, node.socket

    def write(self, ids=("first", "second"), ttl="1h", hints=("internal",), uid=0, dns="test.example"):
        text = "kind: Entries\nlevel: 1\nentries:\n"
        for i, name in enumerate(ids):
            text += f"  - id: {name}\n    spiffe_id: spiffe://{TD}/{name}\n    ttl: {ttl}\n"
            text += f'    selectors: ["unix:uid:{uid}"]\n    dns_names: [{name}.{dns}]\n'
            text += f"    hint: {hints[i]}\n" if i < len(hints) else ""
        # One that is nobody's here, so that a set without this process's is a set nevertheless.
        text += f'  - id: away\n    spiffe_id: spiffe://{TD}/away\n    selectors: ["unix:uid:48190"]\n'
        (self.node.conf / "entries.yaml").write_text(text)

    def start(self, **kw):
        self.write(**kw)
        self.node.start_agent()
        return self

    def reload(self, **kw):
        self.write(**kw)
        self.node.agent.send_signal(signal.SIGHUP)
