/*
 * Gateway files: bad ones first, each with every place and word that a person gets; then what a
 * good one becomes, with its defaults.
 */
#include "conf_cases.h"

#include <arpa/inet.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#define HEAD "kind: Gateway\nlevel: 1\n"
#define KNOWN                                                                                      \
    HEAD "identity: {}\npolicy: p\ncredentials: [{name: web, cert: c}, {name: old, cert: d}]\n"    \
         "trust: [{name: ca, ca: a}, {name: mesh, bundles: [{trust_domain: td, file: f}]}]\n"      \
         "listeners:\n"
#define LONELY HEAD "credentials: [{name: web, cert: c}]\ntrust: [{name: ca, ca: a}]\nlisteners:\n"
#define SERVER "- {name: s, type: server, address: '0.0.0.0:1', "
#define CLIENT "- {name: c, type: client, address: '127.0.0.1:1', "
#define RELAY "- {name: r, type: relay, address: '0.0.0.0:1', to: '1.2.3.4:5', "
#define DIALS "identities: ['spiffe://td/a']"

struct bad_case {
    const char *text;
    const char *said; /* each line without "/etc/f.yaml:" */
};

static const struct bad_case bad_credentials[] = {
    {HEAD "credentials: [{name: a, cert: c, pkcs12: x}]\nlisteners: []\n",
     "3:15: a credential that comes from several places, expected one of cert, pkcs12 and "
     "workload_api\n"
     "4:12: 'listeners' is an empty list, expected at least one element; a gateway without a "
     "listener does nothing\n"},
    {HEAD "credentials:\n- {name: a, key: k}\n- {name: a, pkcs11: {module: m, token: t, "
          "pin_file: f}}\n- {name: t, cert: c, key: k, pkcs11: {module: m, token: t, pin_file: "
          "f}}\n- {name: w, workload_api: {}, passphrase_file: f}\n- {name: p, pkcs12: x, "
          "passphrase_file: a, passphrase_credential: b}\n- {name: q, pkcs12: x, key: k, pkcs11: "
          "{module: m, token: t, pin_file: f}}\n- {name: v, cert: c, passphrase_credential: "
          "../b}\nlisteners: []\n",
     "4:3: a credential that comes from nowhere, expected one of cert, pkcs12 and workload_api\n"
     "5:3: a credential that comes from nowhere, expected one of cert, pkcs12 and workload_api; "
     "'pkcs11' holds the key; 'cert' is a file\n"
     "5:10: credential 'a' twice; the first is at line 4, column 10\n"
     "6:22: a credential whose key is in a token has no 'key'\n"
     "7:31: a credential from a Workload API has no 'passphrase_file'\n"
     "8:44: a credential with two sources of its passphrase, expected one of passphrase_file and "
     "passphrase_credential\n"
     "9:24: a PKCS#12 credential has no 'key'\n"
     "9:32: a PKCS#12 credential has no 'pkcs11'\n"
     "10:45: 'passphrase_credential' is '../b', which is no credential's name, expected text\n"
     "11:12: 'listeners' is an empty list, expected at least one element; a gateway without a "
     "listener does nothing\n"},
};

static const struct bad_case bad_trust[] = {
    {HEAD "trust:\n- {name: x}\n- {name: y, ca: a, bundles: [{trust_domain: td, file: f}]}\n- "
          "{name: x, bundles: [{trust_domain: td, file: f}, {trust_domain: td}], crl: "
          "c}\nlisteners: []\n",
     "4:3: a trust in nobody, expected one of ca and bundles\n"
     "5:3: a trust of two kinds, expected one of ca and bundles; an ordinary CA does not vouch for "
     "trust domains; give them two names\n"
     "6:10: trust 'x' twice; the first is at line 4, column 10\n"
     "6:52: missing key 'file', expected a path\n"
     "6:67: trust domain 'td' twice; the first is at line 6, column 38\n"
     "6:73: a trust of SPIFFE bundles has no 'crl'; SVIDs are short-lived; 'postern quarantine' "
     "denies one before its end\n"
     "7:12: 'listeners' is an empty list, expected at least one element; a gateway without a "
     "listener does nothing\n"},
};

