"""WebSocket through two proxies, with a client and a server that know nothing of us: opened, used both ways, large, and
ended when policy takes it away or a side closes."""

import contextlib
import signal
import threading

import pytest
from lab import free_port
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

ALLOW = """kind: Policy
level: 1
rules:
  - name: chat
    action: ALLOW
    from:
      - principals: [spiffe://{td}/client]
    to:
      - methods: [GET]
        paths: ["/chat"]
"""


def echo(ws):
    with contextlib.suppress(ConnectionClosed):
        for message in ws:
            ws.send(message)


@pytest.fixture
def chat(node):
    node.start_agent()
    with node.inside():
        server = serve(echo, "127.0.0.1", 0, max_size=1 << 24)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    tls, plain = free_port(), free_port()
    proxy = node.server_side(tls, server.socket.getsockname()[1], protocol="http", policy=ALLOW)
    node.client_side(plain, tls)

    def dial(path="/chat", **kw):
        with node.inside():
            return connect(f"ws://127.0.0.1:{plain}{path}", proxy=None, max_size=1 << 24, open_timeout=20, compression=None, **kw)

    yield node, proxy, dial
    server.shutdown()
    thread.join()


def test_refused_where_policy_does_not_allow(chat):
    _, proxy, dial = chat
    with pytest.raises(InvalidStatus) as e:
        dial("/other")
    assert e.value.response.status_code == 403
    assert e.value.response.headers["x-postern-reason"] == "policy_denied"


def test_both_ways_and_an_end_in_order(chat):
    _, proxy, dial = chat
    with dial() as ws:
        for message in ("hello", b"\x00\xff" * 10, "x" * 3_000_000):
            ws.send(message)
            assert ws.recv(timeout=30) == message
        assert ws.ping().wait(20)
    assert ws.close_code == 1000
    e = proxy.wait_event("request", status=101)
    assert e["path"] == "/chat" and e["rule"] == "chat"
    assert proxy.wait_event("connection")["bytes_up"] > 3_000_000


def test_ends_when_policy_takes_it_away(chat):
    node, proxy, dial = chat
    with dial() as ws:
        ws.send("hello")
        assert ws.recv(timeout=20) == "hello"
        for f in node.conf.glob("server*-policy.yaml"):
            f.write_text(f.read_text().replace("/chat", "/elsewhere"))
        proxy.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as e:
            ws.recv(timeout=20)
    assert e.value.rcvd is None, "no close frame: it is cut"
    proxy.wait_event("connection", reason="policy_changed")
