/* proxy: the table of a Proxy file, and what no single key can say: which keys go together in a
 * listener. Also the pieces that other kinds share. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config_priv.h"

const char *const words_protocol[] = {"tcp", "http", NULL};
const char *const words_log_level[] = {"error", "warn", "info", "debug", NULL};
static const char *const words_access[] = {"all", "denied", NULL};
static const char *const words_direction[] = {"outbound", "inbound", NULL};
static const char *const words_capture[] = {"intercepted", "explicit", "hbone", NULL};
static const char *const words_resolve_names[] = {"auto", "on", NULL};
const char *const words_identity_key[] = {"auto", "csr", "agent", NULL};

/* --- shared pieces ---------------------------------------------------------------------------- */
static const char *const words_take_over[] = {"executable", "uid", "nobody", NULL};

#define ADMIN_FIELDS                                                                               \
    {.name = "socket",                                                                             \
     .type = TYPE_PATH,                                                                            \
     .max = CONFIG_SOCKET_PATH_MAX,                                                                \
     AT(struct conf_admin, socket),                                                                \
     .def_doc = "none",                                                                            \
     .doc = "A Unix socket for `postern status` and for operators."},                              \
        {.name = "allow_uids",                                                                     \
         .type = TYPE_UINT,                                                                        \
         .max = UINT32_MAX - 1,                                                                    \
         LIST_AT(struct conf_admin, allow_uids, n_allow_uids),                                     \
         .def_doc = "root and the process's own uid",                                              \
         .empty_advice = "leave 'socket' out to have no admin socket",                             \
         .doc = "Who may connect to it."}
static const struct field fields_admin[] = {ADMIN_FIELDS};
static const struct field fields_dataplane_admin[] = {
    ADMIN_FIELDS,
    {.name = "take_over",
     .type = TYPE_WORD,
     .words = words_take_over,
     AT(struct conf_admin, take_over),
     .def = "executable",
     .doc =
         "Which process may take the listening sockets over (`--take-over`): one of the same uid "
         "that runs the same executable, any of the same uid, or none. docs/restart.md says "
         "what is the same."},
    {.name = "denials",
     .type = TYPE_UINT,
     .max = 65536,
     AT(struct conf_admin, denials),
     .def = "256",
     .doc = "How many of its last denials each worker keeps, for `postern policy explain --proxy`; "
            "0: none. Up to 1 KiB each."},
};
const struct table table_dataplane_admin = {
    .name = "admin", .size = sizeof(struct conf_admin), FIELDS(fields_dataplane_admin)};
const struct table table_admin = {
    .name = "admin", .size = sizeof(struct conf_admin), FIELDS(fields_admin)};

void admin_finish(struct conf_admin *admin)
{
    if (admin->allow_uids != NULL) {
        return;
    }
    admin->allow_uids = mem_must_calloc(2, sizeof(uid_t));
    admin->allow_uids[admin->n_allow_uids++] = 0;
    if (geteuid() != 0) {
        admin->allow_uids[admin->n_allow_uids++] = geteuid();
    }
}

static const struct field fields_metrics[] = {
    {.name = "address",
     .type = TYPE_ADDRESS,
     .required = true,
     .size = sizeof(struct conf_sockaddr),
     .doc = "Where GET /metrics and GET /ready are answered, and nothing else."},
};
const struct table table_metrics = {
    .name = "metrics", .size = sizeof(struct conf_sockaddr), FIELDS(fields_metrics)};

static const struct field fields_port[] = {
    {.name = "port",
     .type = TYPE_PORT,
     .required = true,
     AT(struct conf_port, port),
     .doc = "The workload's port."},
    {.name = "protocol",
     .type = TYPE_WORD,
     .words = words_protocol,
     AT(struct conf_port, protocol),
     .def = "tcp",
     .doc = "What is spoken there. On `http` ports each request is judged."},
    EXPIRY_FIELDS(struct conf_port, expiry, NULL, NULL, NULL, "the service's"),
};
const struct table table_port = {.name = "a port",
                                 .size = sizeof(struct conf_port),
                                 FIELDS(fields_port),
                                 .check = expiry_check_port};

