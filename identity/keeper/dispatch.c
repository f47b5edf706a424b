#include "keeper_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TURN_MAX = 16,            /* questions of the service in one turn */
    REFUSALS_LOGGED_MAX = 20, /* in one window; the rest is counted */
    REFUSALS_WINDOW_MS = 10000,
};

/* --- answering -------------------------------------------------------------------------------- */
/* Drops the service: its protocol is broken, or it went away. The next one comes by the supervisor.
 */
static void service_close(struct keeper *k, const char *why)
{
    if (why != NULL) {
        log_msg(k->log, LOG_ERROR, "service_dropped",
                "the service broke its protocol (%s): its channel is closed", why);
    }
    close(k->service);
    k->service = -1;
    k->answer_pending = false;
    k->changed_pending = false;
}

/* Sends k->answer, or keeps it until the service's queue has room: nothing more is read from the
 * service until then, so there is never a second one. */
static void answer_flush(struct keeper *k)
{
    switch (agent_ipc_send(k->service, &k->answer, -1)) {
    case IPC_OK:
        k->answer_pending = false;
        break;
    case IPC_AGAIN:
        k->answer_pending = true;
        break;
    case IPC_CLOSED:
    case IPC_BAD:
        service_close(k, NULL);
        break;
    }
}

static void changed_flush(struct keeper *k)
{
    struct agent_msg_changed msg;

    if (k->service == -1 || k->answer_pending || !k->started) {
        return;
    }
    agent_ipc_init(&msg, AGENT_MSG_CHANGED, 0);
    msg.entries_generation = k->entries != NULL ? k->entries->generation : 0;
    msg.bundle_generation = k->bundle_generation;
    msg.pods_generation = keeper_pods_count(k);
    msg.deny_version = keeper_deny_version(k->deny);
    msg.journal_file = k->journal.file;
    msg.journal_seq = k->journal.seq;
    msg.journal_lost = k->journal.n_lost;
    msg.journal_failing = k->journal.failing;
    msg.root_not_after_s = k->authority.force->issuer_not_after_s;
    msg.node_not_after_s = k->authority.force->node_not_after_s;
    msg.outage_until_s = keeper_budget_get(k).until_s;
    msg.outage_by = keeper_budget_get(k).ends_first;
    msg.n_issued = k->n_issued;
    msg.n_refused = k->n_refused;
    msg.jwks_generation = k->jwt.generation;
    msg.n_jwt_issued = k->jwt.n_issued;
    msg.token = keeper_signer_state(k);
    msg.n_token_failed = k->signer.n_failed;
    switch (agent_ipc_send(k->service, &msg, -1)) {
    case IPC_OK:
        k->changed_pending = false;
        break;
    case IPC_AGAIN:
        break;
    case IPC_CLOSED:
    case IPC_BAD:
        service_close(k, NULL);
        break;
    }
}

int keeper_tell(struct keeper *k, const void *msg, struct err *err)
{
    struct pollfd p = {.fd = k->control, .events = POLLOUT};

    for (;;) {
        switch (agent_ipc_send(k->control, msg, -1)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            (void)poll(&p, 1, 1000);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        }
    }
}

/* --- judging ---------------------------------------------------------------------------------- */
/* One caller in its present state, or why there is none. */
static enum agent_outcome caller_get(struct keeper *k, uint64_t handle, struct keeper_caller **ret)
{
    struct keeper_caller *c = keeper_callers_find(k->callers, handle);
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);

    if (c == NULL || !keeper_caller_alive(c)) {
        return AGENT_NO_HANDLE;
    }
    if (now_ms > c->read_ms && now_ms - c->read_ms > AGENT_FACTS_MAX_AGE_MS) {
        return AGENT_STALE_FACTS;
    }
    if (keeper_kubelet_pending(k, c)) {
        return AGENT_PENDING;
    }
    *ret = c;
    return AGENT_OK;
}

