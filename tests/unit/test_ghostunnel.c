/* ghostunnel's command lines: how words are taken, what is refused, flag by flag, and what is made
 * of the rest. */
#include <postern/conf.h>
#include <postern/ghostunnel.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define S "server --listen localhost:8443 --target localhost:8080 "
#define P "--cert c.pem --key k.pem --cacert ca.pem "
#define SP S P "--allow-all "
#define C "client --listen localhost:8080 --target db.example:8443 "
#define CP C P
#define CW C "--use-workload-api-addr unix:///run/a.sock "

struct heard {
    struct buf refusals, notes, out;
    char why[4096], said[4096], text[8192];
};

static void on_tell(void *arg, bool refused, const char *text)
{
    struct heard *h = arg;
    assert_true(buf_printf(refused ? &h->refusals : &h->notes, "%s\n", text));
}

static enum ghostunnel_store look(void *arg, const char *path)
{
    (void)arg;
    return strcmp(path, "store") == 0  ? ghostunnel_store_of(STR_LIT("-----BEGIN"))
           : strcmp(path, "p12") == 0  ? ghostunnel_store_of(STR_LIT("0\x82\x09\x01"))
           : strcmp(path, "java") == 0 ? ghostunnel_store_of(STR_LIT("\xfe\xed\xfe\xed"))
                                       : ghostunnel_store_of(STR_NONE);
}

static const struct ghostunnel_options plain = {.directory = "/base", .look = look};
static const struct ghostunnel_options with = {.directory = "/base",
                                               .passphrase_file = "pass",
                                               .pin_file = "/pin",
                                               .token_key = "tls",
                                               .server_id = "spiffe://a.b/db",
                                               .metrics = "127.0.0.1:9100",
                                               .look = look};

/* The configuration of it, or NULL and why. */
static struct conf_proxy *convert(struct str text, const struct ghostunnel_options *o,
                                  struct heard *h)
{
    struct err err = ERR_INIT;
    char line[1200];
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    *h = (struct heard){.refusals = BUF_INIT(1 << 20),
                        .notes = BUF_INIT(1 << 20),
                        .out = BUF_INIT(GHOSTUNNEL_OUT_MAX)};
    int rc = ghostunnel_convert(text, o, on_tell, h, &h->out, &err);
    (void)snprintf(h->why, sizeof(h->why), "%.*s%s", STR_ARG(buf_str(&h->refusals)),
                   rc == -1 ? err_text(&err, line, sizeof(line)) : "");
    (void)snprintf(h->said, sizeof(h->said), "%.*s", STR_ARG(buf_str(&h->notes)));
    (void)snprintf(h->text, sizeof(h->text), "%.*s", STR_ARG(buf_str(&h->out)));
    if (rc == 0) {
        assert_int_equal(conf_parse_gateway("/f", h->text, strlen(h->text), diag, &conf), 0);
    } else {
        assert_int_equal(buf_len(&h->out), 0);
    }
    conf_diag_free(diag);
    buf_reset(&h->refusals);
    buf_reset(&h->notes);
    buf_reset(&h->out);
    return conf;
}

