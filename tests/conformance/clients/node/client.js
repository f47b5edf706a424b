// gRPC for Node as a client of the Workload API; see ../README.md. The .proto is ours: argv[2].
"use strict";

const [, , proto, verb, socket, ...rest] = process.argv;
const grpc = require("@grpc/grpc-js");
const protobuf = require("protobufjs");

// The messages are ours, the service is written down here: in the .proto it has no part.
const types = new protobuf.Root().loadSync(proto, { keepCase: true });
const method = (name, responseStream) => {
  const stem = `workload.${name.replace(/^Fetch/, "")}`;
  const request = types.lookupType(`${stem}Request`);
  const response = types.lookupType(`${stem}Response`);
  return {
    path: `/SpiffeWorkloadAPI/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: (m) => Buffer.from(request.encode(request.create(m)).finish()),
    responseDeserialize: (b) => response.toObject(response.decode(b), { arrays: true, bytes: Buffer }),
  };
};
const api = grpc.makeGenericClientConstructor({
  FetchX509SVID: method("FetchX509SVID", true),
  FetchX509Bundles: method("FetchX509Bundles", true),
  FetchJWTSVID: method("FetchJWTSVID", false),
  FetchJWTBundles: method("FetchJWTBundles", true),
  ValidateJWTSVID: method("ValidateJWTSVID", false),
});
const metadata = new grpc.Metadata();
metadata.set("workload.spiffe.io", "true");

function say(event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function sayError(e) {
  say("error", { code: grpc.status[e.code] || String(e.code), text: String(e.details || e.message) });
}

function fail(e) {
  sayError(e);
  process.exitCode = 1;
}

// The length of the DER value at the offset, its head with it.
function derLength(bytes, at) {
  const first = bytes[at + 1];
  if (first < 0x80) return 2 + first;
  let n = 0;
  for (let i = 0; i < (first & 0x7f); i++) n = n * 256 + bytes[at + 2 + i];
  return 2 + (first & 0x7f) + n;
}

function derCount(bytes) {
  let n = 0;
  for (let at = 0; at < bytes.length; at += derLength(bytes, at)) n++;
  return n;
}

const bare = (id) => id.replace(/^spiffe:\/\//, "");
const mapValues = (map, f) => Object.fromEntries(Object.entries(map || {}).map(([k, v]) => [bare(k), f(v)]));

function sayX509(message) {
  const svids = message.svids.map((s) => ({
    id: s.spiffe_id,
    hint: s.hint || "",
    leaf: s.x509_svid.subarray(0, derLength(s.x509_svid, 0)).toString("hex"),
  }));
  const own = bare(message.svids[0].spiffe_id).split("/")[0];
  say("x509", { svids, bundles: { [own]: derCount(message.svids[0].bundle), ...mapValues(message.federated_bundles, derCount) } });
}

// The first message of a stream, then it is let go.
function first(client, method, then) {
  const stream = client[method]({}, metadata);
  let done = false;
  stream.on("data", (m) => {
    if (done) return;
    done = true;
    stream.cancel();
    then(m);
  });
  stream.on("error", (e) => {
    if (!done) fail(e);
    done = true;
  });
}

function watch(client) {
  let wait = 100;
  const stream = client.FetchX509SVID({}, metadata);
  let over = false;
  const again = () => {
    if (!over) setTimeout(() => watch(client), wait);
    over = true;
  };
  stream.on("data", (m) => {
    wait = 0;
    sayX509(m);
  });
  stream.on("error", (e) => {
    sayError(e);
    again();
  });
  stream.on("end", again);
}

const client = new api("unix:" + socket, grpc.credentials.createInsecure(), {
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 500,
});
switch (verb) {
  case "fetch":
    first(client, "FetchX509SVID", (m) => {
      sayX509(m);
      first(client, "FetchX509Bundles", (b) => say("bundles", { domains: mapValues(b.bundles, derCount) }));
    });
    break;
  case "watch":
    watch(client);
    break;
  case "jwt":
    client.FetchJWTSVID({ audience: [rest[0]] }, metadata, (e, m) => {
      if (e) return fail(e);
      say("jwt", { svids: m.svids.map((s) => ({ id: s.spiffe_id, hint: s.hint || "", token: s.svid })) });
      first(client, "FetchJWTBundles", (b) =>
        say("jwks", { domains: mapValues(b.bundles, (j) => JSON.parse(j.toString()).keys.length) }),
      );
    });
    break;
  case "validate":
    client.ValidateJWTSVID({ audience: rest[0], svid: rest[1] }, metadata, (e, m) => {
      if (e) return fail(e);
      say("valid", { id: m.spiffe_id });
    });
    break;
  default:
    process.exitCode = 2;
}
