// Calls of every kind from Node to grpc_calls.py by way of the address that is given: needs @grpc/grpc-js.
"use strict";
const grpc = require("@grpc/grpc-js");

const same = (bytes) => bytes;
const method = (path, requestStream, responseStream) => ({
  path, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
});
const Client = grpc.makeGenericClientConstructor({
  unary: method("/t.T/Unary", false, false),
  both: method("/t.T/Both", true, true),
  clientStream: method("/t.T/ClientStream", true, false),
  serverStream: method("/t.T/ServerStream", false, true),
  slow: method("/t.T/Slow", false, false),
  none: method("/t.T/None", false, false),
  denied: method("/u.U/Unary", false, false),
}, "T");
const client = new Client(process.argv[2], grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1,
});

function call(name, bytes, options = {}) {
  return new Promise((ok, no) => {
    const begun = client[name](bytes, options, (e, answer) => (e ? no(e) : ok(answer)));
    if (options.cancel) {
      setTimeout(() => begun.cancel(), 200);
    }
  });
}

function must(ok, what) {
  if (!ok) {
    console.log("FAILED", what);
    process.exit(1);
  }
}

async function failsWith(code, name, options) {
  const got = await call(name, Buffer.alloc(0), options).then(() => 0, (e) => e.code);
  must(got === code, `${name}: ${got}`);
}

function read(stream, each) {
  return new Promise((ok, no) => stream.on("data", each).on("end", ok).on("error", no));
}

async function main() {
  must((await call("unary", Buffer.from("hi"))).toString() === "hi", "unary");
  const large = Buffer.alloc(16 << 20, "z");
  must((await call("unary", large)).equals(large), "large");
  let n = 0;
  const both = client.both();
  const all = read(both, (d) => must(d.toString() === String(n++), "both"));
  for (let i = 0; i < 500; i++) {
    both.write(Buffer.from(String(i)));
  }
  both.end();
  await all;
  must(n === 500, n);
  const sum = await new Promise((ok, no) => {
    const up = client.clientStream((e, answer) => (e ? no(e) : ok(answer)));
    for (let i = 0; i < 50; i++) {
      up.write(Buffer.alloc(100000, "a"));
    }
    up.end();
  });
  must(sum.length === 5000000, "client stream");
  n = 0;
  await read(client.serverStream(Buffer.from("x")), () => n++);
  must(n === 100, "server stream");
  await failsWith(grpc.status.DEADLINE_EXCEEDED, "slow", { deadline: Date.now() + 300 });
  await failsWith(grpc.status.CANCELLED, "slow", { cancel: true });
  await failsWith(grpc.status.UNIMPLEMENTED, "none");
  await failsWith(grpc.status.PERMISSION_DENIED, "denied");
  const many = await Promise.all(Array.from({ length: 500 }, () => call("unary", Buffer.from("q"))));
  must(many.every((b) => b.toString() === "q"), "many");
  console.log("all calls are as they have to be");
  process.exit(0);
}

main();