static uint32_t entry_ttl_s(const struct keeper *k, const struct keeper_entry *e)
{
    return e->ttl_s != 0 ? e->ttl_s : k->svid_ttl_s;
}

void keeper_log_caller(struct log_line *l, const struct keeper_caller *c)
{
    log_uint(l, "uid", c->facts.uid);
    log_uint(l, "gid", c->facts.gid);
    log_str(l, "path", c->facts.path);
    if (c->facts.container_id != NULL) {
        log_str(l, "container", c->facts.container_id);
    }
    if (c->facts.pod_uid != NULL) {
        log_str(l, "pod_uid", c->facts.pod_uid);
    }
    log_int(l, "pid", c->pid);
}

/* A refusal is worth a line, but whoever is refused must not fill the disk. */
void keeper_log_refusal(struct keeper *k, uint64_t handle, const struct keeper_caller *c,
                        const struct keeper_grant *g, enum agent_outcome outcome)
{
    struct log_line l;
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);

    keeper_journal_refused(k, outcome);
    k->n_refused++;
    if (now_ms - k->refusals_ms > REFUSALS_WINDOW_MS) {
        k->refusals_ms = now_ms;
        k->n_refusals_logged = 0;
    }
    if (k->n_refusals_logged++ >= REFUSALS_LOGGED_MAX) {
        return;
    }
    log_begin(&l, k->log, LOG_WARN, "issue_refused");
    log_str(&l, "reason", agent_outcome_name(outcome));
    log_uint(&l, "handle", handle);
    if (c != NULL) {
        keeper_log_caller(&l, c);
    }
    if (g->entry != NULL) {
        log_str(&l, "entry", g->entry->id);
        log_str(&l, "spiffe_id", g->spiffe_id);
    }
    log_uint(&l, "refused", k->n_refused);
    log_end(&l);
}

static void log_issued(struct keeper *k, const struct keeper_caller *c,
                       const struct keeper_grant *g, const struct keeper_leaf *leaf)
{
    struct log_line l;
    char when[32], serial[2 * sizeof(leaf->serial) + 1];

    for (size_t i = 0; i < sizeof(leaf->serial); i++) {
        (void)snprintf(serial + 2 * i, 3, "%02x", leaf->serial[i]);
    }
    os_time_text(leaf->not_after_s, when, sizeof(when));
    log_begin(&l, k->log, LOG_INFO, "issued");
    log_str(&l, "spiffe_id", g->spiffe_id);
    log_str(&l, "entry", g->entry->id);
    log_str(&l, "serial", serial);
    log_str(&l, "not_after", when);
    log_uint(&l, "handle", c->handle);
    keeper_log_caller(&l, c);
    log_end(&l);
}

/* --- questions of the service ----------------------------------------------------------------- */
/* FNV-1a: operators' text, to see a change and no more. */
static uint64_t dns_digest(const struct keeper_entry *e)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < e->n_dns_names; i++) {
        const char *name = e->dns_names[i];

        for (size_t n = strlen(name) + 1; n > 0; n--) {
            h = (h ^ (uint8_t)*name++) * UINT64_C(1099511628211);
        }
    }
    return h;
}

