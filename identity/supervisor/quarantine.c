#include "supervisor_priv.h"

#include <errno.h>
#include <postern/dir_walk.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/quarantine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The node's quarantine: docs/quarantine.md. The set lives here, in a file that is written whole
 * at every change; keeper and service have copies. An order is answered when the keeper has
 * applied it, so that "done" means that nothing more is issued. */

enum { WAKE_MAX_MS = 60000 };
static const char FILE_NAME[] = "quarantine";

struct supervisor_quarantine {
    struct quarantine set;
    struct err unsaved; /* why the file is not what the set is; code ERR_NONE: it is */
};

/* --- the file --------------------------------------------------------------------------------- */
static void save(struct supervisor *s)
{
    struct supervisor_quarantine *q = s->quarantine;
    struct buf text = BUF_INIT(QUARANTINE_FILE_MAX);
    mem_autofree char *path = mem_must_printf("%s/%s", s->conf->state_dir, FILE_NAME);
    struct err err = ERR_INIT;
    int r;

    POSTERN_ASSERT(q != NULL);
    r = quarantine_print(&q->set, &text)
            ? os_write_file_atomic(path, buf_head(&text), buf_len(&text), 0600, &err)
            : err_set(&err, ERR_LIMIT, "no memory");

    buf_reset(&text);
    q->unsaved = err;
    if (r == -1) {
        err_advise(&q->unsaved, "what is quarantined now would not be after a restart: make room "
                                "in the state directory and give the order again");
        log_failure(s->log, LOG_ERROR, "quarantine_not_saved", &q->unsaved);
    }
}

/* Left by an agent that was killed while it wrote: the file in force is whole without them. */
static int remove_leftover(void *arg, const char *name)
{
    const struct supervisor *s = arg;
    const struct str begin = STR_LIT("quarantine.");

    if (str_has_prefix(str_of(name), begin) && strlen(name) == begin.n + 6) {
        (void)unlinkat(s->state.dir_fd, name, 0);
    }
    return 0;
}

int supervisor_quarantine_open(struct supervisor *s, struct err *err)
{
    struct supervisor_quarantine *q = mem_must_new(struct supervisor_quarantine);
    mem_autofree char *path = mem_must_printf("%s/%s", s->conf->state_dir, FILE_NAME);
    mem_autofree char *text = NULL;
    struct err own = ERR_INIT;
    size_t len = 0;

    s->quarantine = q;
    (void)dir_walk(s->state.dir_fd, remove_leftover, s);
    if (access(path, F_OK) == -1 && errno == ENOENT) {
        return 0;
    }
    if (os_read_file(path, QUARANTINE_FILE_MAX, true, &text, &len, &own) == -1 ||
        quarantine_parse((struct str){text, len}, os_now_ms(), &q->set, &own) == -1) {
        if (err != NULL) {
            *err = own;
        }
        err_where(err, "%s", path);
        return err_advise(err, "restore it, or move it away if nothing has to stay quarantined");
    }
    if (q->set.n > 0) {
        log_msg(s->log, LOG_WARN, "quarantine_restored",
                "%zu things are quarantined on this node (version %llu)", q->set.n,
                (unsigned long long)q->set.version);
    }
    return 0;
}

void supervisor_quarantine_close(struct supervisor *s)
{
    if (s->quarantine != NULL) {
        quarantine_deinit(&s->quarantine->set);
        free(s->quarantine);
        s->quarantine = NULL;
    }
}

/* --- telling ---------------------------------------------------------------------------------- */
static int tell(struct supervisor *s, enum agent_role role, const void *msg, struct err *err)
{
    if (role == AGENT_ROLE_SERVICE) {
        supervisor_tell_service(s, msg, -1);
        return 0;
    }
    return supervisor_tell(s, role, msg, -1, err);
}

static int tell_set(struct supervisor *s, enum agent_role role, uint64_t ticket, struct err *err)
{
    const struct quarantine *q = &s->quarantine->set;
    struct agent_msg_deny_begin frame;
    struct agent_msg_deny_item item;
    int r;

    agent_ipc_init(&frame, AGENT_MSG_DENY_BEGIN, ticket);
    frame.version = q->version;
    frame.n_items = (uint32_t)q->n;
    r = tell(s, role, &frame, err);
    for (size_t i = 0; r == 0 && i < q->n; i++) {
        agent_ipc_init(&item, AGENT_MSG_DENY_ITEM, ticket);
        item.index = (uint32_t)i;
        item.kind = (uint32_t)q->items[i].kind;
        item.until_s = q->items[i].until_s;
        POSTERN_ASSERT(
            agent_ipc_put(item.text, AGENT_ID_MAX, &item.text_len, str_of(q->items[i].text)));
        r = tell(s, role, &item, err);
    }
    frame.head.type = AGENT_MSG_DENY_COMMIT;
    return r == 0 ? tell(s, role, &frame, err) : -1;
}

