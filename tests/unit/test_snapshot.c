/* snapshot: the agent's word and a file's beside it; what is wrong is not taken; who is
 * quarantined. */
#include <postern/state_client.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants these first */
#include <cmocka.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLICY(rules) "{\"kind\": \"Policy\", \"level\": 1, \"rules\": [" rules "]}"
#define MESH(rest) "{\"kind\": \"Mesh\", \"level\": 1" rest "}"
#define ALLOW_A                                                                                    \
    "{\"name\": \"a\", \"action\": \"ALLOW\", \"from\": [{\"principals\": [\"spiffe://t/a\"]}]}"
#define ALLOW_ALL "{\"name\": \"all\", \"action\": \"ALLOW\"}"
#define SERVICE(name, address, ids)                                                                \
    "{\"name\": \"" name "\", \"addresses\": [\"" address "\"], \"identities\": [" ids "]}"
#define VIA(transport, name, address, ids)                                                         \
    "{\"name\": \"" name "\", \"addresses\": [\"" address "\"], \"identities\": [" ids             \
    "], \"transport\": \"" transport "\"}"
#define PLAIN(name, address)                                                                       \
    "{\"name\": \"" name "\", \"addresses\": [\"" address "\"], \"transport\": \"disable\"}"

static struct snapshot_text text_of(const char *text)
{
    return (struct snapshot_text){.source = text != NULL ? "/told" : NULL, .text = str_of(text)};
}

static struct snapshot_state *told(const char *policy, const char *mesh, const char *modes,
                                   const struct deny_item *deny, size_t n_deny)
{
    const struct snapshot_told t = {.generation = 1,
                                    .policy = text_of(policy),
                                    .mesh = text_of(mesh),
                                    .modes = text_of(modes),
                                    .deny = deny,
                                    .n_deny = n_deny};
    struct conf_diag *diag = conf_diag_new();
    struct snapshot_state *s = NULL;
    struct err err = ERR_INIT;
    int r = snapshot_state_new(&t, diag, &s, &err);
    assert_int_equal(r, s != NULL ? 0 : -1);
    conf_diag_free(diag);
    return s;
}

/* A proxy's files: `policy` and `mesh` are texts, NULL: it names none. */
static struct snapshot_files *files(bool from_agent, const char *policy, const char *mesh)
{
    char dir[] = "/tmp/test-snapshot-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const char *const names[] = {"policy", "mesh"};
    const char *const texts[] = {policy, mesh};
    struct buf conf = BUF_INIT(4096);
    assert_true(buf_printf(&conf,
                           "{kind: Proxy, level: 1, state: {from: %s}, listeners: [{name: l, "
                           "direction: inbound, capture: intercepted, address: '0.0.0.0:1'}]",
                           from_agent ? "agent" : "files"));
    for (size_t i = 0; i < 2; i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, names[i]);
        if (texts[i] != NULL) {
            FILE *f = fopen(path, "we");
            assert_non_null(f);
            assert_true(fputs(texts[i], f) >= 0);
            assert_int_equal(fclose(f), 0);
            assert_true(buf_printf(&conf, ", %s: %s", names[i], path));
        }
    }
    assert_true(buf_printf(&conf, "}"));
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *parsed = NULL;
    struct snapshot_files *f = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(conf_parse_proxy("/p.yaml", buf_str(&conf).p, buf_len(&conf), diag, &parsed),
                     0);
    assert_int_equal(snapshot_files_new(parsed, 1, diag, &f, &err), 0);
    conf_diag_free(diag);
    buf_reset(&conf);
    for (size_t i = 0; i < 2; i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
    return f;
}

/* Takes both over. */
static struct snapshot *whole(struct snapshot_files *f, struct snapshot_state *state)
{
    struct snapshot *s =
        snapshot_new(1, &(const struct snapshot_parts){.files = f, .state = state});
    snapshot_files_unref(f);
    snapshot_state_unref(state);
    return s;
}