static void on_identity_get(struct keeper *k)
{
    const struct agent_msg_identity_get *ask = &k->in.identity_get;
    struct agent_msg_identity *a = &k->answer.identity;
    struct keeper_caller *c = NULL;
    uint32_t places[AGENT_IDENTITIES_MAX];
    struct keeper_facts facts;
    struct keeper_grant g;

    agent_ipc_init(a, AGENT_MSG_IDENTITY, ask->head.request_id);
    a->handle = ask->handle;
    a->position = ask->position;
    a->generation = k->entries != NULL ? k->entries->generation : 0;
    a->outcome = caller_get(k, ask->handle, &c);
    if (a->outcome != AGENT_OK) {
        return;
    }
    keeper_facts_get(k, c, &facts);
    a->facts = c->facts_count + keeper_pods_count(k); /* both only grow */
    a->total = (uint32_t)keeper_entries_match(k->entries, &facts, places);
    a->outcome = a->total > 0 ? AGENT_QUARANTINED : AGENT_NOT_ENTITLED; /* if none is left */
    a->total = (uint32_t)keeper_deny_filter(k->deny, k->entries, &facts, places, a->total);
    if (k->entries == NULL || ask->position >= a->total) {
        a->outcome = a->total > 0 ? AGENT_NOT_ENTITLED : a->outcome;
        return;
    }
    a->outcome = AGENT_OK;
    a->entry = places[ask->position];
    POSTERN_ASSERT(keeper_entries_grant(k->entries, &facts, a->entry, &g));
    a->ttl_s = entry_ttl_s(k, g.entry);
    a->n_dns_names = (uint32_t)g.entry->n_dns_names;
    a->dns_digest = dns_digest(g.entry);
    POSTERN_ASSERT(
        agent_ipc_put(a->spiffe_id, AGENT_ID_MAX, &a->spiffe_id_len, str_of(g.spiffe_id)) &&
        agent_ipc_put(a->hint, AGENT_HINT_MAX, &a->hint_len, str_of(g.entry->hint)));
}

/* The certificate, from this process's own entry and the caller's key. */
static enum agent_outcome issue_leaf(struct keeper *k, const struct keeper_grant *g,
                                     const uint8_t *point, struct keeper_leaf *ret)
{
    const struct keeper_entry *e = g->entry;
    struct str dns_names[AGENT_DNS_NAMES_MAX];
    struct x509_issue what = {
        .spiffe_id = str_of(g->spiffe_id), .point = point, .dns_names = dns_names};
    int64_t now_s = keeper_clock_wall_s(&k->clock);
    struct err err = ERR_INIT;

    for (size_t i = 0; i < e->n_dns_names; i++) {
        dns_names[what.n_dns_names++] = str_of(e->dns_names[i]);
    }
    if (keeper_authority_issue(&k->authority, &what, entry_ttl_s(k, e), now_s, ret, &err) == -1) {
        log_failure(k->log, LOG_ERROR, "issue_failed", &err);
        return AGENT_UNAVAILABLE;
    }
    return AGENT_OK;
}

enum agent_outcome keeper_judge(struct keeper *k, uint64_t handle, uint64_t generation,
                                uint32_t entry, struct keeper_caller **ret_caller,
                                struct keeper_grant *ret_grant)
{
    struct keeper_facts facts;
    enum agent_outcome outcome = caller_get(k, handle, ret_caller);

    if (outcome != AGENT_OK) {
        return outcome;
    }
    if (k->entries == NULL || generation != k->entries->generation) {
        return AGENT_STALE_GENERATION;
    }
    keeper_facts_get(k, *ret_caller, &facts);
    if (!keeper_entries_grant(k->entries, &facts, entry, ret_grant)) {
        return AGENT_NOT_ENTITLED;
    }
    return keeper_deny_stops(k->deny, &facts, ret_grant->spiffe_id) ? AGENT_QUARANTINED : AGENT_OK;
}

static enum agent_outcome issue_judge(struct keeper *k, const struct agent_msg_issue *ask,
                                      struct keeper_caller **ret_caller,
                                      struct keeper_grant *ret_grant)
{
    enum agent_outcome outcome =
        keeper_judge(k, ask->handle, ask->generation, ask->entry, ret_caller, ret_grant);

    if (outcome != AGENT_OK) {
        return outcome;
    }
    if (!x509_signer_takes(k->authority.force->signer, ask->point)) {
        return AGENT_BAD_KEY;
    }
    return keeper_caller_charge(k->callers, *ret_caller, keeper_clock_now_ms(&k->clock))
               ? AGENT_OK
               : AGENT_LIMITED;
}

