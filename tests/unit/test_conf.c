/*
 * conf: bad files first, each with the place and the words that a person gets; then every example
 * file, the defaults, and every prefix of every example.
 */
#include <postern/conf_policy_test.h>
#include <postern/conf_rotate.h>

#include <arpa/inet.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- one text of any kind --------------------------------------------------------------------- */
enum kind { PROXY, GATEWAY, MESH, POLICY, AGENT, ENTRIES, MODES, ROTATE, POLICY_TEST };

/* Parses as the kind and forgets the result; 0 or -1, and everything that was said. */
static int parse(enum kind kind, const char *text, size_t len, struct buf *said)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *proxy = NULL;
    struct conf_mesh *mesh = NULL;
    struct conf_policy *policy = NULL;
    struct conf_agent *agent = NULL;
    struct conf_entries *entries = NULL;
    struct conf_modes *modes = NULL;
    struct conf_rotate *rotate = NULL;
    struct conf_policy_test *policy_test = NULL;
    int rc = -1;
    switch (kind) {
    case PROXY:
        rc = conf_parse_proxy("/etc/f.yaml", text, len, diag, &proxy);
        break;
    case GATEWAY:
        rc = conf_parse_gateway("/etc/f.yaml", text, len, diag, &proxy);
        break;
    case MESH:
        rc = conf_parse_mesh("/etc/f.yaml", text, len, diag, &mesh);
        break;
    case POLICY:
        rc = conf_parse_policy("/etc/f.yaml", text, len, diag, &policy);
        break;
    case AGENT:
        rc = conf_parse_agent("/etc/f.yaml", text, len, diag, &agent);
        break;
    case ENTRIES:
        rc = conf_parse_entries("/etc/f.yaml", text, len, diag, &entries);
        break;
    case MODES:
        rc = conf_parse_modes("/etc/f.yaml", text, len, diag, &modes);
        break;
    case ROTATE:
        rc = conf_parse_rotate("/etc/f.yaml", text, len, diag, &rotate);
        break;
    case POLICY_TEST:
        rc = conf_parse_policy_test("/etc/f.yaml", text, len, diag, &policy_test);
        break;
    }
    assert_int_equal(rc, conf_diag_count(diag) == 0 ? 0 : -1);
    assert_true(conf_diag_print(diag, said));
    conf_proxy_free(proxy);
    conf_mesh_free(mesh);
    conf_policy_free(policy);
    conf_agent_free(agent);
    conf_entries_free(entries);
    conf_modes_free(modes);
    conf_rotate_free(rotate);
    conf_policy_test_free(policy_test);
    conf_diag_free(diag);
    return rc;
}

/* Whole output, so that an error too many fails as well as one too few. */
struct bad_case {
    enum kind kind;
    const char *text;
    const char *said; /* each line without "/etc/f.yaml:" */
};

#define HEAD(kind) "kind: " kind "\nlevel: 1\n"
#define PROXY_HEAD HEAD("Proxy")
#define LISTENER                                                                                   \
    "listeners:\n- {name: a, direction: inbound, capture: intercepted, address: '0.0.0.0:1'}\n"
#define POLICY_HEAD HEAD("Policy") "rules:\n"
#define RULE POLICY_HEAD "- {name: r, action: ALLOW, "
#define ENTRIES_HEAD HEAD("Entries") "entries:\n"
#define ENTRY ENTRIES_HEAD "- {id: e, spiffe_id: 'spiffe://td/a', "
#define MESH_HEAD HEAD("Mesh") "services:\n"
#define AGENT_HEAD                                                                                 \
    HEAD("Agent") "trust_domain: td\nsocket: /run/s\nstate_dir: /var/s\nentries: e.yaml\n"

static const struct bad_case bad_yaml[] = {
    {PROXY, "",
     "1:1: the file is empty, expected a mapping that begins with 'kind:' and "
     "'level:'\n"},
    {PROXY, "# nothing\n",
     "1:1: the file is empty, expected a mapping that begins with 'kind:' and "
     "'level:'\n"},
    {PROXY, "hello",
     "1:1: not a configuration file, expected a mapping that begins with 'kind:' "
     "and 'level:'\n"},
    {PROXY, "- kind: Proxy",
     "1:1: not a configuration file, expected a mapping that begins with "
     "'kind:' and 'level:'\n"},
    {POLICY, "kind: Policy\nlevel: 1\nrules: [",
     "4:1: not valid YAML: while parsing a flow node did "
     "not find expected node content\n"},
    {POLICY, "kind: Policy\n\tlevel: 1\n",
     "2:1: not valid YAML: while scanning a plain scalar found a tab character that violates "
     "indentation; indent with blanks\n"},
    {POLICY, HEAD("Policy") "rules: @all\n",
     "3:8: not valid YAML: while scanning for the next token found character that cannot start any "
     "token; indent with blanks; a text that begins with a sign such as @ or % stands in quotes\n"},
    {POLICY, HEAD("Policy") "rules\xff\n",
     "3:6: not text: invalid leading UTF-8 octet, expected UTF-8 text\n"},
    {POLICY, HEAD("Policy") "rules: []\n\x1b[2J: 1\n",
     "4:1: not text: control characters are not allowed, expected UTF-8 text\n"},
    {POLICY, HEAD("Policy") "rules: &all []\n",
     "3:8: anchors are not taken; write the value out where it is used\n"},
    {POLICY, POLICY_HEAD "- {name: *n, action: ALLOW}\n",
     "4:10: aliases are not taken; write the value out; a text that begins with * stands in "
     "quotes\n"},
    {POLICY, HEAD("Policy") "rules: !!seq []\n",
     "3:8: tags are not taken; remove it: each key has its own type\n"},
    {POLICY, HEAD("Policy") "<<: {}\nrules: []\n",
     "3:1: merge keys are not taken; write the keys out\n"},
    {POLICY, HEAD("Policy") "rules: []\n---\nkind: Mesh\n",
     "4:1: a second document begins, expected one document in a file; put it into a file of its "
     "own\n"},
    {POLICY, "%YAML 1.1\n---\n" HEAD("Policy") "rules: []\n",
     "1:1: directives (%) are not taken; remove them\n"},
    {POLICY, HEAD("Policy") "[a]: b\nrules: []\n",
     "3:1: a key that is no text, expected text as the key\n"},
    {POLICY, POLICY_HEAD "- {name: \"a\\0b\", action: ALLOW}\n",
     "4:10: a NUL character in a text, expected text\n"},
    {POLICY, HEAD("Policy") "rules: []\nlevel: 1\n",
     "4:1: duplicate key 'level'; it stands at line 2, column 1 already; keep one\n"},
    {POLICY, HEAD("Policy") "rules: []\nzz: 1\nzz: 2\n",
     "4:1: unknown key 'zz', expected kind, level or rules\n"
     "5:1: duplicate key 'zz'; it stands at line 4, column 1 already; keep one\n"},
};

static const struct bad_case bad_head[] = {
    {POLICY, "level: 1\nrules: []\n",
     "1:1: missing key 'kind', expected Proxy, Gateway, Mesh, Policy, Agent, Entries, Modes, "
     "Rotate or PolicyTest; "
     "every file "
     "opens "
     "with "
     "'kind:' and 'level:'\n"},
    {POLICY, "kind: Polizy\nlevel: 1\n",
     "1:7: no such kind 'Polizy', expected Proxy, Gateway, Mesh, Policy, Agent, Entries, Modes, "
     "Rotate or PolicyTest; "
     "did you "
     "mean "
     "'Policy'?\n"},
    {POLICY, "kind: [Policy]\n",
     "1:7: 'kind' holds no text, expected Proxy, Gateway, Mesh, Policy, Agent, "
     "Entries, Modes, Rotate or PolicyTest\n"},
    {PROXY, "kind: Policy\nlevel: 1\nrules: []\n",
     "1:7: a file of kind Policy, expected Proxy; 'policy' in a Proxy or Gateway file names it\n"},
    {POLICY, "kind: Agent\nlevel: 1\n",
     "1:7: a file of kind Agent, expected Policy; 'postern agent FILE' runs it\n"},
    {POLICY, "kind: Policy\nrules: []\n",
     "1:1: missing key 'level', expected a number from 1 to 2\n"},
    {POLICY, "kind: Policy\nlevel: 3\nunknown: to us\n",
     "2:8: needs feature level 3, this binary understands 2; use a newer binary\n"},
    {POLICY, "kind: Policy\nlevel: 0\nrules: []\n",
     "2:8: 'level' is '0', too little, expected a number from 1 to 2\n"},
    {POLICY, "kind: Policy\nlevel: '1'\nrules: []\n",
     "2:8: 'level' is '1', not a number, expected a number from 1 to 2; remove the quotes\n"},
    {POLICY, "kind: Policy\nlevel: one\nrules: []\n",
     "2:8: 'level' is 'one', not a number, expected a number from 1 to 2\n"},
};

