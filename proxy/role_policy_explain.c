/* role_policy_explain: `postern policy explain`: a request that somebody makes up, or a decision
 * out of a log, and why a policy says what it says of it. (Of a running proxy:
 * role_policy_running.c.) */
#include "role_policy.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_question.h>
#include <postern/policy_tools.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles_priv.h"

enum { SAID_MAX = 32, VALUES_MAX = 16 };

struct explain_options {
    bool json;
    const char *log, *decision, *proxy;
    const char *values[VALUES_MAX]; /* of the keys of a request, as a file would say them */
    const char *headers[SAID_MAX], *claims[SAID_MAX];
    size_t n_headers, n_claims;
    const char *policy, *for_whom;
};

static const char *const keys[] = {"peer", "source", "target", "port", "method",
                                   "host", "path",   "grpc",   "time"};
enum { N_KEYS = sizeof(keys) / sizeof(keys[0]), N_OTHERS = 6 };

static bool has_values(const struct explain_options *o)
{
    bool any = false;
    for (size_t k = 0; k < N_KEYS; k++) {
        any = any || o->values[k] != NULL;
    }
    return any;
}

static bool take_options(int argc, char **argv, struct explain_options *o)
{
    static const char *const flags[N_KEYS] = {"--peer", "--source", "--target",
                                              "--port", "--method", "--host",
                                              "--path", "--grpc",   "--time"};
    for (int i = 1; i < argc; i++) {
        const char *header = NULL;
        const char *claim = NULL;
        struct role_text texts[N_KEYS + N_OTHERS] = {
            {"--log", &o->log},  {"--decision", &o->decision}, {"--header", &header},
            {"--claim", &claim}, {"--proxy", &o->proxy},       {"--for", &o->for_whom}};
        for (size_t k = 0; k < N_KEYS; k++) {
            texts[k + N_OTHERS] = (struct role_text){flags[k], &o->values[k]};
        }
        if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
        } else if (role_take_text(texts, N_KEYS + N_OTHERS, argc, argv, &i)) {
            if ((header != NULL && o->n_headers == SAID_MAX) ||
                (claim != NULL && o->n_claims == SAID_MAX)) {
                return false;
            }
            if (header != NULL) {
                o->headers[o->n_headers++] = header;
            } else if (claim != NULL) {
                o->claims[o->n_claims++] = claim;
            }
        } else if (argv[i][0] != '-' && o->proxy != NULL && o->decision == NULL) {
            o->decision = argv[i];
        } else if (argv[i][0] != '-' && o->policy == NULL) {
            o->policy = argv[i];
        } else {
            return false;
        }
    }
    if (o->proxy != NULL) {
        return o->log == NULL && o->n_headers == 0 && o->n_claims == 0 && !has_values(o);
    }
    bool asked =
        o->log != NULL || (o->values[2] != NULL && o->values[3] != NULL); /* target, port */
    return o->policy != NULL && asked && (o->log == NULL) == (o->decision == NULL);
}

/* --- a request by options: written as a PolicyTest file, so that its reader judges it ----------
 */
static void put_quoted(struct buf *out, const char *text, size_t n)
{
    buf_printf(out, "\"");
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c == '"' || c == '\\') {
            buf_printf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(out, "\\x%02x", c);
        } else {
            buf_append(out, &c, 1);
        }
    }
    buf_printf(out, "\"");
}

/* NAME:VALUE or NAME=VALUE. */
static bool put_said(struct buf *out, const char *const *items, size_t n, char sep)
{
    for (size_t i = 0; i < n; i++) {
        const char *at = strchr(items[i], sep);
        if (at == NULL) {
            return false;
        }
        buf_printf(out, "%s{name: ", i == 0 ? "" : ", ");
        put_quoted(out, items[i], (size_t)(at - items[i]));
        buf_printf(out, ", value: ");
        put_quoted(out, at + 1, strlen(at + 1));
        buf_printf(out, "}");
    }
    return true;
}

