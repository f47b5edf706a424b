/* What a running proxy tells: the status document, the metrics, whether it is ready. */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const DIRECTIONS[] = {[CONF_OUTBOUND] = "outbound", [CONF_INBOUND] = "inbound"};

bool proxy_is_ready(const struct proxy *p)
{
    return proxy_has_identity(p) && !p->draining && proxy_state_ready(p) &&
           proxy_targets_ready(p) && proxy_canary_ready(p) && proxy_holder_ready(p) &&
           proxy_claims_ready(p);
}

bool proxy_report_ready(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    return proxy_is_ready(p) && buf_printf(out, "ready\n");
}

/* --- status ----------------------------------------------------------------------------------- */

/* Of every trust domain: while an authority is exchanged there is one more. */
static json_int_t count_roots(const struct x509_trust *trust)
{
    size_t n = 0;
    for (size_t i = 0; i < x509_trust_count(trust); i++) {
        n += x509_trust_root_count(trust, x509_trust_domain(trust, i));
    }
    return (json_int_t)n;
}

static json_t *identity(const struct proxy *p)
{
    struct identity_status st;
    if (p->client == NULL) {
        return json_null(); /* none is wanted */
    }
    identity_client_get_status(p->client, &st);
    const struct snapshot_identity *i = p->identity;
    const struct identity_state *state = identity_client_state(p->client);
    char error[600] = "";
    if (st.failures_in_row > 0 || st.denied || st.gave_up) {
        err_text(&st.last_error, error, sizeof(error));
    }
    json_t *o = json_object();
    json_object_set_new(o, "spiffe_id", report_text_or_null(i != NULL ? i->own_id : NULL));
    json_object_set_new(o, "serial", report_text_or_null(i != NULL ? i->serial : NULL));
    json_object_set_new(o, "not_before", report_time_or_null(i != NULL ? i->not_before_s : 0));
    json_object_set_new(o, "not_after", report_time_or_null(i != NULL ? i->not_after_s : 0));
    json_object_set_new(o, "expires_in_s",
                        i != NULL ? json_integer(i->not_after_s - os_wall_s()) : json_null());
    json_object_set_new(o, "key",
                        state == NULL
                            ? json_null()
                            : json_string(state->source == IDENTITY_FROM_CSR ? "csr" : "agent"));
    json_object_set_new(o, "trust_domains",
                        json_integer(i != NULL ? (json_int_t)x509_trust_count(i->trust) : 0));
    json_object_set_new(o, "trust_roots", json_integer(i != NULL ? count_roots(i->trust) : 0));
    char agent[108];
    bool named =
        identity_socket_path(p->files->conf->identity.socket, agent, sizeof(agent), NULL) == 0;
    json_object_set_new(o, "agent", report_text_or_null(named ? agent : NULL));
    json_object_set_new(o, "agent_connected", json_boolean(st.connected));
    json_object_set_new(o, "failures_in_row", json_integer(st.failures_in_row));
    json_object_set_new(o, "last_error", report_text_or_null(error));
    return o;
}

static uint64_t load_u64(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)v, memory_order_relaxed);
}

/* One counter over all workers, by its place in struct conn_counters. */
static uint64_t sum(const struct proxy *p, size_t offset)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < p->n_workers; i++) {
        const char *base = (const char *)conn_worker_counters(p->workers[i]);
        n += load_u64((const _Atomic uint64_t *)(const void *)(base + offset));
    }
    return n;
}
#define SUM(p, member) sum(p, offsetof(struct conn_counters, member))

/* Of all workers. */
static uint64_t next_expiry_s(const struct proxy *p)
{
    uint64_t now = os_now_ms(), next = 0;
    for (unsigned i = 0; i < p->n_workers; i++) {
        uint64_t one = load_u64(&conn_worker_counters(p->workers[i])->expiry_next_ms);
        next = one != 0 && (next == 0 || one < next) ? one : next;
    }
    return next > now ? (next - now) / 1000 : 0;
}

static json_t *lifetimes(const struct proxy *p)
{
    json_t *o = json_object();
    uint64_t n = SUM(p, expiring);
    json_object_set_new(o, "expiring", json_integer((json_int_t)n));
    json_object_set_new(o, "next_s",
                        n > 0 ? json_integer((json_int_t)next_expiry_s(p)) : json_null());
    json_object_set_new(o, "drained", json_integer((json_int_t)SUM(p, expiry_drained)));
    json_object_set_new(o, "outlived", json_integer((json_int_t)SUM(p, expiry_warned)));
    return o;
}

