/* The proxy role's State stream: what the agent tells becomes the next snapshot. */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>

static void log_applied(struct proxy *p)
{
    const struct snapshot_state *s = p->state;
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "state_applied");
    log_uint(&l, "state_generation", s->generation);
    log_uint(&l, "deny_version", s->deny_version);
    log_bool(&l, "policy", s->has_policy);
    log_uint(&l, "rules", s->n_rules);
    log_bool(&l, "mesh", s->has_mesh);
    log_uint(&l, "services", s->has_mesh ? route_count(s->routes) : 0);
    log_uint(&l, "denied", deny_set_count(s->deny));
    log_uint(&l, "generation", p->generation);
    if (!s->has_policy && p->files->policy == NULL) {
        log_str(&l, "message",
                "neither the agent nor a file has a policy: every inbound connection is denied");
    }
    log_end(&l);
}

static void on_state(void *arg, struct snapshot_state *state)
{
    struct proxy *p = arg;
    snapshot_state_unref(p->state);
    p->state = state;
    proxy_permissive_told(p);
    proxy_publish(p);
    log_applied(p);
    if (p->serving) {
        proxy_names_tell(p);
    }
}

static void on_quarantined(void *arg, bool quarantined)
{
    struct proxy *p = arg;
    p->quarantined = quarantined;
    proxy_publish(p);
    log_msg(p->log, quarantined ? LOG_ERROR : LOG_INFO, "own_quarantine", "%s",
            quarantined ? "our own identity is quarantined: all connections end"
                        : "our own identity is no longer quarantined");
}

static void on_notice(void *arg, enum state_notice notice, const struct err *why)
{
    struct proxy *p = arg;
    struct log_line l;
    log_begin(&l, p->log, notice == STATE_AGENT_BACK ? LOG_INFO : LOG_WARN, "state");
    log_str(&l, "notice", state_notice_name(notice));
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

int proxy_state_start(struct proxy *p, struct err *err)
{
    static const struct state_client_events events = {on_state, on_quarantined, on_notice};
    const struct conf_proxy *conf = p->files->conf;
    const struct state_client_options o = {.socket = conf->identity.socket,
                                           .name = conf->name,
                                           .version = version_text(),
                                           .labels = &conf->state.labels};
    if (conf->state.from != CONF_STATE_AGENT) {
        return 0;
    }
    p->state_client = state_client_new(p->loop, &o, &events, p, err);
    return p->state_client != NULL ? 0 : -1;
}

bool proxy_state_ready(const struct proxy *p)
{
    struct state_client_status st;
    if (p->state_client == NULL) {
        return true;
    }
    state_client_get_status(p->state_client, &st);
    uint64_t max_ms = (uint64_t)p->files->conf->state.max_age_s * 1000;
    return p->state != NULL && (max_ms == 0 || st.age_ms <= max_ms);
}