static const struct bad_case bad_addresses[] = {
    {KNOWN SERVER "to: db}\n", "8:53: 'to' is 'db', which has no port, expected such as "
                               "127.0.0.1:8080, db.example:5432 or unix:/run/app.sock\n"},
    {KNOWN SERVER "to: 'db:0'}\n",
     "8:53: 'to' is 'db:0', not a port at the end, expected such as 127.0.0.1:8080, "
     "db.example:5432 or unix:/run/app.sock; ports go from 1 to 65535\n"},
    {KNOWN SERVER "to: '10.0.0.256:80'}\n",
     "8:53: 'to' is '10.0.0.256:80', not an address with a port, expected such as "
     "127.0.0.1:8080, db.example:5432 or unix:/run/app.sock; host names are not looked up\n"},
    {KNOWN SERVER "to: 'host.1:80'}\n",
     "8:53: 'to' is 'host.1:80', not an address and not a host's name, expected such as "
     "127.0.0.1:8080, db.example:5432 or unix:/run/app.sock\n"},
    {KNOWN SERVER "to: 'http://h:80'}\n",
     "8:53: 'to' is 'http://h:80', not an address with a port, expected such as 127.0.0.1:8080, "
     "db.example:5432 or unix:/run/app.sock; host names are not looked up\n"},
    {KNOWN SERVER "to: 'unix:s'}\n",
     "8:53: 'to' is 'unix:s', not an absolute path, expected such as 127.0.0.1:8080, "
     "db.example:5432 or unix:/run/app.sock\n"},
    {KNOWN SERVER "to: '-a.b:1'}\n",
     "8:53: 'to' is '-a.b:1', not an address and not a host's name, expected such as "
     "127.0.0.1:8080, db.example:5432 or unix:/run/app.sock\n"},
    {KNOWN "- {name: s, type: server, address: 'localhost:1', to: 'h:1'}\n",
     "8:36: 'address' is 'localhost:1', not an address with a port, expected such as "
     "0.0.0.0:8443, unix:/run/app.sock, systemd or systemd:NAME; host names are not looked up\n"},
    {KNOWN "- {name: s, type: server, address: 'systemd:', to: 'h:1'}\n",
     "8:36: 'address' is 'systemd:', without the name of a descriptor, expected such as "
     "0.0.0.0:8443, unix:/run/app.sock, systemd or systemd:NAME; it is what FileDescriptorName= "
     "says in the socket unit\n"},
    {KNOWN SERVER "to: 'h:1', socket: {mode: '0888'}}\n",
     "8:60: a listener whose address is no Unix socket has no 'socket'\n"
     "8:75: 'mode' is '0888', not a mode, expected a file's mode in octal, such as 0640\n"},
    {KNOWN "- {name: a, type: server, address: 'unix:/s', to: 'h:1'}\n"
           "- {name: b, type: server, address: 'unix:/s', to: 'unix:/s'}\n"
           "- {name: c, type: server, address: systemd, to: 'h:1'}\n"
           "- {name: d, type: server, address: 'systemd:c', to: 'h:1'}\n",
     "9:36: the address of listener 'a' already, expected an address of its own\n"
     "9:51: it leads back to listener 'a' of this gateway, expected the address of a server\n"
     "11:36: the address of listener 'c' already, expected an address of its own\n"},
    {KNOWN "- {name: c, type: client, address: '0.0.0.0:2', to: 'db:5432', " DIALS "}\n",
     "8:36: a client listener that other machines can reach, expected a loopback address or a "
     "Unix socket; whoever reaches it speaks with this gateway's certificate; "
     "'allow_remote_clients: true' says that this is meant\n"},
};

