/* agent: the table of an Agent file; lifetimes that fit into each other, users that differ. */
#include <postern/conf.h>

#include "config_priv.h"

static const struct field fields_svid[] = {
    {.name = "ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = 720 * 3600,
     AT(struct conf_agent, svid_ttl_s),
     .def = "1h",
     .doc = "For entries that name none."},
};
static const struct table table_svid = {.name = "svid", FIELDS(fields_svid)};

static const struct field fields_state[] = {
    {.name = "policy",
     .type = TYPE_PATH,
     AT(struct conf_agent, state.policy_path),
     .def_doc = "none: each proxy's own",
     .doc =
         "Who may do what, a file of kind Policy, or of Istio's or Kubernetes' policies. A proxy "
         "gets the rules that can speak of it."},
    {.name = "mesh",
     .type = TYPE_PATH,
     AT(struct conf_agent, state.mesh_path),
     .def_doc = "none: each proxy's own",
     .doc = "The mesh map, a file of kind Mesh."},
    {.name = "modes",
     .type = TYPE_PATH,
     AT(struct conf_agent, state.modes_path),
     .def_doc = "none",
     .doc = "What holds for every proxy, a file of kind Modes."},
};
static const struct table table_state = {.name = "state", FIELDS(fields_state)};

static const char *const words_jwt_algorithm[] = {"ES256", "ES384", "RS256", NULL};

static const struct field fields_jwt[] = {
    {.name = "ttl",
     .type = TYPE_DURATION_S,
     .min = 1,
     .max = 24 * 3600,
     AT(struct conf_agent, jwt_ttl_s),
     .def = "5m",
     .doc = "For entries that name none."},
    {.name = "algorithm",
     .type = TYPE_WORD,
     .words = words_jwt_algorithm,
     AT(struct conf_agent, jwt_algorithm),
     .def = "ES256",
     .doc = "What keys are made for from now on; those that are there stay until their end."},
    {.name = "key_ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = UINT64_C(8760) * 3600,
     AT(struct conf_agent, jwt_key_ttl_s),
     .def = "24h",
     .doc = "Life of a key that signs them. The next one is in the bundle from half of it on, and "
            "signs when a sixth is left."},
};
static const struct table table_jwt = {.name = "jwt", FIELDS(fields_jwt)};

static void check_users(struct context *c, const struct node *map, void *value);

static const struct field fields_users[] = {
    {.name = "keeper",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_agent, keeper_uid),
     .def = "64601",
     .doc = "The process with the CA keys."},
    {.name = "attestor",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_agent, attestor_uid),
     .def = "64602",
     .doc = "The process that looks at callers."},
    {.name = "service",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_agent, service_uid),
     .def = "64603",
     .doc = "The process that speaks gRPC."},
    {.name = "kubelet",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_agent, kubelet_uid),
     .def = "64604",
     .doc = "The process that asks the kubelet, where there is one."},
    {.name = "signer",
     .type = TYPE_UINT,
     .min = 1,
     .max = UINT32_MAX - 1,
     AT(struct conf_agent, signer_uid),
     .def = "64605",
     .doc = "The process that uses the token, where there is one."},
};
static const struct table table_users = {
    .name = "users", FIELDS(fields_users), .check = check_users};

static const struct field fields_control[] = {
    {.name = "socket",
     .type = TYPE_PATH,
     .max = CONFIG_SOCKET_PATH_MAX,
     .required = true,
     AT(struct conf_agent, control_socket),
     .doc = "A Unix socket in a directory that nobody else may write to."},
};
static const struct field fields_journal[] = {
    {.name = "max_size",
     .type = TYPE_SIZE,
     .min = 65536,
     .max = UINT64_C(1) << 34,
     AT(struct conf_agent, journal_max_size),
     .def = "64MiB",
     .doc = "Of one file; then a next one is begun."},
    {.name = "keep",
     .type = TYPE_UINT,
     .min = 2,
     .max = 10000,
     AT(struct conf_agent, journal_keep),
     .def = "8",
     .doc = "How many files; the oldest is removed when one more is begun."},
};
static const struct table table_journal = {.name = "journal", FIELDS(fields_journal)};

static const struct table table_control = {.name = "control", FIELDS(fields_control)};

static const struct field fields_attestation[] = {
    {.name = "executable_max",
     .type = TYPE_SIZE,
     .min = 1,
     .max = UINT64_C(4) << 30,
     AT(struct conf_agent, executable_max),
     .def = "64MiB",
     .doc =
         "Larger executables have no digest for `unix:sha256`. None is read unless an entry asks."},
};
static const struct table table_attestation = {.name = "attestation", FIELDS(fields_attestation)};

static const struct field fields_log[] = {
    {.name = "level",
     .type = TYPE_WORD,
     .words = words_log_level,
     AT(struct conf_agent, log_level),
     .def = "info",
     .doc = "The least severe line that is written."},
};
static const struct table table_log = {.name = "log", FIELDS(fields_log)};

static void check_agent(struct context *c, const struct node *map, void *value);

