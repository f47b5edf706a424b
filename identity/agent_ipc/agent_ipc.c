#include <postern/agent_ipc.h>

#include <string.h>
#include <unistd.h>

/* Everything about a message that can be said without knowing what it is for stands in the two
 * tables below: which way it may go, its size, its descriptor, and which of its bytes have a form.
 * The dispatchers of the processes begin where this check ends. */

enum field_kind {
    FIELD_END = 0,
    FIELD_TEXT,  /* a length (uint16_t at `aux`) and `max` bytes at `off`, no NUL among them */
    FIELD_BYTES, /* a length (uint32_t at `aux`) of at most `max` */
    FIELD_COUNT, /* a uint32_t of at most `max` */
    FIELD_BOOL,  /* 0 or 1: another byte in a bool is undefined behaviour */
    FIELD_ERR,   /* a struct err */
    FIELD_REPORT,
    FIELD_DOCS,      /* AGENT_N_DOCUMENTS of struct agent_doc_state */
    FIELD_DNS,       /* the DNS names of an entry: a uint16_t count at `aux` */
    FIELD_SELECTORS, /* likewise; their texts lie one after another in selector_text */
};

struct field {
    enum field_kind kind;
    size_t off;
    size_t aux;
    size_t max;
};

#define TEXT(type, name, most)                                                                     \
    {FIELD_TEXT, offsetof(struct type, name), offsetof(struct type, name##_len), most}
#define BYTES(type, name, most)                                                                    \
    {FIELD_BYTES, offsetof(struct type, name), offsetof(struct type, name##_len), most}
#define COUNT(type, name, most) {FIELD_COUNT, offsetof(struct type, name), 0, most}
#define BOOL(type, name) {FIELD_BOOL, offsetof(struct type, name), 0, 0}
#define ERROR(type, name) {FIELD_ERR, offsetof(struct type, name), 0, 0}

/* Of an attested caller. */
#define CALLER_FIELDS                                                                              \
    {TEXT(agent_msg_caller, path, AGENT_PATH_MAX),                                                 \
     TEXT(agent_msg_caller, container_id, AGENT_CONTAINER_ID_MAX),                                 \
     TEXT(agent_msg_caller, pod_uid, AGENT_POD_UID_MAX),                                           \
     TEXT(agent_msg_caller, unit, AGENT_UNIT_MAX),                                                 \
     COUNT(agent_msg_caller, n_groups, AGENT_GROUPS_MAX),                                          \
     COUNT(agent_msg_caller, runtime, AGENT_N_RUNTIMES - 1),                                       \
     BOOL(agent_msg_caller, groups_truncated),                                                     \
     BOOL(agent_msg_caller, own_view),                                                             \
     BOOL(agent_msg_caller, contained),                                                            \
     BOOL(agent_msg_caller, has_sha256)}

enum { FIELDS_MAX = 12 };

#define WAY(name) (1U << AGENT_WAY_##name)
#define FROM_CHILDREN                                                                              \
    (WAY(KEEPER_SUPERVISOR) | WAY(ATTESTOR_SUPERVISOR) | WAY(SERVICE_SUPERVISOR) |                 \
     WAY(KUBELET_SUPERVISOR) | WAY(SIGNER_SUPERVISOR))

struct msg_rule {
    const char *name;
    size_t size;
    unsigned ways;
    bool has_fd;
    struct field fields[FIELDS_MAX];
};

static const struct msg_rule RULES[AGENT_N_MSGS] = {
    [AGENT_MSG_NONE] = {"none", 0, 0, false, {{FIELD_END, 0, 0, 0}}},
    [AGENT_MSG_REPORT] = {"report",
                          sizeof(struct agent_msg_report),
                          FROM_CHILDREN | WAY(LOADER_SUPERVISOR),
                          false,
                          {COUNT(agent_msg_report, role, AGENT_N_ROLES - 1),
                           COUNT(agent_msg_report, secret_kind, 2),
                           BOOL(agent_msg_report, memory_locked),
                           {FIELD_REPORT, offsetof(struct agent_msg_report, report), 0, 0}}},
    [AGENT_MSG_READY] = {"ready", sizeof(struct agent_msg_plain), FROM_CHILDREN, false, {{0}}},
    [AGENT_MSG_FAILED] = {"failed",
                          sizeof(struct agent_msg_failed),
                          FROM_CHILDREN | WAY(LOADER_SUPERVISOR),
                          false,
                          {ERROR(agent_msg_failed, error)}},
    [AGENT_MSG_START_KEEPER] = {"start_keeper",
                                sizeof(struct agent_msg_start_keeper),
                                WAY(SUPERVISOR_KEEPER),
                                false,
                                {COUNT(agent_msg_start_keeper, log_level, LOG_DEBUG),
                                 COUNT(agent_msg_start_keeper, jwt_algorithm, AGENT_JWT_RS256),
                                 TEXT(agent_msg_start_keeper, trust_domain,
                                      AGENT_TRUST_DOMAIN_MAX)}},
    [AGENT_MSG_CA_FILE] = {"ca_file",
                           sizeof(struct agent_msg_ca_file),
                           WAY(SUPERVISOR_KEEPER),
                           true,
                           {COUNT(agent_msg_ca_file, which, AGENT_N_CA_FILES - 1)}},
    [AGENT_MSG_KEY_SOURCE] = {"key_source",
                              sizeof(struct agent_msg_key_source),
                              WAY(SUPERVISOR_KEEPER),
                              true,
                              {BOOL(agent_msg_key_source, old)}},
    [AGENT_MSG_STATE_KEY] = {"state_key",
                             sizeof(struct agent_msg_state),
                             WAY(SUPERVISOR_KEEPER),
                             true,
                             {BOOL(agent_msg_state, fresh)}},
    [AGENT_MSG_STATE_CERT] = {"state_cert",
                              sizeof(struct agent_msg_state),
                              WAY(SUPERVISOR_KEEPER),
                              true,
                              {BOOL(agent_msg_state, fresh)}},
    [AGENT_MSG_STATE_FILE] = {"state_file",
                              sizeof(struct agent_msg_state),
                              WAY(SUPERVISOR_KEEPER),
                              true,
                              {BOOL(agent_msg_state, fresh)}},
    [AGENT_MSG_STATE_WANTED] =
        {"state_wanted", sizeof(struct agent_msg_plain), WAY(KEEPER_SUPERVISOR), false, {{0}}},
    [AGENT_MSG_STATE_PLACED] = {"state_placed",
                                sizeof(struct agent_msg_state_placed),
                                WAY(SUPERVISOR_KEEPER),
                                false,
                                {BOOL(agent_msg_state_placed, ok),
                                 ERROR(agent_msg_state_placed, error)}},
    [AGENT_MSG_STATE_WRITTEN] =
        {"state_written", sizeof(struct agent_msg_plain), WAY(KEEPER_SUPERVISOR), false, {{0}}},
    [AGENT_MSG_CA_ORDER] = {"ca_order",
                            sizeof(struct agent_msg_ca_order),
                            WAY(SUPERVISOR_KEEPER),
                            false,
                            {COUNT(agent_msg_ca_order, verb, AGENT_N_CA_VERBS - 1),
                             BOOL(agent_msg_ca_order, jwt), BOOL(agent_msg_ca_order, force),
                             TEXT(agent_msg_ca_order, id, AGENT_CA_ID_MAX)}},
    [AGENT_MSG_CA_ANSWER] = {"ca_answer",
                             sizeof(struct agent_msg_ca_answer),
                             WAY(KEEPER_SUPERVISOR),
                             false,
                             {ERROR(agent_msg_ca_answer, error),
                              BYTES(agent_msg_ca_answer, text, AGENT_CA_TEXT_MAX)}},
    [AGENT_MSG_ENTRIES_BEGIN] = {"entries_begin",
                                 sizeof(struct agent_msg_entries_begin),
                                 WAY(SUPERVISOR_KEEPER),
                                 false,
                                 {COUNT(agent_msg_entries_begin, n_entries, AGENT_ENTRIES_MAX)}},
    [AGENT_MSG_ENTRY] = {"entry",
                         sizeof(struct agent_msg_entry),
                         WAY(SUPERVISOR_KEEPER) | WAY(LOADER_SUPERVISOR),
                         false,
                         {COUNT(agent_msg_entry, index, AGENT_ENTRIES_MAX - 1),
                          TEXT(agent_msg_entry, id, AGENT_NAME_MAX),
                          TEXT(agent_msg_entry, spiffe_id, AGENT_ID_MAX),
                          TEXT(agent_msg_entry, selector_text, AGENT_SELECTOR_TEXT_MAX),
                          {FIELD_SELECTORS, offsetof(struct agent_msg_entry, selectors),
                           offsetof(struct agent_msg_entry, n_selectors), AGENT_SELECTORS_MAX},
                          TEXT(agent_msg_entry, hint, AGENT_HINT_MAX),
                          {FIELD_DNS, offsetof(struct agent_msg_entry, dns_names),
                           offsetof(struct agent_msg_entry, n_dns_names), AGENT_DNS_NAMES_MAX}}},
    [AGENT_MSG_ENTRIES_COMMIT] = {"entries_commit",
                                  sizeof(struct agent_msg_entries_begin),
                                  WAY(SUPERVISOR_KEEPER),
                                  false,
                                  {COUNT(agent_msg_entries_begin, n_entries, AGENT_ENTRIES_MAX)}},
    [AGENT_MSG_ENTRIES_APPLIED] = {"entries_applied",
                                   sizeof(struct agent_msg_entries_applied),
                                   WAY(KEEPER_SUPERVISOR),
                                   false,
                                   {BOOL(agent_msg_entries_applied, ok),
                                    ERROR(agent_msg_entries_applied, error)}},
    [AGENT_MSG_SERVICE] = {"service",
                           sizeof(struct agent_msg_plain),
                           WAY(SUPERVISOR_KEEPER) | WAY(SUPERVISOR_ATTESTOR),
                           true,
                           {{0}}},
    [AGENT_MSG_START_ATTESTOR] = {"start_attestor",
                                  sizeof(struct agent_msg_start_attestor),
                                  WAY(SUPERVISOR_ATTESTOR),
                                  false,
                                  {COUNT(agent_msg_start_attestor, log_level, LOG_DEBUG),
                                   BOOL(agent_msg_start_attestor, force_fallback)}},
    [AGENT_MSG_ATTEST_OPTIONS] = {"attest_options",
                                  sizeof(struct agent_msg_attest_options),
                                  WAY(SUPERVISOR_ATTESTOR),
                                  false,
                                  {{0}}},
    [AGENT_MSG_START_SERVICE] = {"start_service",
                                 sizeof(struct agent_msg_start_service),
                                 WAY(SUPERVISOR_SERVICE),
                                 false,
                                 {COUNT(agent_msg_start_service, log_level, LOG_DEBUG),
                                  TEXT(agent_msg_start_service, trust_domain,
                                       AGENT_TRUST_DOMAIN_MAX)}},
    [AGENT_MSG_LISTENER] = {"listener",
                            sizeof(struct agent_msg_listener),
                            WAY(SUPERVISOR_SERVICE),
                            true,
                            {COUNT(agent_msg_listener, which, AGENT_LISTENER_METRICS),
                             COUNT(agent_msg_listener, n_uids, AGENT_UIDS_MAX)}},
    [AGENT_MSG_PROCESS] = {"process",
                           sizeof(struct agent_msg_process),
                           WAY(SUPERVISOR_SERVICE),
                           false,
                           {COUNT(agent_msg_process, role, AGENT_N_ROLES - 1),
                            COUNT(agent_msg_process, secret_kind, 2),
                            BOOL(agent_msg_process, memory_locked),
                            BOOL(agent_msg_process, separated),
                            {FIELD_REPORT, offsetof(struct agent_msg_process, report), 0, 0}}},
    [AGENT_MSG_ENTRIES_STATE] = {"entries_state",
                                 sizeof(struct agent_msg_entries_state),
                                 WAY(SUPERVISOR_SERVICE),
                                 false,
                                 {ERROR(agent_msg_entries_state, error)}},
    [AGENT_MSG_DOCS_BEGIN] = {"docs_begin",
                              sizeof(struct agent_msg_docs),
                              WAY(SUPERVISOR_SERVICE),
                              false,
                              {TEXT(agent_msg_docs, stage, AGENT_STAGE_MAX)}},
    [AGENT_MSG_DOC_PART] = {"doc_part",
                            sizeof(struct agent_msg_doc_part),
                            WAY(LOADER_SUPERVISOR) | WAY(SUPERVISOR_SERVICE),
                            false,
                            {COUNT(agent_msg_doc_part, document, AGENT_DOCUMENT_STAGED),
                             COUNT(agent_msg_doc_part, kind, AGENT_DOC_TEXT),
                             TEXT(agent_msg_doc_part, text, AGENT_DOC_PART_MAX)}},
    [AGENT_MSG_DOCS_COMMIT] = {"docs_commit",
                               sizeof(struct agent_msg_docs),
                               WAY(SUPERVISOR_SERVICE),
                               false,
                               {TEXT(agent_msg_docs, stage, AGENT_STAGE_MAX)}},
    [AGENT_MSG_DOCS_STATE] = {"docs_state",
                              sizeof(struct agent_msg_docs_state),
                              WAY(SUPERVISOR_SERVICE),
                              false,
                              {{FIELD_DOCS, offsetof(struct agent_msg_docs_state, documents), 0,
                                0}}},
    [AGENT_MSG_STOP] =
        {"stop", sizeof(struct agent_msg_plain), WAY(SUPERVISOR_SERVICE), false, {{0}}},
    [AGENT_MSG_DIAGNOSTIC] = {"diagnostic",
                              sizeof(struct agent_msg_failed),
                              WAY(LOADER_SUPERVISOR),
                              false,
                              {ERROR(agent_msg_failed, error)}},
    [AGENT_MSG_LOADED] = {"loaded",
                          sizeof(struct agent_msg_loaded),
                          WAY(LOADER_SUPERVISOR),
                          false,
                          {COUNT(agent_msg_loaded, n_entries, AGENT_DOC_ITEMS_MAX)}},
    [AGENT_MSG_START_KUBELET] = {"start_kubelet",
                                 sizeof(struct agent_msg_start_kubelet),
                                 WAY(SUPERVISOR_KUBELET),
                                 false,
                                 {COUNT(agent_msg_start_kubelet, log_level, LOG_DEBUG),
                                  BOOL(agent_msg_start_kubelet, insecure),
                                  BOOL(agent_msg_start_kubelet, plaintext),
                                  TEXT(agent_msg_start_kubelet, host, AGENT_HOST_MAX),
                                  TEXT(agent_msg_start_kubelet, server_name, AGENT_POD_NAME_MAX),
                                  TEXT(agent_msg_start_kubelet, node_name, AGENT_POD_NAME_MAX)}},
    [AGENT_MSG_KUBELET_WANT] =
        {"kubelet_want", sizeof(struct agent_msg_plain), WAY(KUBELET_SUPERVISOR), false, {{0}}},
    [AGENT_MSG_KUBELET_FILE] = {"kubelet_file",
                                sizeof(struct agent_msg_kubelet_file),
                                WAY(SUPERVISOR_KUBELET),
                                true,
                                {COUNT(agent_msg_kubelet_file, which, AGENT_N_KUBELET_FILES - 1)}},
    [AGENT_MSG_KUBELET_CONNECTION] = {"kubelet_connection",
                                      sizeof(struct agent_msg_plain),
                                      WAY(SUPERVISOR_KUBELET),
                                      true,
                                      {{0}}},
    [AGENT_MSG_KUBELET_REFUSED] = {"kubelet_refused",
                                   sizeof(struct agent_msg_failed),
                                   WAY(SUPERVISOR_KUBELET),
                                   false,
                                   {ERROR(agent_msg_failed, error)}},
    [AGENT_MSG_KUBELET_STATE] = {"kubelet_state",
                                 sizeof(struct agent_msg_kubelet_state),
                                 WAY(KUBELET_SUPERVISOR) | WAY(SUPERVISOR_SERVICE),
                                 false,
                                 {BOOL(agent_msg_kubelet_state, configured),
                                  BOOL(agent_msg_kubelet_state, insecure),
                                  BOOL(agent_msg_kubelet_state, plaintext),
                                  ERROR(agent_msg_kubelet_state, error),
                                  ERROR(agent_msg_kubelet_state, left_out)}},
    [AGENT_MSG_KUBELET] =
        {"kubelet", sizeof(struct agent_msg_plain), WAY(SUPERVISOR_KEEPER), true, {{0}}},
    [AGENT_MSG_PODS_BEGIN] = {"pods_begin",
                              sizeof(struct agent_msg_pods_begin),
                              WAY(KUBELET_KEEPER),
                              false,
                              {COUNT(agent_msg_pods_begin, n_pods, AGENT_PODS_MAX)}},
    [AGENT_MSG_POD] = {"pod",
                       sizeof(struct agent_msg_pod),
                       WAY(KUBELET_KEEPER),
                       false,
                       {COUNT(agent_msg_pod, n_containers, AGENT_POD_CONTAINERS_MAX),
                        TEXT(agent_msg_pod, uid, AGENT_POD_UID_MAX),
                        TEXT(agent_msg_pod, ns, AGENT_POD_NAME_MAX),
                        TEXT(agent_msg_pod, name, AGENT_POD_NAME_MAX),
                        TEXT(agent_msg_pod, sa, AGENT_POD_NAME_MAX),
                        TEXT(agent_msg_pod, node, AGENT_POD_NAME_MAX),
                        TEXT(agent_msg_pod, labels, AGENT_POD_LABELS_MAX)}},
    [AGENT_MSG_CONTAINER] = {"container",
                             sizeof(struct agent_msg_container),
                             WAY(KUBELET_KEEPER),
                             false,
                             {TEXT(agent_msg_container, id, AGENT_CONTAINER_ID_MAX),
                              TEXT(agent_msg_container, name, AGENT_CONTAINER_NAME_MAX),
                              TEXT(agent_msg_container, image, AGENT_IMAGE_MAX),
                              TEXT(agent_msg_container, image_id, AGENT_IMAGE_MAX),
                              TEXT(agent_msg_container, digest, AGENT_IMAGE_MAX)}},
    [AGENT_MSG_PODS_COMMIT] = {"pods_commit",
                               sizeof(struct agent_msg_pods_begin),
                               WAY(KUBELET_KEEPER),
                               false,
                               {COUNT(agent_msg_pods_begin, n_pods, AGENT_PODS_MAX)}},
    [AGENT_MSG_PODS_WANTED] =
        {"pods_wanted", sizeof(struct agent_msg_plain), WAY(KEEPER_KUBELET), false, {{0}}},
    [AGENT_MSG_ATTESTED] = {"attested", sizeof(struct agent_msg_caller), WAY(ATTESTOR_KEEPER), true,
                            CALLER_FIELDS},
    [AGENT_MSG_UPDATED] = {"updated", sizeof(struct agent_msg_caller), WAY(ATTESTOR_KEEPER), false,
                           CALLER_FIELDS},
    [AGENT_MSG_GONE] = {"gone",
                        sizeof(struct agent_msg_handle),
                        WAY(ATTESTOR_KEEPER) | WAY(ATTESTOR_SERVICE),
                        false,
                        {{0}}},
    [AGENT_MSG_CONNECTION] =
        {"connection", sizeof(struct agent_msg_connection), WAY(ATTESTOR_SERVICE), true, {{0}}},
    [AGENT_MSG_REATTEST] =
        {"reattest", sizeof(struct agent_msg_ask), WAY(SERVICE_ATTESTOR), false, {{0}}},
    [AGENT_MSG_REATTESTED] = {"reattested",
                              sizeof(struct agent_msg_reattested),
                              WAY(ATTESTOR_SERVICE),
                              false,
                              {COUNT(agent_msg_reattested, outcome, AGENT_ATTEST_FAILED),
                               BOOL(agent_msg_reattested, changed)}},
    [AGENT_MSG_RELEASE] =
        {"release", sizeof(struct agent_msg_handle), WAY(SERVICE_ATTESTOR), false, {{0}}},
    [AGENT_MSG_IDENTITY_GET] =
        {"identity_get", sizeof(struct agent_msg_identity_get), WAY(SERVICE_KEEPER), false, {{0}}},
    [AGENT_MSG_IDENTITY] = {"identity",
                            sizeof(struct agent_msg_identity),
                            WAY(KEEPER_SERVICE),
                            false,
                            {COUNT(agent_msg_identity, outcome, AGENT_N_OUTCOMES - 1),
                             TEXT(agent_msg_identity, spiffe_id, AGENT_ID_MAX),
                             TEXT(agent_msg_identity, hint, AGENT_HINT_MAX)}},
    [AGENT_MSG_ISSUE] =
        {"issue", sizeof(struct agent_msg_issue), WAY(SERVICE_KEEPER), false, {{0}}},
    [AGENT_MSG_ISSUED] = {"issued",
                          sizeof(struct agent_msg_issued),
                          WAY(KEEPER_SERVICE),
                          false,
                          {COUNT(agent_msg_issued, outcome, AGENT_N_OUTCOMES - 1),
                           BYTES(agent_msg_issued, leaf, AGENT_LEAF_MAX),
                           BYTES(agent_msg_issued, chain, AGENT_CHAIN_MAX)}},
    [AGENT_MSG_BUNDLE_GET] =
        {"bundle_get", sizeof(struct agent_msg_ask), WAY(SERVICE_KEEPER), false, {{0}}},
    [AGENT_MSG_BUNDLE] = {"bundle",
                          sizeof(struct agent_msg_bundle),
                          WAY(KEEPER_SERVICE),
                          false,
                          {BYTES(agent_msg_bundle, roots, AGENT_BUNDLE_MAX)}},
    [AGENT_MSG_CHANGED] = {"changed",
                           sizeof(struct agent_msg_changed),
                           WAY(KEEPER_SERVICE),
                           false,
                           {BOOL(agent_msg_changed, journal_failing),
                            COUNT(agent_msg_changed, outage_by, AGENT_N_OUTAGES - 1),
                            COUNT(agent_msg_changed, token, AGENT_N_TOKENS - 1)}},
    [AGENT_MSG_DENY_NOTE] = {"deny_note",
                             sizeof(struct agent_msg_deny_note),
                             WAY(SUPERVISOR_KEEPER),
                             false,
                             {COUNT(agent_msg_deny_note, change, AGENT_DENY_OVER),
                              COUNT(agent_msg_deny_note, kind, AGENT_DENY_IMAGE_DIGEST),
                              TEXT(agent_msg_deny_note, text, AGENT_ID_MAX),
                              TEXT(agent_msg_deny_note, reason, AGENT_REASON_MAX)}},
    [AGENT_MSG_JOURNAL_FILE] =
        {"journal_file", sizeof(struct agent_msg_journal), WAY(SUPERVISOR_KEEPER), true, {{0}}},
    [AGENT_MSG_JOURNAL_HEAD] =
        {"journal_head", sizeof(struct agent_msg_plain), WAY(SUPERVISOR_KEEPER), true, {{0}}},
    [AGENT_MSG_JOURNAL_NEXT] = {"journal_next",
                                sizeof(struct agent_msg_journal_next),
                                WAY(KEEPER_SUPERVISOR),
                                false,
                                {{0}}},
    [AGENT_MSG_START_SIGNER] = {"start_signer",
                                sizeof(struct agent_msg_start_signer),
                                WAY(SUPERVISOR_SIGNER),
                                false,
                                {COUNT(agent_msg_start_signer, log_level, LOG_DEBUG),
                                 TEXT(agent_msg_start_signer, trust_domain, AGENT_TRUST_DOMAIN_MAX),
                                 TEXT(agent_msg_start_signer, module, AGENT_PATH_MAX),
                                 TEXT(agent_msg_start_signer, token, AGENT_TOKEN_LABEL_MAX),
                                 TEXT(agent_msg_start_signer, key, AGENT_TOKEN_KEY_MAX),
                                 BYTES(agent_msg_start_signer, environment, AGENT_TOKEN_WORDS_MAX),
                                 BYTES(agent_msg_start_signer, paths, AGENT_TOKEN_WORDS_MAX)}},
    [AGENT_MSG_SIGNER_PIN] =
        {"signer_pin", sizeof(struct agent_msg_signer_pin), WAY(SUPERVISOR_SIGNER), true, {{0}}},
    [AGENT_MSG_SIGNER] =
        {"signer", sizeof(struct agent_msg_plain), WAY(SUPERVISOR_KEEPER), true, {{0}}},
    [AGENT_MSG_SIGNER_KEY] = {"signer_key",
                              sizeof(struct agent_msg_signer_key),
                              WAY(KEEPER_SIGNER),
                              false,
                              {BOOL(agent_msg_signer_key, another)}},
    [AGENT_MSG_SIGNER_KEY_IS] = {"signer_key_is",
                                 sizeof(struct agent_msg_signer_key_is),
                                 WAY(SIGNER_KEEPER),
                                 false,
                                 {ERROR(agent_msg_signer_key_is, error),
                                  BOOL(agent_msg_signer_key_is, made)}},
    [AGENT_MSG_SIGNER_SIGN] = {"signer_sign",
                               sizeof(struct agent_msg_signer_sign),
                               WAY(KEEPER_SIGNER),
                               false,
                               {COUNT(agent_msg_signer_sign, purpose,
                                      AGENT_N_SIGNER_PURPOSES - 1)}},
    [AGENT_MSG_SIGNER_SIGNED] = {"signer_signed",
                                 sizeof(struct agent_msg_signer_signed),
                                 WAY(SIGNER_KEEPER),
                                 false,
                                 {ERROR(agent_msg_signer_signed, error),
                                  BYTES(agent_msg_signer_signed, cert, AGENT_LEAF_MAX)}},
    [AGENT_MSG_DENY_BEGIN] = {"deny_begin",
                              sizeof(struct agent_msg_deny_begin),
                              WAY(SUPERVISOR_KEEPER) | WAY(SUPERVISOR_SERVICE),
                              false,
                              {COUNT(agent_msg_deny_begin, n_items, AGENT_DENY_MAX)}},
    [AGENT_MSG_DENY_ITEM] = {"deny_item",
                             sizeof(struct agent_msg_deny_item),
                             WAY(SUPERVISOR_KEEPER) | WAY(SUPERVISOR_SERVICE),
                             false,
                             {COUNT(agent_msg_deny_item, index, AGENT_DENY_MAX - 1),
                              COUNT(agent_msg_deny_item, kind, AGENT_DENY_IMAGE_DIGEST),
                              TEXT(agent_msg_deny_item, text, AGENT_ID_MAX)}},
    [AGENT_MSG_DENY_COMMIT] = {"deny_commit",
                               sizeof(struct agent_msg_deny_begin),
                               WAY(SUPERVISOR_KEEPER) | WAY(SUPERVISOR_SERVICE),
                               false,
                               {COUNT(agent_msg_deny_begin, n_items, AGENT_DENY_MAX)}},
    [AGENT_MSG_DENY_APPLIED] = {"deny_applied",
                                sizeof(struct agent_msg_deny_begin),
                                WAY(KEEPER_SUPERVISOR),
                                false,
                                {COUNT(agent_msg_deny_begin, n_items, AGENT_DENY_MAX)}},
    [AGENT_MSG_JWT_SIGN] = {"jwt_sign",
                            sizeof(struct agent_msg_jwt_sign),
                            WAY(SERVICE_KEEPER),
                            false,
                            {COUNT(agent_msg_jwt_sign, n_audiences, AGENT_AUDIENCES_MAX),
                             BYTES(agent_msg_jwt_sign, audiences, AGENT_AUDIENCES_BYTES)}},
    [AGENT_MSG_JWT_SIGNED] = {"jwt_signed",
                              sizeof(struct agent_msg_jwt_signed),
                              WAY(KEEPER_SERVICE),
                              false,
                              {COUNT(agent_msg_jwt_signed, outcome, AGENT_N_OUTCOMES - 1),
                               BYTES(agent_msg_jwt_signed, token, AGENT_TOKEN_MAX)}},
    [AGENT_MSG_JWKS_GET] =
        {"jwks_get", sizeof(struct agent_msg_ask), WAY(SERVICE_KEEPER), false, {{0}}},
    [AGENT_MSG_JWKS] = {"jwks",
                        sizeof(struct agent_msg_jwks),
                        WAY(KEEPER_SERVICE),
                        false,
                        {BYTES(agent_msg_jwks, jwks, AGENT_JWKS_MAX)}},
};

/* --- checking --------------------------------------------------------------------------------- */
static bool text_ok(const uint8_t *text, size_t len, size_t max)
{
    return len <= max && (len == 0 || memchr(text, 0, len) == NULL);
}

static bool bool_ok(const uint8_t *p)
{
    return *p <= 1;
}

static bool terminated(const uint8_t *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static bool err_ok(const uint8_t *p)
{
    uint32_t code;

    _Static_assert(sizeof(enum err_code) == sizeof(code), "an enum of another size");
    memcpy(&code, p + offsetof(struct err, code), sizeof(code));
    return code <= ERR_UNSUPPORTED &&
           terminated(p + offsetof(struct err, where), sizeof(((struct err *)0)->where)) &&
           terminated(p + offsetof(struct err, what), sizeof(((struct err *)0)->what)) &&
           terminated(p + offsetof(struct err, expected), sizeof(((struct err *)0)->expected)) &&
           terminated(p + offsetof(struct err, advice), sizeof(((struct err *)0)->advice));
}

static bool report_ok(const uint8_t *p)
{
    return bool_ok(p + offsetof(struct sandbox_report, no_new_privs)) &&
           bool_ok(p + offsetof(struct sandbox_report, dumpable)) &&
           bool_ok(p + offsetof(struct sandbox_report, core_dumps)) &&
           bool_ok(p + offsetof(struct sandbox_report, secure_bits)) &&
           bool_ok(p + offsetof(struct sandbox_report, seccomp)) &&
           terminated(p + offsetof(struct sandbox_report, seccomp_name),
                      sizeof(((struct sandbox_report *)0)->seccomp_name));
}

static bool dns_ok(const uint8_t *msg, const struct field *f)
{
    uint16_t n;

    memcpy(&n, msg + f->aux, sizeof(n));
    if (n > f->max) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *name = msg + f->off + i * sizeof(struct agent_dns_name);
        uint16_t len;

        memcpy(&len, name + offsetof(struct agent_dns_name, len), sizeof(len));
        if (len == 0 ||
            !text_ok(name + offsetof(struct agent_dns_name, text), len, AGENT_DNS_NAME_MAX)) {
            return false;
        }
    }
    return true;
}

static bool selectors_ok(const uint8_t *msg, const struct field *f)
{
    size_t texts = 0;
    uint16_t n, text_len;

    memcpy(&n, msg + f->aux, sizeof(n));
    memcpy(&text_len, msg + offsetof(struct agent_msg_entry, selector_text_len), sizeof(text_len));
    if (n > f->max) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct agent_selector s;

        memcpy(&s, msg + f->off + i * sizeof(s), sizeof(s));
        if (s.type >= AGENT_N_SELECTORS) {
            return false;
        }
        texts += s.text_len;
    }
    return texts == text_len;
}

static bool docs_ok(const uint8_t *p)
{
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        const uint8_t *d = p + i * sizeof(struct agent_doc_state);

        if (!bool_ok(d + offsetof(struct agent_doc_state, configured)) ||
            !err_ok(d + offsetof(struct agent_doc_state, error))) {
            return false;
        }
    }
    return true;
}

static bool field_ok(const uint8_t *msg, const struct field *f)
{
    uint16_t len16;
    uint32_t n;

    switch (f->kind) {
    case FIELD_TEXT:
        memcpy(&len16, msg + f->aux, sizeof(len16));
        return text_ok(msg + f->off, len16, f->max);
    case FIELD_BYTES:
        memcpy(&n, msg + f->aux, sizeof(n));
        return n <= f->max;
    case FIELD_COUNT:
        memcpy(&n, msg + f->off, sizeof(n));
        return n <= f->max;
    case FIELD_BOOL:
        return bool_ok(msg + f->off);
    case FIELD_ERR:
        return err_ok(msg + f->off);
    case FIELD_REPORT:
        return report_ok(msg + f->off);
    case FIELD_DOCS:
        return docs_ok(msg + f->off);
    case FIELD_DNS:
        return dns_ok(msg, f);
    case FIELD_SELECTORS:
        return selectors_ok(msg, f);
    case FIELD_END:
        break;
    }
    return true;
}

bool agent_ipc_check(enum agent_way way, const void *msg, size_t len, bool has_fd)
{
    struct agent_msg_head head;
    const struct msg_rule *rule;

    if (len < sizeof(head)) {
        return false;
    }
    memcpy(&head, msg, sizeof(head));
    if (head.type == AGENT_MSG_NONE || head.type >= AGENT_N_MSGS) {
        return false;
    }
    rule = &RULES[head.type];
    if ((rule->ways & (1U << way)) == 0 || len != rule->size || head.size != rule->size ||
        has_fd != rule->has_fd) {
        return false;
    }
    for (size_t i = 0; i < FIELDS_MAX && rule->fields[i].kind != FIELD_END; i++) {
        if (!field_ok(msg, &rule->fields[i])) {
            return false;
        }
    }
    return true;
}

/* --- sending and receiving -------------------------------------------------------------------- */
void agent_ipc_init(void *msg, enum agent_msg_type type, uint64_t request_id)
{
    struct agent_msg_head head = {.type = type, .request_id = request_id};

    POSTERN_ASSERT(type > AGENT_MSG_NONE && type < AGENT_N_MSGS);
    head.size = (uint32_t)RULES[type].size;
    memset(msg, 0, RULES[type].size); /* padding too: nothing of ours leaks into another process */
    memcpy(msg, &head, sizeof(head));
}

enum ipc_outcome agent_ipc_send(int fd, const void *msg, int fd_to_pass)
{
    struct agent_msg_head head;

    memcpy(&head, msg, sizeof(head));
    POSTERN_ASSERT(head.type > AGENT_MSG_NONE && head.type < AGENT_N_MSGS &&
                   head.size == RULES[head.type].size &&
                   (fd_to_pass != -1) == RULES[head.type].has_fd);
    return ipc_send(fd, msg, head.size, fd_to_pass);
}

enum ipc_outcome agent_ipc_recv(int fd, enum agent_way way, union agent_msg *ret_msg, int *ret_fd)
{
    enum ipc_outcome outcome;
    size_t len = 0;
    int passed = -1;

    outcome = ipc_recv(fd, ret_msg, sizeof(*ret_msg), &len, &passed);
    if (outcome != IPC_OK) {
        return outcome;
    }
    if (!agent_ipc_check(way, ret_msg, len, passed != -1)) {
        if (passed != -1) {
            close(passed);
        }
        return IPC_BAD;
    }
    *ret_fd = passed;
    return IPC_OK;
}

bool agent_ipc_put(char *text, size_t max, uint16_t *ret_len, struct str s)
{
    if (s.n > max || s.n > UINT16_MAX) {
        return false;
    }
    if (s.n > 0) {
        memcpy(text, s.p, s.n);
    }
    *ret_len = (uint16_t)s.n;
    return true;
}

/* --- names ------------------------------------------------------------------------------------ */
const char *agent_msg_name(uint32_t type)
{
    return type < AGENT_N_MSGS ? RULES[type].name : "unknown";
}

const char *agent_role_name(enum agent_role role)
{
    static const char *const NAMES[AGENT_N_ROLES] = {"supervisor", "keeper",  "attestor", "service",
                                                     "loader",     "kubelet", "signer"};

    return role < AGENT_N_ROLES ? NAMES[role] : "unknown";
}

const char *agent_outcome_name(uint32_t outcome)
{
    static const char *const NAMES[AGENT_N_OUTCOMES] = {
        "ok",      "no_handle", "stale_facts", "stale_generation", "not_entitled", "bad_audience",
        "bad_key", "limited",   "unavailable", "quarantined",      "pending"};

    return outcome < AGENT_N_OUTCOMES ? NAMES[outcome] : "unknown";
}

const char *agent_runtime_name(uint32_t runtime)
{
    static const char *const NAMES[AGENT_N_RUNTIMES] = {"none", "other",  "containerd",
                                                        "crio", "docker", "podman"};

    return runtime < AGENT_N_RUNTIMES ? NAMES[runtime] : "unknown";
}

const char *agent_selector_name(uint32_t type)
{
    static const char *const NAMES[AGENT_N_SELECTORS] = {
        [AGENT_SELECTOR_UNIX_UID] = "unix:uid",
        [AGENT_SELECTOR_UNIX_USER] = "unix:user",
        [AGENT_SELECTOR_UNIX_GID] = "unix:gid",
        [AGENT_SELECTOR_UNIX_GROUP] = "unix:group",
        [AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID] = "unix:supplementary_gid",
        [AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP] = "unix:supplementary_group",
        [AGENT_SELECTOR_UNIX_PATH] = "unix:path",
        [AGENT_SELECTOR_UNIX_SHA256] = "unix:sha256",
        [AGENT_SELECTOR_SYSTEMD_ID] = "systemd:id",
        [AGENT_SELECTOR_CONTAINER_ID] = "container:id",
        [AGENT_SELECTOR_CONTAINER_RUNTIME] = "container:runtime",
        [AGENT_SELECTOR_K8S_NS] = "k8s:ns",
        [AGENT_SELECTOR_K8S_SA] = "k8s:sa",
        [AGENT_SELECTOR_K8S_POD_NAME] = "k8s:pod-name",
        [AGENT_SELECTOR_K8S_POD_UID] = "k8s:pod-uid",
        [AGENT_SELECTOR_K8S_POD_LABEL] = "k8s:pod-label",
        [AGENT_SELECTOR_K8S_NODE_NAME] = "k8s:node-name",
        [AGENT_SELECTOR_K8S_CONTAINER_NAME] = "k8s:container-name",
        [AGENT_SELECTOR_K8S_CONTAINER_IMAGE] = "k8s:container-image",
        [AGENT_SELECTOR_K8S_IMAGE_DIGEST] = "k8s:image-digest",
    };

    return type < AGENT_N_SELECTORS ? NAMES[type] : "unknown";
}

const char *agent_document_name(uint32_t document)
{
    static const char *const NAMES[AGENT_N_DOCUMENTS] = {"policy", "mesh", "modes"};

    return document < AGENT_N_DOCUMENTS ? NAMES[document] : "unknown";
}

const char *agent_token_name(uint32_t token)
{
    static const char *const NAMES[AGENT_N_TOKENS] = {"none", "ok", "away"};

    return token < AGENT_N_TOKENS ? NAMES[token] : "unknown";
}

const char *agent_outage_name(uint32_t outage)
{
    static const char *const NAMES[AGENT_N_OUTAGES] = {"root", "authority", "bundle", "token"};

    return outage < AGENT_N_OUTAGES ? NAMES[outage] : "unknown";
}
