/*
 * What a decision costs, by the number of rules: nanoseconds a question, for kinds of policies and
 * questions, and what it takes of memory. Run by hand on a quiet machine:
 * bench_policy [QUESTIONS [KIND [RULES]]]
 */
#include <postern/policy.h>

#include <arpa/inet.h>
#include <malloc.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DISTINCT = 1024 };

enum shape {
    SERVICES,   /* a mesh: each rule lets one caller into one target, a port, methods, a path prefix
                 */
    ONE_TARGET, /* all rules speak of one workload: callers differ */
    GRID,       /* one workload, callers x paths */
    NETWORKS,   /* one workload, address blocks */
    DENIES,     /* half of the rules deny with not_ clauses */
    EXCLUSIONS, /* rules differ in not_ clauses alone, and all of them exclude whoever asks */
    TEMPLATES,  /* one workload, paths that overlap: each of them holds for many */
    ACCOUNTS,   /* namespaces x service accounts */
    HEADERS,    /* a header and a parameter each, of a request with ten headers */
    CLAIMS,     /* claims of a token */
    GRPC,       /* services x methods */
    MIXED,      /* every clause somewhere: rules of all of the above */
    SHAPE_COUNT
};

static const char *const shape_names[] = {"services", "one target", "grid",      "networks",
                                          "denies",   "exclusions", "templates", "accounts",
                                          "headers",  "claims",     "grpc",      "mixed"};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static size_t allocated(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static struct conf_strings list(const char *fmt, unsigned i)
{
    struct conf_strings s = {.items = mem_must_calloc(1, sizeof(char *)), .n = 1};
    char text[200];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof(text), fmt, i);
#pragma GCC diagnostic pop
    s.items[0] = mem_must_strdup(text);
    return s;
}

static unsigned grid_side(unsigned n)
{
    unsigned side = 1;
    while (side * side < n) {
        side++;
    }
    return side;
}

static struct conf_policy_values named(const char *name, const char *fmt, unsigned i)
{
    struct conf_policy_values v = {.items = mem_must_calloc(1, sizeof(*v.items)), .n = 1};
    v.items[0].name = mem_must_strdup(name);
    v.items[0].values = list(fmt, i);
    return v;
}

static struct conf_strings two(struct conf_strings a, struct conf_strings b)
{
    a.items = mem_must_realloc(a.items, 2 * sizeof(char *));
    a.items[a.n++] = b.items[0];
    return a;
}

static void make_rule(struct conf_rule *r, enum shape shape, unsigned i, unsigned n)
{
    unsigned side = grid_side(n);
    if (shape == MIXED) {
        make_rule(r, (enum shape)(i % MIXED), i, n);
        return;
    }
    r->name = mem_must_printf("rule-%u", i);
    r->line = i + 1;
    r->from = mem_must_calloc(1, sizeof(r->from[0]));
    r->to = mem_must_calloc(1, sizeof(r->to[0]));
    r->n_from = r->n_to = 1;
    r->to->ports = mem_must_calloc(1, sizeof(uint16_t));
    r->to->ports[0] = 8080;
    r->to->n_ports = 1;
    r->to->methods = list("GET", 0);
    switch (shape) {
    case SERVICES:
        r->target_principals = list("spiffe://example.org/ns/shop/sa/service-%u", i);
        r->from->principals = list("spiffe://example.org/ns/web/sa/caller-%u", i);
        r->to->paths = list("/api/v1/%u/*", i % 50);
        break;
    case ONE_TARGET:
        r->from->principals = list("spiffe://example.org/ns/web/sa/caller-%u", i);
        r->to->paths = list("/api/v1/%u/*", i % 50);
        break;
    case GRID:
        r->from->principals = list("spiffe://example.org/ns/web/sa/caller-%u", i % side);
        r->to->paths = list("/api/v1/%u/*", i / side);
        break;
    case NETWORKS:
        r->from->ip_blocks.items = mem_must_calloc(1, sizeof(struct conf_cidr));
        r->from->ip_blocks.n = 1;
        r->from->ip_blocks.items[0] = (struct conf_cidr){
            .family = AF_INET,
            .addr = {10, (uint8_t)(i >> 12), (uint8_t)(i >> 4), (uint8_t)(i << 4)},
            .prefix_len = (uint8_t)(28 - i % 5),
        };
        break;
    case DENIES:
        r->action = i % 2 == 0 ? CONF_DENY : CONF_ALLOW;
        r->to->paths = list("/api/v1/%u/*", i / 2);
        if (r->action == CONF_DENY) {
            r->from->not_principals = list("spiffe://example.org/ns/web/sa/caller-%u", i / 2);
        } else {
            r->from->trust_domains = list("example.org", 0);
        }
        break;
    case EXCLUSIONS:
        r->from->not_principals =
            two(list("spiffe://example.org/*", 0), list("spiffe://other/caller-%u", i));
        break;
    case TEMPLATES:
        r->from->principals = list("spiffe://example.org/ns/web/sa/caller-%u", i % 100);
        r->to->paths = i % 4 == 0   ? list("/api/{}/%u/{}/{}", i / 100)
                       : i % 4 == 1 ? list("/api/v1/%u/{**}", i / 100)
                       : i % 4 == 2 ? list("/{}/v1/%u/items/{}", i / 100)
                                    : list("/api/v1/%u/*", i / 100);
        break;
    case ACCOUNTS:
        r->from->namespaces = list("ns-%u", i / side);
        r->from->service_accounts = list("caller-%u", i % side);
        break;
    case HEADERS:
        r->to->headers = named("x-tenant", "tenant-%u", i % side);
        r->to->query = named("item", "%u", i / side);
        break;
    case CLAIMS:
        r->from->claims = named("sub", "user-%u", i);
        break;
    case GRPC:
        r->to->grpc = list("shop.Service%u/Get", i);
        break;
    case MIXED:
    case SHAPE_COUNT:
        break;
    }
}