/* --- listeners -------------------------------------------------------------------------------- */
#define PROXY_PROTOCOL_DOC                                                                         \
    "The header that tells the workload who its client is. `v2` has the peer's SPIFFE ID in the "  \
    "TLV of type 0xD0; `v2-tls` adds what the client's certificate says, `v2-tls-full` the "       \
    "certificate."

static const struct field fields_listener_port[] = {
    {.name = "port",
     .type = TYPE_PORT,
     .required = true,
     AT(struct conf_port, port),
     .doc = "The workload's port."},
    {.name = "protocol",
     .type = TYPE_WORD,
     .words = words_protocol,
     AT(struct conf_port, protocol),
     .def = "tcp",
     .doc = "What is spoken there. On `http` ports each request is judged."},
    {.name = "local_address",
     .type = TYPE_IP,
     AT(struct conf_port, local_address),
     .def_doc = "the original address",
     .doc = "Dial the workload here instead, for one that listens on 127.0.0.1 only."},
    {.name = "proxy_protocol",
     .type = TYPE_WORD,
     .words = words_proxy_protocol,
     AT(struct conf_port, proxy_protocol),
     .def = "none",
     .doc = PROXY_PROTOCOL_DOC},
    HTTP_FIELDS(struct conf_port, http, ""),
    PERMISSIVE_FIELDS(struct conf_port, permissive, ""),
    EXPIRY_FIELDS(struct conf_port, expiry, NULL, NULL, NULL, "the listener's"),
};
static const struct table table_listener_port = {.name = "a port of a listener",
                                                 .size = sizeof(struct conf_port),
                                                 FIELDS(fields_listener_port),
                                                 .check = http_check_port};

static const char *const words_undeclared[] = {"detect", "tcp", NULL};
static const struct field fields_listener_limits[] = {
    IDENTITY_LIMIT_FIELDS,
};
static const struct table table_listener_limits = {.name = "limits of a listener",
                                                   FIELDS(fields_listener_limits)};

static void check_listener(struct context *c, const struct node *map, void *value);