static size_t state_offset(size_t direction, size_t state)
{
    return offsetof(struct conn_counters, states) +
           (direction * CONN_STATE_COUNT + state) * sizeof(uint64_t);
}

static json_t *connections(const struct proxy *p)
{
    json_t *o = json_object();
    json_object_set_new(o, "open",
                        json_integer(atomic_load_explicit(
                            &((struct proxy *)(uintptr_t)p)->shared.open, memory_order_relaxed)));
    for (size_t d = 0; d < 2; d++) {
        json_t *states = json_object();
        for (size_t s = 0; s < CONN_CLOSED; s++) {
            json_object_set_new(states, conn_state_name((enum conn_state)s),
                                json_integer((json_int_t)sum(p, state_offset(d, s))));
        }
        json_object_set_new(o, DIRECTIONS[d], states);
    }
    return o;
}

static json_t *handshakes(const struct proxy *p)
{
    json_t *o = json_object();
    for (unsigned d = 0; d < 2; d++) {
        json_t *groups = json_object();
        for (size_t g = 0; g < TLS_N_GROUPS; g++) {
            size_t at = offsetof(struct conn_counters, handshake_groups) +
                        (d * TLS_N_GROUPS + g) * sizeof(uint64_t);
            json_object_set_new(groups, tls_group_name((enum tls_group)g),
                                json_integer((json_int_t)sum(p, at)));
        }
        size_t resumed = offsetof(struct conn_counters, handshakes_resumed) + d * sizeof(uint64_t);
        json_object_set_new(
            o, DIRECTIONS[d],
            json_pack("{s:o,s:I}", "groups", groups, "resumed", (json_int_t)sum(p, resumed)));
    }
    return o;
}

static json_t *hardening(const struct proxy *p)
{
    json_t *o = report_hardening(p->hardening);
    if (json_is_object(o)) {
        json_object_set_new(o, "key_memory",
                            json_pack("{s:I,s:I,s:b}", "bytes", (json_int_t)p->key_heap.bytes,
                                      "used", (json_int_t)key_heap_used(), "locked",
                                      p->key_heap.locked));
        json_object_set_new(o, "key_holder", proxy_holder_status(p));
    }
    return o;
}

/* NULL: files are all there is. */
static json_t *state(const struct proxy *p)
{
    struct state_client_status st;
    const struct snapshot_state *s = p->state;
    char error[600] = "";
    if (p->state_client == NULL) {
        return json_null();
    }
    state_client_get_status(p->state_client, &st);
    if (st.failures_in_row > 0 || st.refused_generation != 0) {
        err_text(&st.last_error, error, sizeof(error));
    }
    json_t *o = json_object();
    json_object_set_new(o, "connected", json_boolean(st.connected));
    json_object_set_new(o, "generation", json_integer((json_int_t)st.generation));
    json_object_set_new(o, "deny_version", json_integer((json_int_t)st.deny_version));
    json_object_set_new(o, "age_s",
                        s != NULL ? json_integer((json_int_t)(st.age_ms / 1000)) : json_null());
    json_object_set_new(o, "refused_generation", json_integer((json_int_t)st.refused_generation));
    json_object_set_new(o, "last_error", report_text_or_null(error));
    json_object_set_new(o, "rules",
                        s != NULL && s->has_policy ? json_integer((json_int_t)s->n_rules)
                                                   : json_null());
    json_object_set_new(o, "services",
                        s != NULL && s->has_mesh ? json_integer((json_int_t)route_count(s->routes))
                                                 : json_null());
    json_object_set_new(o, "plaintext",
                        json_string(s != NULL && s->no_plaintext ? "never" : "listed"));
    json_object_set_new(o, "denied",
                        json_integer(s != NULL ? (json_int_t)deny_set_count(s->deny) : 0));
    json_object_set_new(o, "own_quarantined",
                        json_boolean(p->snapshot != NULL && p->snapshot->own_quarantined));
    return o;
}