static bool allows(const struct snapshot *s, const char *peer)
{
    const struct policy_query q = {
        .target = STR_LIT("spiffe://t/x"), .peer = str_of(peer), .port = 1};
    struct policy_verdict v;
    const struct policy *by = NULL;
    snapshot_decide(s, &q, &v, &by);
    char near[200];
    policy_near_miss(by, &q, near, sizeof(near)); /* whichever it is, it can be asked */
    return v.allow;
}

/* --- policy ------------------------------------------------------------------------------------
 */
static void test_policy(void **state)
{
    static const struct {
        bool from_agent, has_state;
        const char *told, *file;
        bool a, b; /* allowed? */
    } cases[] = {
        /* no state: nothing, whatever the file says */
        {true, false, NULL, NULL, false, false},
        {true, false, NULL, POLICY(ALLOW_ALL), false, false},
        /* the agent is silent: the file is all there is */
        {true, true, NULL, NULL, false, false},
        {true, true, NULL, POLICY(ALLOW_A), true, false},
        /* both have to allow */
        {true, true, POLICY(), POLICY(ALLOW_ALL), false, false},
        {true, true, POLICY(ALLOW_A), POLICY(ALLOW_ALL), true, false},
        {true, true, POLICY(ALLOW_ALL), POLICY(ALLOW_A), true, false},
        {true, true, POLICY(ALLOW_ALL), POLICY(), false, false},
        {true, true, POLICY(ALLOW_A), NULL, true, false},
        /* a proxy that is not to ask: what the agent tells does not count */
        {false, true, POLICY(ALLOW_ALL), NULL, false, false},
        {false, true, POLICY(), POLICY(ALLOW_A), true, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct snapshot *s =
            whole(files(cases[i].from_agent, cases[i].file, NULL),
                  cases[i].has_state ? told(cases[i].told, NULL, NULL, NULL, 0) : NULL);
        if (allows(s, "spiffe://t/a") != cases[i].a || allows(s, "spiffe://t/b") != cases[i].b) {
            fail_msg("case %zu", i);
        }
        snapshot_unref(s);
    }
}

/* --- routes ------------------------------------------------------------------------------------
 */
#define A "\"spiffe://t/a\""
#define B "\"spiffe://t/b\""

/* "-": refused; "=": passed through as it is; else the service's name, with '!' for plaintext and
 * the number of identities. */
static void route_text(const struct snapshot *s, char ret[64])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(1)};
    struct net_addr to;
    const struct route_pass *pass = NULL;
    inet_pton(AF_INET, "10.0.0.1", &in.sin_addr);
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &to));
    const struct route *r = snapshot_route(s, &to, NULL, &pass);
    if (r == NULL) {
        snprintf(ret, 64, "%s", pass != NULL ? "=" : "-");
    } else {
        snprintf(ret, 64, "%s%s%zu", r->service, r->transport == CONF_TRANSPORT_DISABLE ? "!" : ":",
                 r->n_identities);
    }
}

