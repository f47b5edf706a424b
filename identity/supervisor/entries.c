#include "supervisor_priv.h"

#include <malloc.h>
#include <postern/mem_grow.h>
#include <stdlib.h>

static int take_entry(struct supervisor *s, void *arg, struct err *err)
{
    size_t *cap = arg;

    if (s->in.head.type != AGENT_MSG_ENTRY) {
        return err_set(err, ERR_PROTOCOL, "the loader's %s is no entry",
                       agent_msg_name(s->in.head.type));
    }
    if (s->n_loaded >= AGENT_ENTRIES_MAX) {
        return err_set(err, ERR_LIMIT, "more than %d entries", AGENT_ENTRIES_MAX);
    }
    MEM_GROW(s->loaded, s->n_loaded, *cap, 16);
    s->loaded[s->n_loaded++] = s->in.entry;
    return 0;
}

static size_t count_entries(const struct supervisor *s, const void *arg)
{
    (void)arg;
    return s->n_loaded;
}

int supervisor_load_entries(struct supervisor *s, struct err *err)
{
    size_t cap = 0;
    const struct supervisor_job job = {.name = "entries",
                                       .path = s->conf->entries_path,
                                       .what = "the entry file",
                                       .refused = "entries_refused",
                                       .take = take_entry,
                                       .n_taken = count_entries,
                                       .arg = &cap,
                                       .last_error = &s->entries.error};

    free(s->loaded);
    s->loaded = NULL;
    s->n_loaded = 0;
    supervisor_watch_taken(s, &s->reload);
    return supervisor_load(s, &job, err);
}

static bool asks_for_digest(const struct agent_msg_entry *e)
{
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (e->selectors[i].type == AGENT_SELECTOR_UNIX_SHA256) {
            return true;
        }
    }
    return false;
}

static int tell_attestor(struct supervisor *s, uint64_t hash_max_bytes, struct err *err)
{
    struct agent_msg_attest_options m;

    if (s->children[AGENT_ROLE_ATTESTOR].control == -1) {
        return 0; /* it will hear of it at its start */
    }
    agent_ipc_init(&m, AGENT_MSG_ATTEST_OPTIONS, 0);
    m.hash_max_bytes = hash_max_bytes;
    return supervisor_tell(s, AGENT_ROLE_ATTESTOR, &m, -1, err);
}

/* Executables are read only if some entry asks. The attestor hears of it before the keeper has the
 * entries, so that nobody is judged by them without a digest for long; and goes on with what the
 * entries of before ask, since these may be refused. */
static int prepare_attestor(struct supervisor *s, struct err *err)
{
    s->next_hash_max_bytes = 0;
    for (size_t i = 0; i < s->n_loaded && s->next_hash_max_bytes == 0; i++) {
        s->next_hash_max_bytes = asks_for_digest(&s->loaded[i]) ? s->conf->executable_max : 0;
    }
    return s->next_hash_max_bytes > s->hash_max_bytes
               ? tell_attestor(s, s->next_hash_max_bytes, err)
               : 0;
}

void supervisor_entries_settled(struct supervisor *s, bool in_force)
{
    uint64_t told =
        s->next_hash_max_bytes > s->hash_max_bytes ? s->next_hash_max_bytes : s->hash_max_bytes;

    if (in_force) {
        s->hash_max_bytes = s->next_hash_max_bytes;
    }
    if (told != s->hash_max_bytes) {
        (void)tell_attestor(s, s->hash_max_bytes, NULL); /* its end is seen next */
    }
}

int supervisor_send_entries(struct supervisor *s, struct err *err)
{
    struct agent_msg_entries_begin frame;
    int r;

    if (prepare_attestor(s, err) == -1) {
        return -1;
    }
    s->generation++;
    s->applied = false;
    agent_ipc_init(&frame, AGENT_MSG_ENTRIES_BEGIN, 0);
    frame.generation = s->generation;
    frame.n_entries = (uint32_t)s->n_loaded;
    r = supervisor_tell(s, AGENT_ROLE_KEEPER, &frame, -1, err);
    for (size_t i = 0; r == 0 && i < s->n_loaded; i++) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &s->loaded[i], -1, err);
    }
    agent_ipc_init(&frame, AGENT_MSG_ENTRIES_COMMIT, 0);
    frame.generation = s->generation;
    frame.n_entries = (uint32_t)s->n_loaded;
    if (r == 0) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &frame, -1, err);
    }
    free(s->loaded);
    s->loaded = NULL;
    s->n_loaded = 0;
    (void)malloc_trim(0); /* tens of megabytes that are not needed until the next load */
    return r;
}