bool proxy_report_status(void *arg, struct buf *out)
{
    static const char *const unlisted[] = {[CONF_UNLISTED_DENY] = "deny",
                                           [CONF_UNLISTED_PASS] = "passthrough",
                                           [CONF_UNLISTED_LIST] = "list"};
    const struct proxy *p = (const struct proxy *)arg;
    const struct conf_proxy *conf = p->files->conf;
    json_t *o = json_object();
    json_object_set_new(o, "role", json_string(p->role->name));
    json_object_set_new(o, "name", report_text_or_null(conf->name));
    json_object_set_new(o, "pid", json_integer(getpid()));
    json_object_set_new(o, "uptime_s", json_integer(os_wall_s() - p->started_s));
    json_object_set_new(o, "ready", json_boolean(proxy_is_ready(p)));
    json_object_set_new(o, "draining", json_boolean(p->draining));
    json_object_set_new(o, "identity", identity(p));
    if (p->targets != NULL) {
        json_object_set_new(o, "targets", proxy_targets_status(p));
    }
    if (p->targets != NULL || p->resolver != NULL) {
        json_object_set_new(o, "names", proxy_names_status(p));
    }
    if (p->snapshot != NULL && p->snapshot->balance->n_sets > 0) {
        json_object_set_new(o, "endpoints", proxy_endpoints_status(p));
    }
    if (p->credentials != NULL) {
        json_object_set_new(o, "credentials", proxy_credentials_report(p, false));
        json_object_set_new(o, "trust", proxy_credentials_report(p, true));
    }
    if (p->snapshot != NULL && p->snapshot->claims != NULL) {
        json_object_set_new(o, "token_keys", proxy_claims_status(p));
    }
    json_object_set_new(o, "generation", json_integer((json_int_t)p->generation));
    json_object_set_new(o, "policy", proxy_policy_report(p));
    json_t *mesh = json_object();
    json_object_set_new(mesh, "file", report_text_or_null(conf->mesh_path));
    json_object_set_new(mesh, "services", json_integer((json_int_t)route_count(p->files->routes)));
    json_object_set_new(mesh, "unlisted", json_string(unlisted[route_unlisted(p->files->routes)]));
    json_t *learned = json_object();
    json_object_set_new(learned, "hbone", json_integer((json_int_t)SUM(p, learned[0])));
    json_object_set_new(learned, "direct", json_integer((json_int_t)SUM(p, learned[1])));
    json_object_set_new(mesh, "learned", learned);
    json_object_set_new(o, "mesh", mesh);
    json_object_set_new(o, "state", state(p));
    json_object_set_new(o, "last_reload", report_reload(&p->reload));
    json_object_set_new(o, "workers", json_integer(p->n_workers));
    json_object_set_new(o, "listeners", proxy_listeners_report(p));
    json_object_set_new(o, "capture", proxy_canary_report(p));
    json_object_set_new(o, "audit", proxy_audit_status(p));
    json_object_set_new(o, "permissive", proxy_permissive_status(p));
    json_object_set_new(o, "connections", connections(p));
    json_object_set_new(o, "lifetimes", lifetimes(p));
    json_object_set_new(o, "handshakes", handshakes(p));
    json_object_set_new(o, "hardening", hardening(p));
    char *text = json_dumps(o, JSON_INDENT(2));
    bool ok = text != NULL && buf_printf(out, "%s\n", text);
    free(text);
    json_decref(o);
    return ok;
}

/* --- metrics ---------------------------------------------------------------------------------- */

static void one(struct buf *out, const char *name, enum metric_type type, const char *help,
                uint64_t value)
{
    (void)metrics_write_value(out, name, type, help, "", (double)value);
}

/* A family whose member is [2][n] or [2]: one row a direction and a label's value. */
static void family(const struct proxy *p, struct buf *out, const char *name, enum metric_type type,
                   const char *help, size_t offset, size_t n, const char *label,
                   const char *(*value_name)(size_t))
{
    for (size_t d = 0; d < 2; d++) {
        for (size_t i = 0; i < n; i++) {
            char labels[128];
            int len = snprintf(labels, sizeof(labels), "direction=\"%s\"", DIRECTIONS[d]);
            if (label != NULL) {
                snprintf(labels + len, sizeof(labels) - (size_t)len, ",%s=\"%s\"", label,
                         value_name(i));
            }
            bool first = d == 0 && i == 0;
            uint64_t value = sum(p, offset + (d * n + i) * sizeof(uint64_t));
            (void)metrics_write_value(out, name, type, first ? help : NULL, labels, (double)value);
        }
    }
}
#define MEMBER(m) offsetof(struct conn_counters, m)

