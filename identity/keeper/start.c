/* From state files to something in force. A state that has to be written first (a new root, the old
 * layout) goes the way of every change; the agent is ready when it is in place. */
#include "keeper_priv.h"

#include <postern/os.h>
#include <string.h>
#include <unistd.h>

enum { ROOT_WARN_S = 30 * 24 * 3600 };

void keeper_warn_of_root_end(struct keeper *k)
{
    int64_t end_s = k->authority.force->issuer_not_after_s;
    int64_t left_s = end_s - keeper_clock_wall_s(&k->clock);
    int64_t early_s = k->authority.root_ttl_s / 6;
    struct log_line l;
    char when[32];

    if (left_s >= (early_s < ROOT_WARN_S ? early_s : ROOT_WARN_S)) {
        return;
    }
    os_time_text(end_s, when, sizeof(when));
    log_begin(&l, k->log, LOG_WARN, "root_expires");
    log_str(&l, "not_after", when);
    log_str(&l, "advice",
            k->authority.disk != NULL
                ? "put another authority, or chain, into the files of ca.disk"
                : "another root is prepared and activated by schedule (postern ca show): hand the "
                  "new bundle to every peer outside this node");
    log_end(&l);
}

bool keeper_makes(const struct keeper *k, enum keeper_kind kind)
{
    return kind == KEEPER_JWT || k->authority.disk == NULL;
}

int keeper_make(struct keeper *k, struct keeper_record *r, int64_t now_s, struct err *err)
{
    return r->kind == KEEPER_X509 ? keeper_root_make(&k->authority, r, now_s, err)
                                  : keeper_jwt_make(&k->jwt, r, now_s, err);
}

/* --- something is in force ---------------------------------------------------------------------
 */
static int go_live(struct keeper *k, struct err *err)
{
    struct agent_msg_plain ready;

    if (keeper_jwt_take(&k->jwt, &k->authority.force->store, err) == -1) {
        return -1;
    }
    keeper_warn_of_root_end(k);
    if (k->authority.signer != NULL && !k->authority.force->issuer_in_token) {
        log_msg(
            k->log, LOG_WARN, "root_not_in_token",
            "a token is configured, and the active root's key is in the state file: `postern ca "
            "prepare` makes one in the token, then activate, taint and retire");
    }
    keeper_uses_start(k);
    k->started = true;
    k->changed_pending = true;
    if (keeper_tell(k, &k->report, err) == -1) {
        return -1;
    }
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return keeper_tell(k, &ready, err);
}

static void on_first_written(struct keeper *k, const struct err *failure)
{
    if (failure != NULL) {
        k->start_failure = *failure;
    } else if (go_live(k, &k->start_failure) == -1) {
        err_prefix(&k->start_failure, "starting");
    }
}

/* --- reading ---------------------------------------------------------------------------------- */
static int read_state(struct keeper *k, int fd, uid_t owner, struct keeper_store *ret,
                      bool *ret_reseal, struct err *err)
{
    uint8_t *file = NULL, *payload = NULL;
    size_t len = 0, payload_len = 0;
    int r = keeper_file_read(fd, "state", owner, true, KEEPER_SEAL_FILE_MAX, &file, &len, err);

    if (r == 0) {
        r = keeper_rest_open(k, (struct str){(const char *)file, len}, &payload, &payload_len,
                             ret_reseal, err);
    }
    mem_secret_free(file);
    if (r == 0) {
        k->report.secret_kind = mem_secret_kind_of(payload);
        r = keeper_store_decode((struct str){(const char *)payload, payload_len}, ret, err);
        mem_secret_free(payload);
    }
    if (r == 0 && strcmp(ret->trust_domain, k->trust_domain) != 0) {
        err_set(err, ERR_CONFIG, "the state is that of spiffe://%.255s", ret->trust_domain);
        err_expected(err, "spiffe://%s", k->trust_domain);
        keeper_store_deinit(ret);
        return err_advise(err, "give each trust domain a state directory of its own");
    }
    return r;
}

static void close_old(struct keeper *k)
{
    if (k->old_key_fd != -1) {
        close(k->old_key_fd);
        close(k->old_cert_fd);
    }
    k->old_key_fd = k->old_cert_fd = -1;
}