static const struct bad_case bad_values[] = {
    {PROXY, PROXY_HEAD, "1:1: missing key 'listeners', expected a list\n"},
    {PROXY, PROXY_HEAD "listeners: []\n",
     "3:12: 'listeners' is an empty list, expected at least one element; a proxy without a "
     "listener "
     "does nothing\n"},
    {PROXY, PROXY_HEAD "listeners: x\n",
     "3:12: 'listeners' holds a single value, expected a list; write [ ] around it, or put '- ' "
     "before each\n"},
    {PROXY, PROXY_HEAD "listeners: [x]\n",
     "3:13: a listener holds a single value, expected a mapping (key: value)\n"},
    {PROXY, PROXY_HEAD LISTENER "mseh: m.yaml\n",
     "5:1: unknown key 'mseh', expected kind, level, name, workers, run_as, identity, state, tls, "
     "mesh, resolve_names, policy, jwt, listeners, timeouts, limits, http, admin, metrics, probes, "
     "interception, log or audit; did you mean "
     "'mesh'?\n"},
    {PROXY, PROXY_HEAD LISTENER "tls: {min_group: p521, resumption: yes, min: '1.2'}\n",
     "5:18: 'min_group' is 'p521', no such value, expected x25519, p384 or x25519mlkem768\n"
     "5:36: 'resumption' is 'yes', no such value, expected off or on\n"
     "5:41: unknown key 'min', expected min_group or resumption\n"},
    {PROXY, PROXY_HEAD LISTENER "mesh:\n",
     "5:6: 'mesh' has no value, expected a path; leave the key out where it does not apply\n"},
    {PROXY, PROXY_HEAD LISTENER "name: a b\n",
     "5:7: 'name' is 'a b', which holds other characters, expected a name of letters, digits and . "
     "_ - : /\n"},
    {PROXY, PROXY_HEAD LISTENER "workers: 0\n",
     "5:10: 'workers' is '0', too little, expected auto or a number from 1 to 256\n"},
    {PROXY, PROXY_HEAD LISTENER "workers: many\n",
     "5:10: 'workers' is 'many', not a number, expected auto or a number from 1 to 256\n"},
    {PROXY, PROXY_HEAD LISTENER "workers: 99999999999999999999\n",
     "5:10: 'workers' is '99999999999999999999', not a number, expected auto or a number from 1 to "
     "256\n"},
    {PROXY, PROXY_HEAD LISTENER "timeouts: {connect: 10}\n",
     "5:21: 'connect' is '10', a number without a unit, expected a number with ms, s, m or h, such "
     "as 10s, 10ms to 10m\n"},
    {PROXY, PROXY_HEAD LISTENER "timeouts: {connect: 1.5s}\n",
     "5:21: 'connect' is '1.5s', not a duration, expected a number with ms, s, m or h, such as "
     "10s, "
     "10ms to 10m\n"},
    {PROXY, PROXY_HEAD LISTENER "timeouts: {idle_tcp: 59m}\n",
     "5:22: 'idle_tcp' is '59m', too little, expected a number with ms, s, m or h, such as 10s, 1h "
     "to 1000h\n"},
    {PROXY, PROXY_HEAD LISTENER "timeouts: {idle_tcp: 18446744073709551615h}\n",
     "5:22: 'idle_tcp' is '18446744073709551615h', not a duration, expected a number with ms, s, m "
     "or h, such as 10s, 1h to 1000h\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- {name: a, direction: inbound, capture: intercepted, address: "
                "'0.0.0.0:1',\n  expiry_grace: 25h, on_expiry: end}\n",
     "5:17: 'expiry_grace' is '25h', too much, expected a number with s, m or h, such as 10m, "
     "0s to 24h\n"
     "5:33: 'on_expiry' is 'end', no such value, expected drain, cut or warn\n"},
    {PROXY, PROXY_HEAD LISTENER "limits: {request_head_bytes: 2MiB}\n",
     "5:30: 'request_head_bytes' is '2MiB', too much, expected a number of bytes, or with KiB, MiB "
     "or GiB, 1KiB to 128KiB\n"},
    {PROXY, PROXY_HEAD LISTENER "log: {level: Warning}\n",
     "5:14: 'level' is 'Warning', no such value, expected error, warn, info or debug\n"},
    {PROXY, PROXY_HEAD LISTENER "log: {level: INFO}\n",
     "5:14: 'level' is 'INFO', no such value, expected error, warn, info or debug; did you mean "
     "'info'?\n"},
    {PROXY, PROXY_HEAD LISTENER "identity: {socket: /run/s}\n",
     "5:20: 'socket' is '/run/s', which does not begin with unix:, expected unix: and an absolute "
     "path\n"},
    {PROXY, PROXY_HEAD LISTENER "identity: {socket: 'unix:s'}\n",
     "5:20: 'socket' is 'unix:s', not an absolute path, expected unix: and an absolute path\n"},
    {PROXY, PROXY_HEAD LISTENER "identity: {spiffe_id: 'spiffe://td'}\n",
     "5:23: 'spiffe_id' is 'spiffe://td', the trust domain itself and no workload, expected a "
     "SPIFFE "
     "ID such as spiffe://example.org/orders\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {}\n",
     "5:10: missing key 'address', expected such as 127.0.0.1:8080 or [::1]:8080\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: 'localhost:80'}\n",
     "5:20: 'address' is 'localhost:80', not an address with a port, expected such as "
     "127.0.0.1:8080 "
     "or [::1]:8080; host names are not looked up\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: 127.0.0.1}\n",
     "5:20: 'address' is '127.0.0.1', which has no port, expected such as 127.0.0.1:8080 or "
     "[::1]:8080\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: '::1'}\n",
     "5:20: 'address' is '::1', which has no port, expected such as 127.0.0.1:8080 or "
     "[::1]:8080\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: '::1:80:90'}\n",
     "5:20: 'address' is '::1:80:90', IPv6 without brackets, expected such as 127.0.0.1:8080 or "
     "[::1]:8080\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: '127.0.0.1:65536'}\n",
     "5:20: 'address' is '127.0.0.1:65536', not a port at the end, expected such as 127.0.0.1:8080 "
     "or "
     "[::1]:8080; ports go from 1 to 65535\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: '[::ffff:127.0.0.1]:80'}\n",
     "5:20: 'address' is '[::ffff:127.0.0.1]:80', an IPv4 address in IPv6, expected such as "
     "127.0.0.1:8080 or [::1]:8080; write it as IPv4\n"},
    {PROXY, PROXY_HEAD LISTENER "admin: {allow_uids: [0, root]}\n",
     "5:25: 'allow_uids' is 'root', not a number, expected a number from 0 to 4294967294\n"},
};

