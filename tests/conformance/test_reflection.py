"""Server reflection and health: by gRPC's own Python clients, and what these would never send by raw calls."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from rawgrpc import WORKLOAD, Raw, frame
from wirepb import decode, message

SERVICES = {
    "SpiffeWorkloadAPI",
    "postern.v1.Identity",
    "postern.v1.State",
    "envoy.service.secret.v3.SecretDiscoveryService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
NOT_FOUND, INVALID_ARGUMENT = 5, 3


@pytest.fixture
def channel(agent):
    agent.start()
    with grpc.insecure_channel(f"unix://{agent.socket}") as c:
        yield c


def test_every_service_can_be_called_from_its_description(channel):
    """What is listed is described whole, and what is described is served."""
    db = ProtoReflectionDescriptorDatabase(channel)
    assert set(db.get_services()) >= SERVICES
    pool = DescriptorPool(db)
    methods = 0
    for name in db.get_services():
        service = pool.FindServiceByName(name)
        for m in service.methods:
            assert m.input_type.full_name and m.output_type.full_name
            methods += 1
    assert methods >= 15
    request = GetMessageClass(pool.FindMessageTypeByName("X509SVIDRequest"))
    response = GetMessageClass(pool.FindMessageTypeByName("X509SVIDResponse"))
    call = channel.unary_stream(
        "/SpiffeWorkloadAPI/FetchX509SVID",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )(request(), metadata=[WORKLOAD], timeout=20)
    svids = next(call).svids
    assert [s.spiffe_id.rsplit("/")[-1] for s in svids] == ["first", "second"]
    call.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_by_hand(agent, version):
    agent.start()
    with Raw(agent.socket) as c:

        def ask(**kw):
            s = c.call(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", metadata=(), body=frame(message(**kw)))
            assert s.status == 0, s.text
            assert decode(s.messages[0])[2][0] == message(**kw), "the request is told back"
            return decode(s.messages[0])

        services = {decode(s)[1][0].decode() for s in decode(ask(f7="*")[6][0])[1]}
        assert services == SERVICES
        for symbol in ("SpiffeWorkloadAPI", "SpiffeWorkloadAPI.FetchX509SVID", "X509SVID", "X509SVIDResponse.FederatedBundlesEntry"):
            assert decode(decode(ask(f4=symbol)[4][0])[1][0])[1][0] == b"workload.proto", symbol
        for symbol in ("google.protobuf.Struct", "grpc.health.v1.HealthCheckResponse.ServingStatus"):
            assert 4 in ask(f4=symbol), symbol
        assert decode(decode(ask(f3="google/protobuf/any.proto")[4][0])[1][0])[2][0] == b"google.protobuf"
        for kw in ({"f4": "Nope"}, {"f4": ""}, {"f4": "SpiffeWorkloadAPI."}, {"f4": "X509SVID.nope"}, {"f3": "nope.proto"}, {"f4": "google"}, {"f6": "X509SVID"}):
            assert decode(ask(**kw)[7][0])[1] == [NOT_FOUND], kw
        assert decode(ask(f1="host")[7][0])[1] == [INVALID_ARGUMENT]
        s = c.call(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", metadata=(), body=frame(b"\x3a\xff"))
        assert s.status == INVALID_ARGUMENT
        # many questions on one call
        s = c.open(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", metadata=(), body=frame(message(f7="")), end=False)
        for _ in range(20):
            s.next()
            c.h2.send_data(s.id, frame(message(f4="X509SVID")))
            c.flush()
        s.next()
        c.h2.end_stream(s.id)
        c.flush()
        assert s.wait_end().status == 0


def test_health(agent, channel):
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in {"", *SERVICES}:
        assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == serving, name
    with pytest.raises(grpc.RpcError) as e:
        stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=20)
    assert e.value.code() == grpc.StatusCode.NOT_FOUND
    listed = stub.List(health_pb2.HealthListRequest(), timeout=20).statuses
    assert set(listed) == SERVICES and {s.status for s in listed.values()} == {serving}
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(watch).status == serving
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nope"), timeout=60)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()
    agent.node.agent.stop()
    with pytest.raises(grpc.RpcError) as e:
        next(watch)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