static const struct {
    const char *text, *says;
} refused[] = {
    /* words */
    {"", "neither 'server' nor 'client'"},
    {"ghostunnel", "neither 'server' nor 'client'"},
    {"service install", "neither 'server' nor 'client'"},
    {SP "'", "a quote that does not end"},
    {SP "\\", "a backslash at the end"},
    {SP "$HOME", "a shell would fill in"},
    {SP "\"$HOME\"", "a shell would fill in"},
    {SP "`id`", "a shell would fill in"},
    {SP "~/x", "a shell would fill in"},
    {SP "; rm x", "more than one plain command"},
    {SP "> log", "more than one plain command"},
    {SP "# why", "more than one plain command"},
    {SP "extra", "'extra' is neither a flag"},
    {SP "-v", "'-v' is neither a flag"},
    {SP "--", "'--' is neither a flag"},
    {SP "@args", "arguments in a file"},
    /* flags as such */
    {SP "--listne x", "--listne is no flag of ghostunnel 1.11"},
    {SP "--verify-cn x", "--verify-cn is no flag of ghostunnel 1.11 in server mode"},
    {CP "--allow-cn x", "--allow-cn is no flag of ghostunnel 1.11 in client mode"},
    {SP "--listen localhost:1", "--listen stands twice"},
    {SP "--skip-resolve --skip-resolve", "--skip-resolve stands twice"},
    {SP "--status", "--status has no value"},
    {SP "--status --syslog", "--status has no value"},
    {SP "--syslog=true", "--syslog takes no value"},
    {"server --listen localhost:1 --allow-all " P, "both to be there"},
    {SP "--quiet=\x01", "control characters"},
    {SP "--allow-uri spiffe://\xc3\xa4", "not ASCII"},
    /* without a counterpart, each by its name */
    {SP "--auto-acme-cert a.b", "--auto-acme-cert: certificates are not fetched by ACME"},
    {SP "--auto-acme-agree-to-tos", "--auto-acme-agree-to-tos: "},
    {S P "--allow-policy p --allow-query q", "--allow-policy: policies in Rego"},
    {CP "--verify-query q", "--verify-query: policies in Rego"},
    {SP "--metrics-graphite a:1", "--metrics-graphite: metrics are not sent"},
    {SP "--metrics-url http://a", "--metrics-url: metrics are not sent"},
    {SP "--enable-pprof --status localhost:1", "--enable-pprof: "},
    {SP "--enable-shutdown --status localhost:1", "--enable-shutdown: nobody ends"},
    {SP "--keychain-identity x", "--keychain-identity: keychains"},
    {SP "--eventlog", "--eventlog: "},
    {SP "--allow-unsafe-cipher-suites", "--allow-unsafe-cipher-suites: "},
    {SP "--cipher-suites AES", "--cipher-suites: "},
    {SP "--max-tls-version TLS1.2", "--max-tls-version: TLS 1.3 is always offered"},
    {SP "--max-tls-version TLS1.1", "is none of"},
    {SP "--max-conn-lifetime 9000h", "--max-conn-lifetime: "},
    /* addresses */
    {"server --listen launchd:x --target localhost:1 --allow-all " P, "launchd"},
    {"server --listen a.b:1 --target localhost:1 --allow-all " P, "'a.b' is a name"},
    {"server --listen localhost:https --target localhost:1 --allow-all " P, "no HOST:PORT"},
    {"server --listen ::1:5 --target localhost:1 --allow-all " P, "no HOST:PORT"},
    {"server --listen localhost:0 --target localhost:1 --allow-all " P, "no HOST:PORT"},
    {"server --listen localhost:1 --target 10.0.0.1:1 --allow-all " P, "without --unsafe-target"},
    {"server --listen localhost:1 --target systemd:x --allow-all --unsafe-target " P,
     "no HOST:PORT"},
    {"client --listen :1 --target a.b:1 " P, "without --unsafe-listen"},
    {"client --listen localhost:1 --target unix:/a " P, "no HOST:PORT"},
    {"client --listen localhost:1 --target :1 " P, "no HOST:PORT"},
    {"client --listen localhost:1 --target a_.-b:1 " P, "what was made of it is not taken"},
    /* who is who */
    {S P, "none of --allow-all"},
    {SP "--allow-cn x", "more than one of --allow-all"},
    {SP "--disable-authentication", "more than one of --allow-all"},
    {S "--allow-all", "none of --keystore"},
    {SP "--keystore a.pem", "more than one of --keystore"},
    {CP "--disable-authentication", "more than one of --keystore"},
    {S "--allow-all --cert c.pem", "--cert and --key stand together"},
    {S "--allow-all --keystore a.jks", "keystores of Java"},
    {S "--allow-all --keystore java", "keystores of Java"},
    {S "--allow-all --keystore other", "neither its name nor its beginning"},
    {S "--allow-all --keystore a.p12 --storepass secret", "--storepass: secrets do not stand"},
    {"KEYSTORE_PASS=secret ghostunnel " S "--allow-all --keystore a.p12", "--storepass: secrets"},
    {S "--allow-all --cert c.pem --pkcs11-module /m.so", "--token-key LABEL"},
    {S P "--allow-uri spiffe://a/b*", "no whole segment"},
    {S P "--allow-uri spiffe://**/b", "no whole segment"},
    {S P "--allow-ip a.b", "'a.b' is no IP address"},
    {S P "--allow-dns 1.2.3.4", "'1.2.3.4' is an IP address"},
    {S P "--allow-dns 'a b'", "--allow-dns: 'a b'"},
    {S P "--allow-cn ''", "--allow-cn: ''"},
    {CW, "any identity may answer"},
    {CW "--verify-cn x", "known by their SPIFFE IDs"},
    {CW "--verify-uri spiffe://a.b/*", "but a pattern"},
    {CW "--verify-uri http://x", "no server of the Workload API's"},
    {C "--use-workload-api-addr tcp://1.2.3.4:5 --verify-uri spiffe://a.b/c", "is not taken"},
    /* the rest */
    {SP "--proxy-protocol --proxy-protocol-mode tls", "--proxy-protocol and"},
    {SP "--proxy-protocol-mode v1", "none of conn, tls, tls-full"},
    {SP "--target-status https://a/b", "does not begin with http://"},
    {SP "--target-status http://a@b/", "is not http://NAME"},
    {CP "--proxy socks5://a:1", "only proxies with HTTP CONNECT"},
    {CP "--proxy http://", "is not taken"},
    {SP "--status 0.0.0.0:1", "--status: health is told in the clear only"},
    {SP "--status systemd:x", "is no [http://]ADDRESS:PORT"},
    {SP "--connect-timeout 0s", "--connect-timeout: not between"},
    {SP "--connect-timeout 5", "--connect-timeout: '5' is no duration"},
    {SP "--connect-timeout 5x", "no duration"},
    {SP "--shutdown-timeout 25h", "--shutdown-timeout: more than 24h"},
    {SP "--shutdown-timeout 99999999999999999999h", "no duration"},
    {SP "--max-concurrent-conns -1", "--max-concurrent-conns has no value"},
    {SP "--max-concurrent-conns 1000001", "more than 1000000"},
    {SP "--quiet nothing", "is none of all, conns"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct heard h;
        struct conf_proxy *conf = convert(str_of(refused[i].text), &plain, &h);
        if (conf != NULL || strstr(h.why, refused[i].says) == NULL) {
            fail_msg("%s\nwanted: %s\nsaid: %s", refused[i].text, refused[i].says, h.why);
        }
        assert_null(strstr(h.why, "secret "));
        assert_null(strstr(h.why, "=secret"));
    }
    struct heard h;
    assert_null(convert((struct str){SP "\0x", sizeof(SP) + 1}, &plain, &h));
}

