/* policy_tools: comparing policies and looking for rules that are not needed, against the reference
 * evaluator at random: what is said of all questions is held against some. test_policy_space [SEED]
 */
#include <postern/policy_tools.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "space_priv.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t seed = 20261127; /* or the first argument */
static uint64_t rng_state;

static unsigned below(unsigned n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (unsigned)(rng_state >> 33) % n;
}

/* --- policies at random ------------------------------------------------------------------------
 */
/* Few and alike, so that they meet. */
static const char *const targets[] = {"spiffe://a.b/t", "spiffe://a.b/t/u", "spiffe://a.b/*", "*"};
static const char *const ids[] = {"spiffe://a.b/x",
                                  "spiffe://a.b/x*",
                                  "spiffe://a.b/x/*",
                                  "*",
                                  "*/sa/s",
                                  "*s",
                                  "spiffe://c/ns/n/sa/s",
                                  "dns:a.b",
                                  "dns:a*"};
static const char *const globs[] = {"spiffe://a.b/*/s", "spiffe://a.b/x/**", "spiffe://c/ns/*/sa/s",
                                    "spiffe://a.b/**"};
static const char *const names[] = {"n", "s", "n*", "*s", "*"};
static const char *const domains[] = {"a.b", "c"};
static const char *const blocks[] = {"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "fd00::1"};
static const char *const ports[] = {"80", "81", "82"};
static const char *const methods[] = {"GET", "POST"};
static const char *const hosts[] = {"h", "H*", "*.h", "h."};
static const char *const paths[] = {"/a", "/a*", "/a/*", "*/b", "/%61b", "*"};
static const char *const templates[] = {"/a/{}", "/{}/b", "/a/{**}", "/{}/{**}", "/a/{**}/b"};
static const char *const grpc[] = {"S/M", "S/*", "p.S/M"};
static const char *const facts[] = {"k", "l"};
static const char *const values[] = {"v", "v*", "*w", "*"};
static const char *const expires[] = {"2026-01-01", "2027-01-01"};

static void put_list(struct buf *out, const char *key, const char *const *items, size_t n,
                     unsigned rarity, unsigned *filled)
{
    if (below(rarity) > 0) {
        return;
    }
    buf_printf(out, "%s%s%s: [", *filled > 0 ? ", " : "", below(5) == 0 ? "not_" : "", key);
    for (unsigned i = 0, k = 1 + below(2); i < k; i++) {
        buf_printf(out, "%s\"%s\"", i > 0 ? ", " : "", items[below((unsigned)n)]);
    }
    buf_printf(out, "]");
    (*filled)++;
}

static void put_ports(struct buf *out, unsigned *filled)
{
    if (below(2) == 0) {
        buf_printf(out, "%s%s: [%s]", *filled > 0 ? ", " : "",
                   below(5) == 0 ? "not_ports" : "ports", ports[below(COUNT(ports))]);
        (*filled)++;
    }
}

/* Headers, parameters or claims: each name once in a positive list. */
static void put_values(struct buf *out, const char *key, unsigned rarity, unsigned *filled)
{
    if (below(rarity) > 0) {
        return;
    }
    unsigned first = below(COUNT(facts));
    buf_printf(out, "%s%s%s: [", *filled > 0 ? ", " : "", below(4) == 0 ? "not_" : "", key);
    for (unsigned i = 0, k = 1 + below(2); i < k; i++) {
        buf_printf(out, "%s{name: %s, ", i > 0 ? ", " : "", facts[(first + i) % COUNT(facts)]);
        if (below(3) == 0) {
            buf_printf(out, "present: true}");
        } else {
            buf_printf(out, "values: [\"%s\", \"%s\"]}", values[below(COUNT(values))],
                       values[below(COUNT(values))]);
        }
    }
    buf_printf(out, "]");
    (*filled)++;
}

static void put_entry(struct buf *out, bool from)
{
    unsigned filled = 0;
    size_t before = buf_len(out);
    while (filled == 0) {
        out->len = before;
        if (from) {
            put_list(out, "principals", ids, COUNT(ids), 2, &filled);
            put_list(out, "trust_domains", domains, COUNT(domains), 4, &filled);
            put_list(out, "ip_blocks", blocks, COUNT(blocks), 4, &filled);
            put_list(out, "namespaces", names, COUNT(names), 8, &filled);
            put_list(out, "service_accounts", names, COUNT(names), 8, &filled);
            put_values(out, "claims", 10, &filled);
            if (filled == 0) {
                put_list(out, "principals", globs, COUNT(globs), 2, &filled);
            }
        } else {
            put_ports(out, &filled);
            put_list(out, "methods", methods, COUNT(methods), 4, &filled);
            put_list(out, "hosts", hosts, COUNT(hosts), 6, &filled);
            put_list(out, "paths", below(3) > 0 ? paths : templates, COUNT(templates), 3, &filled);
            put_list(out, "grpc", grpc, COUNT(grpc), 10, &filled);
            put_values(out, "headers", 8, &filled);
            put_values(out, "query", 10, &filled);
        }
    }
}

/* One rule, as the element of a flow list; owned. */
static char *random_rule(unsigned number)
{
    struct buf out = BUF_INIT(1 << 16);
    buf_printf(&out, "{name: r%u, action: %s", number, below(4) == 0 ? "DENY" : "ALLOW");
    if (below(3) == 0) {
        buf_printf(&out, ", target: {principals: [\"%s\"]}", targets[below(COUNT(targets))]);
    }
    if (below(12) == 0) {
        buf_printf(&out, ", expires: %s", expires[below(COUNT(expires))]);
    }
    if (below(12) == 0) {
        buf_printf(&out, ", mode: dry-run");
    }
    for (unsigned k = 0; k < 2; k++) {
        unsigned n = below(3);
        for (unsigned i = 0; i < n; i++) {
            buf_printf(&out, "%s{", i > 0 ? "}, " : k == 0 ? ", from: [" : ", to: [");
            put_entry(&out, k == 0);
        }
        buf_printf(&out, "%s", n > 0 ? "}]" : "");
    }
    buf_printf(&out, "}");
    char *text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    return text;
}

enum { RULES_MAX = 8 };
struct rules {
    char *items[RULES_MAX * 2]; /* owned */
    unsigned n;
};

static struct rules random_rules(void)
{
    struct rules r = {.n = below(RULES_MAX)};
    for (unsigned i = 0; i < r.n; i++) {
        r.items[i] = random_rule(i);
    }
    return r;
}

static void rules_free(struct rules *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        free(r->items[i]);
    }
}