static int explain_request(const struct explain_options *o, const struct role_policy *p,
                           struct buf *out)
{
    struct buf text = BUF_INIT(1 << 20);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy_test *test = NULL;
    bool ok = buf_printf(&text, "kind: PolicyTest\nlevel: 1\ntests:\n- name: it\n  expect: allow\n"
                                "  request:\n");
    for (size_t i = 0; i < N_KEYS; i++) {
        if (o->values[i] != NULL) {
            bool bare = strcmp(keys[i], "port") == 0 || strcmp(keys[i], "time") == 0;
            buf_printf(&text, "    %s: ", keys[i]);
            if (bare && strpbrk(o->values[i], "\n#") == NULL) {
                buf_printf(&text, "%s", o->values[i]);
            } else {
                put_quoted(&text, o->values[i], strlen(o->values[i]));
            }
            buf_printf(&text, "\n");
        }
    }
    if (o->n_headers > 0) {
        buf_printf(&text, "    headers: [");
        ok = ok && put_said(&text, o->headers, o->n_headers, ':');
        buf_printf(&text, "]\n");
    }
    if (o->n_claims > 0) {
        buf_printf(&text, "    claims: [");
        ok = ok && put_said(&text, o->claims, o->n_claims, '=');
        ok = buf_printf(&text, "]\n") && ok;
    }
    int rc = 2;
    if (!ok) {
        fprintf(stderr, "postern: a header is NAME:VALUE, a claim NAME=VALUE\n");
    } else if (conf_parse_policy_test("the options", (const char *)buf_head(&text), buf_len(&text),
                                      diag, &test) != 0) {
        role_print_diag(diag);
    } else {
        mem_auto(policy_question_free) struct policy_question *q =
            policy_question_of(&test->cases[0].request, os_wall_s());
        if (q->refused != HTTP1_NONE) {
            buf_printf(out, "refused by the HTTP reader (%s: %s), whatever the policy says\n",
                       http1_reason_token(q->refused), http1_reason_text(q->refused));
            rc = 0;
        } else {
            rc = policy_tools_explain(p->conf, p->policy, &q->query, o->json, out) ? 0 : 2;
        }
    }
    conf_policy_test_free(test);
    conf_diag_free(diag);
    buf_reset(&text);
    return rc;
}

/* --- a decision out of a log -------------------------------------------------------------------
 */
static int explain_decision(const struct explain_options *o, const struct role_policy *p,
                            struct buf *out)
{
    bool standard = strcmp(o->log, "-") == 0;
    FILE *file = standard ? stdin : fopen(o->log, "re");
    if (file == NULL) {
        fprintf(stderr, "postern: %s: %s\n", o->log, strerrordesc_np(errno));
        return 2;
    }
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    int rc = -1;
    while (rc == -1 && (n = getline(&line, &size, file)) >= 0) {
        struct policy_record r;
        size_t len = (size_t)n;
        len -= len > 0 && line[len - 1] == '\n';
        if (policy_record_parse((struct str){line, len}, &r) != POLICY_RECORD_DECISION) {
            continue;
        }
        if (r.decision != NULL && strcmp(r.decision, o->decision) == 0) {
            r.query.now_s = os_wall_s();
            if (r.ts != NULL && !o->json) {
                buf_printf(out, "at %s: %s by %s; by this policy:\n", r.ts,
                           r.allowed ? "allowed" : "denied", r.rule != NULL ? r.rule : "no rule");
            }
            rc = policy_tools_explain(p->conf, p->policy, &r.query, o->json, out) ? 0 : 2;
        }
        policy_record_deinit(&r);
    }
    if (rc == -1) {
        fprintf(stderr, "postern: %s has no decision %s\n", o->log, o->decision);
        rc = 1;
    }
    free(line);
    if (!standard) {
        (void)fclose(file);
    }
    return rc;
}

int policy_explain_main(int argc, char **argv)
{
    struct explain_options o = {.json = false};
    struct role_policy p;
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    if (!take_options(argc, argv, &o)) {
        return policy_usage();
    }
    if (o.proxy != NULL) {
        return policy_explain_running(
            &(const struct policy_running){o.proxy, o.decision, o.policy, o.for_whom, o.json});
    }
    int rc = policy_load(o.policy, o.for_whom, &p);
    if (rc == 0) {
        rc = o.log != NULL ? explain_decision(&o, &p, &out) : explain_request(&o, &p, &out);
    }
    if (rc == 0) {
        rc = policy_print(&out);
    }
    buf_reset(&out);
    policy_unload(&p);
    return rc;
}
