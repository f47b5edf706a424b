/*
 * Whom a change concerns: the index against a full look. Over random policies, everybody whom a
 * full look would end is among the concerned; over chosen ones, nobody else is.
 */
#include <index_look.h>

#include "conn_priv.h"
#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct policy *policy_of(const char *rules)
{
    char *text = NULL;
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct err err = ERR_INIT;
    assert_true(asprintf(&text, "kind: Policy\nlevel: 1\nrules:%s%s",
                         *rules != '\0' ? "\n" : " []\n", rules) > 0);
    if (conf_parse_policy("/p.yaml", text, strlen(text), diag, &conf) == -1) {
        fail_msg("%s in %s", conf_diag_get(diag, 0)->what, text);
    }
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    conf_policy_free(conf);
    conf_diag_free(diag);
    free(text);
    return p;
}

/* --- connections that are only facts ---------------------------------------------------------- */
struct fact {
    char id[64];
    uint16_t port;
    uint32_t slot; /* 0: not live */
};

static struct policy_verdict decide(const struct policy *p, const struct fact *f)
{
    struct policy_verdict v;
    struct policy_query q = {
        .target = STR_LIT("spiffe://a.b/own"), .peer = str_of(f->id), .port = f->port};
    policy_decide(p, &q, &v);
    return v;
}

static void connect_all(struct live_index *x, const struct policy *p, struct fact *facts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct policy_verdict v = decide(p, &facts[i]);
        if (!v.allow || facts[i].slot != 0) {
            continue;
        }
        facts[i].slot = live_add(x, &facts[i], 0, false);
        live_set_peer(x, facts[i].slot,
                      &(const struct live_peer_facts){.id = str_of(facts[i].id), .serial = "01"});
        /* Of rules that say the same it keeps one name. */
        assert_non_null(live_set_by(x, facts[i].slot, LIVE_BY_RULE, v.rule_key, 0, v.rule));
    }
}

static void mark(struct live_index *x, const struct policy *before, const struct policy *now)
{
    struct snapshot_change c = {.since = 1};
    policy_compare(before, now, &c.policy[0]);
    live_mark_change(x, &c, 1);
    policy_change_deinit(&c.policy[0]);
}

/* Works off the queues as a worker would. Returns how many were judged. */
static size_t work_off(struct live_index *x, const struct policy *now)
{
    enum live_rank rank, last = LIVE_QUARANTINED;
    size_t judged = 0;
    struct fact *f;
    while ((f = live_next(x, &rank)) != NULL) {
        struct policy_verdict v = decide(now, f);
        assert_true(rank >= last); /* the urgent ones first */
        last = rank;
        judged += rank != LIVE_MOVE;
        if (rank == LIVE_MOVE && !v.allow) {
            fail_msg("%s on port %u was overlooked", f->id, f->port);
        }
        if (!v.allow) {
            live_remove(x, f->slot);
            f->slot = 0;
        } else {
            live_set_by(x, f->slot, LIVE_BY_RULE, v.rule_key, 0, v.rule);
        }
    }
    return judged;
}

/* --- random policies -------------------------------------------------------------------------- */

static const char *pick(const char *const *from, size_t n)
{
    return from[(size_t)rand() % n];
}

static void random_rule(char *text, size_t size, int number)
{
    static const char *const froms[] = {
        "principals: ['spiffe://a.b/w1', 'spiffe://a.b/w7']",
        "principals: ['spiffe://a.b/*']",
        "principals: ['*3']",
        "principals: ['*']",
        "not_principals: ['spiffe://a.b/w2']",
        "principals: ['spiffe://c.d/w1*'], not_principals: ['spiffe://c.d/w1']",
        "trust_domains: ['c.d']",
        "not_trust_domains: ['c.d']",
        "principals: ['spiffe://c.d/w5']",
    };
    static const char *const tos[] = {
        "",
        ", to: [{ports: [80]}]",
        ", to: [{not_ports: [80]}]",
        ", to: [{ports: [80, 443]}]",
        ", to: [{ports: [80], methods: [GET]}]",
    };
    snprintf(text, size, "- {name: r%d, action: %s, from: [{%s}]%s}\n", number,
             rand() % 3 == 0 ? "DENY" : "ALLOW", pick(froms, sizeof(froms) / sizeof(froms[0])),
             pick(tos, sizeof(tos) / sizeof(tos[0])));
}

enum { RULES = 6, RULE_TEXT = 200, FACTS = 80 };