/* In a random order, some of them twice under another name. */
static struct conf_policy *conf_of(const struct rules *r, bool shuffled, char **ret_text)
{
    struct buf out = BUF_INIT(1 << 20);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    unsigned start = shuffled && r->n > 0 ? below(r->n) : 0;
    buf_printf(&out, "kind: Policy\nlevel: 2\nrules: [");
    for (unsigned i = 0; i < r->n; i++) {
        const char *rule = r->items[(start + i) % r->n];
        buf_printf(&out, "%s\n%s", i > 0 ? "," : "", rule);
        if (shuffled && below(3) == 0) {
            buf_printf(&out, ",\n{name: again%u%s", i, strchr(rule, ','));
        }
    }
    buf_printf(&out, "]\n");
    if (conf_parse_policy("p", (const char *)buf_head(&out), buf_len(&out), diag, &conf) != 0) {
        fail_msg("%s\n%.*s", conf_diag_get(diag, 0)->what, (int)buf_len(&out),
                 (const char *)buf_head(&out));
    }
    if (ret_text != NULL) {
        *ret_text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    }
    conf_diag_free(diag);
    buf_reset(&out);
    return conf;
}

/* --- questions at random -----------------------------------------------------------------------
 */
struct room {
    struct sockaddr_storage source;
    struct policy_header items[2][4];
    struct policy_headers headers;
    struct policy_claims claims;
};

