/* conf: Agent and Entries files: bad ones first, each with the place and the words that a person
 * gets; then what good ones become, with their defaults. */
#include "conf_cases.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct conf_case bad_agent[] = {
    {AGENT, CONF_HEAD("Agent"),
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

static const struct conf_case bad_entries[] = {
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

static void test_bad_agent(void **state)
{
    (void)state;
    CONF_CASES(bad_agent);
}

static void test_bad_entries(void **state)
{
    (void)state;
    CONF_CASES(bad_entries);
}

static void test_agent_and_entries(void **state)
{
    (void)state;
    static const char agent_text[] = AGENT_HEAD;
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *a = NULL;
    assert_int_equal(conf_parse_agent("/etc/a.yaml", agent_text, strlen(agent_text), diag, &a), 0);
    conf_case_no_errors(diag);
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
    conf_case_no_errors(diag);
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
    conf_case_no_errors(diag);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_agent),
        cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_agent_and_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