/* The first active root: out of the old layout's files, or a new one. */
static int first_root(struct keeper *k, struct keeper_store *store, uid_t owner, int64_t now_s,
                      struct err *err)
{
    struct keeper_record *r = keeper_store_add(store, KEEPER_X509, KEEPER_ACTIVE);
    int result;

    if (k->old_key_fd != -1) {
        result = keeper_root_read_old(&k->authority, k->old_key_fd, k->old_cert_fd, owner, now_s, r,
                                      err);
    } else {
        k->new_root = true;
        result = keeper_make(k, r, now_s, err);
    }
    if (result == 0 && r->key != NULL) {
        k->report.secret_kind = mem_secret_kind_of(r->key);
    }
    return result;
}

/* What has to be there before the agent can work, and is not. */
static int complete(struct keeper *k, struct keeper_store *store, uid_t owner, int64_t now_s,
                    bool *ret_changed, struct err *err)
{
    const struct keeper_record *root = keeper_store_find(store, KEEPER_X509, KEEPER_ACTIVE);
    const struct keeper_record *next = keeper_store_find(store, KEEPER_X509, KEEPER_PREPARED);

    if (k->authority.disk != NULL) {
        k->new_root = true; /* nothing of what is in the state signs certificates */
    } else if (root == NULL) {
        *ret_changed = true;
        if (first_root(k, store, owner, now_s, err) == -1) {
            return -1;
        }
    } else if (root->not_after_s <= now_s && next != NULL && next->not_after_s > now_s) {
        /* it ended while the agent was away: there is nothing else to go on with */
        *ret_changed = true;
        if (keeper_rotation_activate(store, KEEPER_X509, now_s, root->not_after_s, err) == -1) {
            return -1;
        }
    }
    if (keeper_store_find(store, KEEPER_JWT, KEEPER_ACTIVE) == NULL) {
        *ret_changed = true;
        return keeper_make(k, keeper_store_add(store, KEEPER_JWT, KEEPER_ACTIVE), now_s, err);
    }
    return 0;
}

static int open_state(struct keeper *k, const struct agent_msg_state *msg, int fd, struct err *err)
{
    int64_t now_s = keeper_clock_wall_s(&k->clock);
    struct keeper_store store = {.records = NULL};
    struct keeper_force *force = NULL;
    bool changed = msg->fresh;
    os_autofd int file = fd;

    if (msg->fresh) {
        if (keeper_rest_begin(k, err) == -1) {
            return -1;
        }
        keeper_store_init(&store, str_of(k->trust_domain));
    } else if (read_state(k, file, msg->owner_uid, &store, &changed, err) == -1) {
        return -1;
    }
    if (complete(k, &store, msg->owner_uid, now_s, &changed, err) == -1) {
        keeper_store_deinit(&store);
        return -1;
    }
    close_old(k);
    if (store.n > 0 && store.records[0].key != NULL) {
        k->report.secret_kind = mem_secret_kind_of(store.records[0].key);
    }
    force = keeper_force_build(&k->authority, &store, now_s, err);
    if (force == NULL) {
        return -1;
    }
    if (!changed) {
        (void)keeper_authority_take(&k->authority, force);
        k->bundle_generation = 1;
        return go_live(k, err);
    }
    if (msg->fresh) { /* the file to write is here already */
        k->change = (struct keeper_change){
            .phase = KEEPER_CHANGE_WANTED, .next = force, .done = on_first_written};
        force->store.sequence++;
        fd = file;
        file = -1;
        return keeper_change_write(k, fd, err);
    }
    return keeper_change_begin(k, force, on_first_written, err);
}

int keeper_on_state(struct keeper *k, const struct agent_msg_state *msg, int fd, struct err *err)
{
    bool is_file = msg->head.type == AGENT_MSG_STATE_FILE;
    int *old = msg->head.type == AGENT_MSG_STATE_KEY ? &k->old_key_fd : &k->old_cert_fd;

    if (is_file && k->change.phase != KEEPER_CHANGE_NONE) {
        return keeper_change_write(k, fd, err);
    }
    if (k->started || (!is_file && *old != -1) ||
        (is_file && (k->old_key_fd == -1) != (k->old_cert_fd == -1))) {
        close(fd);
        return err_set(err, ERR_PROTOCOL, "state files came out of order");
    }
    if (!is_file) {
        *old = fd;
        return 0;
    }
    return open_state(k, msg, fd, err);
}
