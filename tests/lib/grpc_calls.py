"""grpc_calls SERVER [CLIENT]: a gRPC server at one address, and every kind of call by way of the other; without that the
server alone."""

import concurrent.futures
import sys
import threading

import grpc

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
cancelled = threading.Event()


def unary(request, context):
    context.set_trailing_metadata((("x-sum", "1"),))
    return request


def server_stream(request, _context):
    yield from [request] * 100


def client_stream(requests, _context):
    return b"".join(requests)


def both(requests, _context):
    yield from requests


def slow(_request, context):
    end = threading.Event()
    context.add_callback(end.set)
    if end.wait(60):
        cancelled.set()
    return b""


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
}


def fails(code, call):
    try:
        call()
    except grpc.RpcError as e:
        assert e.code() == code, e
        return e
    raise AssertionError(f"it did not fail with {code}")


def main(at, by_way_of=None):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=UNBOUNDED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", METHODS),))
    assert server.add_insecure_port(at) > 0
    server.start()
    if by_way_of is None:
        server.wait_for_termination()
    channel = grpc.insecure_channel(by_way_of, options=UNBOUNDED)
    call = channel.unary_unary("/t.T/Unary")
    answer, said = call.with_call(b"hi", timeout=20)
    assert answer == b"hi" and ("x-sum", "1") in [(m.key, m.value) for m in said.trailing_metadata()]
    assert len(list(channel.unary_stream("/t.T/ServerStream")(b"x" * 1000, timeout=20))) == 100
    assert channel.stream_unary("/t.T/ClientStream")(iter([b"a" * 100000] * 50), timeout=20) == b"a" * 5000000
    many = [b"%d" % i for i in range(500)]
    assert list(channel.stream_stream("/t.T/Both")(iter(many), timeout=20)) == many
    large = b"z" * (16 << 20)
    assert call(large, timeout=60) == large
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: channel.unary_unary("/t.T/Slow")(b"", timeout=0.3))
    assert cancelled.wait(60)
    cancelled.clear()
    begun = channel.unary_stream("/t.T/Slow")(b"")
    begun.cancel()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert set(pool.map(lambda _: call(b"q", timeout=20), range(500))) == {b"q"}
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: channel.unary_unary("/t.T/None")(b"", timeout=20))
    denied = fails(grpc.StatusCode.PERMISSION_DENIED, lambda: channel.unary_unary("/u.U/Unary")(b"", timeout=20))
    assert "policy_denied" in denied.details(), denied
    server.stop(0).wait()
    fails(grpc.StatusCode.UNAVAILABLE, lambda: call(b"x", timeout=20))
    print("all calls are as they have to be")


main(*sys.argv[1:])