static const struct field fields_listener[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_listener, name),
     .doc = "Unique in the file; in logs and metrics."},
    {.name = "direction",
     .type = TYPE_WORD,
     .words = words_direction,
     .required = true,
     AT(struct conf_listener, direction),
     .doc = "`outbound`: plain in, mTLS out. `inbound`: mTLS in, plain out."},
    {.name = "capture",
     .type = TYPE_WORD,
     .words = words_capture,
     .required = true,
     AT(struct conf_listener, capture),
     .doc = "`intercepted`: takes connections that the kernel redirected (`postern intercept`) "
            "and no others. `explicit`: clients connect to it knowingly. `hbone`: inbound; other "
            "proxies carry their clients' connections in one, as streams (docs/hbone.md)."},
    {.name = "address",
     .type = TYPE_ADDRESS,
     AT(struct conf_listener, bind.address),
     .def_doc = "0.0.0.0:15008 with `capture: hbone`; else it is required",
     .doc = "Where it listens. An intercepted outbound listener stands on loopback."},
    {.name = "ports",
     .type = TYPE_MAP,
     .table = &table_listener_port,
     LIST_AT(struct conf_listener, ports, n_ports),
     .def_doc = "none: see `undeclared`",
     .doc = "Inbound, not explicit: what the workload's ports speak."},
    {.name = "transparent",
     .type = TYPE_BOOL,
     AT(struct conf_listener, transparent),
     .def = "false",
     .doc =
         "Intercepted inbound only, with `postern intercept --inbound-mode tproxy`: the workload "
         "sees the client's address and not the proxy's. Needs CAP_NET_RAW."},
    {.name = "undeclared",
     .type = TYPE_WORD,
     .words = words_undeclared,
     AT(struct conf_listener, undeclared),
     .def = "detect",
     .doc =
         "Intercepted inbound only: ports that are not in `ports`. `detect`: where the policy has "
         "rules about requests for a port, only HTTP/1 goes through, and each request is judged; "
         "others are judged as connections, and what they carry is told in log and metrics. "
         "`tcp`: as if declared so."},
    {.name = "to",
     .type = TYPE_ADDRESS,
     AT(struct conf_listener, to.address),
     .doc = "Explicit only, and required there: where it connects."},
    {.name = "identities",
     .type = TYPE_SPIFFE_ID,
     LIST_AT(struct conf_listener, identities.items, identities.n),
     .empty_advice = "name the identities that the server may have",
     .doc = "Explicit outbound only, and required there: whom it must find at `to`."},
    EXPIRY_FIELDS(struct conf_listener, expiry, "drain", EXPIRY_GRACE, EXPIRY_SPREAD, NULL),
    {.name = "protocol",
     .type = TYPE_WORD,
     .words = words_protocol,
     AT(struct conf_listener, protocol),
     .def = "tcp",
     .doc = "Explicit only: what is spoken."},
    HTTP_FIELDS(struct conf_listener, http, "Explicit only. "),
    PERMISSIVE_FIELDS(struct conf_listener, permissive, "Explicit inbound only. "),
    {.name = "transport",
     .type = TYPE_WORD,
     .words = words_transport,
     AT(struct conf_listener, transport),
     .def = "direct",
     .doc = "Explicit outbound only, as in a Mesh file; not `disable`."},
    {.name = "hbone_port",
     .type = TYPE_PORT,
     AT(struct conf_listener, hbone_port),
     .def_doc = "15008",
     .doc = "Likewise: where the address of `to` takes HBONE."},
    {.name = "proxy_protocol",
     .type = TYPE_WORD,
     .words = words_proxy_protocol,
     AT(struct conf_listener, proxy_protocol),
     .def = "none",
     .doc = "Explicit inbound only. " PROXY_PROTOCOL_DOC},
    PROXY_PROTOCOL_IN_FIELDS("Explicit only. "),
    {.name = "limits",
     .type = TYPE_MAP,
     .table = &table_listener_limits,
     .doc = "Inbound only: how much one peer may have of it."},
};
static const struct table table_listener = {
    .name = "a listener",
    .doc = "Which keys a listener takes depends on `direction` and `capture`.",
    .size = sizeof(struct conf_listener),
    FIELDS(fields_listener),
    .check = check_listener,
};

/* Sessions come to the workload's own address, whatever that is. */
static void check_hbone(struct context *c, const struct node *map, struct conf_listener *l,
                        bool outbound)
{
    enum { PORT = 15008 };
    if (outbound) {
        report(c, node_get(map, "capture"), "capture: intercepted",
               "that a service is reached by HBONE is said in the mesh map ('transport: hbone')",
               "an outbound listener with 'capture: hbone'");
    }
    if (node_get(map, "address") == NULL) {
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
        memcpy(&l->bind.address.ss, &any, sizeof(any));
        l->bind.address.len = sizeof(any);
    }
}