static const struct {
    const char *text;
    bool all; /* with all of our own options */
    const char *has, *note;
} taken[] = {
    {SP, false, "    allow:\n      any: true\n", ""},
    {SP, false, "  connect: 10000ms\n  handshake: 10000ms\n  drain: 300000ms\n", ""},
    {SP, false, "address: '127.0.0.1:8443'\n    to: '127.0.0.1:8080'\n", "localhost is 127.0.0.1"},
    {SP, false, "    cert: '/base/c.pem'\n    key: '/base/k.pem'\n", ""},
    {SP, false, "    ca: '/base/ca.pem'\n", ""},
    {"/usr/bin/ghostunnel " SP, false, "type: server", ""},
    {"--connect-timeout 1m30.5s --skip-resolve " SP, false, "connect: 90500ms", "--skip-resolve"},
    {"CERT_PATH=x.pem CACERT_PATH=/y.pem KEYSTORE_PATH= HOME=/h ghostunnel server "
     "--listen='localhost':\"1\" --target=unix:app.s\\ock --key=k --allow-ip=1.2.3.4 "
     "--allow-dns-san=a.b \\\n --no-skip-resolve",
     false, "cert: '/base/x.pem'", "HOME is nothing"},
    {"server --listen unix:/l --target unix:a.sock --allow-cn \"it's\" --allow-cn b --allow-ou c d",
     false, NULL, NULL},
    {"server --listen unix:/l --target unix:a.sock --allow-cn \"it's\" --allow-cn b "
     "--allow-uri spiffe://a.b/*/c/** --allow-uri spiffe://x/ --allow-dns a.b --allow-ip ::1 " P,
     false,
     "      cn: ['it''s', 'b']\n      uri: ['spiffe://a.b/*/c/**', 'spiffe://x']\n"
     "      dns: ['a.b', '::1']\n",
     "'socket' says who else may"},
    {"server --listen systemd:web --target unix:a.sock --allow-all " P, false,
     "address: 'systemd:web'\n    to: 'unix:/base/a.sock'\n", ""},
    {"server --listen :8443 --target db.example:80 --unsafe-target --allow-all " P, false,
     "address: '[::]:8443'\n    to: 'db.example:80'\n", ""},
    {S "--disable-authentication --cert c --key k", false,
     "    client_certificate: none\n    allow:\n      any: true\n", ""},
    {S "--allow-all --cert c --key k", false, "ca: '/etc/ssl/certs/ca-certificates.crt'",
     "the system's authorities"},
    {"SSL_CERT_FILE=/x.pem " S "--allow-all --cert c --key k", false, "ca: '/x.pem'", "/x.pem"},
    {S "--allow-all --keystore store", false, "    cert: '/base/store'\n", ""},
    {S "--allow-all --keystore p12", false, "    pkcs12: '/base/p12'\n", ""},
    {S "--allow-all --keystore A.PFX --storepass secret", true,
     "    pkcs12: '/base/A.PFX'\n    passphrase_file: '/base/pass'\n", ""},
    {S "--allow-all --cert c --pkcs11-module /m.so --pkcs11-token-label t --pkcs11-pin 1", true,
     "    pkcs11:\n      module: '/m.so'\n      token: 't'\n      key: 'tls'\n"
     "      pin_file: '/pin'\n",
     "token_paths"},
    {S "--use-workload-api --allow-uri spiffe://a.b/*", false, "identity:\n  wait: 30s\n",
     "SPIFFE_ENDPOINT_SOCKET"},
    {"SPIFFE_ENDPOINT_SOCKET=unix:///a " S "--allow-all", false, "socket: 'unix:///a'", ""},
    {SP "--proxy-protocol", false, "proxy_protocol: v2\n", ""},
    {SP "--proxy-protocol-mode conn", false, "proxy_protocol: v2\n", ""},
    {SP "--proxy-protocol-mode tls-full", false, "proxy_protocol: v2-tls-full\n", ""},
    {SP "--target-status http://app:80/up?a=1", false,
     "      kind: http\n      path: '/up?a=1'\n      host: 'app'\n", ""},
    {SP "--target-status http://127.0.0.1:80", false, "      path: '/'\n", "Host field"},
    {SP "--max-concurrent-conns 20000", false, "    limits:\n      connections: 20000\n", ""},
    {SP "--max-concurrent-conns 20000", false, "\nlimits:\n  connections: 20000\n", ""},
    {SP "--max-conn-lifetime 1h30m", false, "lifetime: 5400s", ""},
    {SP "--max-concurrent-conns 0 --max-conn-lifetime 0s", false, "type: server", ""},
    {SP "--status localhost:6060", false,
     "targets:\n  check: tcp\nhealth:\n  address: "
     "'127.0.0.1:6060'\n",
     "GET /readyz"},
    {SP "--status http://0.0.0.0:6060", true, "metrics:\n  address: '127.0.0.1:9100'\n", ""},
    {SP "--status unix:s.sock", false, "admin:\n  socket: '/base/s.sock'\n", "postern status"},
    {SP "--quiet=conns", false, "log:\n  access: denied\n", ""},
    {SP "--quiet=all --syslog", false, "  level: error\n", "--syslog"},
    {SP "--quiet=conn-errs --quiet=handshake-errs", false, "kind", "--quiet=handshake-errs"},
    {SP "--timed-reload 5m", false, "kind", "--timed-reload: files are watched"},
    {SP "--close-timeout 0s", false, "kind", "--close-timeout"},
    {SP "--metrics-prefix x", false, "kind", "--metrics-prefix"},
    {SP "--disable-landlock --use-landlock", false, "kind", "always confines itself"},
    {SP "--cipher-suites AES,CHACHA --max-tls-version tls1.3", false, "      min: '1.2'\n", ""},
    {CP, false, "    server_name: 'db.example'\n    verify:\n      host: 'db.example'\n", ""},
    {CP "--override-server-name a.b", false,
     "    server_name: 'a.b'\n    verify:\n      host: 'a.b'\n", ""},
    {"client --listen 0.0.0.0:1 --unsafe-listen --target [::1]:5 " P, false,
     "    allow_remote_clients: true\n    to: '[::1]:5'\n", ""},
    {"client --listen localhost:1 --target 1.2.3.4:5 " P, false,
     "    verify:\n      host: '1.2.3.4'\n", ""},
    {CP "--verify-cn x --verify-ou y --verify-dns z --verify-ip ::1 --verify-uri a://b/**", false,
     "      host: 'db.example'\n      cn: ['x']\n      ou: ['y']\n      uri: ['a://b/**']\n"
     "      dns: ['z', '::1']\n",
     ""},
    {C "--disable-authentication --cacert ca.pem", false,
     "    credentials: none\n    trust: peers\n", ""},
    {CP "--proxy http://u:p@proxy:3128/", false, "    connect_proxy: 'http://u:p@proxy:3128'\n",
     ""},
    {CW "--verify-uri spiffe://a.b/c --verify-uri spiffe://a.b/d", false,
     "    identities: ['spiffe://a.b/c', 'spiffe://a.b/d']\n", ""},
    {CW "--verify-uri spiffe://a.b/*", true, "    identities: ['spiffe://a.b/db']\n", ""},
    {CW "--disable-authentication", true, "    credentials: none\n", ""},
};

