/* policy: random policies and questions against a second evaluator; as few and as alike names as
 * make them meet. test_policy_random [SEED] */
#include <postern/policy.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "policy_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- at random ---------------------------------------------------------------------------------*/

static uint64_t seed = 20240607; /* or the first argument */
static uint64_t rng_state;

static uint32_t below(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 33) % n;
}

/* Few and alike, so that they meet. */
static const char *const ids[] = {
    "spiffe://a.b/x",
    "spiffe://a.b/xy",
    "spiffe://a.b/x/y",
    "spiffe://a.bc/x",
    "spiffe://a.b/ns/pay",
    "spiffe://a.b/ns/pa",
    "spiffe://c/x",
    "spiffe://c/ns/pay/sa/x",
    "spiffe://a.b/orders",
    "spiffe://a.b",
    "spiffe://",
    "x",
    "spiffe://a.b/ns/pay/sa/x",
    "spiffe://c/ns/pa/sa/y",
    "spiffe://a.b/ns//sa/x",
    "spiffe://a.b/ns/pay/sa/x/z",
    "spiffe://a.b/x/",
    "uri:spiffe://a.b/x",
};
static const char *const id_patterns[] = {
    "*",
    "spiffe://a.b/*",
    "spiffe://a.b*",
    "spiffe://*",
    "*/x",
    "*x",
    "*/sa/x",
    "spiffe://a.b/ns/*",
    "spiffe://a.b/ns/pa*",
    "*y",
    "*/pay",
    "spiffe://a.b/ns/*/sa/x",
    "spiffe://a.b/*/pay",
    "spiffe://a.b/**",
    "spiffe://a.b/*/*/sa/**",
    "spiffe://c/ns/pay/**",
    "spiffe://a.b/*/*",
};
static const char *const namespaces[] = {"pay", "pa", "x"};
static const char *const word_patterns[] = {"*", "p*", "*y", "pa*", "*ay"};
static const char *const accounts[] = {"x", "y", "pay"};
static const char *const methods_of_grpc[] = {"a/b", "a.B/C", "a/bc"};
static const char *const grpc_patterns[] = {"a/*", "a.B/*"};
static const char *const value_names[] = {"a", "b", "ab"};
static const char *const values[] = {"1", "12", "x y", "pay", "pa"};
static const char *const value_patterns[] = {"*", "1*", "*2", "p*", "*y"};
static const char *const queries[] = {
    "",  "a=1", "a=1&a=12", "b=x+y&a=1", "a=%31",     "%61=1&b=pay", "a=1;b=1",
    "a", "a=%", "ab=pay&",  "&&b=",      "a=1&a=pay", "b=1&a=12",    "ab=1&b=12&a=x%20y"};
static const char *const domains[] = {"a.b", "a.bc", "c", "a", "b"};
static const char *const methods[] = {"GET", "HEAD", "POST", "get"};
static const char *const hosts[] = {"orders", "ORDERS", "orders.", "orders.example.org",
                                    "a.b.c.", "B.C",    "[::1]"};
static const char *const host_patterns[] = {"*", "*.org", "Orders*", "*.C", "*c.", "*.b.c", "o*"};
static const char *const paths[] = {"/", "/a",      "/a/",   "/a/b",   "/admin", "/adminx", "/a b",
                                    "*", "/x.html", "/a/bc", "/a.B/C", "/a//b",  "/a/b/c"};
static const char *const path_patterns[] = {
    "*",      "/*",         "/a*",     "/a/*",    "*.html",     "*/b",   "/admin*",
    "/a%20*", "*min",       "/%61",    "/{}",     "/a/{}",      "/{}/b", "/a/{**}",
    "/{**}",  "/{}/{**}/b", "/{**}/b", "/%61/{}", "/{}/{}/{**}"};
static const char *const blocks[] = {"10.0.0.0/8",          "10.1.0.0/16", "10.1.2.3",
                                     "0.0.0.0/0",           "::/0",        "fd00::/8",
                                     "::ffff:10.1.0.0/112", "fd00::1"};
static const char *const addresses[] = {
    "10.1.2.3", "10.2.0.1", "::ffff:10.1.2.3", "11.0.0.1", "::ffff:10.2.0.1", "fd00::1", "fe80::1"};