static const struct bad_case bad_listeners[] = {
    {KNOWN "- {name: s, address: '0.0.0.0:1', to: 'h:1'}\n",
     "8:3: missing key 'type', expected server, client or relay\n"},
    {KNOWN "- {name: s, type: sever, address: '0.0.0.0:1', to: 'h:1'}\n",
     "8:19: 'type' is 'sever', no such value, expected server, client or relay; did you mean "
     "'server'?\n"},
    {KNOWN "- {name: s, type: server, to: 'h:1', direction: inbound}\n",
     "8:3: missing key 'address', expected such as 0.0.0.0:8443, unix:/run/app.sock, systemd or "
     "systemd:NAME\n"
     "8:38: unknown key 'direction', expected name, type, address, socket, to, protocol, "
     "credentials, trust, tls, client_certificate, allow, sni, proxy_protocol, "
     "proxy_protocol_id_tlv, proxy_protocol_from, proxy_protocol_pass, server_name, ...; did you "
     "mean 'ejection'?\n"},
    {KNOWN SERVER "upstream: {}, server_name: x, identities: ['spiffe://td/a'], verify: {cn: "
                  "[x]}, connect_proxy: 'http://p:1', allow_remote_clients: true}\n",
     "8:3: missing key 'to', expected an address, a host or a Unix socket to connect to\n"
     "8:49: a server listener has no 'upstream'; only a relay has two legs with TLS\n"
     "8:63: a server listener has no 'server_name'; its target speaks in the clear\n"
     "8:79: a server listener has no 'identities'; who may come in is said in the policy, or by "
     "'allow'\n"
     "8:110: a server listener has no 'verify'; who may come in is said by 'allow'\n"
     "8:129: a server listener has no 'connect_proxy'; its target is reached in the clear\n"
     "8:158: a server listener has no 'allow_remote_clients'; its clients show certificates\n"},
    {KNOWN SERVER "to: ['h:1', 'h:2'], ejection: {after: 1}, hbone_port: 1}\n",
     "8:53: 'to' of a server listener with 2 places, expected an address, a host or a Unix socket "
     "to connect to; at a plain target nobody shows who it is\n"
     "8:69: a server listener has no 'ejection'; it has one target\n"
     "8:91: a server listener has no 'hbone_port'; its clients choose\n"},
    {KNOWN CLIENT "to: [], " DIALS "}\n",
     "8:55: 'to' is an empty list, expected at least one element; leave the key out instead\n"},
    {KNOWN CLIENT "to: ['h:1', 'unix:/s', '0.0.0.0:3', 'h:1'], " DIALS
                  ", connect_proxy: 'http://p:1'}\n",
     "8:63: a Unix socket among several, expected an address or a host, with port\n"
     "8:74: a target at any address, expected an address that is somebody's\n"
     "8:87: target 'h:1' twice; the first is at line 8, column 56\n"
     "8:126: a listener with several targets has no 'connect_proxy'; it asks for one of them\n"},
    {KNOWN CLIENT "to: 'h:1', ejection: {after: 1}, hbone_port: 1, " DIALS "}\n",
     "8:62: 'ejection' of a listener with one target; there is nothing else to go to\n"
     "8:84: with 'transport: direct' no HBONE is spoken; remove 'hbone_port', or say 'transport: "
     "hbone' or 'transport: auto'\n"},
    {KNOWN CLIENT "to: 'unix:/s', transport: auto, " DIALS
                  ", connect_proxy: 'http://p:1', tls: {min: '1.2', alpn: [h2]}}\n",
     "8:55: a listener that dials by HBONE to a Unix socket, expected an address or a host, with "
     "port; HBONE says by address where a stream goes\n"
     "8:114: a listener that dials by HBONE has no 'connect_proxy'; many streams share one "
     "connection\n"
     "8:154: HBONE over TLS 1.2, expected 1.3\n"
     "8:161: a leg that speaks HBONE has no 'alpn'; it speaks HTTP/2\n"},
    {KNOWN CLIENT "to: 'h:1', transport: hbone, trust: ca}\n",
     "8:73: HBONE with a peer of an ordinary CA, expected direct; it shares connections by the "
     "SPIFFE IDs that answer\n"},
    {KNOWN CLIENT "to: ['h:1', 'g:1'], trust: ca}\n",
     "8:3: missing key 'verify' or 'server_name': several targets have no one name to demand, "
     "expected the server's name\n"},
    {KNOWN CLIENT "to: 'h:1', transport: disable, " DIALS "}\n",
     "8:73: a listener with 'transport: disable', expected direct, hbone or auto\n"},
    {KNOWN SERVER "to: 'h:1', transport: auto}\n",
     "8:71: a listener that takes connections with 'transport: auto', expected direct or hbone; "
     "its clients choose\n"},
    {KNOWN SERVER "to: 'h:1', transport: hbone, client_certificate: none, proxy_protocol_from: "
                  "[10.0.0.1], sni: [{names: [a]}], tls: {alpn: [x]}}\n",
     "8:78: a listener with 'transport: hbone' has no 'client_certificate'; the session is what "
     "says who its clients are\n"
     "8:104: a listener with 'transport: hbone' has no 'proxy_protocol_from'; streams have no "
     "header before them\n"
     "8:137: a listener with 'transport: hbone' has no 'sni'; its streams ask for a port\n"
     "8:164: a leg that speaks HBONE has no 'alpn'; it speaks HTTP/2\n"},
    {KNOWN "- {name: r, type: relay, address: '0.0.0.0:1', to: ['h:1', 'g:2'], upstream: "
           "{identities: ['spiffe://td/a'], connect_proxy: "
           "'http://p:1'}}\n",
     "8:60: targets of a relay with several ports, expected the port of the first; it is what "
     "policies call the port\n"
     "8:110: a relay with several targets has no 'connect_proxy'; it asks for one of them\n"},
    {KNOWN CLIENT "to: 'h:1', " DIALS ", upstream: {}, client_certificate: none, allow: {any: "
                  "true}, proxy_protocol: v2, sni: [{names: [a]}]}\n",
     "8:93: a client listener has no 'upstream'; only a relay has two legs with TLS\n"
     "8:107: a client listener has no 'client_certificate'; its clients speak in the clear\n"
     "8:133: a client listener has no 'allow'; its clients have no certificates; 'socket' or the "
     "address says who can connect\n"
     "8:153: a client listener has no 'proxy_protocol'; a server that speaks TLS sees who "
     "connects to it\n"
     "8:173: a client listener has no 'sni'; 'server_name' is the name that it asks for\n"},
    {KNOWN RELAY "verify: {cn: [a]}, server_name: x, identities: ['spiffe://td/a'], "
                 "proxy_protocol: v1}\n",
     "8:3: missing key 'upstream' of a relay, expected a mapping: whom it meets at 'to', and as "
     "whom\n"
     "8:65: a relay has no 'verify'; say it under 'upstream'; who may come in is said by "
     "'allow'\n"
     "8:84: a relay has no 'server_name'; say it under 'upstream'\n"
     "8:100: a relay has no 'identities'; say it under 'upstream'; who may come in is said in the "
     "policy, or by 'allow'\n"
     "8:131: a relay has no 'proxy_protocol'; a server that speaks TLS sees who connects to it\n"},
    {KNOWN CLIENT "to: 'h:1', " DIALS ", protocol: http}\n",
     "8:93: a client listener has no 'protocol'; requests are judged where they arrive; this one "
     "passes on what its clients say\n"},
    {KNOWN SERVER "to: 'h:1', credentials: none}\n",
     "8:73: 'credentials' is 'none', expected the names of credentials; whoever accepts TLS shows "
     "a certificate\n"},
    {KNOWN SERVER "to: 'h:1', credentials: [web, oldd, web], trust: meh}\n",
     "8:79: no credential 'oldd' in this file; did you mean 'old'?\n"
     "8:85: credential 'web' twice; the first is at line 8, column 74\n"
     "8:98: no trust 'meh' in this file; did you mean 'mesh'?\n"},
    {KNOWN SERVER "to: 'h:1', client_certificate: none, trust: ca, allow: {dns: [a]}}\n",
     "8:86: a listener with 'client_certificate: none' has no 'trust'; it asks nobody for a "
     "certificate\n"
     "8:97: a listener with 'client_certificate: none' has no names to allow, expected 'any: "
     "true'; it asks nobody for a certificate\n"},
    {KNOWN SERVER "to: 'h:1', allow: {dns: [a], any: true}}\n",
     "8:78: 'allow' names some and lets anyone in; keep the names, or 'any: true' alone\n"},
    {KNOWN SERVER "to: 'h:1', allow: {any: false}}\n"
                  "- {name: t, type: server, address: '0.0.0.0:2', to: 'h:1', allow: {}}\n",
     "8:67: 'allow' lets nobody in, expected names, or 'any: true'\n"
     "9:67: allow is empty, expected at least one key; name whom to let in, or say 'any: true'\n"},
    {KNOWN SERVER "to: 'h:1', tls: {min: '1.2', resumption: on}}\n",
     "8:90: 'resumption: on' is for TLS 1.3, and 'min' allows 1.2; remove one of the two\n"},
    {KNOWN SERVER "to: 'h:1', protocol: http, tls: {min: '1.1', alpn: [h3, h2]}}\n",
     "8:87: 'min' is '1.1', no such value, expected 1.2 or 1.3; did you mean '1.2'?\n"
     "8:101: 'protocol: http' reads HTTP/1.1 and HTTP/2, not 'h3', expected http/1.1 or h2; say "
     "'protocol: tcp' to let other protocols through unread\n"},
};