static size_t random_values(struct policy_header *items)
{
    static const char *const said[] = {"v", "vw", "w", "x"};
    size_t n = below(3) > 0 ? 0 : below(4);
    for (size_t i = 0; i < n; i++) {
        items[i] = (struct policy_header){str_of(facts[below(COUNT(facts))]),
                                          str_of(said[below(COUNT(said))])};
    }
    return n;
}

static void add_values(struct policy_query *q, struct room *room)
{
    static const char *const queries[] = {"",    "k=v", "k=vw&l=x", "k=w&k=x", "l=v&l=vw&l=x",
                                          "m=v", "k",   "%",        NULL};
    q->query = str_of(queries[below(COUNT(queries))]);
    room->headers = (struct policy_headers){random_values(room->items[0]), room->items[0]};
    room->claims = (struct policy_claims){random_values(room->items[1]), room->items[1]};
    q->headers = &room->headers;
    q->claims = below(2) == 0 ? &room->claims : NULL;
    q->grpc = below(4) == 0;
}

static struct policy_query random_question(struct room *room, int64_t now_s)
{
    static const char *const who[] = {"spiffe://a.b/x",
                                      "spiffe://a.b/xy",
                                      "spiffe://a.b/x/s",
                                      "spiffe://c/ns/n/sa/s",
                                      "spiffe://d/y",
                                      "dns:a.b",
                                      "dns:axs",
                                      "dns:b",
                                      "cn:x",
                                      ""};
    static const char *const own[] = {"spiffe://a.b/t", "spiffe://a.b/t/u", "spiffe://c/t", ""};
    static const char *const from[] = {"10.1.2.3", "10.1.9.9", "10.9.9.9", "1.1.1.1",
                                       "fd00::1",  "fd00::2",  ""};
    static const char *const at[] = {"h", "hx", "x.h", "other", ""};
    static const char *const which[] = {"/a", "/ab",    "/a/",    "/a/b", "/b",     "/x/b", "/",
                                        "*",  "/a/c/d", "/a/x/b", "/S/M", "/p.S/M", "/S/N"};
    static const char *const how[] = {"GET", "POST", "PUT"};
    struct policy_query q = {.target = str_of(own[below(COUNT(own))]),
                             .peer = str_of(who[below(COUNT(who))]),
                             .port = (uint16_t)(80 + below(4)),
                             .now_s = now_s};
    const char *address = from[below(COUNT(from))];
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_storage *source = &room->source;
    *source = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
        memcpy(source, &v4, sizeof(v4));
    } else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
        memcpy(source, &v6, sizeof(v6));
    }
    q.source = source->ss_family != 0 ? (const struct sockaddr *)source : NULL;
    if (below(3) > 0) {
        q.http = true;
        q.method = str_of(how[below(COUNT(how))]);
        q.host = str_of(at[below(COUNT(at))]);
        q.path = str_of(which[below(COUNT(which))]);
        add_values(&q, room);
    }
    return q;
}

static bool ref_allows(const struct conf_policy *conf, const struct policy_query *q)
{
    struct policy_verdict v = {0};
    policy_ref_decide(conf, q, &v);
    return v.allow;
}

enum { NOW = 1798761600 - 1000 }; /* before 2027-01-02, the later end */

static size_t differences(const struct conf_policy *a, const struct conf_policy *b)
{
    struct policy_diff_options o = {.now_s = NOW, .max = 3};
    struct buf out = BUF_INIT(1 << 22);
    struct err err = ERR_INIT;
    size_t n = 0;
    if (policy_diff(a, b, &o, &out, &n, &err) != 0) {
        fail_msg("%s", err.what);
    }
    buf_reset(&out);
    return n;
}

/* --- walking -----------------------------------------------------------------------------------
 */
struct checking {
    const struct policy *policies[2];
    struct class_room *room;
    unsigned ends;
};

static bool is_chosen(const struct space_end *e, size_t fact, size_t class)
{
    return e->chosen[fact] == NULL || (e->chosen[fact][class / 64] >> (class % 64) & 1) != 0;
}