static void check_listener(struct context *c, const struct node *map, void *value)
{
    struct conf_listener *l = value;
    expiry_check(c, map, &l->expiry);
    http_check(c, map, &l->http);
    permissive_check(c, map, &l->permissive);
    l->to.kind = l->to.address.len > 0 ? CONF_TARGET_ADDRESS : CONF_TARGET_NONE;
    bool inbound = schema_word_is(map, "direction", "inbound");
    bool outbound = schema_word_is(map, "direction", "outbound");
    if (outbound) {
        listener_refuse_identity_limits(c, map, "an outbound listener");
    }
    if (schema_word_is(map, "capture", "explicit")) {
        schema_require_key(c, map, "to", "an explicit listener",
                           "an address with port to connect to");
        schema_refuse_key(c, map, "ports", "an explicit listener",
                          "it has one destination, 'to', and says 'protocol'");
        schema_refuse_key(c, map, "undeclared", "an explicit listener",
                          "it has one destination, 'to', and says 'protocol'");
        proxy_protocol_check(c, map, l);
        if (outbound) {
            permissive_check_none(c, map, "an outbound listener", "nobody is let in there");
            schema_refuse_key(c, map, "proxy_protocol", "an outbound listener",
                              "a server that speaks TLS sees who connects to it");
            schema_require_key(c, map, "identities", "an explicit outbound listener",
                               "the SPIFFE IDs that may answer at 'to'");
        }
        if (inbound) {
            schema_refuse_key(c, map, "identities", "an inbound listener",
                              "who may come in is said in the policy");
        }
    }
    bool hbone = schema_word_is(map, "capture", "hbone");
    if (hbone) {
        check_hbone(c, map, l, outbound);
    } else {
        schema_require_key(c, map, "address", "a listener", "an address with port to listen on");
    }
    if (hbone || schema_word_is(map, "capture", "intercepted")) {
        const char *what = hbone ? "an HBONE listener" : "an intercepted listener";
        schema_refuse_key(c, map, "to", what,
                          "it connects to each connection's original destination");
        schema_refuse_key(c, map, "identities", what, "who lives where is said in the mesh map");
        schema_refuse_key(c, map, "proxy_protocol", what,
                          inbound ? "say it for each port under 'ports'"
                                  : "a server that speaks TLS sees who connects to it");
        schema_refuse_key(c, map, "proxy_protocol_from", what,
                          "the kernel tells who opened what it redirected");
        schema_refuse_key(c, map, "proxy_protocol_pass", what, "it takes headers from nobody");
        permissive_check_none(c, map, what, "it is said of a port by name, under 'ports'");
        permissive_check_ports(c, map, l, hbone);
        schema_refuse_key(c, map, "protocol", what,
                          inbound ? "say it for each port under 'ports'"
                                  : "it is said in the mesh map");
        if (outbound) {
            schema_refuse_key(c, map, "ports", "an outbound listener",
                              "they are said in the mesh map");
            schema_refuse_key(c, map, "undeclared", "an outbound listener",
                              "nothing is judged there but who answers");
            const struct node *address = node_get(map, "address");
            if (l->bind.address.len > 0 && !sockaddr_is_loopback(&l->bind.address)) {
                report(c, address, "a loopback address such as 127.0.0.1:15001 or [::1]:15001",
                       "whoever reaches it speaks with this workload's identity",
                       "an intercepted outbound listener that others can reach");
            }
        }
    }
    transparent_check(c, map, l);
    listener_transport_check(c, map, l);
    schema_check_unique(c, node_get(map, "ports"), "port", "port");
}

/* --- the file --------------------------------------------------------------------------------- */
static const struct field fields_identity[] = {
    {.name = "socket",
     .type = TYPE_UNIX,
     AT(struct conf_proxy, identity.socket),
     .def_doc = "`$SPIFFE_ENDPOINT_SOCKET`",
     .doc = "The SPIFFE Workload API that gives this proxy its SVID."},
    {.name = "spiffe_id",
     .type = TYPE_SPIFFE_ID,
     AT(struct conf_proxy, identity.spiffe_id),
     .def_doc = "the first offered",
     .doc = "Which identity to take where several are offered."},
    {.name = "key",
     .type = TYPE_WORD,
     .words = words_identity_key,
     AT(struct conf_proxy, identity.key),
     .def = "auto",
     .doc = "`csr`: the key is made here and never leaves. `agent`: the agent makes it. `auto`: "
            "`csr` where the agent can, and a warning in the log where not."},
    {.name = "key_isolation",
     .type = TYPE_WORD,
     .words = words_key_isolation,
     AT(struct conf_proxy, identity.key_isolation),
     .def = "none",
     .doc = "`process`: the key is in a process of its own, which signs handshakes of TLS 1.3 with "
            "it and nothing else (docs/key-holder.md). Then `key: auto` is `csr`."},
    {.name = "wait",
     .type = TYPE_DURATION_MS,
     .max = 600000,
     AT(struct conf_proxy, identity.wait_ms),
     .def = "30s",
     .doc = "How long connections are held before the first SVID."},
};
const struct table table_proxy_identity = {.name = "identity", FIELDS(fields_identity)};

static const char *const words_state_from[] = {"files", "agent", NULL};

static void check_state(struct context *c, const struct node *map, void *value);
static bool check_label(struct context *c, const struct field *f, const struct node *n);