static const char *reason_name(size_t i)
{
    return conn_reason_token((enum conn_reason)i);
}
static const char *state_name(size_t i)
{
    return conn_state_name((enum conn_state)i);
}
static const char *group_name(size_t i)
{
    return tls_group_name((enum tls_group)i);
}

static const char *step_name(size_t i)
{
    return tls_step_name((enum tls_step)i);
}

static void transport_metrics(const struct proxy *p, struct buf *out)
{
    const char *help = "Outbound connections over mTLS, by its form and why it was chosen.";
    for (size_t i = 0; i < 2; i++) {
        for (size_t why = CONN_WHY_DECLARED; why < CONN_WHY_COUNT; why++) {
            char labels[80];
            snprintf(labels, sizeof(labels), "transport=\"%s\",why=\"%s\"",
                     i == 0 ? "direct" : "hbone", conn_why_token((enum conn_why)why));
            size_t at = MEMBER(transports) + (i * CONN_WHY_COUNT + why) * sizeof(uint64_t);
            (void)metrics_write_value(out, "postern_transport_connections", METRIC_COUNTER, help,
                                      labels, (double)sum(p, at));
            help = NULL;
        }
    }
    help = "Destinations of `transport: auto` that are known to take HBONE, or not to.";
    (void)metrics_write_value(out, "postern_transport_learned", METRIC_GAUGE, help,
                              "transport=\"hbone\"", (double)SUM(p, learned[0]));
    (void)metrics_write_value(out, "postern_transport_learned", METRIC_GAUGE, NULL,
                              "transport=\"direct\"", (double)SUM(p, learned[1]));
}

static void unlisted_metrics(const struct proxy *p, struct buf *out)
{
    for (size_t i = 0; i < 2 * (size_t)CONF_N_UNLISTED_CLASSES; i++) {
        char labels[80];
        size_t class = i % CONF_N_UNLISTED_CLASSES;
        snprintf(labels, sizeof(labels), "class=\"%s\",verdict=\"%s\"",
                 conf_unlisted_class_name((enum conf_unlisted_class) class),
                 i < CONF_N_UNLISTED_CLASSES ? "refused" : "passed");
        (void)metrics_write_value(
            out, "postern_unlisted_connections", METRIC_COUNTER,
            i == 0 ? "Outbound connections to destinations that are no service's." : NULL, labels,
            (double)sum(p, MEMBER(unlisted) + i * sizeof(uint64_t)));
    }
}

static void detected_metrics(const struct proxy *p, struct buf *out)
{
    for (size_t i = 0; i < DETECT_PROTOCOL_COUNT; i++) {
        for (size_t k = 0; k < DETECT_HOW_COUNT; k++) {
            char labels[64];
            snprintf(labels, sizeof(labels), "protocol=\"%s\",how=\"%s\"",
                     detect_protocol_name((enum detect_protocol)i),
                     detect_how_name((enum detect_how)k));
            (void)metrics_write_value(
                out, "postern_connections_detected", METRIC_COUNTER,
                i + k == 0 ? "Inbound connections, by what they speak and how it is known." : NULL,
                labels,
                (double)sum(p, MEMBER(detected) + (i * DETECT_HOW_COUNT + k) * sizeof(uint64_t)));
        }
    }
}

static void hbone_metrics(const struct proxy *p, struct buf *out)
{
    family(p, out, "postern_hbone_sessions", METRIC_COUNTER,
           "HBONE sessions that stood; how many do now: postern_connections, state session.",
           MEMBER(sessions), 1, NULL, NULL);
    family(p, out, "postern_hbone_streams", METRIC_COUNTER, "Streams in them.", MEMBER(streams), 1,
           NULL, NULL);
    one(out, "postern_hbone_streams_full", METRIC_COUNTER,
        "Inbound streams that were refused at limits.connections.", SUM(p, streams_full));
    one(out, "postern_hbone_bad_requests", METRIC_COUNTER,
        "What was asked of inbound sessions and is no CONNECT.", SUM(p, streams_bad));
}

