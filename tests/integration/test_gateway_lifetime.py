"""limits.lifetime of a gateway's listener: connections end then, whatever is going on in them, and others do not."""

import socket
import threading
import time

import pytest
from lab import free_port, in_netns
from plain_gateway import Gateways
from servers import TcpServer, echo


@pytest.fixture
def gateways(lab, build):
    return Gateways(lab, build)


def files(gateways, name):
    cert, key = gateways.pki.issue(name, cn=name, dns=[name])
    return (
        f"trust: [{{name: ca, ca: {gateways.pki.pem}}}]\n"
        f"credentials: [{{name: own, cert: {cert}, key: {key}}}]\n"
    )


def test_a_busy_connection_ends_and_a_quiet_one_without_a_lifetime_does_not(gateways):
    tls, aged, free = free_port(), free_port(), free_port()
    with TcpServer(gateways.netns, echo) as server:
        gateways.start(
            files(gateways, "server.example") + "listeners:\n"
            f"  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{server.port}', credentials: [own],"
            " trust: ca, allow: {dns: [client.example]}}\n"
        )
        leg = f"to: '127.0.0.1:{tls}', credentials: [own], trust: ca, server_name: server.example"
        client = gateways.start(
            files(gateways, "client.example") + "listeners:\n"
            f"  - {{name: aged, type: client, address: '127.0.0.1:{aged}', {leg}, limits: {{lifetime: 1s}}}}\n"
            f"  - {{name: free, type: client, address: '127.0.0.1:{free}', {leg}}}\n"
        )
        with in_netns(gateways.netns):
            quiet = socket.create_connection(("127.0.0.1", free), timeout=20)
            busy = socket.create_connection(("127.0.0.1", aged), timeout=20)
        with quiet, busy:
            for s in (quiet, busy):
                s.sendall(b"there?")
                assert s.recv(100) == b"there?"
            begun, ended = time.monotonic(), threading.Event()

            def talk():
                while not ended.wait(0.05):
                    try:
                        busy.sendall(b"x" * 100)
                    except OSError:
                        return

            talker = threading.Thread(target=talk)
            talker.start()
            try:
                while busy.recv(65536):
                    assert time.monotonic() - begun < 15
            except ConnectionResetError:
                pass  # what was sent when it had ended already
            finally:
                ended.set()
                talker.join()
            client.wait_event("connection", reason="lifetime", listener="aged")
            quiet.sendall(b"still?")
            assert quiet.recv(100) == b"still?"
            assert not client.events("connection", listener="free")