static const struct bad_case bad_legs[] = {
    {KNOWN CLIENT "to: 'h:1'}\n",
     "8:3: missing key 'identities' of a leg that trusts SPIFFE bundles, expected the SPIFFE IDs "
     "that may answer at 'to'\n"},
    {KNOWN CLIENT "to: 'h:1', trust: mesh, verify: {dns: [h]}}\n",
     "8:3: missing key 'identities' of a leg that trusts SPIFFE bundles, expected the SPIFFE IDs "
     "that may answer at 'to'\n"
     "8:75: a leg that trusts SPIFFE bundles has no 'verify'; 'identities' says whom it must "
     "find\n"},
    {KNOWN CLIENT "to: 'h:1', trust: ca, " DIALS "}\n",
     "8:73: a leg that trusts ordinary CAs has no 'identities'; they vouch for names, not for "
     "SPIFFE IDs; 'verify' says which\n"},
    {KNOWN CLIENT "to: 'unix:/s', trust: ca}\n",
     "8:3: missing key 'verify' or 'server_name': a Unix socket has no name to demand, expected "
     "the server's name\n"},
    {KNOWN RELAY "upstream: {trust: ca, identities: ['spiffe://td/a'], allow: {any: true}}}\n",
     "8:87: a leg that trusts ordinary CAs has no 'identities'; they vouch for names, not for "
     "SPIFFE IDs; 'verify' says which\n"
     "8:118: unknown key 'allow', expected credentials, trust, tls, server_name, identities, "
     "verify, connect_proxy, transport or hbone_port\n"},
    {KNOWN RELAY "hbone_port: 1, upstream: {" DIALS ", hbone_port: 1}}\n",
     "8:65: a relay has no 'hbone_port'; say it under 'upstream'\n"
     "8:122: with 'transport: direct' no HBONE is spoken; remove 'hbone_port', or say 'transport: "
     "hbone' or 'transport: auto'\n"},
    {KNOWN RELAY "upstream: {" DIALS ", transport: disable}}\n",
     "8:118: a relay with 'transport: disable', expected direct, hbone or auto\n"},
    {KNOWN RELAY "protocol: http, sni: [{names: [a]}], upstream: {" DIALS ", transport: hbone, "
                 "connect_proxy: 'http://p:1', tls: {alpn: [x]}}}\n",
     "8:162: a listener that dials by HBONE has no 'connect_proxy'; many streams share one "
     "connection\n"
     "8:197: a leg that speaks HBONE has no 'alpn'; it speaks HTTP/2\n"
     "8:204: 'protocol: http' reads HTTP/1.1 and HTTP/2, not 'x', expected http/1.1 or h2; say "
     "'protocol: tcp' to let other protocols through unread\n"},
    {KNOWN RELAY "sni: [{names: [a], to: 'h:1'}, {names: [b], to: 'unix:/s'}, {names: [c], to: "
                 "'10.0.0.2:1'}, {names: [d], to: 'h:1', passthrough: true}], upstream: {" DIALS
                 ", transport: hbone}}\n",
     "8:88: a listener that dials by HBONE to a host in 'sni', expected an address, with port; "
     "HBONE says by address where a stream goes\n"
     "8:113: a listener that dials by HBONE to a Unix socket in 'sni', expected an address, with "
     "port; HBONE says by address where a stream goes\n"},
    {KNOWN "- {name: r, type: relay, address: '0.0.0.0:1', to: 'unix:/s', upstream: {" DIALS
           ", transport: auto}}\n",
     "8:52: a listener that dials by HBONE to a Unix socket, expected an address or a host, with "
     "port; HBONE says by address where a stream goes\n"},
    {KNOWN RELAY "upstream: {trust: ca, verify: {dns: [h]}, transport: hbone}}\n",
     "8:118: HBONE with a peer of an ordinary CA, expected direct; it shares connections by the "
     "SPIFFE IDs that answer\n"},
    {KNOWN CLIENT "to: 'h:1', trust: ca, server_name: 10.0.0.1, connect_proxy: 'https://p:1'}\n",
     "8:86: 'server_name' is '10.0.0.1', not a DNS name, expected a DNS name such as db.example\n"
     "8:111: 'connect_proxy' is no http:// URL, expected http://[USER:PASSWORD@]HOST:PORT; CONNECT "
     "is spoken to it in the clear\n"},
    {LONELY SERVER "to: 'h:1'}\n",
     "6:3: missing key 'credentials' in a file without 'identity', expected the names of "
     "credentials; or give the file an 'identity'\n"
     "6:3: missing key 'trust' in a file without 'identity', expected the name of a trust; or "
     "give the file an 'identity'\n"
     "6:3: missing key 'allow' in a file without 'policy': nobody could come in, expected a "
     "mapping; or give the file a 'policy'\n"},
    {LONELY CLIENT "to: 'h:1', verify: {dns: [h]}}\n",
     "6:3: missing key 'credentials' in a file without 'identity', expected the names of "
     "credentials, or none; or give the file an 'identity'\n"
     "6:3: missing key 'trust' in a file without 'identity', expected the name of a trust; or "
     "give the file an 'identity'\n"},
    {HEAD "state: {from: agent}\ncredentials: [{name: w, cert: c}]\ntrust: [{name: ca, ca: a}]\n"
          "listeners:\n" SERVER "to: 'h:1', credentials: [w], trust: ca}\n",
     "3:1: 'from: agent' in a file that has no agent; give the file an 'identity'\n"},
};