/* Whether the branch is one in which facts of this kind are not known, all together. */
static bool is_unknown(const struct space_end *e, enum fact_kind kind)
{
    for (size_t i = 0; i < e->space->classes->n; i++) {
        const struct fact *f = &e->space->classes->facts[i];
        for (size_t c = 0; f->kind == kind && e->chosen[i] != NULL && c < f->n; c++) {
            if (f->classes[c].kind == CLASS_UNKNOWN && is_chosen(e, i, c)) {
                return true;
            }
        }
    }
    return false;
}

/* One question of a branch is answered as the branch says. */
static bool on_end(void *arg, const struct space_end *e)
{
    struct checking *c = arg;
    size_t choice[SPACE_FACTS_MAX] = {0};
    for (size_t i = 0; i < e->space->classes->n; i++) {
        const struct fact *f = &e->space->classes->facts[i];
        size_t at = below((unsigned)f->n);
        bool unknown = is_unknown(e, f->kind);
        while (!is_chosen(e, i, at) || (f->classes[at].kind == CLASS_UNKNOWN) != unknown) {
            at = (at + 1) % (unsigned)f->n;
        }
        choice[i] = at;
    }
    struct policy_query q;
    classes_question(e->space->classes, choice, e->http, c->room, &q);
    q.now_s = NOW;
    for (size_t side = 0; side < 2; side++) {
        struct policy_verdict v = {0};
        uint32_t by = space_decide(e->space, e->live[side], e->n_live[side]);
        policy_decide(c->policies[side], &q, &v);
        const struct space_atom *a = by != UINT32_MAX ? &e->space->atoms[by] : NULL;
        bool allow = a != NULL && a->action == CONF_ALLOW;
        if (v.allow != allow) {
            fail_msg(
                "said %d, is %d: %.*s %.*s %u http %d grpc %d %.*s %.*s %.*s ?%.*s headers %zu",
                allow, v.allow, STR_ARG(q.peer), STR_ARG(q.target), q.port, q.http, q.grpc,
                STR_ARG(q.method), STR_ARG(q.host), STR_ARG(q.path), STR_ARG(q.query),
                q.headers != NULL ? q.headers->n : 0);
        }
        if (a != NULL) {
            assert_string_equal(v.rule, e->space->confs[side]->rules[a->rule].name);
        }
    }
    c->ends++;
    return true;
}

static void walk_both(const struct conf_policy *a, const struct conf_policy *b)
{
    const struct conf_policy *confs[2] = {a, b};
    struct err err = ERR_INIT;
    struct space *s = space_new(confs, 2, &err);
    assert_non_null(s);
    struct checking c = {.room = mem_must_new(struct class_room)};
    struct space_walk w = {.space = s, .steps_left = UINT64_MAX, .on_end = on_end, .arg = &c};
    uint32_t *atoms[2];
    c.room->text.max = 1 << 20;
    for (size_t side = 0; side < 2; side++) {
        c.policies[side] = policy_new(confs[side], NULL);
        atoms[side] = mem_must_calloc(s->n_atoms + 1, sizeof(uint32_t));
        for (size_t i = 0; i < s->n_atoms; i++) {
            const struct conf_rule *r = &confs[s->atoms[i].side]->rules[s->atoms[i].rule];
            if (s->atoms[i].side == side && r->mode == CONF_ENFORCE &&
                (r->expires_s == 0 || r->expires_s > NOW)) {
                atoms[side][w.n_atoms[side]++] = (uint32_t)i;
            }
        }
        w.atoms[side] = atoms[side];
    }
    assert_true(space_walk(&w));
    for (size_t side = 0; side < 2; side++) {
        struct policy *p = policy_new(confs[side], NULL);
        policy_free(p);
        policy_free((struct policy *)(uintptr_t)c.policies[side]);
        free(atoms[side]);
    }
    buf_reset(&c.room->text);
    free(c.room);
    space_free(s);
}