static const struct bad_case bad_listeners[] = {
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: outbound\n  capture: intercepted\n"
                "  address: 0.0.0.0:15001\n",
     "7:12: an intercepted outbound listener that others can reach, expected a loopback address "
     "such "
     "as 127.0.0.1:15001 or [::1]:15001; whoever reaches it speaks with this workload's "
     "identity\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: outbound\n  capture: intercepted\n"
                "  address: 127.0.0.1:15001\n  to: 1.2.3.4:5\n  protocol: http\n  ports: [{port: "
                "1}]\n",
     "8:3: an intercepted listener has no 'to'; it connects to each connection's original "
     "destination\n"
     "9:3: an intercepted listener has no 'protocol'; it is said in the mesh map\n"
     "10:3: an outbound listener has no 'ports'; they are said in the mesh map\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: outbound\n  capture: hbone\n"
                "  address: 127.0.0.1:1\n- name: b\n  direction: inbound\n  capture: hbone\n"
                "  to: 1.2.3.4:5\n  protocol: http\n"
                "- {name: c, direction: inbound, capture: intercepted}\n",
     "6:12: an outbound listener with 'capture: hbone', expected capture: intercepted; that a "
     "service is reached by HBONE is said in the mesh map ('transport: hbone')\n"
     "11:3: an HBONE listener has no 'to'; it connects to each connection's original "
     "destination\n"
     "12:3: an HBONE listener has no 'protocol'; say it for each port under 'ports'\n"
     "13:3: missing key 'address' of a listener, expected an address with port to listen on\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: outbound\n  capture: explicit\n"
                "  address: 127.0.0.1:9000\n",
     "4:3: missing key 'to' of an explicit listener, expected an address with port to connect to\n"
     "4:3: missing key 'identities' of an explicit outbound listener, expected the SPIFFE IDs that "
     "may answer at 'to'\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: inbound\n  capture: explicit\n"
                "  address: 0.0.0.0:9000\n  to: 127.0.0.1:80\n  identities: ['spiffe://td/a']\n"
                "  ports: [{port: 80}]\n",
     "9:3: an inbound listener has no 'identities'; who may come in is said in the policy\n"
     "10:3: an explicit listener has no 'ports'; it has one destination, 'to', and says "
     "'protocol'\n"},
    /* HBONE is said where a route is: in the map, or of an explicit listener that has its own. */
    {PROXY,
     PROXY_HEAD "listeners:\n- {name: a, direction: inbound, capture: explicit, address: "
                "'127.0.0.1:1', to: '127.0.0.1:2', transport: hbone}\n"
                "- {name: b, direction: outbound, capture: intercepted, address: '127.0.0.1:3', "
                "hbone_port: 1}\n"
                "- {name: c, direction: outbound, capture: explicit, address: '127.0.0.1:4', to: "
                "'127.0.0.1:5', identities: ['spiffe://td/c'], transport: disable}\n"
                "- {name: d, direction: outbound, capture: explicit, address: '127.0.0.1:6', to: "
                "'127.0.0.1:5', identities: ['spiffe://td/c'], hbone_port: 7}\n",
     "4:95: an inbound listener has no 'transport'; its peers choose\n"
     "5:80: an intercepted listener has no 'hbone_port'; it is said in the mesh map\n"
     "6:138: an explicit listener with 'transport: disable', expected direct, hbone or auto\n"
     "7:127: with 'transport: direct' no HBONE is spoken; remove 'hbone_port', or say "
     "'transport: hbone' or 'transport: auto'\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: outbound\n  capture: intercepted\n"
                "  address: 127.0.0.1:1\n  undeclared: tcp\n"
                "- name: b\n  direction: inbound\n  capture: explicit\n  address: 127.0.0.1:2\n"
                "  to: 127.0.0.1:3\n  undeclared: tcp\n- name: c\n  direction: inbound\n"
                "  capture: intercepted\n  address: 127.0.0.1:4\n  undeclared: http\n",
     "8:3: an outbound listener has no 'undeclared'; nothing is judged there but who answers\n"
     "14:3: an explicit listener has no 'undeclared'; it has one destination, 'to', and says "
     "'protocol'\n"
     "19:15: 'undeclared' is 'http', no such value, expected detect or tcp\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: inbound\n  capture: explicit\n"
                "  address: 127.0.0.1:1\n  to: 127.0.0.1:3\n  proxy_protocol: v1\n"
                "  proxy_protocol_pass: [234, 208, 300]\n"
                "- name: b\n  direction: inbound\n  capture: intercepted\n"
                "  address: 127.0.0.1:4\n  proxy_protocol: v2\n"
                "  proxy_protocol_from: [10.0.0.1, 10.0.0.1/8]\n",
     "10:3: 'proxy_protocol_pass' where no header is taken from anybody, expected "
     "'proxy_protocol_from' beside it\n"
     "10:3: 'proxy_protocol_pass' where the target gets none, expected 'proxy_protocol: v2' beside "
     "it; only version 2 has TLVs\n"
     "10:30: 208 cannot be passed on, expected 5, or a number from 224 to 247; the others are ours "
     "to say, of what is known here\n"
     "10:35: 'proxy_protocol_pass' is '300', too much, expected a number from 1 to 255\n"
     "15:3: an intercepted listener has no 'proxy_protocol'; say it for each port under 'ports'\n"
     "16:3: an intercepted listener has no 'proxy_protocol_from'; the kernel tells who opened what "
     "it redirected\n"
     "16:35: 'proxy_protocol_from' is '10.0.0.1/8', which has bits beyond its prefix, expected "
     "such "
     "as 10.0.0.7, 10.0.0.0/8 or fd00::/8; did you mean '10.0.0.0/8'?\n"},
    {PROXY,
     PROXY_HEAD LISTENER "- {name: a, direction: inbound, capture: explicit, address: "
                         "'127.0.0.1:1', to: '127.0.0.1:1'}\n",
     "5:10: listener 'a' twice; the first is at line 4, column 10\n"
     "5:61: the address of listener 'a' already, expected an address of its own\n"
     "5:80: it leads back to listener 'a' of this proxy, expected the address of a server\n"},
    {PROXY, PROXY_HEAD LISTENER "metrics: {address: '127.0.0.1:1'}\n",
     "4:64: the address of 'metrics' already, expected an address of its own\n"},
    {PROXY,
     PROXY_HEAD "listeners:\n- name: a\n  direction: inbound\n  capture: intercepted\n"
                "  address: 0.0.0.0:1\n  ports:\n  - port: 80\n  - {port: 80, protocol: htpt}\n"
                "  - {port: 0, local_address: '127.0.0.1:1'}\n",
     "10:12: port '80' twice; the first is at line 9, column 11\n"
     "10:26: 'protocol' is 'htpt', no such value, expected tcp or http; did you mean 'http'?\n"
     "11:12: 'port' is '0', too little, expected a port from 1 to 65535\n"
     "11:30: 'local_address' is '127.0.0.1:1', not an IP address, expected an IP address without a "
     "port\n"},
};