static void connection_metrics(const struct proxy *p, struct buf *out)
{
    family(p, out, "postern_connections_accepted", METRIC_COUNTER, "Connections accepted.",
           MEMBER(accepted), 1, NULL, NULL);
    family(p, out, "postern_connections", METRIC_GAUGE, "Connections now, by state.",
           MEMBER(states), CONN_STATE_COUNT, "state", state_name);
    family(p, out, "postern_connections_closed", METRIC_COUNTER, "Connections ended, by reason.",
           MEMBER(closed), CONN_REASON_COUNT, "reason", reason_name);
    family(p, out, "postern_handshakes", METRIC_COUNTER, "TLS handshakes that succeeded.",
           MEMBER(handshakes), 1, NULL, NULL);
    family(p, out, "postern_handshakes_resumed", METRIC_COUNTER,
           "TLS handshakes that resumed a session; they are among those that succeeded.",
           MEMBER(handshakes_resumed), 1, NULL, NULL);
    family(p, out, "postern_handshake_groups", METRIC_COUNTER,
           "TLS handshakes that succeeded, by the group that the keys were agreed on with.",
           MEMBER(handshake_groups), TLS_N_GROUPS, "group", group_name);
    family(p, out, "postern_handshake_failures", METRIC_COUNTER,
           "TLS handshakes that failed, by the step that said no.", MEMBER(handshake_failures),
           CONN_TLS_STEPS, "step", step_name);
    family(p, out, "postern_bytes_up", METRIC_COUNTER,
           "Plaintext bytes from the side that opened a connection.", MEMBER(bytes_up), 1, NULL,
           NULL);
    family(p, out, "postern_bytes_down", METRIC_COUNTER,
           "Plaintext bytes to the side that opened a connection.", MEMBER(bytes_down), 1, NULL,
           NULL);
    const char *help = "Connections without TLS of ours, by what allowed it.";
    (void)metrics_write_value(out, "postern_plaintext_connections", METRIC_COUNTER, help,
                              "by=\"transport\"", (double)SUM(p, plaintext_disabled));
    (void)metrics_write_value(out, "postern_plaintext_connections", METRIC_COUNTER, NULL,
                              "by=\"passthrough\"", (double)SUM(p, plaintext_passthrough));
    (void)metrics_write_value(out, "postern_plaintext_connections", METRIC_COUNTER, NULL,
                              "by=\"sni_passthrough\"", (double)SUM(p, plaintext_sni));
    (void)metrics_write_value(out, "postern_plaintext_connections", METRIC_COUNTER, NULL,
                              "by=\"permissive\"", (double)SUM(p, plaintext_permissive));
    proxy_permissive_metrics(p, out);
    transport_metrics(p, out);
    hbone_metrics(p, out);
    unlisted_metrics(p, out);
    detected_metrics(p, out);
    one(out, "postern_rejudged", METRIC_COUNTER, "Live connections judged again after a change.",
        SUM(p, rejudged));
    one(out, "postern_rejudged_closed", METRIC_COUNTER, "Of these, ended.",
        SUM(p, rejudged_closed));
    one(out, "postern_expiring_connections", METRIC_GAUGE,
        "Connections that end with their certificates.", SUM(p, expiring));
    one(out, "postern_expiry_next_seconds", METRIC_GAUGE,
        "Until the next one is told to end, or ends; 0: now, or there is none.", next_expiry_s(p));
    one(out, "postern_expiry_drained", METRIC_COUNTER,
        "Connections told to end because their certificates do.", SUM(p, expiry_drained));
    one(out, "postern_expiry_warned", METRIC_COUNTER,
        "Connections that outlived their certificates: `on_expiry` says so.",
        SUM(p, expiry_warned));
    one(out, "postern_accept_errors", METRIC_COUNTER, "Accepts that failed.",
        SUM(p, accept_errors));
}

static void request_metrics(const struct proxy *p, struct buf *out)
{
    static const char *const classes[CONN_STATUS_CLASSES] = {"none", "1xx", "2xx",
                                                             "3xx",  "4xx", "5xx"};
    for (size_t i = 0; i < CONN_STATUS_CLASSES; i++) {
        char labels[40];
        snprintf(labels, sizeof(labels), "direction=\"inbound\",status=\"%s\"", classes[i]);
        (void)metrics_write_value(out, "postern_requests", METRIC_COUNTER,
                                  i == 0 ? "HTTP requests, by the answer's class." : NULL, labels,
                                  (double)sum(p, MEMBER(requests) + i * sizeof(uint64_t)));
    }
    one(out, "postern_requests_denied", METRIC_COUNTER, "HTTP requests that the policy denied.",
        SUM(p, requests_denied));
    one(out, "postern_requests_limited", METRIC_COUNTER, "HTTP requests beyond a rate limit.",
        SUM(p, requests_limited));
    one(out, "postern_request_retries", METRIC_COUNTER, "Requests that were sent a second time.",
        SUM(p, retries));
    one(out, "postern_request_retries_refused", METRIC_COUNTER,
        "Requests that were not sent a second time, beyond the budget.", SUM(p, retries_refused));
    one(out, "postern_upstream_kept", METRIC_COUNTER,
        "Connections to workloads that were kept without a client.", SUM(p, upstream_kept));
    one(out, "postern_upstream_reused", METRIC_COUNTER,
        "Requests that went over a connection which was kept without a client.",
        SUM(p, upstream_reused));
    one(out, "postern_upstream_unclean", METRIC_COUNTER,
        "Connections to workloads on which bytes came that answered nothing.",
        SUM(p, upstream_unclean));
}

