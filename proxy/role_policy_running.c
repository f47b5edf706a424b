/*
 * role_policy_running: `postern policy explain --proxy SOCKET [ID]`: what a running proxy has
 * denied, and why, by the policy that it runs.
 *
 * Who may ask is the admin socket's business. The proxy tells what it kept of the denial and the
 * text of its policies; everything else is done here. All of it may be a stranger's text.
 */
#include "role_policy.h"

#include <jansson.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_asked.h>
#include <postern/policy_tools.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles_priv.h"

static json_t *ask(const char *socket, const char *name, int *ret_status)
{
    struct buf out = BUF_INIT(ROLE_ANSWER_MAX);
    json_t *doc = NULL;
    *ret_status = role_admin_ask(NULL, socket, name, &out);
    if (*ret_status == 0) {
        doc = json_loadb((const char *)buf_head(&out), buf_len(&out), JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(doc)) {
            fprintf(stderr, "postern: its answer about '%s' is none\n", name);
            json_decref(doc);
            doc = NULL;
            *ret_status = 1;
        }
    }
    buf_reset(&out);
    return doc;
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void put(struct buf *out, const char *s)
{
    const struct str all = str_of(s);
    for (size_t i = 0, control; i < all.n; i += control > 0 ? control : 1) {
        control = str_control(all, i);
        (void)buf_append(out, control > 0 ? "?" : all.p + i, 1);
    }
}

/* "before" and the text, where there is one. */
static void put_if(struct buf *out, const char *before, const json_t *o, const char *key)
{
    if (text(o, key) != NULL) {
        buf_printf(out, "%s", before);
        put(out, text(o, key));
    }
}

/* --- the last ones ---------------------------------------------------------------------------- */

static void put_line(struct buf *out, const json_t *d)
{
    put_if(out, "", d, "ts");
    put_if(out, "  ", d, "decision");
    put_if(out, "  ", d, "reason");
    put_if(out, "  ", d, "method");
    put_if(out, " ", d, "path");
    put_if(out, "  by ", d, "peer_id");
    put_if(out, " from ", d, "source");
    buf_printf(out, " to port %d\n", (int)json_integer_value(json_object_get(d, "port")));
}

static int print_list(const char *socket, bool json)
{
    int rc = 0;
    json_t *doc = ask(socket, "denials", &rc);
    if (doc == NULL) {
        return rc;
    }
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    const json_t *list = json_object_get(doc, "denials");
    if (json) {
        char *dumped = json_dumps(doc, JSON_INDENT(2) | JSON_ENSURE_ASCII);
        buf_printf(&out, "%s\n", dumped != NULL ? dumped : "");
        free(dumped);
    } else {
        for (size_t i = 0; i < json_array_size(list); i++) {
            put_line(&out, json_array_get(list, i));
        }
        if (json_array_size(list) == 0) {
            buf_printf(&out, "nothing was denied since it started\n");
        }
    }
    rc = policy_print(&out);
    buf_reset(&out);
    json_decref(doc);
    return rc;
}

/* --- one of them ------------------------------------------------------------------------------ */

static void put_fields(struct buf *out, const json_t *d, const char *key, const char *word)
{
    const json_t *list = json_object_get(d, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        buf_printf(out, "  %s ", word);
        put(out, json_string_value(json_array_get(pair, 0)));
        buf_printf(out, ": ");
        put(out, json_string_value(json_array_get(pair, 1)));
        buf_printf(out, "\n");
    }
}

static void put_denial(struct buf *out, const json_t *d)
{
    put_if(out, "at ", d, "ts");
    put_if(out, ": denied (", d, "reason");
    put_if(out, ") by rule ", d, "rule");
    buf_printf(out, text(d, "rule") != NULL ? "\n  " : ")\n  ");
    put_if(out, "", d, "method");
    put_if(out, " ", d, "path");
    put_if(out, " at host ", d, "host");
    buf_printf(out, text(d, "method") != NULL ? ", by " : "a connection, by ");
    put(out, text(d, "peer_id") != NULL ? text(d, "peer_id") : "a peer without identity");
    put_if(out, " from ", d, "source");
    put_if(out, ", to ", d, "own_id");
    buf_printf(out, " port %d\n", (int)json_integer_value(json_object_get(d, "port")));
    put_fields(out, d, "headers", "header");
    put_fields(out, d, "claims", "claim");
    if (text(d, "query") != NULL && text(d, "query")[0] != '\0') {
        put_if(out, "  parameters ", d, "query");
        buf_printf(out, "\n");
    }
    const json_t *withheld = json_object_get(d, "withheld");
    for (size_t i = 0; i < json_array_size(withheld); i++) {
        buf_printf(out, "%s", i == 0 ? "  not kept, so not known here: the value of " : ", ");
        put(out, json_string_value(json_array_get(withheld, i)));
    }
    buf_printf(out, json_array_size(withheld) > 0 ? "\n" : "");
    if (json_is_true(json_object_get(d, "other_reading"))) {
        buf_printf(out, "  (its path as some servers would read it)\n");
    }
    if (json_is_true(json_object_get(d, "cut"))) {
        buf_printf(out, "  (not all of it was kept: what is missing is not known here)\n");
    }
    if (json_is_true(json_object_get(d, "inexact"))) {
        buf_printf(out, "  (bytes that are no UTF-8 are told as U+0080 to U+00FF)\n");
    }
}

/* Why it was denied, where no policy did. NULL: one did. */
static const char *other_reason(const json_t *d)
{
    static const struct {
        const char *reason, *text;
    } others[] = {
        {"rate_limited", "the policy allows it; a rate limit of the port is reached"},
        {"token_refused", "its token does not hold, whatever the policy says: the log has why"},
        {"connect_target", "CONNECT asks for what the port does not name (`connect`)"},
        {"quarantined", "the identity or certificate of one side is quarantined, whatever the "
                        "policy says: `postern quarantine list`"},
        {"not_http", "the policy has rules about requests on this port, and what came is not HTTP: "
                     "declare the port under `ports` if it is not"},
        {"protocol_unknown",
         "the policy has rules about requests on this port, and what came until its end was too "
         "little to be HTTP: declare the port under `ports` if it is not"},
    };
    const char *reason = text(d, "reason");
    for (size_t i = 0; reason != NULL && i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(reason, others[i].reason) == 0) {
            return others[i].text;
        }
    }
    return NULL;
}