static void test_routes(void **state)
{
#define PASS ", \"unlisted\": \"passthrough\""
#define LIST(x) ", \"services\": [" x "]"
#define ONLY(address)                                                                              \
    ", \"unlisted\": \"list\", \"allow_unlisted\": [{\"name\": \"o\", \"addresses\": [\"" address  \
    "\"]}]"
#define NEVER "{\"kind\": \"Modes\", \"level\": 1, \"plaintext\": \"never\"}"
    static const struct {
        const char *told, *file, *modes, *want;
    } cases[] = {
        /* the agent alone */
        {MESH(LIST(SERVICE("t", "10.0.0.1", A ", " B))), NULL, NULL, "t:2"},
        {MESH(LIST(SERVICE("t", "10.0.0.2", A))), NULL, NULL, "-"},
        {MESH(PASS), NULL, NULL, "="},
        {MESH(LIST(PLAIN("t", "10.0.0.1"))), NULL, NULL, "t!0"},
        /* the file alone, where the agent is silent */
        {NULL, MESH(LIST(SERVICE("f", "10.0.0.1", A))), NULL, "f:1"},
        {NULL, NULL, NULL, "-"},
        {NULL, MESH(PASS), NULL, "="},
        /* both: the file takes away */
        {MESH(LIST(SERVICE("t", "10.0.0.1", A ", " B))), MESH(LIST(SERVICE("f", "10.0.0.1", A))),
         NULL, "f:1"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(PASS), NULL, "t:1"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(), NULL, "-"},
        {MESH(PASS), MESH(), NULL, "-"},
        {MESH(PASS), MESH(PASS), NULL, "="},
        /* and never gives */
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(LIST(SERVICE("f", "10.0.0.1", A ", " B))),
         NULL, "-"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(LIST(SERVICE("f", "10.0.0.1", B))), NULL,
         "-"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(LIST(PLAIN("f", "10.0.0.1"))), NULL, "-"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(PASS LIST(PLAIN("f", "10.0.0.1"))), NULL,
         "-"},
        {MESH(), MESH(PASS), NULL, "-"},
        {MESH(), MESH(LIST(SERVICE("f", "10.0.0.1", A))), NULL, "-"},
        {MESH(PASS), MESH(LIST(PLAIN("f", "10.0.0.1"))), NULL, "-"},
        /* which form of mTLS is the file's to say, as long as it is one */
        {MESH(LIST(SERVICE("t", "10.0.0.1", A ", " B))),
         MESH(LIST(VIA("hbone", "f", "10.0.0.1", A))), NULL, "f:1"},
        {MESH(LIST(VIA("auto", "t", "10.0.0.1", A))), MESH(LIST(SERVICE("f", "10.0.0.1", A))), NULL,
         "f:1"},
        {MESH(LIST(VIA("auto", "t", "10.0.0.1", A))), MESH(LIST(SERVICE("f", "10.0.0.1", B))), NULL,
         "-"},
        {MESH(LIST(VIA("auto", "t", "10.0.0.1", A))), MESH(LIST(PLAIN("f", "10.0.0.1"))), NULL,
         "-"},
        {MESH(LIST(PLAIN("t", "10.0.0.1"))), MESH(LIST(VIA("hbone", "f", "10.0.0.1", A))), NULL,
         "-"},
        /* lists: both have to let it through */
        {MESH(ONLY("10.0.0.1")), NULL, NULL, "="},
        {MESH(ONLY("10.0.0.2")), NULL, NULL, "-"},
        {MESH(ONLY("10.0.0.1")), MESH(PASS), NULL, "="},
        {MESH(ONLY("10.0.0.1")), MESH(ONLY("10.0.0.0/24")), NULL, "="},
        {MESH(ONLY("10.0.0.0/24")), MESH(ONLY("10.0.0.2")), NULL, "-"},
        {MESH(ONLY("10.0.0.2")), MESH(PASS), NULL, "-"},
        {MESH(PASS), MESH(ONLY("10.0.0.1")), NULL, "="},
        {MESH(), MESH(ONLY("10.0.0.1")), NULL, "-"},
        {MESH(ONLY("10.0.0.1")), MESH(), NULL, "-"},
        /* a list is silent about what it names, and about nothing else */
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(ONLY("10.0.0.1")), NULL, "t:1"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), MESH(ONLY("10.0.0.2")), NULL, "-"},
        {MESH(ONLY("10.0.0.1")), NULL, NEVER, "-"},
        /* no plaintext, whatever a map says */
        {MESH(LIST(VIA("auto", "t", "10.0.0.1", A))), NULL, NEVER, "t:1"},
        {MESH(PASS), MESH(PASS), NEVER, "-"},
        {MESH(LIST(PLAIN("t", "10.0.0.1"))), NULL, NEVER, "-"},
        {NULL, MESH(PASS LIST(PLAIN("f", "10.0.0.1"))), NEVER, "-"},
        {MESH(LIST(SERVICE("t", "10.0.0.1", A))), NULL, NEVER, "t:1"},
    };
    char got[64];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct snapshot *s = whole(files(true, NULL, cases[i].file),
                                   told(NULL, cases[i].told, cases[i].modes, NULL, 0));
        route_text(s, got);
        if (strcmp(got, cases[i].want) != 0) {
            fail_msg("case %zu: %s, not %s", i, got, cases[i].want);
        }
        snapshot_unref(s);
    }
    struct snapshot *s = whole(files(true, NULL, MESH(PASS)), NULL);
    route_text(s, got);
    assert_string_equal(got, "-"); /* no state */
    snapshot_unref(s);
}