static const struct bad_case bad_mesh[] = {
    {MESH,
     MESH_HEAD "- {name: a, addresses: [10.0.0.1], identities: ['spiffe://td/a'], on_expiry: warn, "
               "expiry_spread: 1m, ports: [{port: 1, on_expiry: cut, expiry_grace: 1s}]}\n",
     "4:84: 'on_expiry: warn' has no 'expiry_spread'; nothing ends\n"
     "4:137: 'on_expiry: cut' has no 'expiry_grace'; nothing is drained before the end\n"},
    {MESH, MESH_HEAD "- {name: a, addresses: [10.0.0.1], transport: disable, on_expiry: warn}\n",
     "4:56: a service with 'transport: disable' has no 'on_expiry'; there are no certificates that "
     "could end\n"},
    {MESH, MESH_HEAD "- {name: a, addresses: [10.0.0.1]}\n",
     "4:3: missing key 'identities' of a service with 'transport: direct', expected the SPIFFE IDs "
     "that may answer there; 'transport: disable' reaches it in plaintext\n"},
    {MESH,
     MESH_HEAD "- {name: a, addresses: [10.0.0.1], transport: disable, identities: "
               "['spiffe://td/a']}\n",
     "4:56: with 'transport: disable' nobody's identity is verified; remove 'identities', or say "
     "'transport: direct' to have them verified\n"},
    /* No form of mTLS goes without identities, and only those with HBONE have a port for it. */
    {MESH,
     MESH_HEAD "- {name: a, addresses: [10.0.0.1], transport: auto}\n"
               "- {name: b, addresses: [10.0.0.2], transport: hbone, hbone_port: 0}\n"
               "- {name: c, addresses: [10.0.0.3], transport: disable, hbone_port: 15008}\n"
               "- {name: d, addresses: [10.0.0.4], identities: ['spiffe://td/d'], hbone_port: 1}\n"
               "- {name: e, addresses: [10.0.0.5], transport: hboen}\n",
     "4:3: missing key 'identities' of a service with 'transport: auto', expected the SPIFFE IDs "
     "that may answer there; 'transport: disable' reaches it in plaintext\n"
     "5:3: missing key 'identities' of a service with 'transport: hbone', expected the SPIFFE IDs "
     "that may answer there; 'transport: disable' reaches it in plaintext\n"
     "5:66: 'hbone_port' is '0', too little, expected a port from 1 to 65535\n"
     "6:56: with 'transport: disable' no HBONE is spoken; remove 'hbone_port', or say "
     "'transport: hbone' or 'transport: auto'\n"
     "7:67: with 'transport: direct' no HBONE is spoken; remove 'hbone_port', or say "
     "'transport: hbone' or 'transport: auto'\n"
     "8:47: 'transport' is 'hboen', no such value, expected direct, disable, hbone or auto; did "
     "you mean 'hbone'?\n"},
    {MESH, MESH_HEAD "- {name: a, addresses: [10.0.0.1/8], transport: disable}\n",
     "4:25: 'addresses' is '10.0.0.1/8', which has bits beyond its prefix, expected such as "
     "10.0.0.7, 10.0.0.0/8 or fd00::/8; did you mean '10.0.0.0/8'?\n"},
    {MESH,
     MESH_HEAD "- {name: a, addresses: [10.0.0.0/33, 'fd00::/129', host, '::ffff:10.0.0.1', 10/8], "
               "transport: disable}\n",
     "4:25: 'addresses' is '10.0.0.0/33', with a prefix length that cannot be, expected such as "
     "10.0.0.7, 10.0.0.0/8 or fd00::/8\n"
     "4:38: 'addresses' is 'fd00::/129', with a prefix length that cannot be, expected such as "
     "10.0.0.7, 10.0.0.0/8 or fd00::/8\n"
     "4:52: 'addresses' is 'host', not an address or address block, expected such as 10.0.0.7, "
     "10.0.0.0/8 or fd00::/8\n"
     "4:58: 'addresses' is '::ffff:10.0.0.1', not an address or address block, expected such as "
     "10.0.0.7, 10.0.0.0/8 or fd00::/8; write it as IPv4\n"
     "4:77: 'addresses' is '10/8', not an address or address block, expected such as 10.0.0.7, "
     "10.0.0.0/8 or fd00::/8\n"},
    {MESH,
     MESH_HEAD "- {name: a, addresses: [10.0.0.1], ports: [{port: 80}], transport: disable}\n"
               "- {name: a, addresses: [10.0.0.1/32], ports: [{port: 81}, {port: 80}], transport: "
               "disable}\n"
               "- {name: c, addresses: [10.0.0.1], transport: disable}\n"
               "- {name: d, addresses: [10.0.0.1, 10.0.0.1], transport: disable}\n",
     "5:10: service 'a' twice; the first is at line 4, column 10\n"
     "5:25: port 80 of address '10.0.0.1/32' belongs to service 'a' already, expected one service "
     "for each address and port\n"
     "7:25: address '10.0.0.1' belongs to service 'c' already, expected one service for each "
     "address "
     "and port\n"
     "7:35: address '10.0.0.1' belongs to service 'c' already, expected one service for each "
     "address "
     "and port\n"},
};

