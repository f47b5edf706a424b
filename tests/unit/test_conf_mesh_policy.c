/* conf: Mesh files, and Policy files of level 1: bad ones first, each with the place and the words
 * that a person gets; then what good ones become. */
#include "conf_cases.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct conf_case bad_mesh[] = {
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

static const struct conf_case bad_policy[] = {
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

static void test_bad_mesh(void **state)
{
    (void)state;
    CONF_CASES(bad_mesh);
}

static void test_bad_policy(void **state)
{
    (void)state;
    CONF_CASES(bad_policy);
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
    conf_case_no_errors(diag);
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

    static const char empty[] = CONF_HEAD("Policy") "rules: []\n";
    diag = conf_diag_new();
    assert_int_equal(conf_parse_policy("p", empty, strlen(empty), diag, &p), 0);
    conf_case_no_errors(diag);
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
    conf_case_no_errors(diag);
    assert_int_equal(m->unlisted, CONF_UNLISTED_PASS);
    assert_int_equal(m->n_services, 6);
    assert_int_equal(m->services[3].transport, CONF_TRANSPORT_DIRECT);
    assert_int_equal(m->services[4].transport, CONF_TRANSPORT_HBONE);
    assert_int_equal(m->services[4].hbone_port, 15009);
    assert_int_equal(m->services[5].transport, CONF_TRANSPORT_AUTO);
    assert_int_equal(m->services[5].hbone_port, 0);
    conf_mesh_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_mesh),
        cmocka_unit_test(test_bad_policy),
        cmocka_unit_test(test_policy_and_mesh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