static const struct field fields_state[] = {
    {.name = "from",
     .type = TYPE_WORD,
     .words = words_state_from,
     AT(struct conf_proxy, state.from),
     .def = "files",
     .doc = "`files`: `policy` and `mesh` are all there is. `agent`: the agent of this node tells "
            "policy, mesh map, modes and who is quarantined; `policy` and `mesh` may only narrow "
            "that."},
    {.name = "max_age",
     .type = TYPE_DURATION_S,
     .min = 1,
     .max = 8760 * 3600,
     AT(struct conf_proxy, state.max_age_s),
     .def_doc = "any age",
     .doc = "With `from: agent`: not ready when the agent has been away for longer. What it told "
            "last goes on all the same."},
    {.name = "labels",
     .type = TYPE_TEXT,
     .max = 128,
     .check = check_label,
     .expected = "KEY=VALUE of letters, digits and . _ - /",
     LIST_AT(struct conf_proxy, state.labels.items, state.labels.n),
     .def_doc = "none",
     .empty_advice = "leave it out where there are none",
     .doc = "With `from: agent`: KEY=VALUE, 16 at most. What this proxy is called by "
            "`postern agent policy push --label`."},
};
const struct table table_proxy_state = {
    .name = "state", FIELDS(fields_state), .check = check_state};

static bool check_label(struct context *c, const struct field *f, const struct node *n)
{
    size_t n_equals = 0;
    bool ok = n->text.p[0] != '=' && n->text.p[n->text.n - 1] != '=';
    for (size_t i = 0; ok && i < n->text.n; i++) {
        char ch = n->text.p[i];
        n_equals += ch == '=';
        ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
             memchr("._-/=", ch, 5) != NULL;
    }
    if (!ok || n_equals != 1) {
        value_fail(c, f, n, NULL, "which is no label");
        return false;
    }
    return true;
}

static void check_state(struct context *c, const struct node *map, void *value)
{
    enum { LABELS_MAX = 16 };
    const struct conf_proxy *p = value;
    const struct node *labels = node_get(map, "labels");
    if (labels != NULL && p->state.from == CONF_STATE_FILES) {
        report(c, labels->key, NULL, "say 'from: agent', or remove it",
               "'labels' of a state that does not come from the agent");
    }
    if (p->state.labels.n > LABELS_MAX) {
        report(c, labels, NULL, NULL, "more than %d labels", LABELS_MAX);
    }
    const struct node *age = node_get(map, "max_age");
    if (age != NULL && p->state.from == CONF_STATE_FILES) {
        report(c, age->key, NULL, "say 'from: agent', or remove it",
               "'max_age' of a state that does not come from the agent");
    }
}

static const struct field fields_log[] = {
    {.name = "level",
     .type = TYPE_WORD,
     .words = words_log_level,
     AT(struct conf_proxy, log_level),
     .def = "info",
     .doc = "The least severe line that is written."},
    {.name = "access",
     .type = TYPE_WORD,
     .words = words_access,
     AT(struct conf_proxy, access_log),
     .def = "all",
     .doc = "`all`: one line a connection or request. `denied`: refusals only."},
};
const struct table table_proxy_log = {.name = "log", FIELDS(fields_log)};

static void check_proxy(struct context *c, const struct node *map, void *value);