/* --- endpoints and limits ----------------------------------------------------------------------
 */
#define LED(name, rest)                                                                            \
    "{\"name\": \"" name "\", \"addresses\": [\"10.0.0.1\"], \"identities\": [" A "]" rest "}"
#define TO(list) ", \"endpoints\": [" list "]"
#define MOST(n) ", \"limits\": {\"connections\": " n "}"

/* The service that leads, with how many endpoints, and the limits that hold: "t2 t=5 f=3". */
static void sets_text(const struct snapshot *s, char ret[64])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(1)};
    const struct balance_set *sets[SNAPSHOT_SETS_MAX];
    const struct route_pass *pass = NULL;
    struct net_addr to;
    inet_pton(AF_INET, "10.0.0.1", &in.sin_addr);
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &to));
    const struct route *r = snapshot_route(s, &to, NULL, &pass);
    if (r == NULL) {
        snprintf(ret, 64, "-");
        return;
    }
    const struct balance_set *leads = snapshot_endpoints(s, r, &to);
    int n = snprintf(ret, 64, "%s%zu", leads != NULL ? leads->service->name : "=",
                     leads != NULL ? leads->n : 0);
    for (size_t i = 0; i < snapshot_sets(s, r, &to, sets); i++) {
        if (sets[i]->route->max_connections > 0) {
            n += snprintf(ret + n, 64 - (size_t)n, " %s=%u", sets[i]->service->name,
                          sets[i]->route->max_connections);
        }
    }
}