static void on_issue(struct keeper *k)
{
    const struct agent_msg_issue *ask = &k->in.issue;
    struct agent_msg_issued *a = &k->answer.issued;
    struct keeper_caller *c = NULL;
    struct keeper_grant g = {.entry = NULL};
    struct keeper_leaf leaf = {.der = NULL};
    enum agent_outcome outcome;

    agent_ipc_init(a, AGENT_MSG_ISSUED, ask->head.request_id);
    a->handle = ask->handle;
    outcome = issue_judge(k, ask, &c, &g);
    if (outcome == AGENT_OK) {
        outcome = issue_leaf(k, &g, ask->point, &leaf);
    }
    a->outcome = outcome;
    if (outcome != AGENT_OK) {
        keeper_log_refusal(k, ask->handle, c, &g, outcome);
        return;
    }
    a->not_before_s = leaf.not_before_s;
    a->not_after_s = leaf.not_after_s;
    memcpy(a->serial, leaf.serial, sizeof(a->serial));
    memcpy(a->leaf, leaf.der, leaf.len);
    a->leaf_len = (uint32_t)leaf.len;
    memcpy(a->chain, k->authority.force->chain, k->authority.force->chain_len);
    a->chain_len = (uint32_t)k->authority.force->chain_len;
    k->n_issued++;
    if (leaf.not_after_s > k->leaf_until_s) {
        k->leaf_until_s = leaf.not_after_s;
    }
    keeper_uses_note(k->uses, ask->handle, keeper_use_tag(g.spiffe_id),
                     keeper_use_tag(k->authority.force->issuer_id), leaf.not_after_s);
    keeper_journal_issued_x509(k, c, &g, &leaf, ask->point);
    log_issued(k, c, &g, &leaf);
    free(leaf.der);
}

static void on_bundle_get(struct keeper *k)
{
    struct agent_msg_bundle *a = &k->answer.bundle;

    agent_ipc_init(a, AGENT_MSG_BUNDLE, k->in.ask.head.request_id);
    a->generation = k->bundle_generation;
    memcpy(a->roots, k->authority.force->bundle, k->authority.force->bundle_len);
    a->roots_len = (uint32_t)k->authority.force->bundle_len;
    a->tainted = k->authority.force->bundle_tainted;
}

/* --- the attestor ----------------------------------------------------------------------------- */
static int on_attestor_message(struct keeper *k, const union agent_msg *msg, int fd,
                               struct err *err)
{
    bool ok = true;

    switch (msg->head.type) {
    case AGENT_MSG_ATTESTED:
        ok = keeper_callers_add(k->callers, &msg->caller, fd, keeper_clock_now_ms(&k->clock));
        break;
    case AGENT_MSG_UPDATED:
        ok = keeper_callers_update(k->callers, &msg->caller);
        break;
    default:
        keeper_callers_remove(k->callers, msg->handle.handle);
        keeper_uses_gone(k->uses, msg->handle.handle);
        break;
    }
    return ok ? 0
              : err_set(err, ERR_PROTOCOL, "the attestor's %s is out of order",
                        agent_msg_name(msg->head.type));
}

/* Everything that is pending. Run between taking a message of the service and acting on it. */
static int attestor_drain(struct keeper *k, struct err *err)
{
    static union agent_msg msg; /* too large for a stack that is kept small; one thread */
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(k->attestor, AGENT_WAY_ATTESTOR_KEEPER, &msg, &fd)) {
        case IPC_OK:
            if (on_attestor_message(k, &msg, fd, err) == -1) {
                return -1;
            }
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the attestor is gone");
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the attestor sent a bad message");
        }
    }
}

/* --- the service ------------------------------------------------------------------------------ */
/* Who may ask what. A type that is not here never passed agent_ipc_recv. */
static const struct {
    uint32_t type;
    void (*handle)(struct keeper *k);
} SERVICE_MESSAGES[] = {
    {AGENT_MSG_IDENTITY_GET, on_identity_get}, {AGENT_MSG_ISSUE, on_issue},
    {AGENT_MSG_BUNDLE_GET, on_bundle_get},     {AGENT_MSG_JWT_SIGN, keeper_on_jwt_sign},
    {AGENT_MSG_JWKS_GET, keeper_on_jwks_get},
};