static void test_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        struct heard h;
        struct conf_proxy *conf = convert(str_of(taken[i].text), taken[i].all ? &with : &plain, &h);
        if (taken[i].has == NULL) {
            assert_null(conf); /* a value too many */
            continue;
        }
        if (conf == NULL || strstr(h.text, taken[i].has) == NULL ||
            strstr(h.said, taken[i].note) == NULL) {
            fail_msg("%s\nwanted: %s\n%s\nmade: %s\nsaid: %s\nwhy: %s", taken[i].text, taken[i].has,
                     taken[i].note, h.text, h.said, h.why);
        }
        assert_null(strstr(h.text, "secret"));
        conf_proxy_free(conf);
    }
}

/* What the gateway makes of it, and not only what is written. */
static void test_meaning(void **state)
{
    struct heard h;
    (void)state;
    struct conf_proxy *conf = convert(str_of(CP "--verify-cn x"), &plain, &h);
    assert_non_null(conf);
    const struct conf_listener *l = &conf->listeners[0];
    assert_int_equal(l->type, CONF_LISTENER_CLIENT);
    assert_string_equal(l->upstream.verify.host, "db.example");
    assert_string_equal(l->upstream.verify.cn.items[0], "x");
    assert_int_equal(l->upstream.verify.dns.n, 0);
    assert_string_equal(l->to.host, "db.example");
    assert_int_equal(l->upstream.tls.min, CONF_TLS_1_2);
    conf_proxy_free(conf);

    conf = convert(str_of(S "--disable-authentication --cert c --key k"), &plain, &h);
    assert_non_null(conf);
    assert_int_equal(conf->listeners[0].client_certificate, CONF_CLIENT_CERTIFICATE_NONE);
    assert_int_equal(conf->n_trust, 0);
    conf_proxy_free(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