static const struct bad_case bad_sni[] = {
    {KNOWN SERVER "sni: [{names: [a.b]}, {names: ['*.b'], to: 'h:1', passthrough: true, "
                  "credentials: [web]}]}\n",
     "8:55: a route without 'to' of a listener without 'to', expected an address, a host or a "
     "Unix socket to connect to\n"
     "8:118: a route with 'passthrough: true' has no 'credentials'; TLS is not terminated here\n"},
    {KNOWN SERVER "to: 'h:1', sni: [{names: [a.b, A.B, '*.*.c', 'a*.b', '*']}, {names: [a.b], "
                  "credentials: [wep]}, {names: []}]}\n",
     "8:80: 'names' is 'A.B', with capitals, expected a DNS name such as db.example or "
     "*.db.example; case does not count in names: write it in lower case\n"
     "8:85: 'names' is '*.*.c', not a DNS name, expected a DNS name such as db.example or "
     "*.db.example\n"
     "8:94: 'names' is 'a*.b', not a DNS name, expected a DNS name such as db.example or "
     "*.db.example; '*' stands alone in front of the first dot\n"
     "8:102: 'names' is '*', not a DNS name, expected a DNS name such as db.example or "
     "*.db.example; '*' stands alone in front of the first dot\n"
     "8:118: server name 'a.b' twice; the first is at line 8, column 75\n"
     "8:138: no credential 'wep' in this file; did you mean 'web'?\n"
     "8:153: 'names' is an empty list, expected at least one element; name the servers that this "
     "route is for\n"},
};