static void test_differences_are_found(void **state)
{
    (void)state;
    unsigned different = 0;
    rng_state = seed;
    for (unsigned i = 0; i < 250; i++) {
        struct rules ra = random_rules();
        struct rules rb = random_rules();
        /* Most often all but one rule are the same. */
        for (unsigned k = 0; below(3) > 0 && k < ra.n && k < rb.n; k++) {
            free(rb.items[k]);
            rb.items[k] = mem_must_strdup(ra.items[k]);
        }
        struct conf_policy *a = conf_of(&ra, false, NULL);
        struct conf_policy *b = conf_of(&rb, false, NULL);
        size_t said = differences(a, b);
        bool seen = false;
        for (unsigned k = 0; k < 3000 && !seen; k++) {
            struct room room;
            struct policy_query q = random_question(&room, NOW);
            seen = ref_allows(a, &q) != ref_allows(b, &q);
        }
        if (seen && said == 0) {
            fail_msg("seed %llu, case %u: a difference is not found", (unsigned long long)seed, i);
        }
        different += said > 0;
        walk_both(a, b);
        conf_policy_free(a);
        conf_policy_free(b);
        rules_free(&ra);
        rules_free(&rb);
    }
    assert_true(different > 50 && different < 245);
}

/* Each pair of a rule's entries as a rule of its own, in any order: it says the same. Everything
 * but the rules is lent from c. */
struct refactored {
    struct conf_policy policy;
    struct conf_rule *rules; /* owned */
};

static void add_rule(struct refactored *r, const struct conf_rule *of, size_t i, size_t k)
{
    struct conf_rule *rule = &r->rules[r->policy.n_rules++];
    *rule = *of;
    rule->roles = (struct conf_strings){NULL, 0};
    rule->from = of->n_from > 0 ? &of->from[i] : NULL;
    rule->to = of->n_to > 0 ? &of->to[k] : NULL;
    rule->n_from = of->n_from > 0;
    rule->n_to = of->n_to > 0;
    if (below(2) == 0 && of->target_principals.n == 2) { /* once more, with one half of it */
        r->rules[r->policy.n_rules] = *rule;
        r->rules[r->policy.n_rules++].target_principals.n = 1;
    }
}

static struct refactored refactor(const struct conf_policy *c)
{
    size_t n = 1;
    for (size_t i = 0; i < c->n_rules; i++) {
        n += 2 * (c->rules[i].n_from + 1) * (c->rules[i].n_to + 1);
    }
    struct refactored r = {.policy = {.path = c->path},
                           .rules = mem_must_calloc(n, sizeof(*r.rules))};
    r.policy.rules = r.rules;
    for (size_t x = c->n_rules; x-- > 0;) {
        const struct conf_rule *of = &c->rules[x];
        for (size_t i = 0; i < (of->n_from > 0 ? of->n_from : 1); i++) {
            for (size_t k = 0; k < (of->n_to > 0 ? of->n_to : 1); k++) {
                add_rule(&r, of, i, k);
            }
        }
    }
    return r;
}

/* Of the refactored one a rule is taken away, or its action turned: there is a difference if and,
 * as far as questions are asked, only if one is answered otherwise. Returns whether there is. */
static bool change_one(const struct conf_policy *a, struct refactored *r, unsigned number)
{
    struct conf_policy *b = &r->policy;
    size_t at = below((unsigned)b->n_rules);
    bool seen = false;
    if (below(2) == 0) {
        r->rules[at].action = r->rules[at].action == CONF_ALLOW ? CONF_DENY : CONF_ALLOW;
    } else {
        r->rules[at] = r->rules[--b->n_rules];
    }
    for (unsigned k = 0; k < 2000 && !seen; k++) {
        struct room room;
        struct policy_query q = random_question(&room, NOW);
        seen = ref_allows(a, &q) != ref_allows(b, &q);
    }
    size_t said = differences(a, b);
    if (seen && said == 0) {
        fail_msg("seed %llu, case %u: a difference is not found", (unsigned long long)seed, number);
    }
    walk_both(a, b); /* and what is said is so: each branch was asked */
    return said > 0;
}