int supervisor_quarantine_tell_keeper(struct supervisor *s, uint64_t ticket, struct err *err)
{
    return tell_set(s, AGENT_ROLE_KEEPER, ticket, err);
}

void supervisor_quarantine_tell_service(struct supervisor *s)
{
    if (s->children[AGENT_ROLE_SERVICE].control != -1) {
        (void)tell_set(s, AGENT_ROLE_SERVICE, 0, NULL);
    }
}

/* The set, with what is wrong with its file. */
static void answer(struct supervisor *s, uint64_t ticket)
{
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    struct supervisor_quarantine *q = s->quarantine;
    struct err too_long = ERR_INIT;

    if (q->unsaved.code != ERR_NONE) {
        supervisor_control_refuse(s, ticket, &q->unsaved);
    } else if (quarantine_document(&q->set, &out)) {
        supervisor_control_answer(s, ticket, buf_str(&out));
    } else {
        err_set(&too_long, ERR_LIMIT, "the list is too long to show");
        err_advise(&too_long, "all of it is in force: it is in the file `quarantine` of the state "
                              "directory");
        supervisor_control_refuse(s, ticket, &too_long);
    }
    buf_reset(&out);
}

void supervisor_quarantine_applied(struct supervisor *s, const struct agent_msg_deny_begin *msg)
{
    if (msg->version == s->quarantine->set.version) {
        supervisor_quarantine_tell_service(s);
    }
    if (msg->head.request_id != 0) {
        answer(s, msg->head.request_id);
    }
}

/* Saved first: what is told to be done is so after a crash too. A file that cannot be written does
 * not keep an identity from being stopped now. */
static void changed(struct supervisor *s, uint64_t ticket)
{
    struct err err = ERR_INIT;

    save(s);
    if (supervisor_quarantine_tell_keeper(s, ticket, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err); /* its end is seen next */
    }
}

/* --- orders ----------------------------------------------------------------------------------- */
/* For the journal. A keeper that is gone is seen next. */
static void note_change(struct supervisor *s, enum agent_deny_change change,
                        const struct quarantine_item *i)
{
    struct agent_msg_deny_note m;

    agent_ipc_init(&m, AGENT_MSG_DENY_NOTE, 0);
    m.version = s->quarantine->set.version;
    m.change = change;
    m.kind = (uint32_t)i->kind;
    m.until_s = i->until_s;
    POSTERN_ASSERT(agent_ipc_put(m.text, AGENT_ID_MAX, &m.text_len, str_of(i->text)) &&
                   agent_ipc_put(m.reason, AGENT_REASON_MAX, &m.reason_len, str_of(i->reason)));
    (void)supervisor_tell(s, AGENT_ROLE_KEEPER, &m, -1, NULL);
}

static void log_change(struct supervisor *s, enum agent_deny_change change,
                       const struct quarantine_item *i)
{
    static const char *const names[] = {"added", "removed", "over"};
    struct log_line l;
    char until[32];

    log_begin(&l, s->log, LOG_WARN, "quarantine");
    log_str(&l, "change", names[change]);
    log_str(&l, "kind", quarantine_kind_name(i->kind));
    log_str(&l, "subject", i->text);
    if (i->until_s != 0) {
        os_time_text(i->until_s, until, sizeof(until));
        log_str(&l, "until", until);
    }
    log_str(&l, "reason", i->reason);
    log_uint(&l, "version", s->quarantine->set.version);
    log_end(&l);
    note_change(s, change, i);
}

/* Told with the version of the set without it. */
static void take_away(struct supervisor *s, const struct quarantine_item *item,
                      enum agent_deny_change change, bool tell_it)
{
    struct quarantine_item gone = *item;
    mem_autofree char *text = mem_must_strdup(item->text);
    mem_autofree char *reason = mem_must_strdup(item->reason);

    gone.text = text;
    gone.reason = reason;
    quarantine_remove(&s->quarantine->set, gone.id, os_wall_s());
    if (tell_it) {
        log_change(s, change, &gone);
    }
}

static bool take_subject(struct supervisor *s, uint64_t ticket, struct str subject,
                         enum quarantine_kind *ret_kind, char ret_text[QUARANTINE_TEXT_MAX + 1])
{
    struct err err = ERR_INIT;