enum { HEADERS_SENT = 10 };

struct question {
    struct policy_header headers[HEADERS_SENT], claims[3];
    struct policy_headers header_list;
    struct policy_claims claim_list;
    char tenant[40], user[40], query[60];
    char target[100], peer[100], path[100];
    struct sockaddr_in source;
};

static void make_question(struct question *q, enum shape shape, unsigned i, unsigned n)
{
    unsigned r = (unsigned)((uint64_t)i * 2654435761U % n);
    unsigned side = grid_side(n);
    unsigned caller = shape == GRID ? r % side : shape == DENIES ? r / 2 : r;
    unsigned path = shape == GRID ? r / side : shape == DENIES ? r / 2 : r % 50;
    bool miss = i % 2 == 0; /* half are allowed */
    if (shape == TEMPLATES) {
        caller = r % 100;
        path = r / 100;
    }
    static const char *const usual[HEADERS_SENT] = {
        "host",   "user-agent",   "accept", "accept-encoding", "x-request-id",
        "cookie", "content-type", "dnt",    "x-tenant",        "traceparent"};
    for (unsigned h = 0; h < HEADERS_SENT; h++) {
        q->headers[h] = (struct policy_header){str_of(usual[h]), STR_LIT("some value of its own")};
    }
    snprintf(q->tenant, sizeof(q->tenant), "%s-%u", miss ? "nobody" : "tenant", r % side);
    snprintf(q->user, sizeof(q->user), "%s-%u", miss ? "nobody" : "user", r);
    snprintf(q->query, sizeof(q->query), "page=3&item=%u&sort=up", r / side);
    q->headers[8].value = str_of(q->tenant);
    q->header_list = (struct policy_headers){HEADERS_SENT, q->headers};
    q->claims[0] = (struct policy_header){STR_LIT("iss"), STR_LIT("https://idp.example.org")};
    q->claims[1] = (struct policy_header){STR_LIT("sub"), str_of(q->user)};
    q->claims[2] = (struct policy_header){STR_LIT("aud"), STR_LIT("shop")};
    q->claim_list = (struct policy_claims){3, q->claims};
    snprintf(q->target, sizeof(q->target), "spiffe://example.org/ns/shop/sa/service-%u", r);
    if (shape == ACCOUNTS) {
        snprintf(q->peer, sizeof(q->peer), "spiffe://example.org/ns/ns-%u/sa/%s-%u", r / side,
                 miss ? "stranger" : "caller", r % side);
    } else {
        snprintf(q->peer, sizeof(q->peer), "spiffe://example.org/ns/web/sa/%s-%u",
                 miss ? "stranger" : "caller", caller);
    }
    if (shape == GRPC) {
        snprintf(q->path, sizeof(q->path), "/shop.Service%u/%s", r, miss ? "Put" : "Get");
    } else {
        snprintf(q->path, sizeof(q->path), "/api/v1/%u/items/%u", path, i);
    }
    q->source = (struct sockaddr_in){.sin_family = AF_INET};
    q->source.sin_addr.s_addr = htonl((miss ? 0x0b000000U : 0x0a000000U) | r << 4 | 1U);
}

