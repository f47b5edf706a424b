/* Documents of the admin socket: status (JSON), metrics (OpenMetrics), ready. */
#include "service_priv.h"

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <postern/mem.h>
#include <postern/os.h>

void service_count(struct service *s, enum service_metric which)
{
    metrics_add(s->metrics, which, 1);
}

/* --- metrics ---------------------------------------------------------------------------------- */

#define RPC(label)                                                                                 \
    {"postern_agent_rpcs", METRIC_COUNTER, "Ended calls by status.", "status=\"" label "\""}
static const struct metric TABLE[SERVICE_N_METRICS] = {
    [SERVICE_METRIC_SVID_PUSHES] = {"postern_agent_pushes", METRIC_COUNTER,
                                    "Messages sent on streams.", "kind=\"svid\""},
    [SERVICE_METRIC_BUNDLE_PUSHES] = {"postern_agent_pushes", METRIC_COUNTER,
                                      "Messages sent on streams.", "kind=\"bundle\""},
    [SERVICE_METRIC_SDS_PUSHES] = {"postern_agent_pushes", METRIC_COUNTER,
                                   "Messages sent on streams.", "kind=\"sds\""},
    [SERVICE_METRIC_JWT_BUNDLE_PUSHES] = {"postern_agent_pushes", METRIC_COUNTER,
                                          "Messages sent on streams.", "kind=\"jwt_bundle\""},
    [SERVICE_METRIC_JWT_ISSUED] = {"postern_agent_jwt_svids_issued", METRIC_COUNTER,
                                   "Tokens that the keeper signed.", ""},
    [SERVICE_METRIC_STATE_PUSHES] = {"postern_agent_pushes", METRIC_COUNTER,
                                     "Messages sent on streams.", "kind=\"state\""},
    [SERVICE_METRIC_SIGNED] = {"postern_agent_requests_signed", METRIC_COUNTER,
                               "Certificate requests that were granted.", ""},
    [SERVICE_METRIC_ISSUED] = {"postern_agent_svids_issued", METRIC_COUNTER,
                               "Certificates that the keeper signed.", ""},
    [SERVICE_METRIC_ISSUE_REFUSED] = {"postern_agent_issue_refused", METRIC_COUNTER,
                                      "Certificates that the keeper did not sign.", ""},
    [SERVICE_METRIC_RPC_OK] = RPC("ok"),
    [SERVICE_METRIC_RPC_CANCELLED] = RPC("cancelled"),
    [SERVICE_METRIC_RPC_INVALID] = RPC("invalid_argument"),
    [SERVICE_METRIC_RPC_DENIED] = RPC("permission_denied"),
    [SERVICE_METRIC_RPC_UNAVAILABLE] = RPC("unavailable"),
    [SERVICE_METRIC_RPC_UNIMPLEMENTED] = RPC("unimplemented"),
    [SERVICE_METRIC_RPC_OTHER] = RPC("other"),
    [SERVICE_METRIC_CONNECTIONS] = {"postern_agent_connections_accepted", METRIC_COUNTER,
                                    "Connections of callers.", ""},
    [SERVICE_METRIC_CONNECTIONS_REFUSED] = {"postern_agent_connections_refused", METRIC_COUNTER,
                                            "Connections that could not be served.", ""},
};

static bool gauge(struct buf *out, const char *name, const char *help, const char *labels,
                  double value)
{
    return metrics_write_value(out, name, METRIC_GAUGE, help, labels, value);
}

static int64_t outage_left_s(const struct service *s)
{
    int64_t left_s = s->changed.outage_until_s - os_wall_s();
    return left_s > 0 ? left_s : 0;
}

static bool put_token_metrics(const struct agent_msg_changed *k, struct buf *out)
{
    return k->token == AGENT_TOKEN_NONE ||
           (gauge(out, "postern_agent_token_ok", "The token with the root's key can be used.", "",
                  k->token == AGENT_TOKEN_OK ? 1 : 0) &&
            metrics_write_value(out, "postern_agent_token_failed", METRIC_COUNTER,
                                "Questions to the token that failed.", "",
                                (double)k->n_token_failed));
}