/* --- running them ----------------------------------------------------------------------------- */
static void run_cases(const struct bad_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct conf_case c = {GATEWAY, cases[i].text, cases[i].said};
        conf_case_run(&c);
    }
}
#define BAD(cases)                                                                                 \
    static void test_##cases(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        run_cases((cases), sizeof(cases) / sizeof((cases)[0]));                                    \
    }
BAD(bad_credentials)
BAD(bad_trust)
BAD(bad_addresses)
BAD(bad_listeners)
BAD(bad_legs)
BAD(bad_sni)

/* --- good ones -------------------------------------------------------------------------------- */
static struct conf_proxy *load(const char *text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    (void)conf_parse_gateway("/etc/f.yaml", text, strlen(text), diag, &p);
    conf_case_no_errors(diag);
    assert_non_null(p);
    return p;
}

static void test_example(void **state)
{
    (void)state;
    mem_autofree char *path = mem_must_printf("%s/gateway.yaml", EXAMPLES_DIR);
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    assert_int_equal(conf_load_gateway(path, diag, &p), 0);
    conf_diag_free(diag);
    assert_true(p->gateway && !p->no_identity);
    assert_int_equal(p->n_credentials, 2);
    assert_int_equal(conf_find_credential(p, "old")->kind, CONF_CREDENTIAL_PKCS12);
    assert_null(conf_find_credential(p, "ol"));
    assert_int_equal(p->n_listeners, 5);
    const struct conf_listener *db = &p->listeners[0];
    assert_int_equal(db->type, CONF_LISTENER_SERVER);
    assert_int_equal(db->direction, CONF_INBOUND);
    assert_int_equal(db->capture, CONF_EXPLICIT);
    assert_string_equal(db->to.path, "/run/postgresql/.s.PGSQL.5432");
    assert_int_equal(db->limits.connections, 200);
    assert_true(conf_trusts_spiffe(p, &db->downstream));
    const struct conf_listener *web = &p->listeners[1];
    assert_false(conf_trusts_spiffe(p, &web->downstream));
    assert_int_equal(web->downstream.tls.min, CONF_TLS_1_2);
    assert_string_equal(web->downstream.allow.dns.items[0], "client.partner.example");
    assert_int_equal(web->n_sni, 1);
    assert_string_equal(web->sni[0].names.items[1], "*.old.example.org");
    const struct conf_listener *out = &p->listeners[2];
    assert_int_equal(out->type, CONF_LISTENER_CLIENT);
    assert_int_equal(out->direction, CONF_OUTBOUND);
    assert_int_equal(out->bind.kind, CONF_BIND_UNIX);
    assert_int_equal(out->socket.mode, 0660);
    assert_string_equal(out->upstream.identities.items[0], "spiffe://example.org/batch");
    assert_int_equal(out->downstream.identities.n, 0);
    const struct conf_listener *partner = &p->listeners[3];
    assert_int_equal(partner->to.kind, CONF_TARGET_HOST);
    assert_int_equal(partner->to.port, 443);
    assert_string_equal(partner->upstream.server_name, "api.partner.example");
    assert_string_equal(partner->upstream.verify.dns.items[0], "api.partner.example");
    assert_string_equal(partner->upstream.credentials.items[0], "web");
    const struct conf_listener *border = &p->listeners[4];
    assert_int_equal(border->type, CONF_LISTENER_RELAY);
    assert_int_equal(border->direction, CONF_INBOUND);
    assert_null(border->downstream.trust);
    assert_string_equal(border->upstream.trust, "mesh2");
    conf_proxy_free(p);
}