static const char *pick(const char *const *a, size_t n_a, const char *const *b, size_t n_b)
{
    uint32_t i = below((uint32_t)(n_a + n_b));
    return i < n_a || b == NULL ? a[i % n_a] : b[i - n_a];
}

#define PICK(a, b) pick(a, COUNT(a), b, COUNT(b))

/* 0 to 3 items, most often none. */
static void pick_list(const char **list, const char *const *a, size_t n_a, const char *const *b,
                      size_t n_b, uint32_t rarity)
{
    uint32_t n = below(rarity) == 0 ? 1 + below(3) : 0;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = pick(a, n_a, b, n_b);
    }
}

static void pick_values(struct row_value *list, uint32_t rarity, bool once)
{
    uint32_t n = below(rarity) == 0 ? 1 + below(NAMED_MAX - 1) : 0;
    uint32_t first = below(COUNT(value_names));
    for (uint32_t i = 0; i < n; i++) {
        list[i].name =
            once ? value_names[(first + i) % COUNT(value_names)] : PICK(value_names, value_names);
        list[i].present = below(4) == 0;
        for (uint32_t k = 0, some = 1 + below(2); k < some; k++) {
            list[i].values[k] = PICK(values, value_patterns);
        }
    }
}

/* What came with level 2. */
static void random_row_more(struct row *r)
{
    pick_list(r->namespaces, namespaces, COUNT(namespaces), word_patterns, COUNT(word_patterns), 6);
    pick_list(r->not_namespaces, namespaces, COUNT(namespaces), word_patterns, COUNT(word_patterns),
              12);
    pick_list(r->accounts, accounts, COUNT(accounts), word_patterns, COUNT(word_patterns), 8);
    pick_list(r->not_accounts, accounts, COUNT(accounts), NULL, 0, 12);
    pick_list(r->grpc, methods_of_grpc, COUNT(methods_of_grpc), grpc_patterns, COUNT(grpc_patterns),
              8);
    pick_list(r->not_grpc, methods_of_grpc, COUNT(methods_of_grpc), grpc_patterns,
              COUNT(grpc_patterns), 12);
    pick_values(r->claims, 8, true);
    pick_values(r->not_claims, 12, false);
    pick_values(r->query, 6, true);
    pick_values(r->not_query, 10, false);
    pick_values(r->headers, 6, true);
    pick_values(r->not_headers, 10, false);
}

static void random_row(struct row *r, uint32_t density, bool more)
{
    if (more) {
        random_row_more(r);
    }
    pick_list(r->principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), density);
    pick_list(r->not_principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 8);
    pick_list(r->domains, domains, COUNT(domains), NULL, 0, 4);
    pick_list(r->not_domains, domains, COUNT(domains), NULL, 0, 10);
    pick_list(r->blocks, blocks, COUNT(blocks), NULL, 0, 4);
    pick_list(r->not_blocks, blocks, COUNT(blocks), NULL, 0, 10);
    pick_list(r->methods, methods, COUNT(methods), NULL, 0, 4);
    pick_list(r->not_methods, methods, COUNT(methods), NULL, 0, 10);
    pick_list(r->hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 4);
    pick_list(r->not_hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 10);
    pick_list(r->paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), density);
    pick_list(r->not_paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), 10);
    for (uint32_t i = 0, n = below(3) == 0 ? 1 + below(3) : 0; i < n; i++) {
        r->ports[i] = (uint16_t)(80 + below(4));
    }
    if (below(10) == 0) {
        r->not_ports[0] = (uint16_t)(80 + below(4));
    }
    r->from = below(5) > 0;
    r->to = below(5) > 0;
}

static struct conf_policy *random_conf(void)
{
    enum { ROWS_MAX = 60 };
    static struct row rows[ROWS_MAX];
    static char names[ROWS_MAX][16];
    uint32_t n = below(4) == 0 ? below(ROWS_MAX) : below(8);
    uint32_t density = 1 + below(4);
    bool more = below(2) == 0;
    memset(rows, 0, sizeof(rows));
    for (uint32_t i = 0; i < n; i++) {
        bool same = i > 0 && below(4) == 0;
        random_row(&rows[i], density, more);
        if (same) {
            rows[i].name = rows[i - 1].name;
            continue;
        }
        snprintf(names[i], sizeof(names[i]), "r%u", i);
        rows[i].name = names[i];
        rows[i].action = below(4) == 0 ? CONF_DENY : CONF_ALLOW;
        if (more) {
            rows[i].action = below(8) == 0 ? CONF_AUDIT : rows[i].action;
            rows[i].mode = below(6) == 0 ? CONF_DRY_RUN : CONF_ENFORCE;
            rows[i].expires_s = below(6) == 0 ? 100 + below(3) : 0;
        }
        pick_list(rows[i].target, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 3);
    }
    return policy_rows_conf(rows, n);
}