static bool write_metrics(void *arg, struct buf *out)
{
    const struct service *s = arg;
    struct metrics_block *const blocks[] = {s->metrics};
    const struct agent_msg_changed *k = &s->changed;
    return metrics_write(TABLE, SERVICE_N_METRICS, blocks, 1, out) &&
           gauge(out, "postern_agent_connections", "Connections that are open.", "",
                 (double)s->n_callers) &&
           gauge(out, "postern_agent_calls", "Calls that are open.", "", (double)s->n_calls) &&
           gauge(out, "postern_agent_entries", "Entries in force.", "",
                 (double)s->entries_state.n_entries) &&
           gauge(out, "postern_agent_entries_loaded_ok", "The last load of entries was good.", "",
                 s->entries_state.error.code == ERR_NONE ? 1 : 0) &&
           gauge(out, "postern_agent_entries_loaded_seconds", "When the entries in force were.", "",
                 (double)s->entries_state.loaded_s) &&
           gauge(out, "postern_agent_authority_expiry_seconds", "End of a CA certificate.",
                 "authority=\"root\"", (double)k->root_not_after_s) &&
           gauge(out, "postern_agent_authority_expiry_seconds", NULL, "authority=\"node\"",
                 (double)k->node_not_after_s) &&
           gauge(out, "postern_agent_outage_budget_seconds",
                 "How long this node goes on if everything above it stays away.", "",
                 (double)outage_left_s(s)) &&
           gauge(out, "postern_agent_last_issued_seconds", "Last issuance.", "",
                 (double)s->last_issued_s) &&
           gauge(out, "postern_agent_service_restarts", "Restarts of the service process.", "",
                 (double)s->start.restarts) &&
           gauge(out, "postern_agent_journal_failing", "The journal cannot be written.", "",
                 k->journal_failing ? 1 : 0) &&
           metrics_write_value(out, "postern_agent_journal_lines_lost", METRIC_COUNTER,
                               "Lines that the journal does not have.", "",
                               (double)k->journal_lost) &&
           gauge(out, "postern_agent_quarantined", "Things that are quarantined.", "",
                 (double)s->deny.n) &&
           put_token_metrics(k, out) && service_put_state_metrics(s, out) &&
           service_put_history_metrics(s, out) && service_kubernetes_metrics(s, out) &&
           (s->hardening == NULL || hardening_write_metrics(s->hardening, out)) &&
           metrics_write_end(out);
}

/* --- status ----------------------------------------------------------------------------------- */

static bool put_text(struct buf *out, const char *key, struct str value)
{
    char text[2048];
    size_t n = log_json_escape(value, text, sizeof(text));
    return buf_printf(out, "\"%s\":\"%.*s\"", key, (int)n, text);
}

/* ,"key":"2026-01-02T03:04:05Z" or null */
static bool put_time(struct buf *out, const char *key, int64_t wall_s)
{
    char text[32];
    if (wall_s <= 0) {
        return buf_printf(out, ",\"%s\":null", key);
    }
    os_time_text(wall_s, text, sizeof(text));
    return buf_printf(out, ",\"%s\":\"%s\"", key, text);
}

static bool put_root_serial(const struct service *s, struct buf *out)
{
    bool ok = true;
    STACK_OF(X509) *roots =
        x509_chain_from_der((struct str){(const char *)s->bundle, s->n_bundle}, NULL);
    ok = buf_printf(out, ",\"root_serials\":[");
    for (int i = 0; ok && roots != NULL && i < sk_X509_num(roots); i++) {
        BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(sk_X509_value(roots, i)), NULL);
        char *hex = n != NULL ? BN_bn2hex(n) : NULL;
        for (char *p = hex; p != NULL && *p != '\0'; p++) {
            *p |= 0x20; /* lower case, as serials are written everywhere else; digits stay */
        }
        ok = buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", hex != NULL ? hex : "");
        OPENSSL_free(hex);
        BN_free(n);
    }
    sk_X509_pop_free(roots, X509_free);
    return ok && buf_printf(out, "]");
}

static const char *json_bool(bool b)
{
    return b ? "true" : "false";
}

static const char *secret_name(uint32_t kind)
{
    switch (kind) {
    case MEM_SECRET_MEMFD:
        return "memfd_secret";
    case MEM_SECRET_LOCKED:
        return "locked";
    default:
        return "plain";
    }
}

static bool put_process(struct buf *out, const struct agent_msg_process *p, bool first)
{
    const struct sandbox_report *r = &p->report;
    bool ok = buf_printf(out, "%s{\"role\":\"%s\",\"pid\":%d", first ? "" : ",",
                         agent_role_name((enum agent_role)p->role), p->pid) &&
              put_time(out, "started", p->started_s) &&
              buf_printf(out,
                         ",\"restarts\":%u,\"uid\":%u,\"gid\":%u,\"caps\":\"%#llx\""
                         ",\"no_new_privs\":%s,\"dumpable\":%s,\"seccomp\":",
                         p->restarts, r->uid, r->gid, (unsigned long long)r->caps,
                         json_bool(r->no_new_privs), json_bool(r->dumpable));
    if (ok && r->seccomp) {
        struct str name = {r->seccomp_name, strnlen(r->seccomp_name, sizeof(r->seccomp_name))};
        ok = buf_printf(out, "{") && put_text(out, "list", name) && buf_printf(out, "}");
    } else {
        ok = ok && buf_printf(out, "null");
    }
    ok = ok &&
         buf_printf(out, ",\"landlock_abi\":%d,\"separated\":%s", r->landlock_abi,
                    json_bool(p->separated)) &&
         sandbox_report_write_more(r, out);
    if (ok && p->role == AGENT_ROLE_SERVICE) { /* the one that counts: this one */
        ok = buf_printf(out, ",\"refused_calls\":") && sandbox_refused_write(out);
    }
    if (ok && p->role == AGENT_ROLE_KEEPER) {
        ok = buf_printf(out, ",\"key_memory\":\"%s\",\"memory_locked\":%s",
                        secret_name(p->secret_kind), json_bool(p->memory_locked));
    }
    return ok && buf_printf(out, "}");
}