static void test_defaults(void **state)
{
    (void)state;
    struct conf_proxy *p = load(
        LONELY SERVER
        "to: 'H.X:80', credentials: [web], trust: ca, allow: {any: true}}\n"
        "- {name: c, type: client, address: 'unix:///c', to: '[fd00::1]:5', credentials: none, "
        "trust: ca}\n"
        "- {name: d, type: client, address: '[::1]:5', to: '[fd00::1]:5', server_name: A.b, "
        "credentials: [web], trust: ca}\n"
        "- {name: p, type: server, address: 'systemd:x', sni: [{names: [a.b], to: 'h:1', "
        "passthrough: true}]}\n");
    assert_true(p->no_identity);
    assert_null(p->policy_path);
    const struct conf_listener *s = &p->listeners[0];
    assert_string_equal(s->to.host, "h.x");
    assert_int_equal(s->protocol, CONF_PROTOCOL_TCP);
    assert_int_equal(s->client_certificate, CONF_CLIENT_CERTIFICATE_REQUIRED);
    assert_int_equal(s->proxy_protocol, CONF_PROXY_PROTOCOL_NONE);
    assert_int_equal(s->downstream.tls.min, CONF_TLS_1_3);
    assert_true(s->downstream.allow.any);
    assert_int_equal(s->limits.connections, 0);
    const struct conf_listener *c = &p->listeners[1];
    assert_string_equal(c->bind.path, "/c");
    assert_int_equal(c->socket.mode, 0600);
    assert_true(c->upstream.no_credentials);
    assert_null(c->upstream.server_name);
    assert_int_equal(c->upstream.verify.dns.n, 1);
    assert_string_equal(c->upstream.verify.dns.items[0], "fd00::1");
    assert_int_equal(c->upstream.tls.min, CONF_TLS_1_3);
    const struct conf_listener *d = &p->listeners[2];
    assert_string_equal(d->upstream.server_name, "a.b");
    assert_string_equal(d->upstream.verify.dns.items[0], "a.b");
    const struct conf_listener *q = &p->listeners[3];
    assert_int_equal(q->bind.kind, CONF_BIND_SYSTEMD);
    assert_string_equal(q->bind.activation, "x");
    assert_int_equal(q->to.kind, CONF_TARGET_NONE);
    conf_proxy_free(p);
}

/* A gateway's file is no proxy's, and the other way round. */
static void test_kinds_apart(void **state)
{
    (void)state;
    static const char text[] = LONELY SERVER "to: 'h:1', credentials: [web], trust: ca, allow: "
                                             "{any: true}}\n";
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    assert_int_equal(conf_parse_proxy("/etc/f.yaml", text, strlen(text), diag, &p), -1);
    assert_non_null(strstr(conf_diag_get(diag, 0)->what, "a file of kind Gateway"));
    conf_diag_free(diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_credentials), cmocka_unit_test(test_bad_trust),
        cmocka_unit_test(test_bad_addresses),   cmocka_unit_test(test_bad_listeners),
        cmocka_unit_test(test_bad_legs),        cmocka_unit_test(test_bad_sni),
        cmocka_unit_test(test_example),         cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_kinds_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