/* What a question borrows. */
struct borrowed {
    struct policy_header header_items[4], claim_items[4];
    struct policy_headers headers;
    struct policy_claims claims;
};

static size_t random_headers(struct policy_header *items)
{
    size_t n = below(5);
    for (size_t i = 0; i < n; i++) {
        items[i].name = str_of(PICK(value_names, value_names));
        items[i].value = below(8) == 0 ? STR_NONE : str_of(PICK(values, values));
    }
    return n;
}

static struct question random_question(struct borrowed *room)
{
    room->headers = (struct policy_headers){random_headers(room->header_items), room->header_items};
    room->claims = (struct policy_claims){random_headers(room->claim_items), room->claim_items};
    return (struct question){
        .peer = below(8) == 0 ? NULL : PICK(ids, ids),
        .source = below(8) == 0 ? NULL : PICK(addresses, addresses),
        .method = below(3) == 0 ? NULL : PICK(methods, methods),
        .host = below(8) == 0 ? NULL : PICK(hosts, hosts),
        .path = PICK(paths, paths),
        .port = (uint16_t)(79 + below(6)),
        .target = below(10) == 0 ? "" : PICK(ids, ids),
        .query = below(8) == 0 ? NULL : PICK(queries, queries),
        .grpc = below(2) == 0,
        .headers = below(8) == 0 ? NULL : &room->headers,
        .claims = below(4) == 0 ? NULL : &room->claims,
        .now_s = below(4) == 0 ? 0 : 99 + below(4),
    };
}

static const struct conf_rule *rule_named(const struct conf_policy *conf, const char *text)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        char start[40];
        snprintf(start, sizeof(start), "rule \"%s\":", conf->rules[i].name);
        if (strncmp(text, start, strlen(start)) == 0) {
            return &conf->rules[i];
        }
    }
    return NULL;
}

/* What is said of a denial is true: an ALLOW rule, and one that does fail. */
static void check_near_miss(const struct conf_policy *conf, const struct policy *p,
                            const struct policy_query *q)
{
    char text[2048];
    char again[2048];
    policy_near_miss(p, q, text, sizeof(text));
    policy_near_miss(p, q, again, sizeof(again));
    assert_string_equal(text, again);
    if (strncmp(text, "rule", 4) != 0) {
        assert_non_null(strstr(text, "no ALLOW rule speaks of target"));
        for (size_t i = 0; i < conf->n_rules; i++) {
            struct conf_rule only_target = conf->rules[i];
            only_target.n_from = only_target.n_to = 0;
            assert_true(only_target.action != CONF_ALLOW || only_target.mode == CONF_DRY_RUN ||
                        only_target.expires_s != 0 ||
                        policy_ref_failed_clauses(&only_target, q) > 0);
        }
        return;
    }
    const struct conf_rule *rule = rule_named(conf, text);
    if (rule == NULL) {
        fail_msg("no such rule: %s", text);
        return;
    }
    assert_int_equal(rule->action, CONF_ALLOW);
    assert_true(policy_ref_failed_clauses(rule, q) > 0);
}

/* --- when they differ --------------------------------------------------------------------------*/

static bool differs_in(const struct policy_verdict *v, const struct policy_verdict *ref)
{
    return v->allow != ref->allow || v->rule_line != ref->rule_line || v->shadow != ref->shadow ||
           (v->audit == NULL) != (ref->audit == NULL) ||
           (v->audit != NULL && strcmp(v->audit, ref->audit) != 0);
}

static bool differs(const struct conf_policy *conf, const struct policy_query *q)
{
    struct policy_verdict v = {0}, ref = {0};
    struct policy *p = policy_new(conf, NULL);
    policy_decide(p, q, &v);
    policy_ref_decide(conf, q, &ref);
    policy_free(p);
    return differs_in(&v, &ref);
}

