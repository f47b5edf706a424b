#include "supervisor_priv.h"

#include <postern/buf.h>
#include <unistd.h>

/* What root may order. A verb is answered at once, or handed on with the ticket and answered when
 * whoever was asked has said something (supervisor_control_answer, supervisor_control_refuse). */

/* ,"key":"value" */
static void put_text(struct buf *out, const char *key, const char *value)
{
    char text[8192];
    size_t n = log_json_escape(str_of(value), text, sizeof(text));

    (void)buf_printf(out, ",\"%s\":\"%.*s\"", key, (int)n, text);
}

static void on_agent(struct supervisor *s, uint64_t ticket,
                     const struct agent_control_request *request)
{
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    bool first = true;

    (void)request;
    (void)buf_printf(&out, "{\"pid\":%d", (int)getpid());
    put_text(&out, "trust_domain", s->conf->trust_domain);
    put_text(&out, "socket", s->conf->socket);
    put_text(&out, "state_dir", s->conf->state_dir);
    (void)buf_printf(&out, ",\"processes\":[");
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        if (s->children[i].pidfd != -1) {
            (void)buf_printf(&out, "%s{\"role\":\"%s\",\"pid\":%d}", first ? "" : ",",
                             agent_role_name((enum agent_role)i), (int)s->children[i].pid);
            first = false;
        }
    }
    (void)buf_printf(&out, "]}\n");
    supervisor_control_answer(s, ticket, buf_str(&out));
    buf_reset(&out);
}

/* A row for every verb of <postern/agent_control.h>. */
static const struct {
    uint32_t verb;
    void (*run)(struct supervisor *s, uint64_t ticket, const struct agent_control_request *request);
} VERBS[] = {
    {AGENT_CONTROL_AGENT, on_agent},
    {AGENT_CONTROL_QUARANTINE_ADD, supervisor_quarantine_on_add},
    {AGENT_CONTROL_QUARANTINE_REMOVE, supervisor_quarantine_on_remove},
    {AGENT_CONTROL_QUARANTINE_LIST, supervisor_quarantine_on_list},
    {AGENT_CONTROL_QUARANTINE_SERIALS, supervisor_quarantine_on_serials},
    {AGENT_CONTROL_CA, supervisor_order_ca},
    {AGENT_CONTROL_POLICY_PUSH, supervisor_rollout_on_push},
    {AGENT_CONTROL_POLICY_STAGE, supervisor_rollout_on_stage},
    {AGENT_CONTROL_POLICY_PROMOTE, supervisor_rollout_on_promote},
    {AGENT_CONTROL_POLICY_ROLLBACK, supervisor_rollout_on_rollback},
    {AGENT_CONTROL_POLICY_STATUS, supervisor_rollout_on_status},
};
_Static_assert(sizeof(VERBS) / sizeof(VERBS[0]) == AGENT_N_CONTROL_VERBS - 1, "a verb has no row");

void supervisor_control_run(struct supervisor *s, uint64_t ticket,
                            const struct agent_control_request *request)
{
    for (size_t i = 0; i < sizeof(VERBS) / sizeof(VERBS[0]); i++) {
        if (VERBS[i].verb == request->verb) {
            VERBS[i].run(s, ticket, request);
            return;
        }
    }
    POSTERN_ASSERT(false);
}
