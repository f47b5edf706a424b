/* A change of what is kept (docs/authority.md, "Its files"): the new whole is built first, then
 * written to an empty file of the supervisor's, and is in force only when that is in place. */
#include "keeper_priv.h"

#include <postern/os.h>
#include <unistd.h>

static void end(struct keeper *k, const struct err *failure)
{
    void (*done)(struct keeper *k, const struct err *failure) = k->change.done;

    keeper_force_free(k->change.next);
    k->change = (struct keeper_change){.phase = KEEPER_CHANGE_NONE};
    done(k, failure);
}

static int tell(struct keeper *k, enum agent_msg_type type, struct err *err)
{
    struct agent_msg_plain msg;

    agent_ipc_init(&msg, type, 0);
    return keeper_tell(k, &msg, err);
}

int keeper_change_begin(struct keeper *k, struct keeper_force *next,
                        void (*done)(struct keeper *k, const struct err *failure), struct err *err)
{
    POSTERN_ASSERT(k->change.phase == KEEPER_CHANGE_NONE);
    next->store.sequence++;
    k->change = (struct keeper_change){.phase = KEEPER_CHANGE_WANTED, .next = next, .done = done};
    return tell(k, AGENT_MSG_STATE_WANTED, err);
}

static int write_file(const struct keeper *k, int fd, struct err *err)
{
    uint8_t *payload = NULL, *file = NULL;
    size_t payload_len = 0, len = 0;
    int r = keeper_store_encode(&k->change.next->store, &payload, &payload_len, err);

    if (r == 0) {
        r = keeper_seal_close(&k->seal, (struct str){(const char *)payload, payload_len}, &file,
                              &len, err);
    }
    mem_secret_free(payload);
    if (r == 0 && (os_write_all(fd, file, len) == -1 || fsync(fd) == -1)) {
        err_sys(err, "the new state cannot be written");
        r = err_advise(err, "make room or make the state directory writable; nothing was changed");
    }
    mem_secret_free(file);
    return r;
}

int keeper_change_write(struct keeper *k, int fd, struct err *err)
{
    struct err failure = ERR_INIT;
    os_autofd int file = fd;

    if (k->change.phase != KEEPER_CHANGE_WANTED) {
        return err_set(err, ERR_PROTOCOL, "a file came that was not asked for");
    }
    if (write_file(k, file, &failure) == -1) {
        end(k, &failure);
        return 0;
    }
    k->change.phase = KEEPER_CHANGE_WRITTEN;
    return tell(k, AGENT_MSG_STATE_WRITTEN, err);
}

int keeper_change_placed(struct keeper *k, const struct agent_msg_state_placed *msg,
                         struct err *err)
{
    struct err failure = msg->error;

    if (k->change.phase == KEEPER_CHANGE_NONE ||
        (msg->ok && k->change.phase != KEEPER_CHANGE_WRITTEN)) {
        return err_set(err, ERR_PROTOCOL, "a state is in place that was not written");
    }
    if (!msg->ok) {
        end(k, &failure);
        return 0;
    }
    if (keeper_authority_take(&k->authority, k->change.next)) {
        k->bundle_generation++;
    }
    k->change.next = NULL;
    k->changed_pending = true;
    if (keeper_jwt_take(&k->jwt, &k->authority.force->store, &failure) == -1) {
        log_failure(k->log, LOG_ERROR, "jwt_key_failed", &failure); /* the key before goes on */
    }
    end(k, NULL);
    return 0;
}