static void test_equivalent_is_empty(void **state)
{
    unsigned changed = 0;
    (void)state;
    rng_state = seed;
    for (unsigned i = 0; i < 150; i++) {
        struct rules r = random_rules();
        struct conf_policy *a = conf_of(&r, false, NULL);
        struct conf_policy *b = conf_of(&r, true, NULL);
        struct refactored c = refactor(a);
        assert_int_equal(differences(a, b), 0);
        assert_int_equal(differences(a, &c.policy), 0);
        assert_int_equal(differences(&c.policy, b), 0);
        changed += i % 3 == 0 && c.policy.n_rules > 0 && change_one(a, &c, i);
        free(c.rules);
        conf_policy_free(a);
        conf_policy_free(b);
        rules_free(&r);
    }
    assert_true(changed > 10 && changed < 50);
}

static struct conf_policy *parse(const char *text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    if (conf_parse_policy("p", text, strlen(text), diag, &conf) != 0) {
        fail_msg("%s", conf_diag_get(diag, 0)->what);
    }
    conf_diag_free(diag);
    return conf;
}

#define HEAD "kind: Policy\nlevel: 2\nrules:\n"
#define X "{name: x, action: ALLOW, "
/* The same said in other words, and what is nearly the same. */
static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"rules: [" X "to: [{ports: [80, 81]}]}]",
         "rules: [" X "to: [{ports: [80]}, {ports: [81]}]}]", true},
        {"rules: [" X "to: [{ports: [80, 81]}]}]", "rules: [" X "to: [{ports: [80]}]}]", false},
        {"rules: [" X "from: [{principals: [\"spiffe://a.b/x/*\"]}]}]",
         "rules: [" X "from: [{principals: [\"spiffe://a.b/x/*\", \"spiffe://a.b/x/y\"]}]}]", true},
        {"rules: [" X "from: [{trust_domains: [a.b]}]}]",
         "rules: [" X "from: [{principals: [\"spiffe://a.b/*\"]}]}]", true},
        {"rules: [" X "from: [{principals: [\"*\"]}]}]", "rules: [" X "}]", false},
        {"rules: [" X "to: [{ports: [80]}]}, {name: d, action: DENY, to: [{ports: [80]}]}]",
         "rules: []", true},
        {"rules: [" X "to: [{paths: [\"/a*\"]}]}]",
         "rules: [" X "to: [{paths: [\"/a\", \"/a*\", \"/ab*\"]}]}]", true},
        {"rules: [" X "to: [{paths: [\"/a*\"]}]}]", "rules: [" X "to: [{paths: [\"/a/*\"]}]}]",
         false},
        {"rules: [" X "from: [{ip_blocks: [10.0.0.0/9, 10.128.0.0/9]}]}]",
         "rules: [" X "from: [{ip_blocks: [10.0.0.0/8]}]}]", true},
        {"rules: [" X "from: [{ip_blocks: [10.0.0.0/9]}]}]",
         "rules: [" X "from: [{ip_blocks: [10.0.0.0/8]}]}]", false},
        {"roles: [{name: r, to: [{ports: [80]}]}]\nrules: [" X "role: r}]",
         "rules: [" X "to: [{ports: [80]}]}]", true},
        {"rules: [" X "expires: 2030-01-01}]", "rules: [" X "}]", false},
        {"rules: [" X "mode: dry-run}]", "rules: []", true},
        {"rules: [" X "}, {name: d, action: DENY, from: [{not_principals: [\"*\"]}]}]",
         "rules: [" X "from: [{principals: [\"*\"]}]}]", true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char a[1000], b[1000];
        snprintf(a, sizeof(a), "kind: Policy\nlevel: 2\n%s\n", cases[i].a);
        snprintf(b, sizeof(b), "kind: Policy\nlevel: 2\n%s\n", cases[i].b);
        struct conf_policy *pa = parse(a);
        struct conf_policy *pb = parse(b);
        if ((differences(pa, pb) == 0) != cases[i].same) {
            fail_msg("%s\n%s", a, b);
        }
        conf_policy_free(pa);
        conf_policy_free(pb);
    }
}