static const struct field fields_agent[] = {
    KIND_FIELDS("Agent"),
    {.name = "trust_domain",
     .type = TYPE_TRUST_DOMAIN,
     .required = true,
     AT(struct conf_agent, trust_domain),
     .doc = "Whose identities it issues."},
    {.name = "socket",
     .type = TYPE_PATH,
     .max = CONFIG_SOCKET_PATH_MAX,
     .required = true,
     AT(struct conf_agent, socket),
     .doc = "The Unix socket of the SPIFFE Workload API."},
    {.name = "state_dir",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_agent, state_dir),
     .doc = "The authorities with their keys (0600). Made at first start, kept afterwards."},
    {.name = "entries",
     .type = TYPE_PATH,
     .required = true,
     AT(struct conf_agent, entries_path),
     .doc = "Who gets which identity, a file of kind Entries. Read again when it changes, and on "
            "SIGHUP."},
    {.name = "state",
     .type = TYPE_MAP,
     .table = &table_state,
     .doc = "What proxies with `state: {from: agent}` are told. Each file is read again when it "
            "changes, and on SIGHUP."},
    {.name = "policy_context",
     .type = TYPE_MAP,
     .table = &table_agent_policy_context,
     .doc = "What a policy that is Istio's or Kubernetes' does not say itself."},
    {.name = "ca", .type = TYPE_MAP, .table = &table_ca, .doc = "The authority."},
    {.name = "svid", .type = TYPE_MAP, .table = &table_svid, .doc = "What it issues."},
    {.name = "jwt", .type = TYPE_MAP, .table = &table_jwt, .doc = "JWT-SVIDs."},
    {.name = "users",
     .type = TYPE_MAP,
     .table = &table_users,
     .doc = "What its processes run as when it is started by root; each its own."},
    {.name = "kubernetes",
     .type = TYPE_MAP,
     .table = &table_kubernetes,
     AT(struct conf_agent, kubernetes),
     .doc = "Which pods run on this node, for selectors of Kubernetes; absent: it has none."},
    {.name = "attestation",
     .type = TYPE_MAP,
     .table = &table_attestation,
     .doc = "What is read of callers."},
    {.name = "admin",
     .type = TYPE_MAP,
     .table = &table_admin,
     AT(struct conf_agent, admin),
     .doc = "The admin socket."},
    {.name = "metrics",
     .type = TYPE_MAP,
     .table = &table_metrics,
     AT(struct conf_agent, metrics),
     .doc = "OpenMetrics over HTTP; absent: none."},
    {.name = "journal",
     .type = TYPE_MAP,
     .table = &table_journal,
     .doc = "The record of every issuance, in the state directory."},
    {.name = "control",
     .type = TYPE_MAP,
     .table = &table_control,
     .def_doc = "`control.sock` in the state directory",
     .doc = "Where root orders things (`postern quarantine`, `postern journal`): mode 0600."},
    {.name = "limits",
     .type = TYPE_MAP,
     .table = &table_agent_limits,
     .doc = "What callers may make it hold and do."},
    {.name = "log", .type = TYPE_MAP, .table = &table_log, .doc = "JSON lines on standard error."},
};
const struct table table_agent = {
    .name = "the file",
    .doc = "The node CA agent: `postern agent FILE`.",
    .size = sizeof(struct conf_agent),
    FIELDS(fields_agent),
    .check = check_agent,
};

static void check_users(struct context *c, const struct node *map, void *value)
{
    const struct conf_agent *a = value;
    const uid_t uids[] = {a->keeper_uid, a->attestor_uid, a->service_uid, a->kubelet_uid,
                          a->signer_uid};
    const size_t n = sizeof(uids) / sizeof(uids[0]);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (uids[i] != 0 && uids[i] == uids[k]) {
                report(c, map, "different uids", NULL,
                       "two of the agent's processes share a uid, so that one could reach into the "
                       "other");
                return;
            }
        }
    }
}

/* Reports at the shorter-lived thing's key where the file has it, else at the longer-lived one's.
 */
static void check_order(struct context *c, const struct node *inner, const struct node *outer,
                        uint32_t inner_s, uint32_t outer_s, const char *text)
{
    const struct node *at = inner != NULL ? inner : outer;
    if (at != NULL && inner_s != 0 && outer_s != 0 && inner_s > outer_s) {
        report(c, at, NULL, NULL, "%s", text);
    }
}

static void check_agent(struct context *c, const struct node *map, void *value)
{
    struct conf_agent *a = value;
    const struct node *root = node_get(node_get(map, "ca"), "root_ttl");
    const struct node *node = node_get(node_get(map, "ca"), "node_ttl");
    const struct node *svid = node_get(node_get(map, "svid"), "ttl");
    check_order(c, node, root, a->node_ttl_s, a->root_ttl_s,
                "'node_ttl' is longer than 'root_ttl': a certificate ends with its issuer");
    check_order(c, svid, node, a->svid_ttl_s, a->node_ttl_s,
                "the SVIDs' 'ttl' is longer than 'node_ttl': a certificate ends with its issuer");
    check_order(c, node_get(node_get(map, "jwt"), "ttl"), node_get(node_get(map, "jwt"), "key_ttl"),
                a->jwt_ttl_s, a->jwt_key_ttl_s / 6,
                "the tokens' 'ttl' is longer than a sixth of 'key_ttl': a token ends with its key");
    admin_finish(&a->admin);
}