static bool put_processes(const struct service *s, struct buf *out)
{
    bool ok = buf_printf(out, ",\"processes\":[");
    bool first = true;
    for (size_t i = 0; ok && i < AGENT_N_ROLES; i++) {
        if (s->processes[i].head.type == AGENT_MSG_PROCESS) {
            ok = put_process(out, &s->processes[i], first);
            first = false;
        }
    }
    return ok && buf_printf(out, "]");
}

static bool put_entries(const struct service *s, struct buf *out)
{
    const struct agent_msg_entries_state *e = &s->entries_state;
    bool ok = buf_printf(
                  out, ",\"entries\":{\"count\":%u,\"generation\":%llu,\"loads\":%u,\"failed\":%u",
                  e->n_entries, (unsigned long long)e->generation, e->n_loads, e->n_failed_loads) &&
              put_time(out, "loaded", e->loaded_s);
    if (ok && e->error.code != ERR_NONE) {
        char text[1100];
        ok = buf_printf(out, ",") &&
             put_text(out, "last_error", str_of(err_text(&e->error, text, sizeof(text))));
    }
    return ok && buf_printf(out, "}");
}

/* Since this process started: the journal of it all is the keeper's log. */
static unsigned long long counted(const struct service *s, enum service_metric which)
{
    struct metrics_block *const blocks[] = {s->metrics};
    return (unsigned long long)metrics_sum(blocks, 1, which);
}

static bool put_journal(const struct service *s, struct buf *out)
{
    const struct agent_msg_changed *k = &s->changed;

    return buf_printf(out,
                      ",\"journal\":{\"state\":\"%s\",\"file\":%llu,\"lines\":%llu,\"lost\":%llu}",
                      k->journal_file == 0 ? "none"
                      : k->journal_failing ? "degraded"
                                           : "ok",
                      (unsigned long long)k->journal_file, (unsigned long long)k->journal_seq,
                      (unsigned long long)k->journal_lost);
}

static bool put_quarantine(const struct service *s, struct buf *out)
{
    return buf_printf(out, ",\"quarantine\":{\"version\":%llu,\"count\":%zu}",
                      (unsigned long long)s->deny.version, s->deny.n);
}

static bool write_status(void *arg, struct buf *out)
{
    const struct service *s = arg;
    const struct agent_msg_changed *k = &s->changed;
    struct str td = {s->start.trust_domain, s->start.trust_domain_len};
    return buf_printf(out, "{\"role\":\"agent\",") && put_text(out, "trust_domain", td) &&
           buf_printf(out, ",\"ready\":%s", json_bool(s->have_bundle && !s->stopping)) &&
           put_time(out, "started", s->started_s) &&
           buf_printf(out, ",\"authority\":{\"bundle_generation\":%llu",
                      (unsigned long long)s->bundle_generation) &&
           put_root_serial(s, out) && put_time(out, "root_not_after", k->root_not_after_s) &&
           put_time(out, "node_not_after", k->node_not_after_s) &&
           buf_printf(out, ",\"token\":\"%s\"", agent_token_name(k->token)) &&
           buf_printf(out, "},\"outage\":{\"budget_seconds\":%lld,\"ends_first\":\"%s\"",
                      (long long)outage_left_s(s), agent_outage_name(k->outage_by)) &&
           put_time(out, "until", k->outage_until_s) && buf_printf(out, "}") &&
           put_entries(s, out) && service_put_state_status(s, out) &&
           service_kubernetes_status(s, out) &&
           buf_printf(out,
                      ",\"svids\":{\"issued\":%llu,\"refused\":%llu,\"default_ttl_seconds\":%u",
                      counted(s, SERVICE_METRIC_ISSUED), counted(s, SERVICE_METRIC_ISSUE_REFUSED),
                      s->start.svid_ttl_s) &&
           put_time(out, "last_issued", s->last_issued_s) &&
           buf_printf(out, "},\"connections\":%zu,\"calls\":%zu", s->n_callers, s->n_calls) &&
           put_journal(s, out) && put_quarantine(s, out) && put_processes(s, out) &&
           buf_printf(out, "}\n");
}

static bool write_ready(void *arg, struct buf *out)
{
    const struct service *s = arg;
    return s->have_bundle && !s->stopping && buf_printf(out, "ready\n");
}

struct admin *service_admin_new(struct service *s, struct err *err)
{
    static const struct admin_document documents[] = {
        {"status", write_status},
        {"metrics", write_metrics},
        {"ready", write_ready},
        {"proxies", service_write_proxies},
        {"readiness", service_write_readiness},
    };
    const struct admin_options options = {
        .documents = documents, .n_documents = sizeof(documents) / sizeof(documents[0]), .arg = s};
    return admin_new(s->loop, &options, err);
}