static const struct bad_case bad_policy[] = {
    {POLICY, RULE "from: [{principals: ['dns:', 'cn:*x', 'dns:a', 'uri:*', 'id:a']}]}\n",
     "4:49: 'principals' holds 'dns:', a kind and no name, expected a SPIFFE ID, *, or one with "
     "a * at its beginning or end; put a * behind it for every name of the kind\n"
     "4:57: 'principals' holds 'cn:*x', where one * may stand at the beginning or at the end only, "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"
     "4:84: 'principals' holds 'id:a', not a SPIFFE ID: it does not begin with 'spiffe://', "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"},
    {POLICY, RULE "target: {principals: ['dns:a']}}\n",
     "4:50: 'principals' holds 'dns:a', not a SPIFFE ID: it does not begin with 'spiffe://', "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"},
    {POLICY, POLICY_HEAD "- {name: r}\n",
     "4:3: missing key 'action', expected ALLOW, DENY or AUDIT\n"},
    {POLICY, POLICY_HEAD "- {name: r, action: allow}\n",
     "4:21: 'action' is 'allow', no such value, expected ALLOW, DENY or AUDIT; did you mean "
     "'ALLOW'?\n"},
    {POLICY, POLICY_HEAD "- {name: r, action: ALLOW}\n- {name: r, action: DENY}\n",
     "5:10: rule 'r' twice; the first is at line 4, column 10\n"},
    {POLICY, RULE "from: []}\n",
     "4:34: 'from' is an empty list, expected at least one element; leave 'from' out to speak of "
     "every caller\n"},
    {POLICY, RULE "from: [{}], to: [{}], target: {}}\n",
     "4:35: an element of 'from' is empty, expected at least one key; leave 'from' out to speak of "
     "every caller\n"
     "4:45: an element of 'to' is empty, expected at least one key; leave 'to' out to speak of "
     "everything\n"
     "4:58: missing key 'principals', expected a list\n"},
    {POLICY, RULE "from: [{principals: []}]}\n",
     "4:48: 'principals' is an empty list, expected at least one element; leave the key out where "
     "it "
     "does not matter: an empty list would match nothing\n"},
    {POLICY, RULE "from: [{principals: [example.org/a]}]}\n",
     "4:49: 'principals' holds 'example.org/a', not a SPIFFE ID: it does not begin with "
     "'spiffe://', "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"},
    {POLICY, RULE "from: [{principals: ['dns:']}]}\n",
     "4:49: 'principals' holds 'dns:', a kind and no name, expected a SPIFFE ID, *, or one with a "
     "* "
     "at its beginning or end; put a * behind it for every name of the kind\n"},
    {POLICY, RULE "from: [{principals: ['dns:A.b', 'cn:*a*']}]}\n",
     "4:49: 'principals' holds 'dns:A.b', where DNS names are told in lower case, expected a "
     "SPIFFE "
     "ID, *, or one with a * at its beginning or end\n"
     "4:60: 'principals' holds 'cn:*a*', where one * may stand at the beginning or at the end "
     "only, "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"},
    {POLICY, RULE "from: [{principals: ['spiffe://td/*/a', '**', '*a*']}]}\n",
     "4:49: 'principals' with * as a segment needs feature level 2, the file says 1; write "
     "'level: 2', which binaries that know it take\n"
     "4:68: 'principals' holds '**', where one * may stand at the beginning or at the end only, "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"
     "4:74: 'principals' holds '*a*', where one * may stand at the beginning or at the end only, "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end\n"},
    {POLICY, RULE "from: [{principals: ['spiffe://td*', 'spiffe://td', '*/a/', '*%']}]}\n",
     "4:49: 'principals' holds 'spiffe://td*', which matches trust domains that only begin alike, "
     "expected a SPIFFE ID, *, or one with a * at its beginning or end; write 'trust_domains' for "
     "a "
     "whole trust domain, or put a / before the *\n"
     "4:65: 'principals' holds 'spiffe://td', the trust domain itself and no workload, expected a "
     "SPIFFE ID, *, or one with a * at its beginning or end; write 'trust_domains' for all of its "
     "workloads\n"
     "4:80: 'principals' holds '*/a/', which no SPIFFE ID can end with, expected a SPIFFE ID, *, "
     "or "
     "one with a * at its beginning or end\n"
     "4:88: 'principals' holds '*%', which no SPIFFE ID can end with, expected a SPIFFE ID, *, or "
     "one "
     "with a * at its beginning or end\n"},
    {POLICY, RULE "from: [{trust_domains: ['spiffe://td', TD]}]}\n",
     "4:52: 'trust_domains' is 'spiffe://td', not a trust domain, expected a trust domain such as "
     "example.org; leave 'spiffe://' and any path out\n"
     "4:67: 'trust_domains' is 'TD', not a trust domain, expected a trust domain such as "
     "example.org\n"},
    {POLICY, RULE "to: [{methods: [get, 'G T', '*']}]}\n",
     "4:44: 'methods' holds 'get', and methods are in capitals, expected a method such as GET; did "
     "you mean 'GET'?\n"
     "4:49: 'methods' holds 'G T', which no method can be, expected a method such as GET\n"
     "4:56: 'methods' holds '*', which is no pattern here, expected a method such as GET; leave "
     "the "
     "key out for every method\n"},
    {POLICY, RULE "to: [{hosts: ['a:80', a/b, '*.*']}]}\n",
     "4:42: 'hosts' holds 'a:80', with a port, expected a host name, or one with a * at its "
     "beginning "
     "or end; ports are a key of their own\n"
     "4:50: 'hosts' holds 'a/b', which no host name can be, expected a host name, or one with a * "
     "at "
     "its beginning or end; paths are a key of their own\n"
     "4:55: 'hosts' holds '*.*', where one * may stand at the beginning or at the end only, "
     "expected "
     "a host name, or one with a * at its beginning or end\n"},
    {POLICY, RULE "to: [{paths: ['/a%', '/a%4*']}]}\n",
     "4:42: 'paths' holds '/a%', with a % that stands for no byte, expected a path such as "
     "/orders, /orders/* or *.html; a % itself is %25\n"
     "4:49: 'paths' holds '/a%4*', with a % that stands for no byte, expected a path such as "
     "/orders, /orders/* or *.html; a % itself is %25\n"},
    {POLICY, RULE "to: [{paths: [a, '/a?b', '/a b', '/a*b']}]}\n",
     "4:42: 'paths' holds 'a', which does not begin with /, expected a path such as /orders, "
     "/orders/* or *.html\n"
     "4:45: 'paths' holds '/a?b', but paths are judged without their query, expected a path such "
     "as "
     "/orders, /orders/* or *.html\n"
     "4:53: 'paths' holds '/a b', which no path can be, expected a path such as /orders, /orders/* "
     "or "
     "*.html; write other bytes as %XX, as requests do\n"
     "4:61: 'paths' holds '/a*b', where one * may stand at the beginning or at the end only, "
     "expected "
     "a path such as /orders, /orders/* or *.html\n"},
    {POLICY, RULE "to: [{ports: [0, '80', 65536, http]}]}\n",
     "4:42: 'ports' is '0', too little, expected a port from 1 to 65535\n"
     "4:45: 'ports' is '80', not a number, expected a port from 1 to 65535; remove the quotes\n"
     "4:51: 'ports' is '65536', too much, expected a port from 1 to 65535\n"
     "4:58: 'ports' is 'http', not a number, expected a port from 1 to 65535\n"},
    {POLICY, RULE "from: [{principal: [a]}]}\n",
     "4:36: unknown key 'principal', expected principals, not_principals, trust_domains, "
     "not_trust_domains, ip_blocks or not_ip_blocks; did you mean 'principals'?\n"},
};

static const struct bad_case bad_agent[] = {
    {AGENT, HEAD("Agent"),
     "1:1: missing key 'trust_domain', expected a trust domain such as example.org\n"
     "1:1: missing key 'socket', expected a path\n"
     "1:1: missing key 'state_dir', expected a path\n"
     "1:1: missing key 'entries', expected a path\n"},
    {AGENT, AGENT_HEAD "ca: {source: spire}\n",
     "7:14: 'source' is 'spire', no such value, expected self or disk\n"},
    {AGENT, AGENT_HEAD "ca: {source: disk}\n",
     "7:5: missing key 'disk': 'source' is disk, expected a mapping\n"},
    {AGENT, AGENT_HEAD "ca: {disk: {cert_file: a, key_file: b}}\n",
     "7:12: missing key 'bundle_file', expected a path\n"
     "7:12: 'disk' is of no use: 'source' is self; write source: disk to use these files\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: secret}\n",
     "7:19: 'key_at_rest' is 'secret', which is no such protection, expected plain, or a mapping; "
     "write {passphrase_file: PATH} or {credential: NAME} to have it sealed\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {}}\n",
     "7:19: 'key_at_rest' names no source of the passphrase, expected passphrase_file or "
     "credential\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {passphrase_file: p, credential: c}}\n",
     "7:19: 'key_at_rest' names two sources, expected one of passphrase_file and credential\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {credential: ../c}}\n",
     "7:32: 'credential' is '../c', which is no credential's name, expected text\n"},
    {AGENT, AGENT_HEAD "svid: {ttl: 9s}\n",
     "7:13: 'ttl' is '9s', too little, expected a number with s, m or h, such as 10m, 10s to "
     "720h\n"},
    {AGENT, AGENT_HEAD "jwt: {ttl: 2h, key_ttl: 11h}\n",
     "7:12: the tokens' 'ttl' is longer than a sixth of 'key_ttl': a token ends with its key\n"},
    {AGENT, AGENT_HEAD "jwt: {algorithm: HS256}\n",
     "7:18: 'algorithm' is 'HS256', no such value, expected ES256, ES384 or RS256; did you mean "
     "'ES256'?\n"},
    {AGENT, AGENT_HEAD "svid: {ttl: 500ms}\n",
     "7:13: 'ttl' is '500ms', not a duration, expected a number with s, m or h, such as 10m, 10s "
     "to "
     "720h\n"},
    {AGENT, AGENT_HEAD "ca: {root_ttl: 1h, node_ttl: 2h}\nsvid: {ttl: 3h}\n",
     "7:30: 'node_ttl' is longer than 'root_ttl': a certificate ends with its issuer\n"
     "8:13: the SVIDs' 'ttl' is longer than 'node_ttl': a certificate ends with its issuer\n"},
    {AGENT, AGENT_HEAD "users: {keeper: 64602}\n",
     "7:8: two of the agent's processes share a uid, so that one could reach into the other, "
     "expected "
     "different uids\n"},
    {AGENT, AGENT_HEAD "users: {service: 64604}\n",
     "7:8: two of the agent's processes share a uid, so that one could reach into the other, "
     "expected different uids\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {pkcs11: {module: m, token: t, pin_file: p}}}\n",
     "7:19: the token holds the root's key, and nothing is said of what protects the keys for "
     "tokens, which stay in the state file, expected one of passphrase_file, credential, and "
     "state: plain\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {pkcs11: {module: m, token: t}, state: plain}}\n",
     "7:28: 'pkcs11' names no source of the PIN, expected one of pin_file and pin_credential\n"},
    {AGENT, AGENT_HEAD "ca: {key_at_rest: {state: plain}}\n",
     "7:19: 'state' is of use beside 'pkcs11' only; write key_at_rest: plain\n"},
    {AGENT,
     AGENT_HEAD "ca: {key_at_rest: {state: plain, pkcs11: {module: m, token: t, pin_file: "
                "p, environment: ['LD_PRELOAD=/x.so']}}}\n",
     "7:91: 'environment' is 'LD_PRELOAD=/x.so', which is not NAME=VALUE, expected text; "
     "such as SOFTHSM2_CONF=/etc/postern/softhsm2.conf\n"},
    {AGENT, AGENT_HEAD "kubernetes: {}\n", "7:13: missing key 'kubelet', expected a mapping\n"},
    {AGENT, AGENT_HEAD "kubernetes: {kubelet: {}}\n",
     "7:23: nothing tells whether it is the kubelet that answers, expected ca_file; or, said by "
     "name, insecure: true\n"
     "7:23: the kubelet tells its pods to nobody it does not know, expected token_file, or "
     "cert_file and key_file\n"},
    {AGENT, AGENT_HEAD "kubernetes: {kubelet: {ca_file: ca, insecure: true, cert_file: c}}\n",
     "7:23: the kubelet's certificate is judged in more than one way, expected one of ca_file, "
     "insecure: true and plaintext: true\n"
     "7:23: a client certificate has two files, expected both cert_file and key_file\n"},
    {AGENT,
     AGENT_HEAD "kubernetes: {kubelet: {ca_file: ca, cert_file: c, key_file: k, token_file: t}}\n",
     "7:23: the agent would show itself to the kubelet in two ways, expected token_file, or "
     "cert_file and key_file\n"},
    {AGENT,
     AGENT_HEAD "kubernetes: {kubelet: {address: '10.0.0.1:10255', plaintext: true}, poll: 1ms}\n",
     "7:33: 'plaintext' over a network would let anybody say which pods run here, expected a "
     "loopback address\n"
     "7:75: 'poll' is '1ms', too little, expected a number with ms, s, m or h, such as 10s, 1s to "
     "10m\n"},
    {AGENT, AGENT_HEAD "kubernetes: {kubelet: {address: node1, plaintext: true, token_file: t}}\n",
     "7:23: a token or certificate is not used in plaintext\n"
     "7:33: 'address' is 'node1', not an address with a port, expected such as 127.0.0.1:8080 or "
     "[::1]:8080; host names are not looked up\n"},
    {AGENT, AGENT_HEAD "users: {keeper: 0}\n",
     "7:17: 'keeper' is '0', too little, expected a number from 1 to 4294967294\n"},
};

static const struct bad_case bad_entries[] = {
    {ENTRIES, ENTRY "selectors: []}\n",
     "4:50: 'selectors' is an empty list, expected at least one element; an entry without "
     "selectors "
     "would give its identity to everyone\n"},
    {ENTRIES, ENTRIES_HEAD "- {id: e}\n",
     "4:3: missing key 'spiffe_id', expected a SPIFFE ID such as spiffe://example.org/orders\n"
     "4:3: missing key 'selectors', expected a list\n"},
    {ENTRIES,
     ENTRY "selectors: ['unix:uid:x', 'unix:pid:1', 'unix:user:no-such-user-here', "
           "'unix:path:bin/x']}\n",
     "4:51: 'selectors' is 'unix:uid:x', not a number at the end, expected a selector such as "
     "unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"
     "4:65: 'selectors' is 'unix:pid:1', no selector that this binary understands, expected "
     "a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS; "
     "did you mean 'unix:uid:'?\n"
     "4:79: 'selectors' is 'unix:user:no-such-user-here', a user that this machine does not know, "
     "expected a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"
     "4:79: a second selector by uid or user: no process has both, expected at most one of each "
     "type; "
     "write an entry for each\n"
     "4:110: 'selectors' is 'unix:path:bin/x', not the absolute path of an executable, expected "
     "a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"},
    {ENTRIES, ENTRY "selectors: ['k8s:nss:x', 'systemd:id:x', 'container:runtime:lxc']}\n",
     "4:51: 'selectors' is 'k8s:nss:x', no selector that this binary understands, expected a "
     "selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS; did you mean "
     "'k8s:ns:'?\n"
     "4:64: 'selectors' is 'systemd:id:x', not the name of a service unit, such as nginx.service, "
     "expected a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"
     "4:80: 'selectors' is 'container:runtime:lxc', none of containerd, crio, docker and podman, "
     "expected a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"},
    {ENTRIES,
     ENTRY "selectors: ['k8s:ns:a', 'k8s:ns:b', 'k8s:pod-label:a:b', 'k8s:pod-label:c:d']}\n",
     "4:63: a second selector by k8s:ns: no process has both, expected at most one of each type; "
     "write an entry for each\n"},
    {ENTRIES,
     ENTRIES_HEAD "- {id: e, spiffe_id: 'spiffe://td/{k8s.ns}', selectors: ['unix:uid:0']}\n",
     "4:22: 'spiffe_id': {k8s.ns} stands for something that no selector asks for, expected a "
     "selector that begins with k8s:\n"},
    {ENTRIES,
     ENTRIES_HEAD
     "- {id: e, spiffe_id: 'spiffe://td/{k8s.ns}-{k8s.sa}', selectors: ['k8s:ns:x']}\n",
     "4:22: 'spiffe_id' is 'spiffe://td/{k8s.ns}-{k8s.sa}', two variables share a segment of the "
     "path, expected a SPIFFE ID such as spiffe://example.org/orders; a / between them\n"},
    {ENTRIES, ENTRY "selectors: ['unix:uid:4294967295']}\n",
     "4:51: 'selectors' is 'unix:uid:4294967295', not a number at the end, expected a selector "
     "such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS\n"},
    {ENTRIES, ENTRY "selectors: ['unix:uid:0'], dns_names: ['*.a', a..b, -a, a_b, '']}\n",
     "4:78: 'dns_names' holds '*.a', which is no DNS name, expected a DNS name such as "
     "orders.example.org; an SVID has no wildcards\n"
     "4:85: 'dns_names' holds 'a..b', which is no DNS name, expected a DNS name such as "
     "orders.example.org\n"
     "4:91: 'dns_names' holds '-a', which is no DNS name, expected a DNS name such as "
     "orders.example.org\n"
     "4:95: 'dns_names' holds 'a_b', which is no DNS name, expected a DNS name such as "
     "orders.example.org\n"
     "4:100: 'dns_names' is empty, expected a DNS name such as orders.example.org\n"},
    {ENTRIES, ENTRY "selectors: ['unix:uid:0'], ttl: 721h}\n",
     "4:71: 'ttl' is '721h', too much, expected a number with s, m or h, such as 10m, 10s to "
     "720h\n"},
    {ENTRIES,
     ENTRY "selectors: ['unix:uid:0']}\n- {id: e, spiffe_id: 'spiffe://td/b', selectors: "
           "['unix:gid:0']}\n",
     "5:8: entry 'e' twice; the first is at line 4, column 8\n"},
    {ENTRIES, ENTRIES_HEAD "- {id: \"a\\e[2J\\x9b\", spiffe_id: x, selectors: ['unix:uid:0']}\n",
     "4:8: 'id' is 'a?[2J?', which holds other characters, expected a name of letters, digits and "
     ". "
     "_ - : /\n"
     "4:33: 'spiffe_id' is 'x', not a SPIFFE ID: it does not begin with 'spiffe://', expected a "
     "SPIFFE ID such as spiffe://example.org/orders\n"},
};

/* Compares line by line, with the file's name put before each expected line. */
static void check_said(const struct bad_case *t, const struct buf *said)
{
    struct buf want = BUF_INIT(65536);
    for (const char *p = t->said; *p != '\0';) {
        size_t n = strcspn(p, "\n") + 1;
        assert_true(buf_printf(&want, "/etc/f.yaml:%.*s", (int)n, p));
        p += n;
    }
    if (!str_eq(buf_str(&want), buf_str(said))) {
        print_message("--- for\n%s\n--- said\n%.*s\n--- expected\n%.*s\n", t->text,
                      (int)buf_len(said), (const char *)buf_head(said), (int)buf_len(&want),
                      (const char *)buf_head(&want));
        fail();
    }
    buf_reset(&want);
}

static void run_cases(const struct bad_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct buf said = BUF_INIT(65536);
        assert_int_equal(parse(cases[i].kind, cases[i].text, strlen(cases[i].text), &said), -1);
        check_said(&cases[i], &said);
        buf_reset(&said);
    }
}
#define RUN_CASES(cases) run_cases((cases), sizeof(cases) / sizeof((cases)[0]))

static void test_bad_yaml(void **state)
{
    (void)state;
    RUN_CASES(bad_yaml);
}

static void test_bad_head(void **state)
{
    (void)state;
    RUN_CASES(bad_head);
}

static void test_bad_values(void **state)
{
    (void)state;
    RUN_CASES(bad_values);
}

static void test_bad_listeners(void **state)
{
    (void)state;
    RUN_CASES(bad_listeners);
}

static void test_bad_mesh(void **state)
{
    (void)state;
    RUN_CASES(bad_mesh);
}

static void test_bad_policy(void **state)
{
    (void)state;
    RUN_CASES(bad_policy);
}

static void test_bad_agent(void **state)
{
    (void)state;
    RUN_CASES(bad_agent);
}

static void test_bad_entries(void **state)
{
    (void)state;
    RUN_CASES(bad_entries);
}

/* --- bounds ----------------------------------------------------------------------------------- */
static void expect_one_error(enum kind kind, struct buf *text, const char *part)
{
    struct buf said = BUF_INIT(65536);
    assert_int_equal(parse(kind, (const char *)buf_head(text), buf_len(text), &said), -1);
    assert_true(buf_append(&said, "", 1));
    if (strstr((const char *)buf_head(&said), part) == NULL) {
        print_message("said: %s\n", (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    buf_reset(text);
}

static void test_bounds(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(8 * 1024 * 1024);
    for (int i = 0; i < 1000; i++) {
        assert_true(buf_append(&text, "[", 1));
    }
    expect_one_error(POLICY, &text, "/etc/f.yaml:1:33: nested deeper than 32 levels\n");

    assert_true(buf_printf(&text, MESH_HEAD));
    for (int i = 0; i < 200001; i++) {
        assert_true(buf_append(&text, "- 1\n", 4));
    }
    expect_one_error(MESH, &text, ": more than 200000 values in one file\n");

    assert_true(buf_printf(&text, HEAD("Policy")));
    for (int i = 0; i < 150; i++) {
        assert_true(buf_printf(&text, "k%d: 1\n", i));
    }
    assert_true(buf_printf(&text, "rules: []\n"));
    expect_one_error(POLICY, &text,
                     "/etc/f.yaml:102:1: unknown key 'k99', expected kind, level or "
                     "rules\nand 50 more\n");

    char *zeros = mem_must_calloc(1, 4 * 1024 * 1024 + 1);
    memset(zeros, '#', 4 * 1024 * 1024 + 1);
    assert_true(buf_append(&text, zeros, 4 * 1024 * 1024 + 1));
    free(zeros);
    expect_one_error(MESH, &text, "/etc/f.yaml:1:1: larger than 4194304 bytes\n");

    assert_true(buf_printf(&text, MESH_HEAD "- name: a\n  transport: disable\n  addresses:\n"));
    for (int i = 0; i < 2048; i++) {
        assert_true(buf_printf(&text, "  - 10.0.%d.%d\n", i / 256, i % 256));
    }
    assert_true(buf_printf(&text, "  ports:\n"));
    for (int i = 1; i <= 200; i++) {
        assert_true(buf_printf(&text, "  - port: %d\n", i));
    }
    expect_one_error(MESH, &text, ": more than 262144 pairs of address and port; ");
}

/* --- good files ------------------------------------------------------------------------------- */
static char *example(const char *name)
{
    return mem_must_printf("%s/%s", EXAMPLES_DIR, name);
}

static void assert_no_errors(struct conf_diag *diag)
{
    struct buf said = BUF_INIT(65536);
    conf_diag_print(diag, &said);
    if (conf_diag_count(diag) > 0) {
        print_message("%.*s", (int)buf_len(&said), (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    conf_diag_free(diag);
}

static const struct {
    const char *file;
    const char *kind;
    enum kind as;
} examples[] = {
    {"proxy.yaml", "Proxy", PROXY},
    {"mesh.yaml", "Mesh", MESH},
    {"policy.yaml", "Policy", POLICY},
    {"agent.yaml", "Agent", AGENT},
    {"entries.yaml", "Entries", ENTRIES},
    {"entries-kubernetes.yaml", "Entries", ENTRIES},
    {"modes.yaml", "Modes", MODES},
    {"rotate.yaml", "Rotate", ROTATE},
    {"gateway.yaml", "Gateway", GATEWAY},
    {"policy-test.yaml", "PolicyTest", POLICY_TEST},
    {"policy-requests.yaml", "Policy", POLICY},
};

static void test_examples_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        mem_autofree char *path = example(examples[i].file);
        struct conf_diag *diag = conf_diag_new();
        const char *kind = NULL;
        int rc = conf_check(path, diag, &kind);
        assert_no_errors(diag);
        assert_int_equal(rc, 0);
        assert_string_equal(kind, examples[i].kind);
    }
}

/* Cut anywhere, a file loads or is refused, and nothing is leaked or read beyond its end. */
static void test_examples_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        mem_autofree char *path = example(examples[i].file);
        mem_autofree char *text = NULL;
        size_t len;
        struct err err = ERR_INIT;
        assert_int_equal(os_read_file(path, 1 << 20, false, &text, &len, &err), 0);
        for (size_t n = 0; n <= len; n++) {
            struct buf said = BUF_INIT(65536);
            char *cut = malloc(n > 0 ? n : 1);
            assert_non_null(cut);
            memcpy(cut, text, n);
            int rc = parse(examples[i].as, cut, n, &said);
            assert_true(n < len || rc == 0);
            free(cut);
            buf_reset(&said);
        }
    }
}

static void test_proxy_values(void **state)
{
    (void)state;
    mem_autofree char *path = example("proxy.yaml");
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    int rc = conf_load_proxy(path, diag, &p);
    assert_no_errors(diag);
    assert_int_equal(rc, 0);
    assert_string_equal(p->path, path);
    mem_autofree char *mesh = example("mesh.yaml");
    assert_string_equal(p->mesh_path, mesh);
    assert_int_equal(p->workers, 0);
    assert_true(p->audit.configured && p->audit.chain == CONF_AUDIT_CHAIN_ON);
    assert_int_equal(p->audit.to, CONF_AUDIT_FILE);
    assert_int_equal(p->audit.sample, 100);
    assert_int_equal(p->audit.max_size, 64 << 20);
    assert_string_equal(p->identity.socket, "/run/postern/agent.sock");
    assert_int_equal(p->identity.wait_ms, 30000);
    assert_int_equal(p->n_listeners, 5);
    assert_int_equal(p->listeners[2].capture, CONF_HBONE);
    assert_int_equal(p->listeners[2].ports[0].protocol, CONF_PROTOCOL_HTTP);
    assert_int_equal(p->listeners[0].direction, CONF_OUTBOUND);
    assert_int_equal(p->listeners[1].n_ports, 2);
    assert_int_equal(p->listeners[1].ports[0].protocol, CONF_PROTOCOL_HTTP);
    assert_int_equal(p->listeners[1].ports[0].local_address.len, 0);
    assert_int_equal(p->listeners[1].ports[1].local_address.len, sizeof(struct sockaddr_in));
    assert_int_equal(p->listeners[3].capture, CONF_EXPLICIT);
    assert_string_equal(p->listeners[3].identities.items[0], "spiffe://example.org/batch");
    struct sockaddr_in to;
    memcpy(&to, &p->listeners[3].to.address.ss, sizeof(to));
    assert_int_equal(ntohl(to.sin_addr.s_addr), 0x0a000007);
    assert_int_equal(ntohs(to.sin_port), 9000);
    assert_int_equal(p->timeouts.idle_tcp_ms, 86400000);
    assert_int_equal(p->admin.n_allow_uids, 1);
    assert_int_equal(p->listeners[1].expiry.on, CONF_EXPIRY_DRAIN);
    assert_int_equal(p->listeners[1].expiry.grace_s, 120);
    assert_int_equal(p->listeners[1].expiry.spread_s, 300);
    assert_true(p->listeners[1].ports[1].expiry.on_said);
    assert_false(p->listeners[1].ports[1].expiry.grace_said);
    struct conf_expiry e = p->listeners[1].expiry;
    conf_expiry_narrow(&e, &p->listeners[1].ports[1].expiry);
    assert_int_equal(e.on, CONF_EXPIRY_WARN);
    assert_int_equal(e.spread_s, 300);
    conf_proxy_free(p);
}

static void test_proxy_defaults(void **state)
{
    (void)state;
    static const char text[] = PROXY_HEAD LISTENER
        "- {name: h, direction: inbound, capture: hbone}\nlog: {access: denied}\n";
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    assert_int_equal(conf_parse_proxy("/etc/p.yaml", text, strlen(text), diag, &p), 0);
    assert_no_errors(diag);
    assert_true(strlen(p->name) > 0);
    struct sockaddr_in any;
    memcpy(&any, &p->listeners[1].bind.address.ss, sizeof(any));
    assert_int_equal(any.sin_addr.s_addr, 0);
    assert_int_equal(ntohs(any.sin_port), 15008);
    assert_null(p->identity.socket);
    assert_null(p->identity.spiffe_id);
    assert_int_equal(p->identity.key, CONF_KEY_AUTO);
    assert_int_equal(p->identity.wait_ms, 30000);
    assert_null(p->mesh_path);
    assert_null(p->policy_path);
    assert_int_equal(p->timeouts.connect_ms, 10000);
    assert_int_equal(p->timeouts.handshake_ms, 10000);
    assert_int_equal(p->timeouts.request_head_ms, 30000);
    assert_int_equal(p->timeouts.idle_http_ms, 75000);
    assert_int_equal(p->timeouts.idle_tcp_ms, 86400000);
    assert_int_equal(p->timeouts.drain_ms, 30000);
    assert_int_equal(p->limits.connections, 10000);
    assert_int_equal(p->limits.request_head_bytes, 65536);
    assert_null(p->admin.socket);
    assert_true(p->admin.n_allow_uids >= 1);
    assert_int_equal(p->metrics.len, 0);
    assert_int_equal(p->log_level, LOG_INFO);
    assert_int_equal(p->access_log, CONF_ACCESS_DENIED);
    conf_proxy_free(p);
}

static void test_agent_and_entries(void **state)
{
    (void)state;
    static const char agent_text[] = AGENT_HEAD;
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *a = NULL;
    assert_int_equal(conf_parse_agent("/etc/a.yaml", agent_text, strlen(agent_text), diag, &a), 0);
    assert_no_errors(diag);
    assert_string_equal(a->entries_path, "/etc/e.yaml");
    assert_int_equal(a->svid_ttl_s, 3600);
    assert_int_equal(a->node_ttl_s, 86400);
    assert_int_equal(a->jwt_ttl_s, 300);
    assert_int_equal(a->jwt_key_ttl_s, 86400);
    assert_int_equal(a->jwt_algorithm, CONF_JWT_ES256);
    assert_int_equal(a->root_ttl_s, 315360000);
    assert_int_equal(a->keeper_uid, 64601);
    assert_int_equal(a->attestor_uid, 64602);
    assert_int_equal(a->service_uid, 64603);
    assert_int_equal(a->kubelet_uid, 64604);
    assert_false(a->kubernetes.configured);
    conf_agent_free(a);

    static const char kubernetes_text[] = AGENT_HEAD
        "kubernetes: {kubelet: {ca_file: ca.crt, token_file: /run/token}, node_name: node-1}\n";
    diag = conf_diag_new();
    a = NULL;
    assert_int_equal(
        conf_parse_agent("/etc/a.yaml", kubernetes_text, strlen(kubernetes_text), diag, &a), 0);
    assert_no_errors(diag);
    assert_true(a->kubernetes.configured);
    assert_int_equal(((struct sockaddr_in *)&a->kubernetes.address.ss)->sin_port, htons(10250));
    assert_string_equal(a->kubernetes.ca_file, "/etc/ca.crt");
    assert_string_equal(a->kubernetes.token_file, "/run/token");
    assert_string_equal(a->kubernetes.node_name, "node-1");
    assert_null(a->kubernetes.server_name);
    assert_false(a->kubernetes.insecure || a->kubernetes.plaintext);
    assert_int_equal(a->kubernetes.poll_ms, 5000);
    conf_agent_free(a);

    static const char text[] =
        ENTRY "selectors: ['unix:user:root', 'unix:group:root', 'unix:path:/bin/x'], ttl: 10s}\n";
    struct conf_entries *e = NULL;
    diag = conf_diag_new();
    assert_int_equal(conf_parse_entries("e.yaml", text, strlen(text), diag, &e), 0);
    assert_no_errors(diag);
    assert_int_equal(e->path[0], '/');
    assert_int_equal(e->n_entries, 1);
    assert_int_equal(e->entries[0].line, 4);
    assert_int_equal(e->entries[0].n_selectors, 3);
    assert_int_equal(e->entries[0].selectors[0].type, CONF_SELECTOR_UNIX_USER);
    assert_int_equal(e->entries[0].selectors[0].number, 0);
    assert_int_equal(e->entries[0].selectors[1].type, CONF_SELECTOR_UNIX_GROUP);
    assert_string_equal(e->entries[0].selectors[2].text, "/bin/x");
    assert_int_equal(e->entries[0].ttl_s, 10);
    assert_null(e->entries[0].hint);
    conf_entries_free(e);
}

static void test_policy_and_mesh(void **state)
{
    (void)state;
    static const char text[] =
        POLICY_HEAD "- name: r\n  action: DENY\n"
                    "  from: [{principals: ['*', '*/a', 'spiffe://td/a*', 'spiffe://td/a/*'], "
                    "not_ip_blocks: ['fd00::/8', 10.1.0.0/16, 10.0.0.1]}]\n"
                    "  to: [{ports: [1, 65535], hosts: ['*', '*.org', '[fd00::1]'], paths: ['*', "
                    "'/a*', '*.html']}, {methods: [PURGE]}]\n";
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *p = NULL;
    assert_int_equal(conf_parse_policy("p", text, strlen(text), diag, &p), 0);
    assert_no_errors(diag);
    const struct conf_rule *r = &p->rules[0];
    assert_int_equal(r->line, 4);
    assert_int_equal(r->action, CONF_DENY);
    assert_int_equal(r->target_principals.n, 0);
    assert_int_equal(r->from[0].principals.n, 4);
    assert_int_equal(r->from[0].not_ip_blocks.n, 3);
    assert_int_equal(r->from[0].not_ip_blocks.items[0].family, AF_INET6);
    assert_int_equal(r->from[0].not_ip_blocks.items[2].prefix_len, 32);
    assert_int_equal(r->n_to, 2);
    assert_int_equal(r->to[0].ports[1], 65535);
    assert_int_equal(r->to[1].methods.n, 1);
    conf_policy_free(p);

    static const char empty[] = HEAD("Policy") "rules: []\n";
    diag = conf_diag_new();
    assert_int_equal(conf_parse_policy("p", empty, strlen(empty), diag, &p), 0);
    assert_no_errors(diag);
    assert_int_equal(p->n_rules, 0);
    conf_policy_free(p);

    /* The same address with other ports, and a wider block, are no overlap. */
    static const char mesh_text[] =
        "kind: Mesh\nlevel: 1\nunlisted: passthrough\nservices:\n"
        "- {name: a, addresses: [10.0.0.1], ports: [{port: 1}], transport: disable}\n"
        "- {name: b, addresses: [10.0.0.1], ports: [{port: 2}], transport: disable}\n"
        "- {name: c, addresses: [10.0.0.0/24], ports: [{port: 1}], transport: disable}\n"
        "- {name: d, addresses: [0.0.0.0/0, '::/0'], identities: ['spiffe://td/d']}\n"
        "- {name: e, addresses: [10.0.0.2], identities: ['spiffe://td/e'], transport: hbone,\n"
        "   hbone_port: 15009}\n"
        "- {name: f, addresses: [10.0.0.3], identities: ['spiffe://td/f'], transport: auto}\n";
    struct conf_mesh *m = NULL;
    diag = conf_diag_new();
    assert_int_equal(conf_parse_mesh("m", mesh_text, strlen(mesh_text), diag, &m), 0);
    assert_no_errors(diag);
    assert_int_equal(m->unlisted, CONF_UNLISTED_PASS);
    assert_int_equal(m->n_services, 6);
    assert_int_equal(m->services[3].transport, CONF_TRANSPORT_DIRECT);
    assert_int_equal(m->services[4].transport, CONF_TRANSPORT_HBONE);
    assert_int_equal(m->services[4].hbone_port, 15009);
    assert_int_equal(m->services[5].transport, CONF_TRANSPORT_AUTO);
    assert_int_equal(m->services[5].hbone_port, 0);
    conf_mesh_free(m);
}

/* --- several files ---------------------------------------------------------------------------- */
static void write_file(const char *dir, const char *name, const char *text)
{
    mem_autofree char *path = mem_must_printf("%s/%s", dir, name);
    struct err err = ERR_INIT;
    assert_int_equal(os_write_file_atomic(path, text, strlen(text), 0600, &err), 0);
}

static void test_check_follows_names(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_conf_XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_file(dir, "agent.yaml", AGENT_HEAD);
    write_file(dir, "e.yaml",
               ENTRY "selectors: ['unix:uid:0']}\n"
                     "- {id: f, spiffe_id: 'spiffe://other/f', selectors: "
                     "['unix:uid:1']}\n");
    write_file(dir, "proxy.yaml", PROXY_HEAD LISTENER "mesh: none.yaml\npolicy: agent.yaml\n");
    struct {
        const char *file, *want;
    } cases[] = {
        {"agent.yaml", "/e.yaml:5:1: entry 'f' is of another trust domain, expected an identity in "
                       "the agent's trust domain 'td'"},
        {"proxy.yaml", "/none.yaml"},
        {"proxy.yaml", "/agent.yaml:1:7: a file of kind Agent, expected Policy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, cases[i].file);
        struct conf_diag *diag = conf_diag_new();
        struct buf said = BUF_INIT(65536);
        assert_int_equal(conf_check(path, diag, NULL), -1);
        assert_true(conf_diag_print(diag, &said) && buf_append(&said, "", 1));
        if (strstr((const char *)buf_head(&said), cases[i].want) == NULL) {
            print_message("said: %s\n", (const char *)buf_head(&said));
            fail();
        }
        buf_reset(&said);
        conf_diag_free(diag);
    }
    static const char *const files[] = {"agent.yaml", "e.yaml", "proxy.yaml"};
    for (size_t i = 0; i < 3; i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, files[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_yaml),        cmocka_unit_test(test_bad_head),
        cmocka_unit_test(test_bad_values),      cmocka_unit_test(test_bad_listeners),
        cmocka_unit_test(test_bad_mesh),        cmocka_unit_test(test_bad_policy),
        cmocka_unit_test(test_bad_agent),       cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_examples_load),
        cmocka_unit_test(test_examples_cut),    cmocka_unit_test(test_proxy_values),
        cmocka_unit_test(test_proxy_defaults),  cmocka_unit_test(test_agent_and_entries),
        cmocka_unit_test(test_policy_and_mesh), cmocka_unit_test(test_check_follows_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