static int service_turn(struct keeper *k, struct err *err)
{
    int fd = -1;

    for (int i = 0; i < TURN_MAX && k->service != -1 && !k->answer_pending; i++) {
        switch (agent_ipc_recv(k->service, AGENT_WAY_SERVICE_KEEPER, &k->in, &fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            service_close(k, NULL);
            return 0;
        case IPC_BAD:
            service_close(k, "a bad message");
            return 0;
        }
        if (attestor_drain(k, err) == -1) {
            return -1;
        }
        for (size_t m = 0; m < sizeof(SERVICE_MESSAGES) / sizeof(SERVICE_MESSAGES[0]); m++) {
            if (SERVICE_MESSAGES[m].type == k->in.head.type) {
                SERVICE_MESSAGES[m].handle(k);
                answer_flush(k);
                break;
            }
        }
    }
    return 0;
}

/* --- the supervisor --------------------------------------------------------------------------- */
static int entries_commit(struct keeper *k, const struct agent_msg_entries_begin *msg,
                          struct err *err)
{
    struct agent_msg_entries_applied applied;

    agent_ipc_init(&applied, AGENT_MSG_ENTRIES_APPLIED, msg->head.request_id);
    if (k->incoming == NULL || k->incoming->generation != msg->generation ||
        k->incoming->expected != msg->n_entries) {
        return err_set(err, ERR_PROTOCOL, "entries were committed that were not begun");
    }
    applied.ok = keeper_entries_check(k->incoming, k->entries, &applied.n_added, &applied.n_removed,
                                      &applied.n_changed, &applied.error) == 0;
    if (applied.ok) {
        keeper_entries_free(k->entries);
        k->entries = k->incoming;
        k->changed_pending = true;
    } else {
        keeper_entries_free(k->incoming);
    }
    k->incoming = NULL;
    applied.generation = k->entries != NULL ? k->entries->generation : 0;
    applied.n_entries = k->entries != NULL ? (uint32_t)k->entries->n : 0;
    return keeper_tell(k, &applied, err);
}

static int on_control_message(struct keeper *k, const union agent_msg *msg, int fd, struct err *err)
{
    switch (msg->head.type) {
    case AGENT_MSG_CA_FILE:
        return keeper_on_ca_file(k, &msg->ca_file, fd, err);
    case AGENT_MSG_KEY_SOURCE:
        return keeper_on_key_source(k, &msg->key_source, fd, err);
    case AGENT_MSG_STATE_KEY:
    case AGENT_MSG_STATE_CERT:
    case AGENT_MSG_STATE_FILE:
        return keeper_on_state(k, &msg->state, fd, err);
    case AGENT_MSG_STATE_PLACED:
        return keeper_change_placed(k, &msg->state_placed, err);
    case AGENT_MSG_CA_ORDER:
        return keeper_on_order(k, &msg->ca_order, err);
    case AGENT_MSG_SERVICE:
        if (k->service != -1) {
            service_close(k, NULL);
        }
        k->service = fd;
        k->changed_pending = true;
        return 0;
    case AGENT_MSG_JOURNAL_FILE:
        return keeper_journal_on_file(k, &msg->journal, fd, err);
    case AGENT_MSG_JOURNAL_HEAD:
        return keeper_journal_on_head_file(k, fd, err);
    case AGENT_MSG_DENY_NOTE:
        keeper_journal_quarantine(k, &msg->deny_note);
        return 0;
    case AGENT_MSG_DENY_BEGIN:
        keeper_deny_free(k->deny_incoming);
        k->deny_incoming = keeper_deny_new(msg->deny_begin.version, msg->deny_begin.n_items);
        return 0;
    case AGENT_MSG_DENY_ITEM:
        if (k->deny_incoming == NULL) {
            break;
        }
        keeper_deny_add(k->deny_incoming, &msg->deny_item);
        return 0;
    case AGENT_MSG_DENY_COMMIT:
        return keeper_deny_commit(k, &msg->deny_begin, err);
    case AGENT_MSG_SIGNER:
        keeper_signer_open(k, fd);
        return 0;
    case AGENT_MSG_KUBELET:
        keeper_kubelet_open(k, fd);
        return 0;
    case AGENT_MSG_ENTRIES_BEGIN:
        keeper_entries_free(k->incoming);
        k->incoming =
            keeper_entries_new(msg->entries_begin.generation, msg->entries_begin.n_entries);
        return 0;
    case AGENT_MSG_ENTRY:
        if (k->incoming == NULL) {
            break;
        }
        keeper_entries_add(k->incoming, &msg->entry, str_of(k->trust_domain));
        return 0;
    case AGENT_MSG_ENTRIES_COMMIT:
        return entries_commit(k, &msg->entries_begin, err);
    default:
        break;
    }
    return err_set(err, ERR_PROTOCOL, "the supervisor's %s is out of order",
                   agent_msg_name(msg->head.type));
}

/* 1: the supervisor closed the channel. */
static int control_turn(struct keeper *k, struct err *err)
{
    static union agent_msg msg;
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(k->control, AGENT_WAY_SUPERVISOR_KEEPER, &msg, &fd)) {
        case IPC_OK:
            if (on_control_message(k, &msg, fd, err) == -1) {
                return -1;
            }
            if (k->start_failure.code != ERR_NONE) {
                *err = k->start_failure;
                return -1;
            }
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return 1;
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the supervisor sent a bad message");
        }
    }
}

