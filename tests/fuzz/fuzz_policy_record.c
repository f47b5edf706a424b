/*
 * Lines of a log: one a line of the input. Properties: a decision has a target, a port, and a
 * method if it is a request; what is suggested of all decisions is a policy, and it allows every
 * one of them that was taken.
 */
#include <postern/policy_tools.h>

#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINES_MAX = 64 };

static void check_record(const struct policy_record *r)
{
    const struct policy_query *q = &r->query;
    assert(q->target.n > 0);
    assert(!q->http || (q->method.n > 0 && q->path.n > 0));
    assert(q->query.p == NULL && q->headers == NULL && q->claims == NULL);
}

/* Of the decisions that were taken; a policy that is too large for its engine says so. */
static void hold(const struct policy_suggest *s, const struct policy_record *records,
                 const bool *taken, size_t n)
{
    struct buf out = BUF_INIT(8 << 20);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    assert(policy_suggest_write(s, &out, NULL) == 0);
    assert(conf_parse_policy("s", (const char *)buf_head(&out), buf_len(&out), diag, &conf) == 0);
    struct policy *p = policy_new(conf, NULL);
    for (size_t i = 0; i < n && p != NULL; i++) {
        struct policy_verdict v;
        policy_decide(p, &records[i].query, &v);
        assert(v.allow || !taken[i]);
    }
    policy_free(p);
    conf_policy_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct policy_suggest_options o = {.denied = true};
    struct policy_suggest *s = policy_suggest_new(&o);
    struct policy_record records[LINES_MAX];
    bool taken[LINES_MAX];
    size_t n = 0;
    const char *p = (const char *)data;
    const char *end = p + size;
    while (size > 0 && p < end && n < LINES_MAX) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        struct str line = {p, (size_t)((line_end != NULL ? line_end : end) - p)};
        if (policy_record_parse(line, &records[n]) == POLICY_RECORD_DECISION) {
            struct policy_suggest_count before, after;
            check_record(&records[n]);
            policy_suggest_counts(s, &before);
            policy_suggest_add(s, &records[n]);
            policy_suggest_counts(s, &after);
            taken[n++] = after.taken > before.taken;
        }
        p += line.n + 1;
    }
    hold(s, records, taken, n);
    for (size_t i = 0; i < n; i++) {
        policy_record_deinit(&records[i]);
    }
    policy_suggest_free(s);
    return 0;
}