static struct policy *random_policy(char rules[RULES][RULE_TEXT], bool fresh)
{
    char text[RULES * RULE_TEXT] = "";
    for (int i = 0; i < RULES; i++) {
        if (fresh || rand() % 4 == 0) {
            random_rule(rules[i], RULE_TEXT, i);
        }
        if (rand() % 8 != 0) {
            strcat(text, rules[i]);
        }
    }
    return policy_of(text);
}

static void make_facts(struct fact *facts)
{
    for (int i = 0; i < FACTS; i++) {
        snprintf(facts[i].id, sizeof(facts[i].id), "spiffe://%s/w%d", i % 2 == 0 ? "a.b" : "c.d",
                 i / 4);
        facts[i].port = i % 3 == 0 ? 80 : i % 3 == 1 ? 443 : 9000;
        facts[i].slot = 0;
    }
    facts[0].id[0] = facts[1].id[0] = '\0'; /* peers without identity */
}

/* A random walk of policies: what is left after each is what a full look would have left. */
static void test_random(void **state)
{
    (void)state;
    static char rules[RULES][RULE_TEXT];
    static struct fact facts[FACTS];
    size_t judged = 0, live = 0;
    srand(11);
    for (int world = 0; world < 40; world++) {
        struct live_index *x = live_index_new();
        struct policy *now = random_policy(rules, true);
        make_facts(facts);
        for (int step = 0; step < 25; step++) {
            connect_all(x, now, facts, FACTS);
            live += live_count(x);
            struct policy *next = random_policy(rules, false);
            mark(x, now, next);
            judged += work_off(x, next);
            for (size_t i = 0; i < FACTS; i++) {
                assert_true(facts[i].slot == 0 || decide(next, &facts[i]).allow);
            }
            policy_free(now);
            now = next;
        }
        for (size_t i = 0; i < FACTS; i++) {
            if (facts[i].slot != 0) {
                live_remove(x, facts[i].slot);
            }
        }
        assert_int_equal(live_count(x), 0);
        live_index_free(x);
        policy_free(now);
    }
    assert_true(judged < live); /* else it would be no index */
}

/* Several changes before anybody was looked at: who was concerned by one stays so. */
static void test_changes_pile_up(void **state)
{
    (void)state;
    static char rules[RULES][RULE_TEXT];
    static struct fact facts[FACTS];
    srand(13);
    for (int world = 0; world < 60; world++) {
        struct live_index *x = live_index_new();
        struct policy *now = random_policy(rules, true);
        make_facts(facts);
        connect_all(x, now, facts, FACTS);
        for (int step = 0; step < 4; step++) {
            struct policy *next = random_policy(rules, false);
            mark(x, now, next);
            policy_free(now);
            now = next;
            enum live_rank rank;
            for (int i = 0; i < 3; i++) { /* a few only */
                struct fact *f = live_next(x, &rank);
                if (f != NULL && !decide(now, f).allow) {
                    assert_true(rank != LIVE_MOVE);
                    live_remove(x, f->slot);
                    f->slot = 0;
                }
            }
        }
        (void)work_off(x, now);
        for (size_t i = 0; i < FACTS; i++) {
            assert_true(facts[i].slot == 0 || decide(now, &facts[i]).allow);
        }
        live_index_free(x);
        policy_free(now);
    }
}

/* --- chosen changes --------------------------------------------------------------------------- */
#define ALLOW_A "- {name: a, action: ALLOW, from: [{principals: ['spiffe://a.b/a']}]}\n"
#define ALLOW_B "- {name: b, action: ALLOW, from: [{principals: ['spiffe://a.b/b']}]}\n"
#define ALLOW_B_RENAMED "- {name: c, action: ALLOW, from: [{principals: ['spiffe://a.b/b']}]}\n"
#define DENY_X "- {name: x, action: DENY, from: [{principals: ['spiffe://a.b/x']}]}\n"
#define DENY_A "- {name: y, action: DENY, from: [{principals: ['spiffe://a.b/a']}]}\n"
#define DENY_ALL "- {name: z, action: DENY, to: [{ports: [1]}]}\n"