static void test_said(void **state)
{
    (void)state;
    struct conf_policy *a = parse(HEAD "  - " X "from: [{principals: [\"spiffe://a.b/x\"]}], "
                                       "target: {principals: [\"spiffe://a.b/t\"]}, "
                                       "to: [{ports: [80], methods: [GET]}]}\n");
    struct conf_policy *b = parse(HEAD "  - " X "from: [{principals: [\"spiffe://a.b/y\"]}], "
                                       "target: {principals: [\"spiffe://a.b/t\"]}, "
                                       "to: [{ports: [80], methods: [GET]}]}\n");
    struct policy_diff_options o = {.now_s = NOW, .max = 10};
    struct buf out = BUF_INIT(1 << 20);
    size_t n = 0;
    char text[2000];
    assert_int_equal(policy_diff(a, b, &o, &out, &n, NULL), 0);
    snprintf(text, sizeof(text), "%.*s", (int)buf_len(&out), (const char *)buf_head(&out));
    assert_int_equal(n, 2);
    assert_non_null(strstr(text, "gains spiffe://a.b/y -> spiffe://a.b/t port 80, requests GET\n"
                                 "    before: denied by no rule; now: allowed by rule \"x\"\n"));
    assert_non_null(strstr(text, "loses spiffe://a.b/x -> spiffe://a.b/t port 80, requests GET\n"));
    buf_reset(&out);
    o.json = true;
    assert_int_equal(policy_diff(a, b, &o, &out, &n, NULL), 0);
    json_t *doc = json_loadb((const char *)buf_head(&out), buf_len(&out), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(doc, "differences")), 2);
    assert_int_equal(json_array_size(json_object_get(doc, "told")), 2);
    json_decref(doc);
    buf_reset(&out);
    conf_policy_free(a);
    conf_policy_free(b);
}

/* --- lint --------------------------------------------------------------------------------------
 */
static bool removable(enum policy_finding_code code)
{
    return code == POLICY_FINDING_DEAD || code == POLICY_FINDING_SHADOWED ||
           code == POLICY_FINDING_CONTRADICTORY || code == POLICY_FINDING_EXPIRED;
}

/* All that is reported goes at once, and no question is answered differently, now or later. */
static void test_reported_rules_can_go(void **state)
{
    (void)state;
    unsigned reported = 0;
    rng_state = seed;
    for (unsigned i = 0; i < 250; i++) {
        struct rules r = random_rules();
        char *text = NULL;
        struct conf_policy *conf = conf_of(&r, true, &text);
        struct policy_lint_options o = {.now_s = NOW};
        struct policy_findings found;
        policy_lint(conf, str_of(text), &o, &found);
        struct conf_rule *left = mem_must_calloc(conf->n_rules + 1, sizeof(*left));
        struct conf_policy less = {.path = conf->path, .rules = left};
        for (size_t k = 0; k < conf->n_rules; k++) {
            bool gone = false;
            for (size_t f = 0; f < found.n; f++) {
                assert_int_not_equal(found.items[f].code, POLICY_FINDING_NOT_KNOWN);
                gone = gone || (removable(found.items[f].code) &&
                                strcmp(found.items[f].rule, conf->rules[k].name) == 0);
            }
            reported += gone;
            if (!gone) {
                left[less.n_rules++] = conf->rules[k];
            }
        }
        for (unsigned k = 0; k < 1000; k++) {
            struct room room;
            struct policy_query q = random_question(&room, NOW + (int64_t)below(2) * 10000000);
            if (ref_allows(conf, &q) != ref_allows(&less, &q)) {
                fail_msg("seed %llu, case %u: not to be removed:\n%s", (unsigned long long)seed, i,
                         text);
            }
        }
        assert_int_equal(differences(conf, &less), 0);
        free(left);
        free(text);
        policy_findings_deinit(&found);
        conf_policy_free(conf);
        rules_free(&r);
    }
    assert_true(reported > 100);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_said),
        cmocka_unit_test(test_equivalent_is_empty),
        cmocka_unit_test(test_differences_are_found),
        cmocka_unit_test(test_reported_rules_can_go),
    };
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