static void test_endpoints_narrow(void **state)
{
    static const struct {
        const char *told, *file, *want;
    } cases[] = {
        {LED("t", TO("\"10.1.0.1\", \"10.1.0.2\"")), NULL, "t2"},
        {LED("t", ""), NULL, "=0"},
        {LED("t", MOST("5")), NULL, "=0 t=5"},
        /* a file that names none has the agent's; of its own it has fewer */
        {LED("t", TO("\"10.1.0.1\", \"10.1.0.2\"")), LED("f", ""), "t2"},
        {LED("t", TO("\"10.1.0.1\", \"10.1.0.2\"")), LED("f", TO("\"10.1.0.2\"")), "f1"},
        {LED("t", TO("\"a.x\", \"10.1.0.2\"")), LED("f", TO("\"a.x\"")), "f0"},
        /* and no other */
        {LED("t", TO("\"10.1.0.1\"")), LED("f", TO("\"10.1.0.1\", \"10.1.0.3\"")), "-"},
        {LED("t", TO("\"10.1.0.1\"")), LED("f", TO("\"a.x\"")), "-"},
        {LED("t", TO("\"10.1.0.1\"") ", \"ports\": [{\"port\": 1}]"),
         LED("f", TO("\"10.1.0.1:2\"") ", \"ports\": [{\"port\": 1}]"), "-"},
        {LED("t", ""), LED("f", TO("\"10.0.0.1\"")), "-"},
        /* limits: both hold */
        {LED("t", MOST("5")), LED("f", MOST("9")), "=0 f=9 t=5"},
        {LED("t", MOST("5")), LED("f", ""), "=0 t=5"},
        {LED("t", ""), LED("f", MOST("9")), "=0 f=9"},
        {LED("t", TO("\"10.1.0.1\"") MOST("5")), LED("f", MOST("9")), "t1 t=5 f=9"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char told_text[400];
        char file_text[400];
        char got[64];
        struct balance *registry = balance_new();
        snprintf(told_text, sizeof(told_text), MESH(", \"services\": [%s]"), cases[i].told);
        snprintf(file_text, sizeof(file_text), MESH(", \"services\": [%s]"),
                 cases[i].file != NULL ? cases[i].file : "");
        struct snapshot_files *f = files(true, NULL, cases[i].file != NULL ? file_text : NULL);
        struct snapshot_state *t = told(NULL, told_text, NULL, NULL, 0);
        struct balance_state *b = snapshot_balance(registry, f, t, NULL, 1);
        struct snapshot *s =
            snapshot_new(1, &(const struct snapshot_parts){.files = f, .state = t, .balance = b});
        sets_text(s, got);
        if (strcmp(got, cases[i].want) != 0) {
            fail_msg("case %zu: %s, not %s", i, got, cases[i].want);
        }
        snapshot_unref(s);
        balance_state_unref(b);
        snapshot_files_unref(f);
        snapshot_state_unref(t);
        balance_free(registry);
    }
}

/* --- quarantine ---------------------------------------------------------------------------------
 */
static void test_quarantine(void **state)
{
    const struct deny_item deny[] = {{DENY_SPIFFE_ID, STR_LIT("spiffe://t/a")},
                                     {DENY_SERIAL, STR_LIT("0a")}};
    struct snapshot_files *f = files(true, NULL, NULL);
    struct snapshot_state *t = told(NULL, NULL, NULL, deny, 2);
    struct snapshot *s = snapshot_new(
        1, &(const struct snapshot_parts){.files = f, .state = t, .quarantined = true});
    (void)state;
    assert_true(s->own_quarantined);
    assert_true(snapshot_denies(s, STR_LIT("spiffe://t/a"), "ff"));
    assert_true(snapshot_denies(s, STR_LIT("spiffe://t/b"), "0a"));
    assert_false(snapshot_denies(s, STR_LIT("spiffe://t/b"), "ff"));
    snapshot_unref(s);
    snapshot_files_unref(f);
    snapshot_state_unref(t);
    /* Nobody asks an agent: nobody is quarantined. */
    s = whole(files(false, NULL, NULL), told(NULL, NULL, NULL, deny, 2));
    assert_false(s->own_quarantined || snapshot_denies(s, STR_LIT("spiffe://t/a"), "0a"));
    snapshot_unref(s);
}

static void test_same_content_same_digest(void **state)
{
    const struct deny_item one[] = {{DENY_SPIFFE_ID, STR_LIT("spiffe://t/a")}};
    const struct deny_item other[] = {{DENY_SERIAL, STR_LIT("spiffe://t/a")}};
    struct snapshot_state *s[] = {
        told(POLICY(ALLOW_A), NULL, NULL, one, 1),   told(POLICY(ALLOW_A), NULL, NULL, one, 1),
        told(POLICY(ALLOW_ALL), NULL, NULL, one, 1), told(POLICY(ALLOW_A), NULL, NULL, other, 1),
        told(POLICY(ALLOW_A), MESH(), NULL, one, 1), told(NULL, NULL, NULL, one, 1)};
    (void)state;
    assert_memory_equal(s[0]->digest, s[1]->digest, sizeof(s[0]->digest));
    for (size_t i = 2; i < 6; i++) {
        assert_memory_not_equal(s[0]->digest, s[i]->digest, sizeof(s[0]->digest));
    }
    for (size_t i = 0; i < 6; i++) {
        snapshot_state_unref(s[i]);
    }
}

/* --- messages -----------------------------------------------------------------------------------
 */
static int read_message(const Postern__V1__Snapshot *m, struct err *err, uint64_t *ret_generation)
{
    size_t n = postern__v1__snapshot__get_packed_size(m);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n + 1);
    struct snapshot_state *s = NULL;
    (void)postern__v1__snapshot__pack(m, packed);
    int r =
        state_message_read((struct str){(const char *)packed, n}, NULL, &s, ret_generation, err);
    assert_int_equal(r, s != NULL ? 0 : -1);
    snapshot_state_unref(s);
    return r;
}