static void run(enum shape shape, unsigned n, unsigned questions)
{
    struct conf_policy conf = {.path = mem_must_strdup("bench"), .n_rules = n};
    conf.rules = mem_must_calloc(n, sizeof(conf.rules[0]));
    for (unsigned i = 0; i < n; i++) {
        make_rule(&conf.rules[i], shape, i, n);
    }
    size_t bytes = allocated();
    double before = now_ns();
    struct err err = ERR_INIT;
    struct policy *p = policy_new(&conf, &err);
    double compile_ms = (now_ns() - before) / 1e6;
    if (p == NULL) {
        char text[1100];
        printf("%s\n", err_text(&err, text, sizeof(text)));
        exit(1);
    }
    bytes = allocated() - bytes;
    struct question *qs = mem_must_calloc(DISTINCT, sizeof(*qs));
    struct policy_query *queries = mem_must_calloc(DISTINCT, sizeof(*queries));
    for (unsigned i = 0; i < DISTINCT; i++) {
        make_question(&qs[i], shape, i, n);
        queries[i] = (struct policy_query){
            .target = str_of(qs[i].target),
            .peer = str_of(qs[i].peer),
            .source = (const struct sockaddr *)&qs[i].source,
            .port = 8080,
            .http = true,
            .method = STR_LIT("GET"),
            .host = STR_LIT("orders.example.org"),
            .path = str_of(qs[i].path),
            .query = str_of(qs[i].query),
            .grpc = shape == GRPC,
            .headers = &qs[i].header_list,
            .claims = &qs[i].claim_list,
            .now_s = 1,
        };
    }
    unsigned allowed = 0;
    struct policy_verdict v;
    before = now_ns();
    for (unsigned i = 0; i < questions; i++) {
        policy_decide(p, &queries[i % DISTINCT], &v);
        allowed += v.allow;
    }
    double ask_ns = (now_ns() - before) / questions;
    char text[512];
    unsigned misses = questions / 100 + 1;
    before = now_ns();
    for (unsigned i = 0; i < misses; i++) {
        policy_near_miss(p, &queries[i * 2 % DISTINCT], text, sizeof(text));
    }
    double miss_us = (now_ns() - before) / misses / 1e3;
    printf("%-10s %7u rules: %7.0f ns a decision, %6.1f us a near miss, compiled in %6.1f ms, "
           "%2.0f%% allowed, %7.0f kB\n",
           shape_names[shape], n, ask_ns, miss_us, compile_ms, 100.0 * allowed / questions,
           (double)bytes / 1024);
    fflush(stdout);
    policy_free(p);
    free(qs);
    free(queries); /* conf is left to the end of the process */
}

int main(int argc, char **argv)
{
    uint64_t questions = 500000, rules = 0;
    const char *kind = argc > 2 ? argv[2] : NULL;
    if (argc > 4 || (argc > 1 && !str_to_u64(str_of(argv[1]), 1000000000, &questions)) ||
        (argc > 3 && !str_to_u64(str_of(argv[3]), 1000000, &rules)) || questions == 0) {
        fprintf(stderr, "usage: bench_policy [QUESTIONS [KIND [RULES]]]\n");
        return 2;
    }
    for (enum shape s = 0; s < SHAPE_COUNT; s++) {
        if (kind != NULL && strcmp(kind, shape_names[s]) != 0) {
            continue;
        }
        for (unsigned n = 10; rules == 0 && n <= 100000; n *= 10) {
            run(s, n, (unsigned)questions);
        }
        if (rules > 0) {
            run(s, (unsigned)rules, (unsigned)questions);
        }
    }
    return 0;
}