/* --- the policy ------------------------------------------------------------------------------- */

struct running {
    struct role_policy p;
    char *name; /* owned; for people */
    bool as_loaded;
};

static void running_deinit(struct running *r)
{
    policy_unload(&r->p);
    free(r->name);
}

/* Compiles one that the proxy has told. False: told why. */
static bool take_policy(const json_t *o, struct running *ret)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    struct err err = ERR_INIT;
    struct policy_source source = {.texts = NULL};
    const json_t *t = json_object_get(o, "text");
    const json_t *whom = json_object_get(o, "for");
    const char *from = text(o, "path") != NULL ? text(o, "path") : "the agent's policy";
    *ret = (struct running){.name = mem_must_strdup(from)};
    if (!json_is_string(t)) {
        fprintf(stderr, "postern: the proxy cannot tell its policy: ");
        fprintf(stderr, "%s\n", text(o, "why") != NULL ? text(o, "why") : "no text");
    } else if (json_is_string(whom) &&
               !policy_source_read((struct str){json_string_value(whom), json_string_length(whom)},
                                   &source)) {
        fprintf(stderr, "postern: for whom the proxy reads its policy is not understood\n");
    } else if (policy_source_parse(&source, from,
                                   (struct str){json_string_value(t), json_string_length(t)}, diag,
                                   doubts, &ret->p.conf) != 0) {
        role_print_diag(diag);
    } else if ((ret->p.policy = policy_new(ret->p.conf, &err)) == NULL) {
        (void)role_say("policy explain", &err, 2);
    } else {
        char print[24];
        (void)snprintf(print, sizeof(print), "%016llx",
                       (unsigned long long)policy_fingerprint(ret->p.policy));
        ret->as_loaded =
            text(o, "fingerprint") != NULL && strcmp(text(o, "fingerprint"), print) == 0;
    }
    policy_source_deinit(&source);
    conf_diag_free(doubts);
    conf_diag_free(diag);
    return ret->p.policy != NULL;
}