/* Leaves out of the array what does not matter: entry by entry, while they still differ. */
#define SHRINK(conf, q, array, n)                                                                  \
    for (size_t at_ = 0; at_ < (n) && (n) > 1;) {                                                  \
        __typeof__((array)[0]) gone_ = (array)[at_];                                               \
        memmove(&(array)[at_], &(array)[at_ + 1], ((n) - at_ - 1) * sizeof(gone_));                \
        (n)--;                                                                                     \
        if (!differs(conf, q)) {                                                                   \
            memmove(&(array)[at_ + 1], &(array)[at_], ((n) - at_) * sizeof(gone_));                \
            (array)[at_++] = gone_;                                                                \
            (n)++;                                                                                 \
        }                                                                                          \
    }

static void print_strings(const char *name, const struct conf_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        print_message("    %s: %s\n", name, list->items[i]);
    }
}

static void print_values(const char *name, const struct conf_policy_values *list)
{
    for (size_t i = 0; i < list->n; i++) {
        print_message("    %s %s%s\n", name, list->items[i].name,
                      list->items[i].present ? " present" : "");
        print_strings("  value", &list->items[i].values);
    }
}

static void print_rule(const struct conf_rule *r)
{
    print_message("  rule %s: action %d, mode %d, ends %lld, %zu from, %zu to\n", r->name,
                  r->action, r->mode, (long long)r->expires_s, r->n_from, r->n_to);
    print_strings("target", &r->target_principals);
    for (size_t i = 0; i < r->n_from; i++) {
        const struct conf_policy_from *f = &r->from[i];
        print_strings("principal", &f->principals);
        print_strings("not principal", &f->not_principals);
        print_strings("domain", &f->trust_domains);
        print_strings("not domain", &f->not_trust_domains);
        print_strings("namespace", &f->namespaces);
        print_strings("not namespace", &f->not_namespaces);
        print_strings("account", &f->service_accounts);
        print_strings("not account", &f->not_service_accounts);
        print_values("claim", &f->claims);
        print_values("not claim", &f->not_claims);
        print_message("    %zu and not %zu blocks\n", f->ip_blocks.n, f->not_ip_blocks.n);
    }
    for (size_t i = 0; i < r->n_to; i++) {
        const struct conf_policy_to *t = &r->to[i];
        print_message("    %zu and not %zu ports\n", t->n_ports, t->n_not_ports);
        print_strings("method", &t->methods);
        print_strings("not method", &t->not_methods);
        print_strings("host", &t->hosts);
        print_strings("not host", &t->not_hosts);
        print_strings("path", &t->paths);
        print_strings("not path", &t->not_paths);
        print_strings("grpc", &t->grpc);
        print_strings("not grpc", &t->not_grpc);
        print_values("query", &t->query);
        print_values("not query", &t->not_query);
        print_values("header", &t->headers);
        print_values("not header", &t->not_headers);
    }
}

static void print_difference(struct conf_policy *conf, const struct policy_query *q)
{
    struct conf_rule *all = conf->rules;
    size_t n = conf->n_rules;
    conf->rules = policy_rows_must(calloc(n, sizeof(conf->rules[0])));
    memcpy(conf->rules, all, n * sizeof(all[0]));
    SHRINK(conf, q, conf->rules, conf->n_rules);
    for (size_t i = 0; i < conf->n_rules; i++) {
        SHRINK(conf, q, conf->rules[i].from, conf->rules[i].n_from);
        SHRINK(conf, q, conf->rules[i].to, conf->rules[i].n_to);
        print_rule(&conf->rules[i]);
    }
    print_message("  %.*s to %.*s, port %u, http %d, grpc %d, %.*s %.*s?%.*s, now %lld\n",
                  (int)q->peer.n, q->peer.p, (int)q->target.n, q->target.p, q->port, q->http,
                  q->grpc, (int)q->method.n, q->method.p, (int)q->path.n, q->path.p,
                  (int)q->query.n, q->query.p, (long long)q->now_s);
    for (size_t i = 0; q->headers != NULL && i < q->headers->n; i++) {
        print_message("  header %.*s: %.*s\n", (int)q->headers->items[i].name.n,
                      q->headers->items[i].name.p, (int)q->headers->items[i].value.n,
                      q->headers->items[i].value.p);
    }
}

