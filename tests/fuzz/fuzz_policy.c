/* A policy file that loads also compiles, or says why not; and then it answers like the reference
 * evaluator. The questions are made of the file's own items, so that they meet. */
#include <postern/policy.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { QUESTIONS = 32, VALUE_MAX = 256 };

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "policy: %s\n", what);
        abort();
    }
}

static uint32_t below(uint64_t *state, uint64_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return n > 0 ? (uint32_t)((*state >> 33) % n) : 0;
}

/* An item as a value: stars go, a % sequence may stay as it is, and now and then a byte is added or
 * lost. */
static struct str value_of(const struct conf_strings *list, uint64_t *rng, char *room)
{
    const char *item = list->n > 0 ? list->items[below(rng, list->n)] : "spiffe://a.b/x";
    size_t n = 0;
    for (; *item != '\0' && n < VALUE_MAX - 1; item++) {
        if (*item != '*') {
            room[n++] = *item;
        }
    }
    switch (below(rng, 6)) {
    case 0:
        room[n++] = '/';
        break;
    case 1:
        room[n++] = '.';
        break;
    case 2:
        n -= n > 0;
        break;
    default:
        break;
    }
    return (struct str){room, n};
}

static const struct conf_strings *either(const struct conf_strings *a, const struct conf_strings *b,
                                         uint64_t *rng)
{
    return below(rng, 2) == 0 || b->n == 0 ? a : b;
}

static void ask(const struct conf_policy *conf, const struct policy *p, uint64_t *rng)
{
    static const struct conf_policy_from no_from;
    static const struct conf_policy_to no_to;
    static const struct conf_strings none;
    char rooms[5][VALUE_MAX];
    const struct conf_rule *r = conf->n_rules > 0 ? &conf->rules[below(rng, conf->n_rules)] : NULL;
    const struct conf_policy_from *f =
        r != NULL && r->n_from > 0 ? &r->from[below(rng, r->n_from)] : &no_from;
    const struct conf_policy_to *t =
        r != NULL && r->n_to > 0 ? &r->to[below(rng, r->n_to)] : &no_to;
    struct sockaddr_in6 source = {.sin6_family = AF_INET6};
    const struct conf_cidrs *blocks = below(rng, 2) == 0 ? &f->ip_blocks : &f->not_ip_blocks;
    if (blocks->n > 0) {
        const struct conf_cidr *c = &blocks->items[below(rng, blocks->n)];
        bool v4 = c->family == AF_INET;
        memset(source.sin6_addr.s6_addr + 10, v4 ? 0xff : 0, 2);
        memcpy(source.sin6_addr.s6_addr + (v4 ? 12 : 0), c->addr, v4 ? 4 : 16);
        source.sin6_addr.s6_addr[15] ^= (uint8_t)below(rng, 3);
    }
    struct policy_query q = {
        .target = value_of(r != NULL ? &r->target_principals : &none, rng, rooms[0]),
        .peer = value_of(either(&f->principals, &f->not_principals, rng), rng, rooms[1]),
        .source = below(rng, 8) == 0 ? NULL : (const struct sockaddr *)&source,
        .port = t->n_ports > 0 ? t->ports[below(rng, t->n_ports)] : (uint16_t)below(rng, 65536),
        .http = below(rng, 4) != 0,
        .method = value_of(either(&t->methods, &t->not_methods, rng), rng, rooms[2]),
        .host = value_of(either(&t->hosts, &t->not_hosts, rng), rng, rooms[3]),
        .path = value_of(either(&t->paths, &t->not_paths, rng), rng, rooms[4]),
    };
    if (below(rng, 8) == 0) {
        q.peer = STR_NONE;
    }
    struct policy_verdict v = {0};
    struct policy_verdict ref = {0};
    policy_decide(p, &q, &v);
    policy_ref_decide(conf, &q, &ref);
    check(v.allow == ref.allow && v.reason == ref.reason, "the reference decides otherwise");
    check(v.rule_line == ref.rule_line, "the reference names another rule");
    check((v.rule == NULL) == (ref.rule == NULL) ||
              (v.rule != NULL && strcmp(v.rule, ref.rule) == 0),
          "the reference names another rule");
    check(policy_wants_requests(p, q.target, q.port) ==
              policy_ref_wants_requests(conf, q.target, q.port),
          "the reference wants requests otherwise");
    char text[512];
    policy_near_miss(p, &q, text, sizeof(text));
    for (const char *c = text; *c != '\0'; c++) {
        check(*c >= 0x20 && *c <= 0x7e, "a byte in a near miss that is not printable");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t rng = 0x9e3779b97f4a7c15U + size;
    for (size_t i = 0; i < size; i++) {
        rng = (rng ^ data[i]) * 0x100000001b3U;
    }
    rng |= 1;
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    if (conf_parse_policy("fuzz.yaml", (const char *)data, size, diag, &conf) == 0) {
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        check(p != NULL || err.what[0] != '\0', "refused without a word");
        for (int i = 0; p != NULL && i < QUESTIONS; i++) {
            ask(conf, p, &rng);
        }
        policy_free(p);
    }
    conf_policy_free(conf);
    conf_diag_free(diag);
    return 0;
}