static void test_messages_that_are_not_taken(void **state)
{
    char bad[] = "{\"kind\": \"Policy\", \"level\": 1, \"rules\": [\n{\"nam\": 1}]}";
    char newer[] = "{\"kind\": \"Policy\", \"level\": 99, \"rules\": []}";
    char good[] = POLICY(ALLOW_A);
    char source[] = "/etc/postern/policy.yaml";
    char *const texts[] = {bad, newer, good};
    struct err err = ERR_INIT;
    struct snapshot_state *s = NULL;
    uint64_t generation = 0;
    Postern__V1__Snapshot m;
    Postern__V1__Document d;

    (void)state;
    assert_int_equal(state_message_read(STR_LIT("\x0a\xff"), NULL, &s, &generation, &err), -1);
    postern__v1__snapshot__init(&m);
    assert_int_equal(read_message(&m, &err, &generation), -1); /* generation 0 */
    for (size_t i = 0; i < 3; i++) {
        postern__v1__document__init(&d);
        d.source = source;
        d.text = (ProtobufCBinaryData){strlen(texts[i]), (uint8_t *)texts[i]};
        m.generation = 7;
        m.policy = &d;
        assert_int_equal(read_message(&m, &err, &generation), i == 2 ? 0 : -1);
        assert_int_equal(generation, 7);
        if (i == 0) {
            assert_string_equal(err.where, "/etc/postern/policy.yaml:2:1");
        } else if (i == 1) {
            assert_non_null(strstr(err.what, "level 99"));
        }
    }
    d.text.len = 0; /* a document that is there and empty is none that is absent */
    assert_int_equal(read_message(&m, &err, &generation), -1);
}

/* Seen in review: a proxy that was older than the policy refused each snapshot whole, and so never
 * heard of a quarantine again. */
static void test_quarantine_in_a_refused_message(void **state)
{
    const struct deny_item before[] = {{DENY_SPIFFE_ID, STR_LIT("spiffe://t/b")}};
    char newer[] = "{\"kind\": \"Policy\", \"level\": 99, \"rules\": []}";
    char source[] = "/etc/postern/policy.yaml";
    char id[] = "spiffe://t/a";
    Postern__V1__Snapshot m;
    Postern__V1__Document d;
    Postern__V1__Denied denied;
    Postern__V1__Denied *list[] = {&denied};
    struct snapshot_state *old = told(POLICY(ALLOW_A), NULL, NULL, before, 1);
    struct snapshot_state *next[2] = {NULL, NULL};
    uint64_t generation = 0;
    struct err err = ERR_INIT;

    (void)state;
    postern__v1__snapshot__init(&m);
    postern__v1__document__init(&d);
    postern__v1__denied__init(&denied);
    d.source = source;
    d.text = (ProtobufCBinaryData){strlen(newer), (uint8_t *)newer};
    denied.kind = POSTERN__V1__DENIED__KIND__SPIFFE_ID;
    denied.text = id;
    m.generation = 7;
    m.deny_version = 9;
    m.policy = &d;
    m.deny = list;
    m.n_deny = 1;
    assert_int_equal(read_message(&m, &err, &generation), -1);
    size_t n = postern__v1__snapshot__get_packed_size(&m);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n);
    (void)postern__v1__snapshot__pack(&m, packed);
    /* The second one on top of the first. */
    for (size_t i = 0; i < 2; i++) {
        next[i] =
            state_message_read_deny((struct str){(const char *)packed, n}, i == 0 ? old : next[0]);
        assert_non_null(next[i]);
        assert_int_equal(next[i]->deny_version, 9);
        assert_int_equal(next[i]->generation, old->generation);
    }
    assert_memory_equal(next[0]->digest, next[1]->digest, sizeof(old->digest));
    assert_memory_not_equal(next[0]->digest, old->digest, sizeof(old->digest));
    snapshot_state_unref(old);
    snapshot_state_unref(next[0]);
    struct snapshot *s = whole(files(true, NULL, NULL), next[1]);
    assert_true(snapshot_denies(s, STR_LIT("spiffe://t/a"), ""));
    assert_false(snapshot_denies(s, STR_LIT("spiffe://t/b"), ""));
    assert_true(allows(s, "spiffe://t/a") && !allows(s, "spiffe://t/b"));
    snapshot_unref(s);
    old = told(NULL, NULL, NULL, NULL, 0);
    assert_null(state_message_read_deny(STR_LIT("\x0a\xff"), old));
    snapshot_state_unref(old);
}

