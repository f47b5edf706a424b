/* conf: Proxy files: bad values and listeners, each with the place and the words that a person
 * gets; what the example says; the defaults. */
#include "conf_cases.h"

#include <arpa/inet.h>
#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct conf_case bad_values[] = {
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
     "mesh, resolve_names, policy, policy_context, jwt, listeners, timeouts, limits, http, admin, "
     "metrics, probes, "
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

static const struct conf_case bad_listeners[] = {
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

static void test_bad_values(void **state)
{
    (void)state;
    CONF_CASES(bad_values);
}

static void test_bad_listeners(void **state)
{
    (void)state;
    CONF_CASES(bad_listeners);
}

static char *example(const char *name)
{
    return mem_must_printf("%s/%s", EXAMPLES_DIR, name);
}

static void test_proxy_values(void **state)
{
    (void)state;
    mem_autofree char *path = example("proxy.yaml");
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    int rc = conf_load_proxy(path, diag, &p);
    conf_case_no_errors(diag);
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
    conf_case_no_errors(diag);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_listeners),
        cmocka_unit_test(test_proxy_values),
        cmocka_unit_test(test_proxy_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