static void test_nobody_else(void **state)
{
    (void)state;
    static const struct {
        const char *before, *now;
        const char *concerned; /* of "ab" */
    } cases[] = {
        {ALLOW_A ALLOW_B, ALLOW_A ALLOW_B, ""},
        {ALLOW_A ALLOW_B, ALLOW_B_RENAMED ALLOW_A, ""}, /* renamed, moved */
        {ALLOW_A ALLOW_B, ALLOW_A, "b"},
        {ALLOW_A ALLOW_B, ALLOW_A ALLOW_B DENY_X, ""},
        {ALLOW_A ALLOW_B, ALLOW_A ALLOW_B DENY_A, "a"},
        {ALLOW_A ALLOW_B, ALLOW_A ALLOW_B DENY_ALL, "ab"},
        {ALLOW_A ALLOW_B DENY_X, ALLOW_A ALLOW_B, ""},
        {ALLOW_A ALLOW_B, "", "ab"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct live_index *x = live_index_new();
        struct policy *before = policy_of(cases[i].before), *now = policy_of(cases[i].now);
        struct fact facts[] = {{.id = "spiffe://a.b/a", .port = 80},
                               {.id = "spiffe://a.b/b", .port = 80}};
        connect_all(x, before, facts, 2);
        mark(x, before, now);
        for (size_t k = 0; k < 2; k++) {
            bool wanted = strchr(cases[i].concerned, "ab"[k]) != NULL;
            if ((live_rank_of(x, facts[k].slot) == LIVE_CHANGED) != wanted) {
                fail_msg("case %zu: %c", i, "ab"[k]);
            }
        }
        live_index_free(x);
        policy_free(before);
        policy_free(now);
    }
}

/* Quarantine and authorities: by identity, by serial (the own one's too), by the keys above. */
static void test_peers(void **state)
{
    (void)state;
    struct live_index *x = live_index_new();
    struct x509_key_id old = {.sha256 = {1}}, new = {.sha256 = {2}};
    int owners[5];
    uint32_t s[5];
    static const struct {
        const char *id, *serial, *own;
    } who[5] = {{"spiffe://a.b/a", "0a", "f1"},
                {"spiffe://a.b/a", "0b", "f1"},
                {"spiffe://a.b/b", "0c", "f2"},
                {"spiffe://a.b/c", "0d", "f2"},
                {"", "", ""}};
    for (size_t i = 0; i < 5; i++) {
        s[i] = live_add(x, &owners[i], (uint16_t)(i % 2), i == 3);
        live_set_peer(x, s[i],
                      &(const struct live_peer_facts){.id = str_of(who[i].id),
                                                      .serial = who[i].serial,
                                                      .issuers = i < 2 ? &old : &new,
                                                      .n_issuers = 1});
        live_set_own(x, s[i], who[i].own);
        live_set_by(x, s[i], LIVE_BY_RULE, 1, 0, "r");
    }
    char a[] = "spiffe://a.b/a", c[] = "0c", f2[] = "f2";
    char *ids[] = {a}, *serials[] = {c}, *own[] = {f2};
    static const uint16_t ones[] = {1};
    const struct {
        struct snapshot_change change;
        enum live_rank rank;
        const char *concerned;
    } cases[] = {
        {{.since = 1}, LIVE_CHANGED, ""},
        {{.since = 1, .denied_ids = {ids, 1}}, LIVE_QUARANTINED, "01"},
        {{.since = 1, .denied_serials = {serials, 1}}, LIVE_QUARANTINED, "2"},
        {{.since = 1, .denied_serials = {own, 1}}, LIVE_QUARANTINED, "23"},
        {{.since = 1, .gone = &old, .n_gone = 1}, LIVE_TRUST, "01"},
        {{.since = 1, .listeners = (uint16_t *)(uintptr_t)ones, .n_listeners = 1},
         LIVE_CHANGED,
         "13"},
        {{.since = 1, .outbound = true}, LIVE_MAYBE, "3"},
        {{.since = 1, .own_quarantined = true}, LIVE_QUARANTINED, "01234"},
        {{.since = 1, .all = true}, LIVE_CHANGED, "01234"},
        {{.since = 2}, LIVE_CHANGED, "01234"}, /* of another snapshot than the one before */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        live_mark_change(x, &cases[i].change, 1);
        assert_int_equal(live_queued(x, cases[i].rank), strlen(cases[i].concerned));
        for (size_t k = 0; k < 5; k++) {
            bool is = live_take(x, s[k]) == cases[i].rank;
            if (is != (strchr(cases[i].concerned, (int)('0' + k)) != NULL)) {
                fail_msg("case %zu: %zu", i, k);
            }
        }
    }
    live_mark_change(x, NULL, 1); /* unknown: all */
    assert_int_equal(live_queued(x, LIVE_CHANGED), 5);
    live_index_free(x);
}

/* Whoever was not allowed yet, and whoever has more than the index knows, is concerned always. */
static void test_unsure(void **state)
{
    (void)state;
    struct live_index *x = live_index_new();
    struct snapshot_change c = {.since = 1};
    int owners[3];
    uint32_t s[3];
    for (size_t i = 0; i < 3; i++) {
        s[i] = live_add(x, &owners[i], 0, false);
    }
    live_set_by(x, s[1], LIVE_BY_RULE, 1, 2, "r");
    live_set_by(x, s[2], LIVE_BY_RULE, 1, 2, "r");
    live_set_unsure(x, s[2]);
    live_mark_change(x, &c, 1);
    assert_int_equal(live_rank_of(x, s[0]), LIVE_CHANGED);
    assert_int_equal(live_rank_of(x, s[1]), LIVE_MOVE);
    assert_int_equal(live_rank_of(x, s[2]), LIVE_CHANGED);
    /* The rule that narrows has gone. */
    uint64_t key = 2;
    c.policy[1] = (struct policy_change){.gone = &key, .n_gone = 1};
    live_mark_change(x, &c, 1);
    assert_int_equal(live_rank_of(x, s[1]), LIVE_CHANGED);
    live_index_free(x);
}

/* More own certificates at once than are told apart: nobody is overlooked for that. */
static void test_many_own(void **state)
{
    (void)state;
    enum { N = 1030, APART = 1024 };
    struct live_index *x = live_index_new();
    const struct snapshot_change c = {.since = 1};
    static uint32_t slots[N];
    char serial[48];
    for (size_t i = 0; i < N; i++) {
        slots[i] = live_add(x, &slots[i], 0, false);
        live_set_by(x, slots[i], LIVE_BY_RULE, 1, 0, "r");
        snprintf(serial, sizeof(serial), "%zx", i);
        live_set_own(x, slots[i], serial);
    }
    live_mark_change(x, &c, 1);
    assert_int_equal(live_rank_of(x, slots[0]), LIVE_MOVE);
    assert_int_equal(live_rank_of(x, slots[APART - 1]), LIVE_MOVE);
    for (size_t i = APART; i < N; i++) {
        assert_int_equal(live_rank_of(x, slots[i]), LIVE_CHANGED);
    }
    live_mark_serial(x, str_of("3ff"), LIVE_QUARANTINED);
    assert_int_equal(live_rank_of(x, slots[APART - 1]), LIVE_QUARANTINED);
    assert_int_equal(live_queued(x, LIVE_QUARANTINED), 1);
    /* One that goes makes room. */
    live_remove(x, slots[7]);
    slots[7] = live_add(x, &slots[7], 0, false);
    live_set_by(x, slots[7], LIVE_BY_RULE, 1, 0, "r");
    live_set_own(x, slots[7], "ffff");
    live_mark_change(x, &c, 1);
    assert_int_equal(live_rank_of(x, slots[7]), LIVE_MOVE);
    live_mark_serial(x, str_of("ffff"), LIVE_QUARANTINED);
    assert_int_equal(live_rank_of(x, slots[7]), LIVE_QUARANTINED);
    live_index_free(x);
}

/* As many as there may be, each with a name of its own. */
static void test_many(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct live_index *x = live_index_new();
    static uint32_t slots[N];
    char id[64];
    srand(3);
    for (size_t i = 0; i < N; i++) {
        snprintf(id, sizeof(id), "spiffe://a.b/%zu", i / 2);
        slots[i] = live_add(x, &slots[i], 0, false);
        live_set_peer(x, slots[i],
                      &(const struct live_peer_facts){.id = str_of(id), .serial = "01"});
        live_set_by(x, slots[i], LIVE_BY_RULE, 1 + i % 7, 0, "r");
    }
    for (size_t i = 0; i < N; i++) { /* holes, filled again */
        size_t k = (size_t)rand() % N;
        live_remove(x, slots[k]);
        slots[k] = live_add(x, &slots[k], 0, false);
        snprintf(id, sizeof(id), "spiffe://a.b/%zu", k / 2);
        live_set_peer(x, slots[k],
                      &(const struct live_peer_facts){.id = str_of(id), .serial = "01"});
        live_set_by(x, slots[k], LIVE_BY_RULE, 1, 0, "r");
    }
    live_mark_id(x, STR_LIT("spiffe://a.b/17"), LIVE_QUARANTINED);
    assert_int_equal(live_queued(x, LIVE_QUARANTINED), 2);
    size_t bytes = live_memory(x);
    for (size_t i = 0; i < N; i++) {
        live_remove(x, slots[i]);
    }
    assert_int_equal(live_count(x), 0);
    assert_true(live_memory(x) < 4096); /* what it held went with them */
    assert_true(bytes / N < 64 + 128);  /* 48, what a table spares, and half a name */
    live_index_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),      cmocka_unit_test(test_changes_pile_up),
        cmocka_unit_test(test_nobody_else), cmocka_unit_test(test_peers),
        cmocka_unit_test(test_unsure),      cmocka_unit_test(test_many_own),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