static void test_against_reference(void **state)
{
    (void)state;
    enum { CASES = 200000, CASES_EACH = 50, BUDGET_S = 3 };
    rng_state = seed;
    clock_t end = clock() + (clock_t)BUDGET_S * CLOCKS_PER_SEC;
    unsigned done = 0;
    unsigned outcomes[4] = {0}, shadows = 0, audits = 0;
    while (done < CASES && clock() < end) {
        struct conf_policy *conf = random_conf();
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        assert_non_null(p);
        for (unsigned i = 0; i < CASES_EACH; i++, done++) {
            struct borrowed room;
            struct question question = random_question(&room);
            struct sockaddr_storage source;
            struct policy_query q = policy_rows_query(&question, &source);
            struct policy_verdict v = {0};
            struct policy_verdict ref = {0};
            policy_decide(p, &q, &v);
            policy_ref_decide(conf, &q, &ref);
            if (differs_in(&v, &ref)) {
                print_difference(conf, &q);
                fail_msg("seed %llu, case %u: %s by %s, reference %s by %s",
                         (unsigned long long)seed, done, v.allow ? "allow" : "deny",
                         v.rule != NULL ? v.rule : "none", ref.allow ? "allow" : "deny",
                         ref.rule != NULL ? ref.rule : "none");
            }
            policy_rows_same_verdict(&v, &ref);
            assert_int_equal(policy_wants_requests(p, q.target, q.port),
                             policy_ref_wants_requests(conf, q.target, q.port));
            outcomes[v.reason]++;
            shadows += v.shadow != POLICY_SHADOW_SAME;
            audits += v.audit != NULL;
            if (v.reason == POLICY_NO_RULE && i % 4 == 0) {
                check_near_miss(conf, p, &q);
            }
        }
        policy_free(p);
        policy_rows_free(conf);
    }
    print_message("seed %llu: %u cases: %u allowed, %u denied by rule, %u by none\n",
                  (unsigned long long)seed, done, outcomes[POLICY_ALLOWED],
                  outcomes[POLICY_DENIED_BY_RULE], outcomes[POLICY_NO_RULE]);
    /* All happen often, or the comparison compares nothing. */
    assert_true(outcomes[POLICY_ALLOWED] > done / 50);
    assert_true(outcomes[POLICY_DENIED_BY_RULE] > done / 50);
    assert_true(outcomes[POLICY_NO_RULE] > done / 50);
    assert_true(shadows > done / 200);
    assert_true(audits > done / 200);
}

/* Threads share a policy without a lock: the thread sanitizer watches, the verdicts are the same.
 */
enum { THREADS = 3, SHARED_QUESTIONS = 2000 };

struct shared {
    const struct policy *policy;
    struct question questions[SHARED_QUESTIONS];
    struct borrowed rooms[SHARED_QUESTIONS];
    struct policy_verdict verdicts[SHARED_QUESTIONS];
    unsigned differ[THREADS];
};

struct asker {
    struct shared *shared;
    unsigned number;
};

static void *ask_all(void *arg)
{
    struct asker *a = arg;
    for (size_t i = 0; i < SHARED_QUESTIONS; i++) {
        struct sockaddr_storage source;
        struct policy_query q = policy_rows_query(&a->shared->questions[i], &source);
        struct policy_verdict v = {0};
        char text[512];
        policy_decide(a->shared->policy, &q, &v);
        policy_near_miss(a->shared->policy, &q, text, sizeof(text));
        const struct policy_verdict *want = &a->shared->verdicts[i];
        a->shared->differ[a->number] += v.allow != want->allow || v.rule != want->rule;
    }
    return NULL;
}

static void test_threads_share_a_policy(void **state)
{
    (void)state;
    rng_state = seed;
    struct shared *s = policy_rows_must(calloc(1, sizeof(*s)));
    struct conf_policy *conf = random_conf();
    while (conf->n_rules < 20) {
        policy_rows_free(conf);
        conf = random_conf();
    }
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    s->policy = p;
    for (size_t i = 0; i < SHARED_QUESTIONS; i++) {
        struct sockaddr_storage source;
        s->questions[i] = random_question(&s->rooms[i]);
        struct policy_query q = policy_rows_query(&s->questions[i], &source);
        policy_decide(p, &q, &s->verdicts[i]);
    }
    pthread_t threads[THREADS];
    struct asker askers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        askers[i] = (struct asker){s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all, &askers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(s->differ[i], 0);
    }
    policy_free(p);
    policy_rows_free(conf);
    free(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_threads_share_a_policy),
    };
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