static void state_metrics(const struct proxy *p, struct buf *out)
{
    struct state_client_status st;
    if (p->state_client == NULL) {
        return;
    }
    state_client_get_status(p->state_client, &st);
    one(out, "postern_state_connected", METRIC_GAUGE, "1 while the agent's State stream is open.",
        st.connected ? 1 : 0);
    one(out, "postern_state_generation", METRIC_GAUGE,
        "Generation of what the agent has told and runs here; 0: nothing.", st.generation);
    one(out, "postern_state_deny_version", METRIC_GAUGE, "Version of the deny list, likewise.",
        st.deny_version);
    one(out, "postern_state_age_seconds", METRIC_GAUGE,
        "Since the agent was last heard; 0 while it is connected.", st.age_ms / 1000);
    one(out, "postern_state_denied", METRIC_GAUGE,
        "Identities and certificates that are quarantined.",
        p->state != NULL ? deny_set_count(p->state->deny) : 0);
    one(out, "postern_state_snapshots", METRIC_COUNTER, "Snapshots received.", st.n_snapshots);
    one(out, "postern_state_snapshots_refused", METRIC_COUNTER, "Of these, not taken.",
        st.n_refused);
}

static void process_metrics(const struct proxy *p, struct buf *out)
{
    const struct snapshot_identity *i = p->identity;
    one(out, "postern_ready", METRIC_GAUGE,
        "1 if there is an identity, a state where one is wanted, capture where it is asked, no "
        "drain.",
        proxy_is_ready(p) ? 1 : 0);
    one(out, "postern_svid_not_after_seconds", METRIC_GAUGE,
        "When the own certificate ends, seconds since the epoch; 0: there is none.",
        i != NULL ? (uint64_t)i->not_after_s : 0);
    one(out, "postern_svid_renewals", METRIC_COUNTER, "Own certificates received.",
        p->svid_renewals);
    one(out, "postern_generation", METRIC_GAUGE, "Generation of what the workers decide by.",
        p->generation);
    one(out, "postern_policy_generation", METRIC_GAUGE, "How often the files were loaded.",
        p->files->generation);
    one(out, "postern_policy_rules", METRIC_GAUGE, "Rules of the policy.", p->files->n_rules);
    (void)metrics_write_value(out, "postern_reloads", METRIC_COUNTER,
                              "Reloads of the files, by result.", "result=\"ok\"",
                              (double)p->reload.ok);
    (void)metrics_write_value(out, "postern_reloads", METRIC_COUNTER, NULL, "result=\"failed\"",
                              (double)p->reload.failed);
    one(out, "postern_reload_last_failed", METRIC_GAUGE,
        "1 while an older configuration runs because the newest has errors.",
        p->reload.last_failed ? 1 : 0);
    one(out, "postern_log_lines_lost", METRIC_COUNTER, "Log lines that did not fit the rings.",
        p->log_lines_lost);
}

bool proxy_report_metrics(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    process_metrics(p, out);
    proxy_credentials_metrics(p, out);
    proxy_claims_metrics(p, out);
    proxy_targets_metrics(p, out);
    proxy_canary_metrics(p, out);
    proxy_audit_metrics(p, out);
    proxy_names_metrics(p, out);
    proxy_endpoints_metrics(p, out);
    state_metrics(p, out);
    proxy_holder_metrics(p, out);
    (void)hardening_write_metrics(p->hardening, out);
    connection_metrics(p, out);
    proxy_listeners_metrics(p, out);
    request_metrics(p, out);
    return metrics_write_end(out);
}
