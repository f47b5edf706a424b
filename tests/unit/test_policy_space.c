/* policy_tools: comparing policies and looking for rules that are not needed, against the reference
 * evaluator at random: what is said of all questions is held against some. test_policy_space [SEED]
 */
#include <postern/policy_tools.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "space_gen.h"
#include "space_priv.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t seed = 20261127; /* or the first argument */
static struct space_gen gen;

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
        size_t at = space_gen_below(&gen, (unsigned)f->n);
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
    gen.state = seed;
    for (unsigned i = 0; i < 250; i++) {
        struct space_rules ra = space_gen_rules(&gen);
        struct space_rules rb = space_gen_rules(&gen);
        /* Most often all but one rule are the same. */
        for (unsigned k = 0; space_gen_below(&gen, 3) > 0 && k < ra.n && k < rb.n; k++) {
            free(rb.items[k]);
            rb.items[k] = mem_must_strdup(ra.items[k]);
        }
        struct conf_policy *a = space_gen_conf(&gen, &ra, false, NULL);
        struct conf_policy *b = space_gen_conf(&gen, &rb, false, NULL);
        size_t said = differences(a, b);
        bool seen = false;
        for (unsigned k = 0; k < 3000 && !seen; k++) {
            struct space_gen_room room;
            struct policy_query q = space_gen_question(&gen, &room, NOW);
            seen = ref_allows(a, &q) != ref_allows(b, &q);
        }
        if (seen && said == 0) {
            fail_msg("seed %llu, case %u: a difference is not found", (unsigned long long)seed, i);
        }
        different += said > 0;
        walk_both(a, b);
        conf_policy_free(a);
        conf_policy_free(b);
        space_rules_free(&ra);
        space_rules_free(&rb);
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
    if (space_gen_below(&gen, 2) == 0 &&
        of->target_principals.n == 2) { /* once more, with one half of it */
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
    size_t at = space_gen_below(&gen, (unsigned)b->n_rules);
    bool seen = false;
    if (space_gen_below(&gen, 2) == 0) {
        r->rules[at].action = r->rules[at].action == CONF_ALLOW ? CONF_DENY : CONF_ALLOW;
    } else {
        r->rules[at] = r->rules[--b->n_rules];
    }
    for (unsigned k = 0; k < 2000 && !seen; k++) {
        struct space_gen_room room;
        struct policy_query q = space_gen_question(&gen, &room, NOW);
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
    gen.state = seed;
    for (unsigned i = 0; i < 150; i++) {
        struct space_rules r = space_gen_rules(&gen);
        struct conf_policy *a = space_gen_conf(&gen, &r, false, NULL);
        struct conf_policy *b = space_gen_conf(&gen, &r, true, NULL);
        struct refactored c = refactor(a);
        assert_int_equal(differences(a, b), 0);
        assert_int_equal(differences(a, &c.policy), 0);
        assert_int_equal(differences(&c.policy, b), 0);
        changed += i % 3 == 0 && c.policy.n_rules > 0 && change_one(a, &c, i);
        free(c.rules);
        conf_policy_free(a);
        conf_policy_free(b);
        space_rules_free(&r);
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
    gen.state = seed;
    for (unsigned i = 0; i < 250; i++) {
        struct space_rules r = space_gen_rules(&gen);
        char *text = NULL;
        struct conf_policy *conf = space_gen_conf(&gen, &r, true, &text);
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
            struct space_gen_room room;
            struct policy_query q =
                space_gen_question(&gen, &room, NOW + (int64_t)space_gen_below(&gen, 2) * 10000000);
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
        space_rules_free(&r);
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