/* The one that denies, or the first. 0: it is there. */
static int find_policy(const struct policy_running *o, const struct policy_query *q,
                       struct running *ret)
{
    const char *socket = o->socket;
    int rc = 0;
    if (o->policy != NULL) {
        *ret = (struct running){.name = mem_must_strdup(o->policy), .as_loaded = true};
        return policy_load(o->policy, o->for_whom, &ret->p);
    }
    json_t *doc = ask(socket, "policies", &rc);
    const json_t *list = json_object_get(doc, "policies");
    if (doc != NULL && json_array_size(list) == 0) {
        fprintf(stderr, "postern: the proxy has no policy now: %s\n",
                json_is_true(json_object_get(doc, "all_allowed"))
                    ? "whom a listener lets in may do anything"
                    : "everything is denied");
        rc = 2;
    }
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        struct policy_verdict v = {.allow = true};
        if (i > 0) {
            policy_decide(ret->p.policy, q, &v);
            if (!v.allow) {
                break;
            }
            running_deinit(ret);
        }
        if (!take_policy(json_array_get(list, i), ret)) {
            rc = 2;
        }
    }
    json_decref(doc);
    return rc;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int explain_json(json_t *d, const struct running *r, const struct policy_query *q,
                        struct buf *out)
{
    struct buf made = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    json_t *why = json_null();
    if (r != NULL && policy_tools_explain(r->p.conf, r->p.policy, q, true, &made)) {
        why = json_loadb((const char *)buf_head(&made), buf_len(&made), 0, NULL);
    }
    json_t *doc = json_pack("{s:O,s:o}", "denial", d, "explanation", why);
    if (r != NULL) {
        json_object_set_new(doc, "policy",
                            json_pack("{s:s,s:b}", "name", r->name, "as_loaded", r->as_loaded));
    }
    char *dumped = doc != NULL ? json_dumps(doc, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
    bool ok = dumped != NULL && buf_printf(out, "%s\n", dumped);
    free(dumped);
    json_decref(doc);
    buf_reset(&made);
    return ok ? 0 : 2;
}

static int explain_text(const json_t *d, const struct running *r, const struct policy_query *q,
                        struct buf *out)
{
    put_denial(out, d);
    if (r == NULL) {
        return buf_printf(out, "%s\n", other_reason(d)) ? 0 : 2;
    }
    if (json_is_true(json_object_get(d, "policy_changed"))) {
        buf_printf(out, "the proxy's policy was loaded anew since then\n");
    }
    buf_printf(out, "by ");
    put(out, r->name);
    buf_printf(out, r->as_loaded ? ":\n" : ", which is not what the proxy has loaded:\n");
    return policy_tools_explain(r->p.conf, r->p.policy, q, false, out) ? 0 : 2;
}

static int explain_one(const struct policy_running *o, json_t *d, struct buf *out)
{
    char *line = json_dumps(d, JSON_COMPACT);
    struct policy_record record;
    struct running r = {.name = NULL};
    if (other_reason(d) != NULL) {
        free(line);
        return o->json ? explain_json(d, NULL, NULL, out) : explain_text(d, NULL, NULL, out);
    }
    if (line == NULL || policy_record_parse(str_of(line), &record) != POLICY_RECORD_DECISION) {
        fprintf(stderr, "postern: what the proxy tells is no denial of a policy\n");
        free(line);
        return 2;
    }
    record.query.now_s = os_wall_s();
    int rc = find_policy(o, &record.query, &r);
    if (rc == 0) {
        rc = o->json ? explain_json(d, &r, &record.query, out)
                     : explain_text(d, &r, &record.query, out);
    }
    running_deinit(&r);
    policy_record_deinit(&record);
    free(line);
    return rc;
}

static bool is_id(const char *s)
{
    size_t n = strspn(s, "0123456789abcdef");
    return n > 0 && n <= 64 && s[n] == '\0';
}

int policy_explain_running(const struct policy_running *o)
{
    int rc = 0;
    if (o->decision == NULL) {
        return print_list(o->socket, o->json);
    }
    if (!is_id(o->decision)) {
        fprintf(stderr, "postern: that is no id of a decision\n");
        return 2;
    }
    mem_autofree char *name = mem_must_printf("denial/%s", o->decision);
    json_t *d = ask(o->socket, name, &rc);
    if (d == NULL) {
        return rc;
    }
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    if (text(d, "decision") == NULL) {
        fprintf(stderr, "postern: %s is not among the last denials that it keeps\n", o->decision);
        rc = 1;
    } else {
        rc = explain_one(o, d, &out);
    }
    rc = rc == 0 ? policy_print(&out) : rc;
    buf_reset(&out);
    json_decref(d);
    return rc;
}
