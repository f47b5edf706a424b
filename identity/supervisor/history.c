/*
 * What the service keeps of permissive ports: a file that is written for it and given back to the
 * next one. Its bytes are the service's and are not read here; what is bounded is how many there
 * are, and how often they are written.
 */
#include "supervisor_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRITE_EVERY_MS = 1000 };
static const char FILE_NAME[] = "plaintext";

struct supervisor_history {
    char *path;          /* owned */
    struct buf incoming; /* in parts */
    struct buf kept;     /* the newest that is whole */
    bool unwritten, failing;
    uint64_t written_ms;
};

static void fail(const struct supervisor *s, const char *event, struct err *err)
{
    err_where(err, "%s", s->history->path);
    log_failure(s->log, LOG_ERROR, event, err);
}

/* What cannot be read is as if it were not there: it decides nothing that the files of proxies do
 * not say themselves. */
void supervisor_history_open(struct supervisor *s)
{
    struct supervisor_history *h = mem_must_new(struct supervisor_history);
    mem_autofree char *text = NULL;
    struct err err = ERR_INIT;
    size_t len = 0;

    s->history = h;
    h->path = mem_must_printf("%s/%s", s->conf->state_dir, FILE_NAME);
    h->incoming.max = h->kept.max = AGENT_HISTORY_MAX;
    if (access(h->path, F_OK) == -1 && errno == ENOENT) {
        return;
    }
    if (os_read_file(h->path, AGENT_HISTORY_MAX, true, &text, &len, &err) == -1 ||
        !buf_append(&h->kept, text, len)) {
        fail(s, "plaintext_history_unreadable", &err);
    }
}

static void write_now(struct supervisor *s)
{
    struct supervisor_history *h = s->history;
    struct err err = ERR_INIT;
    const void *bytes = buf_len(&h->kept) > 0 ? (const void *)buf_head(&h->kept) : "";

    h->unwritten = false;
    h->written_ms = os_now_ms();
    if (os_write_file_atomic(h->path, bytes, buf_len(&h->kept), 0600, &err) == 0) {
        h->failing = false;
    } else if (!h->failing) {
        h->failing = true;
        err_advise(&err, "make room in the state directory; it is tried again with the next news");
        fail(s, "plaintext_history_not_saved", &err);
    }
}

void supervisor_history_close(struct supervisor *s)
{
    struct supervisor_history *h = s->history;

    if (h != NULL) {
        if (h->unwritten) {
            write_now(s);
        }
        buf_reset(&h->incoming);
        buf_reset(&h->kept);
        free(h->path);
        free(h);
        s->history = NULL;
    }
}

int supervisor_history_take(struct supervisor *s, const struct agent_msg_history *m,
                            struct err *err)
{
    struct supervisor_history *h = s->history;
    bool whole = false;

    if (!agent_history_take(&h->incoming, m, &whole)) {
        return err_set(err, ERR_PROTOCOL, "the service's history comes in no order");
    }
    if (whole) {
        struct buf before = h->kept;

        h->kept = h->incoming;
        h->incoming = before;
        buf_reset(&h->incoming);
        h->unwritten = true;
        supervisor_history_turn(s);
    }
    return 0;
}

int supervisor_history_due_ms(const struct supervisor *s)
{
    const struct supervisor_history *h = s->history;
    uint64_t passed_ms;

    if (h == NULL || !h->unwritten) {
        return -1;
    }
    passed_ms = os_now_ms() - h->written_ms;
    return passed_ms < WRITE_EVERY_MS ? (int)(WRITE_EVERY_MS - passed_ms) : 0;
}

void supervisor_history_turn(struct supervisor *s)
{
    if (supervisor_history_due_ms(s) == 0) {
        write_now(s);
    }
}

void supervisor_history_tell(struct supervisor *s)
{
    struct agent_msg_history m;
    size_t at = 0;

    buf_reset(&s->history->incoming); /* of a service that is gone */
    while (agent_history_part(buf_str(&s->history->kept), &at, &m)) {
        supervisor_tell_service(s, &m, -1);
    }
}