    if (quarantine_subject(subject, ret_kind, ret_text, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        return false;
    }
    return true;
}

void supervisor_quarantine_on_add(struct supervisor *s, uint64_t ticket,
                                  const struct agent_control_request *request)
{
    struct quarantine *q = &s->quarantine->set;
    struct str reason = agent_control_arg(request, 1);
    mem_autofree char *why = mem_must_strndup(reason.p, reason.n);
    char text[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind;
    struct quarantine_item *item;
    struct err err = ERR_INIT;

    if (!take_subject(s, ticket, agent_control_arg(request, 0), &kind, text)) {
        return;
    }
    if (quarantine_add(q, kind, text, why, request->number, 0, os_wall_s(), os_now_ms(), &item,
                       &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    log_change(s, AGENT_DENY_ADDED, item);
    changed(s, ticket);
}

void supervisor_quarantine_on_remove(struct supervisor *s, uint64_t ticket,
                                     const struct agent_control_request *request)
{
    struct quarantine *q = &s->quarantine->set;
    char text[QUARANTINE_TEXT_MAX + 1];
    const struct quarantine_item *item;
    enum quarantine_kind kind;
    struct err err = ERR_INIT;

    if (!take_subject(s, ticket, agent_control_arg(request, 0), &kind, text)) {
        return;
    }
    item = quarantine_find(q, kind, text);
    if (item == NULL) {
        err_set(&err, ERR_USAGE, "this is not quarantined: %s", text);
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    take_away(s, item, AGENT_DENY_REMOVED, true);
    changed(s, ticket);
}

void supervisor_quarantine_on_list(struct supervisor *s, uint64_t ticket,
                                   const struct agent_control_request *request)
{
    (void)request;
    answer(s, ticket);
}

/* Serials with commas between them. */
static int add_serials(struct supervisor *s, struct str list, const struct quarantine_item *image,
                       struct err *err)
{
    int64_t now_s = os_wall_s();
    uint64_t for_s = image->until_s > now_s ? (uint64_t)(image->until_s - now_s) : 0;
    uint64_t id = image->id; /* the item itself moves when the set grows */
    char text[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind;

    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        mem_autofree char *spelled = mem_must_printf("serial:%.*s", (int)n, list.p);

        if (quarantine_subject(str_of(spelled), &kind, text, err) == -1 ||
            quarantine_add(&s->quarantine->set, kind, text, "of a quarantined image", for_s, id,
                           now_s, os_now_ms(), NULL, err) == -1) {
            return -1;
        }
        list = (struct str){list.p + n, list.n - n};
        list = list.n > 0 ? (struct str){list.p + 1, list.n - 1} : list;
    }
    return 0;
}

/* Serials that the journal has for an image digest: the command reads it, in several requests if
 * need be, of which the last has the flag. */
void supervisor_quarantine_on_serials(struct supervisor *s, uint64_t ticket,
                                      const struct agent_control_request *request)
{
    const struct quarantine_item *image;
    char digest[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind;
    struct err err = ERR_INIT;
    int r = 0;

    if (!take_subject(s, ticket, agent_control_arg(request, 0), &kind, digest)) {
        return;
    }
    image = quarantine_find(&s->quarantine->set, kind, digest);
    if (image == NULL || kind != QUARANTINE_IMAGE_DIGEST) {
        err_set(&err, ERR_USAGE, "this image is not quarantined: %s", digest);
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    for (size_t a = 1; r == 0 && a < AGENT_CONTROL_ARGS_MAX; a++) {
        r = add_serials(s, agent_control_arg(request, a),
                        quarantine_find(&s->quarantine->set, kind, digest), &err);
    }
    if (r == -1) { /* those before it are in force all the same */
        supervisor_control_refuse(s, ticket, &err);
        changed(s, 0);
    } else if ((request->flags & AGENT_CONTROL_SERIALS_LAST) != 0) {
        changed(s, ticket);
    } else {
        supervisor_control_answer(s, ticket, STR_LIT("{}\n"));
    }
}

/* --- ends ------------------------------------------------------------------------------------- */
int supervisor_quarantine_due_ms(const struct supervisor *s)
{
    if (s->quarantine == NULL || !s->running || s->quarantine->set.n == 0) {
        return -1;
    }
    return (int)quarantine_next_ms(&s->quarantine->set, os_wall_s(), os_now_ms(), WAKE_MAX_MS);
}

void supervisor_quarantine_turn(struct supervisor *s)
{
    const struct quarantine_item *over;
    bool any = false;

    while (s->quarantine != NULL && s->running &&
           (over = quarantine_due(&s->quarantine->set, os_wall_s(), os_now_ms())) != NULL) {
        take_away(s, over, AGENT_DENY_OVER, over->parent == 0);
        any = true;
    }
    if (any) {
        changed(s, 0);
    }
}