/* The same documents are not made again, whatever the number they come under; other ones are. */
static void test_quarantine_over_documents_of_before(void **state)
{
    char text[] = POLICY(ALLOW_A);
    char source[] = "/etc/postern/policy.yaml";
    char id[] = "spiffe://t/a";
    Postern__V1__Snapshot m;
    Postern__V1__Document d;
    Postern__V1__Denied denied;
    Postern__V1__Denied *list[] = {&denied};
    struct snapshot_state *s[4] = {NULL};
    uint64_t generation = 0;
    struct err err = ERR_INIT;

    (void)state;
    postern__v1__snapshot__init(&m);
    postern__v1__document__init(&d);
    postern__v1__denied__init(&denied);
    d.source = source;
    d.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    denied.kind = POSTERN__V1__DENIED__KIND__SPIFFE_ID;
    denied.text = id;
    m.policy = &d;
    for (size_t i = 0; i < 4; i++) {
        m.generation = 7 + i;
        m.deny_version = 1 + i;
        m.deny = list;
        m.n_deny = i > 0 ? 1 : 0;
        d.source = source + (i == 3 ? 1 : 0);
        size_t n = postern__v1__snapshot__get_packed_size(&m);
        mem_autofree uint8_t *packed = mem_must_calloc(1, n);
        (void)postern__v1__snapshot__pack(&m, packed);
        assert_int_equal(state_message_read((struct str){(const char *)packed, n},
                                            i > 0 ? s[i - 1] : NULL, &s[i], &generation, &err),
                         0);
        assert_int_equal(s[i]->generation, 7 + i);
        assert_int_equal(s[i]->deny_version, 1 + i);
        assert_true(deny_set_has(s[i]->deny, STR_LIT("spiffe://t/a"), STR_NONE) == (i > 0));
    }
    assert_ptr_equal(s[0]->policy, s[1]->policy);
    assert_ptr_equal(s[0]->policy, s[2]->policy);
    assert_ptr_not_equal(s[0]->policy, s[3]->policy);
    assert_memory_not_equal(s[0]->digest, s[1]->digest, sizeof(s[0]->digest));
    assert_memory_equal(s[1]->digest, s[2]->digest, sizeof(s[0]->digest));
    for (size_t i = 0; i < 4; i++) {
        snapshot_state_unref(s[i]);
    }
}

/* --- another configuration -------------------------------------------------------------------- */
static struct snapshot_files *gateway(const char *address, const char *more)
{
    char text[600];
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *parsed = NULL;
    struct snapshot_files *f = NULL;
    struct err err = ERR_INIT;
    (void)snprintf(text, sizeof(text),
                   "{kind: Gateway, level: 1, identity: {socket: 'unix:/s'}, listeners: [{name: "
                   "out, type: client, address: '%s', to: 'h:1', identities: ['spiffe://a.b/c']"
                   "%s}]}",
                   address, more);
    assert_int_equal(conf_parse_gateway("/g.yaml", text, strlen(text), diag, &parsed), 0);
    assert_int_equal(snapshot_files_new(parsed, 1, diag, &f, &err), 0);
    conf_diag_free(diag);
    return f;
}

/* Whom the service manager's socket lets in is looked at once, when it is taken over. */
static void test_reach_taken_back(void **state)
{
    static const char any[] = ", allow_remote_clients: true";
    static const struct {
        const char *address, *now, *next;
        int rc;
    } cases[] = {
        {"systemd", any, "", -1}, {"systemd", any, any, 0},    {"systemd", "", any, 0},
        {"systemd", "", "", 0},   {"127.0.0.1:1", any, "", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct snapshot_files *now = gateway(cases[i].address, cases[i].now);
        struct snapshot_files *next = gateway(cases[i].address, cases[i].next);
        assert_int_equal(snapshot_files_compatible(now, next, &err), cases[i].rc);
        if (cases[i].rc == -1) {
            assert_string_equal(err.what, "listener out: `allow_remote_clients` cannot be taken "
                                          "back while running");
        }
        snapshot_files_unref(now);
        snapshot_files_unref(next);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_that_are_not_taken),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_endpoints_narrow),
        cmocka_unit_test(test_reach_taken_back),
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_same_content_same_digest),
        cmocka_unit_test(test_quarantine_in_a_refused_message),
        cmocka_unit_test(test_quarantine_over_documents_of_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