static const struct field fields_proxy[] = {
    KIND_FIELDS("Proxy"),
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     AT(struct conf_proxy, name),
     .def_doc = "the host name",
     .doc = "Shown in logs and by `postern status`."},
    {.name = "workers",
     .type = TYPE_UINT,
     .min = 1,
     .max = 256,
     .zero_word = "auto",
     AT(struct conf_proxy, workers),
     .def = "auto",
     .doc = "Threads. `auto`: as many as the process may use CPUs, two at most."},
    {.name = "run_as",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_proxy, run_as),
     .def_doc = "whoever starts it",
     .doc = "A numeric user, and group. Started by root it becomes that before it opens anything, "
            "and keeps no capability but what a `transparent` listener needs; started by anybody "
            "else it stays what it is."},
    {.name = "identity",
     .type = TYPE_MAP,
     .table = &table_proxy_identity,
     .doc = "Where the proxy's own identity comes from."},
    {.name = "state",
     .type = TYPE_MAP,
     .table = &table_proxy_state,
     .doc = "Where policy and mesh map come from."},
    {.name = "tls",
     .type = TYPE_MAP,
     .table = &table_proxy_tls,
     .doc = "How TLS with other workloads is done. A change takes a restart."},
    {.name = "mesh",
     .type = TYPE_PATH,
     AT(struct conf_proxy, mesh_path),
     .def_doc = "none",
     .doc = "The mesh map, a file of kind Mesh. Read again on SIGHUP."},
    {.name = "resolve_names",
     .type = TYPE_WORD,
     .words = words_resolve_names,
     AT(struct conf_proxy, resolve_names),
     .def = "auto",
     .doc = "Whether names in the mesh map are looked up, by a process that is started with this "
            "one. `auto`: if the file that `mesh` names has any. `on`: also for what the agent "
            "tells, or a reload brings."},
    POLICY_FIELDS("none: everything is denied", "Who may do what"),
    JWT_FIELD,
    {.name = "listeners",
     .type = TYPE_MAP,
     .table = &table_listener,
     .required = true,
     LIST_AT(struct conf_proxy, listeners, n_listeners),
     .empty_advice = "a proxy without a listener does nothing",
     .doc = "Where connections are taken."},
    {.name = "timeouts",
     .type = TYPE_MAP,
     .table = &table_proxy_timeouts,
     .doc = "How long to wait."},
    {.name = "limits", .type = TYPE_MAP, .table = &table_proxy_limits, .doc = "How much to hold."},
    {.name = "http",
     .type = TYPE_MAP,
     .table = &table_http_general,
     AT(struct conf_proxy, http),
     .doc = "What is added to requests, and what is kept for them."},
    {.name = "admin",
     .type = TYPE_MAP,
     .table = &table_dataplane_admin,
     AT(struct conf_proxy, admin),
     .doc = "The admin socket."},
    {.name = "metrics",
     .type = TYPE_MAP,
     .table = &table_metrics,
     AT(struct conf_proxy, metrics),
     .doc = "OpenMetrics over HTTP; absent: none."},
    {.name = "probes",
     .type = TYPE_MAP,
     .table = &table_probes,
     .def_doc = "none",
     .doc = "What a kubelet would ask of the workload."},
    {.name = "interception",
     .type = TYPE_MAP,
     .table = &table_proxy_interception,
     .doc = "How the proxy looks after the redirection."},
    {.name = "log",
     .type = TYPE_MAP,
     .table = &table_proxy_log,
     .doc = "JSON lines on standard error."},
    {.name = "audit",
     .type = TYPE_MAP,
     .table = &table_audit,
     AT(struct conf_proxy, audit),
     .def_doc = "none",
     .doc = "The audit log: one JSON line a decision."},
};
const struct table table_proxy = {
    .name = "the file",
    .doc = "A sidecar, or explicit listeners, for one workload: `postern proxy FILE`.",
    .size = sizeof(struct conf_proxy),
    FIELDS(fields_proxy),
    .check = check_proxy,
};

static void check_proxy(struct context *c, const struct node *map, void *value)
{
    enum { LISTENERS_MAX = 1024 };
    struct conf_proxy *p = value;
    const struct node *list = node_get(map, "listeners");
    if (p->n_listeners > LISTENERS_MAX) {
        report(c, list, NULL, NULL, "more than %d listeners", LISTENERS_MAX);
    } else if (p->n_listeners > 0) {
        schema_check_unique(c, list, "name", "listener");
        listeners_check_addresses(c, list, p);
    }
    probes_check(c, map, p);
    jwt_check(c, map, p);
    interception_check(c, map, p);
    key_isolation_check(c, map, p);
    proxy_finish(p);
}

void proxy_finish(struct conf_proxy *p)
{
    if (p->name == NULL) {
        char host[65] = "";
        (void)gethostname(host, sizeof(host) - 1);
        p->name = mem_must_strdup(host[0] != '\0' ? host : "postern");
    }
    admin_finish(&p->admin);
}
