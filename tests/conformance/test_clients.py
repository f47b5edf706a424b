"""The client matrix: public SPIFFE libraries of five languages, each against our agent. clients/README.md"""

import signal

import clients
import pytest
from cryptography import x509
from lab import wait_for
from node import TD

pytestmark = pytest.mark.parametrize("name", clients.CLIENTS)

IDS = [f"spiffe://{TD}/first", f"spiffe://{TD}/second"]


def ask(agent, name, *argv):
    """(events, exit status) of a client that ends by itself."""
    argv = clients.argv(name, *argv)
    p = agent.lab.run_in(argv, with_hosts=False, timeout=90)
    found = clients.events(p.stdout)
    assert found, f"said nothing: {p.stdout[-2000:]} {p.stderr[-2000:]}"
    return found, p.returncode


def plain(code):
    """A gRPC status's name, however the library spells it."""
    return code.replace("_", "").lower()


def serials(event):
    return [x509.load_der_x509_certificate(bytes.fromhex(s["leaf"])).serial_number for s in event["svids"]]


def test_no_identity_is_permission_denied(name, agent):
    agent.start(uid=agent.nobody)
    found, status = ask(agent, name, "fetch", agent.socket)
    assert status == 1 and [e["event"] for e in found] == ["error"], found
    assert plain(found[0]["code"]) == "permissiondenied", found


def test_two_identities(name, agent):
    """In the order of the entries, with their hints, and the bundle under the trust domain's name."""
    agent.start()
    found, status = ask(agent, name, "fetch", agent.socket)
    assert status == 0, found
    context, bundles = found
    assert [s["id"] for s in context["svids"]] == IDS
    assert [s["hint"] for s in context["svids"]] in (["internal", ""], [None, None]), context
    assert context["bundles"] == bundles["domains"] == {TD: 1}
    assert len(set(serials(context))) == 2


def test_tokens(name, agent):
    """One an identity, in their order; the keys; and what the agent says of a token, of another audience and of none."""
    agent.start()
    found, status = ask(agent, name, "jwt", agent.socket, "spiffe://elsewhere.example/api")
    assert status == 0, found
    tokens, keys = found
    assert [s["id"] for s in tokens["svids"]] == IDS
    assert [s["hint"] for s in tokens["svids"]] in (["internal", ""], [None, None]), tokens
    assert list(keys["domains"]) == [TD] and keys["domains"][TD] >= 1
    token = tokens["svids"][1]["token"]
    assert ask(agent, name, "validate", agent.socket, "spiffe://elsewhere.example/api", token) == (
        [{"event": "valid", "id": IDS[1]}],
        0,
    )
    head, body, signature = token.split(".")
    broken = f"{head}.{body}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}"
    for audience, wrong in (("another", token), ("spiffe://elsewhere.example/api", broken)):
        found, status = ask(agent, name, "validate", agent.socket, audience, wrong)
        assert status == 1 and plain(found[0]["code"]) == "invalidargument", found


def test_no_tokens_without_identity(name, agent):
    agent.start(uid=agent.nobody)
    found, status = ask(agent, name, "jwt", agent.socket, "api")
    assert status == 1 and plain(found[0]["code"]) == "permissiondenied", found


class Watch:
    def __init__(self, agent, name):
        self.process = agent.lab.start(f"watch-{name}", clients.argv(name, "watch", agent.socket))

    def contexts(self):
        return [e for e in clients.events(self.process.out()) if e["event"] == "x509"]

    def wait(self, n, timeout=40):
        """n messages in all, none of which repeats an SVID."""

        def seen():
            assert self.process.alive(), self.process.out()[-2000:] + self.process.err()[-2000:]
            return len(self.contexts()) >= n

        wait_for(f"{n} messages", seen, timeout)
        found = self.contexts()
        assert all([s["id"] for s in c["svids"]] == IDS for c in found), found
        every = [s for c in found for s in serials(c)]
        assert len(set(every)) == len(every), "the same SVID came twice"
        return len(found)


def test_watch_through_rotations_and_restarts(name, agent):
    """Whole messages before the SVIDs of the last end; an agent that dies, or goes orderly, is found again."""
    agent.start(ttl="10s")
    watch = Watch(agent, name)
    n = watch.wait(2)
    for signo in (signal.SIGKILL, signal.SIGTERM):
        agent.node.agent.stop(signo)
        n = len(watch.contexts())
        agent.node.start_agent()
        n = watch.wait(n + 1)