/* --- the loop --------------------------------------------------------------------------------- */
static int wake_ms(const struct keeper *k)
{
    int node_ms = keeper_wake_ms(k), journal_ms = keeper_journal_due_ms(k);

    return journal_ms != -1 && journal_ms < node_ms ? journal_ms : node_ms;
}

static int run(struct keeper *k, struct err *err)
{
    bool timer_fired = false;

    for (;;) {
        bool waiting = k->answer_pending || k->changed_pending;
        struct pollfd fds[6] = {
            {.fd = k->control, .events = POLLIN},
            {.fd = k->attestor, .events = POLLIN},
            {.fd = k->kubelet, .events = POLLIN},
            /* nobody answers before there is a root; a negative descriptor is not watched */
            {.fd = k->started ? k->service : -1,
             .events = (short)((k->answer_pending ? 0 : POLLIN) | (waiting ? POLLOUT : 0))},
            {.fd = k->timer, .events = POLLIN},
            {.fd = k->signer.fd, .events = POLLIN},
        };
        int r;

        keeper_timer_arm(k, timer_fired);
        if (poll(fds, 6, wake_ms(k)) == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
        timer_fired = fds[4].revents != 0;
        r = control_turn(k, err);
        if (r != 0) {
            return r == 1 ? 0 : -1;
        }
        keeper_kubelet_turn(k);
        keeper_signer_turn(k);
        keeper_tick(k);
        if (keeper_journal_turn(k, err) == -1) {
            return -1;
        }
        if (k->service != -1 && k->answer_pending) {
            answer_flush(k);
        }
        if (k->changed_pending) {
            changed_flush(k);
        }
        if (attestor_drain(k, err) == -1) {
            return -1;
        }
        if (k->started && service_turn(k, err) == -1) {
            return -1;
        }
    }
}

/* What cannot be told to a supervisor that has just gone is no failure: its going is the end. */
static bool supervisor_gone(const struct keeper *k)
{
    struct pollfd p = {.fd = k->control, .events = POLLIN};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

int keeper_run(struct keeper *k, struct err *err)
{
    int r = run(k, err);

    if (r == -1 && err->code == ERR_UNAVAILABLE && supervisor_gone(k)) {
        *err = (struct err)ERR_INIT;
        return 0;
    }
    return r;
}
