/*
 * Policies that were pushed: docs/policy-rollout.md. The set and its file are the record; in memory
 * are the two that proxies are told, parsed. An order makes what it needs before it changes
 * anything, records it, and only then tells.
 */
#include "supervisor_priv.h"

#include "rollout_store.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ERRORS_SHOWN = 50, ERRORS_MAX = 256 * 1024 };

struct supervisor_rollout {
    struct rollout set;
    struct rollout_store store;
    struct agent_doc in_force, staged; /* present exactly if the set has such a number */
    struct err unusable;               /* why what the set says is not here; ERR_NONE: it is */
    struct err unsaved;                /* why the index is not what the set is; ERR_NONE: it is */
};

/* --- life ------------------------------------------------------------------------------------- */
int supervisor_rollout_open(struct supervisor *s, struct err *err)
{
    struct supervisor_rollout *r = mem_must_new(struct supervisor_rollout);

    s->rollout = r;
    agent_doc_init(&r->in_force);
    agent_doc_init(&r->staged);
    return rollout_store_open(&r->store, s->conf->state_dir, &r->set, err);
}

void supervisor_rollout_close(struct supervisor *s)
{
    if (s->rollout != NULL) {
        agent_doc_deinit(&s->rollout->in_force);
        agent_doc_deinit(&s->rollout->staged);
        rollout_store_close(&s->rollout->store);
        free(s->rollout);
        s->rollout = NULL;
    }
}

/* What is kept of a generation, parsed again. */
static int load_kept(struct supervisor *s, uint64_t generation, struct agent_doc *ret,
                     struct err *err)
{
    struct supervisor_rollout *r = s->rollout;
    const struct rollout_item *item = rollout_find(&r->set, generation);
    mem_autofree char *path = rollout_store_name(&r->store, generation);

    POSTERN_ASSERT(item != NULL);
    if (rollout_store_check(&r->store, item, err) == -1) {
        return -1;
    }
    return supervisor_documents_load_policy(s, path, item->source, ret, NULL, NULL, err);
}

void supervisor_rollout_load(struct supervisor *s)
{
    struct supervisor_rollout *r = s->rollout;
    struct err err = ERR_INIT;

    if ((r->set.in_force != 0 && load_kept(s, r->set.in_force, &r->in_force, &err) == -1) ||
        (r->set.staged != 0 && load_kept(s, r->set.staged, &r->staged, &err) == -1)) {
        err_advise(&err, "proxies are told nothing, and keep what they have, until another one is "
                         "in force: `postern agent policy rollback`");
        r->unusable = err;
        log_failure(s->log, LOG_ERROR, "pushed_policy_unusable", &err);
    } else if (r->set.in_force != 0 || r->set.staged != 0) {
        log_msg(s->log, LOG_INFO, "pushed_policy_restored",
                "in force: generation %llu, staged: %llu", (unsigned long long)r->set.in_force,
                (unsigned long long)r->set.staged);
    }
}

bool supervisor_rollout_good(const struct supervisor *s)
{
    return s->rollout->unusable.code == ERR_NONE;
}

const struct agent_doc *supervisor_rollout_in_force(const struct supervisor *s)
{
    return s->rollout->in_force.present ? &s->rollout->in_force : NULL;
}

const struct agent_doc *supervisor_rollout_staged(const struct supervisor *s)
{
    return s->rollout->staged.present ? &s->rollout->staged : NULL;
}

void supervisor_rollout_fill(const struct supervisor *s, struct agent_msg_docs *m)
{
    const struct rollout *set = &s->rollout->set;

    m->policy = set->in_force;
    m->staged = set->staged;
    POSTERN_ASSERT(agent_ipc_put(m->stage, AGENT_STAGE_MAX, &m->stage_len, str_of(set->stage)));
}

/* --- answers ---------------------------------------------------------------------------------- */
/* meant: the generation that an order was about. */
static void answer(struct supervisor *s, uint64_t ticket, bool order, uint64_t meant)
{
    struct supervisor_rollout *r = s->rollout;
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    bool ok =
        buf_printf(&out, "{\"state_generation\":%llu,\"meant\":%llu,\"usable\":%s,",
                   (unsigned long long)supervisor_documents_generation(s),
                   (unsigned long long)meant, supervisor_rollout_good(s) ? "true" : "false") &&
        rollout_document(&r->set, &out) && buf_append(&out, "}\n", 2);

    POSTERN_ASSERT(ok); /* its parts are bounded far below */
    if (order && r->unsaved.code != ERR_NONE) {
        supervisor_control_refuse(s, ticket, &r->unsaved);
    } else {
        supervisor_control_answer(s, ticket, buf_str(&out));
    }
    buf_reset(&out);
}

static void log_order(struct supervisor *s, const char *event, uint64_t generation, struct str by)
{
    const struct rollout *set = &s->rollout->set;
    const struct rollout_item *item = rollout_find(set, generation);
    struct log_line l;

    log_begin(&l, s->log, LOG_WARN, event);
    log_uint(&l, "policy", generation);
    if (item != NULL) {
        log_str(&l, "sha256", item->sha256);
        log_str(&l, "file", item->source);
        log_str(&l, "comment", item->comment);
    }
    log_uint(&l, "in_force", set->in_force);
    log_uint(&l, "staged", set->staged);
    log_str(&l, "stage", set->stage);
    log_strn(&l, "by", by);
    log_end(&l);
}

static bool take_text(struct supervisor *s, uint64_t ticket, const char *what, struct str text,
                      size_t max)
{
    struct err err = ERR_INIT;

    if (rollout_text_ok(text, max)) {
        return true;
    }
    err_set(&err, ERR_USAGE, "the %s holds a control character, or is longer than %zu bytes", what,
            max);
    supervisor_control_refuse(s, ticket, &err);
    return false;
}

static bool take_stage(struct supervisor *s, uint64_t ticket, struct str text)
{
    struct rollout_stage *stage = NULL;
    struct err err = ERR_INIT;

    if (rollout_stage_parse(text, &stage, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        return false;
    }
    rollout_stage_free(stage);
    return true;
}

/* --- changing --------------------------------------------------------------------------------- */
/* Makes `next` what holds. must_keep: only if it can be recorded. */
static int change(struct supervisor *s, const struct rollout *next, bool must_keep, struct err *err)
{
    struct supervisor_rollout *r = s->rollout;
    struct err own = ERR_INIT;

    if (rollout_store_save(&r->store, next, &own) == -1) {
        err_advise(&own, must_keep ? "make room in the state directory and try again; nothing has "
                                     "changed"
                                   : "it is in force, but would not be after a restart: make room "
                                     "in the state directory and give the order again");
        log_failure(s->log, LOG_ERROR, "pushed_policy_not_saved", &own);
        if (must_keep) {
            *err = own;
            return -1;
        }
    }
    r->unsaved = own;
    r->set = *next;
    return 0;
}

/* Of what holds now: which documents it needs. What was there before and is meant still is moved.
 */
static void let_documents_go(struct supervisor_rollout *r)
{
    if (r->set.in_force == 0) {
        agent_doc_deinit(&r->in_force);
    }
    if (r->set.staged == 0) {
        agent_doc_deinit(&r->staged);
    }
    r->unusable = (struct err)ERR_INIT;
}

/* --- push ------------------------------------------------------------------------------------- */
struct errors {
    struct buf json;
    size_t n;
};

static bool put_text(struct buf *out, const char *key, const char *value)
{
    char text[8192];
    size_t n = log_json_escape(str_of(value), text, sizeof(text));

    return buf_printf(out, "\"%s\":\"%.*s\"", key, (int)n, text);
}

static void keep_error(void *arg, const struct err *e)
{
    struct errors *errors = arg;
    struct buf *out = &errors->json;

    if (errors->n++ < ERRORS_SHOWN) {
        (void)(buf_printf(out, "%s{", errors->n > 1 ? "," : "") &&
               put_text(out, "where", e->where) && buf_append(out, ",", 1) &&
               put_text(out, "what", e->what) && buf_append(out, ",", 1) &&
               put_text(out, "expected", e->expected) && buf_append(out, ",", 1) &&
               put_text(out, "advice", e->advice) && buf_append(out, "}", 1));
    }
}

static void answer_errors(struct supervisor *s, uint64_t ticket, const struct errors *errors)
{
    struct buf out = BUF_INIT(ERRORS_MAX + 64);

    (void)buf_printf(&out, "{\"errors\":%zu,\"refused\":[", errors->n);
    (void)(buf_append_str(&out, buf_str(&errors->json)) && buf_append(&out, "]}\n", 3));
    supervisor_control_answer(s, ticket, buf_str(&out));
    buf_reset(&out);
}

/* Copied, parsed and recorded; the document is *ret_doc. */
static int take_policy(struct supervisor *s, const struct rollout_item *given, struct str stage,
                       struct rollout *next, struct agent_doc *ret_doc, struct errors *errors,
                       struct err *err)
{
    struct supervisor_rollout *r = s->rollout;
    struct rollout_item item = *given;
    uint64_t generation = r->set.last + 1, gone = 0;
    mem_autofree char *path = rollout_store_name(&r->store, generation);
    char text[ROLLOUT_STAGE_MAX + 1];

    if (rollout_store_copy(&r->store, supervisor_control_file(s), generation, item.sha256, err) ==
        -1) {
        return -1;
    }
    if (supervisor_documents_load_policy(s, path, item.source, ret_doc, keep_error, errors, err) ==
        -1) {
        rollout_store_remove(&r->store, generation);
        return -1;
    }
    item.n_rules = ret_doc->n_items;
    *next = r->set;
    (void)rollout_add(next, &item, &gone);
    if (stage.n > 0) {
        (void)snprintf(text, sizeof(text), "%.*s", (int)stage.n, stage.p);
        rollout_put_staged(next, generation, text);
    } else {
        rollout_put_in_force(next, generation, false);
    }
    if (change(s, next, true, err) == -1) {
        rollout_store_remove(&r->store, generation);
        return -1;
    }
    if (gone != 0) {
        rollout_store_remove(&r->store, gone);
    }
    return 0;
}

static void fill_item(struct rollout_item *item, const struct agent_control_request *request)
{
    struct str source = agent_control_arg(request, 0), comment = agent_control_arg(request, 2),
               by = agent_control_arg(request, 3);

    *item = (struct rollout_item){.pushed_s = os_wall_s()};
    (void)snprintf(item->source, sizeof(item->source), "%.*s", (int)source.n, source.p);
    (void)snprintf(item->comment, sizeof(item->comment), "%.*s", (int)comment.n, comment.p);
    (void)snprintf(item->by, sizeof(item->by), "%.*s", (int)by.n, by.p);
}

void supervisor_rollout_on_push(struct supervisor *s, uint64_t ticket,
                                const struct agent_control_request *request)
{
    struct supervisor_rollout *r = s->rollout;
    struct str stage = agent_control_arg(request, 1);
    struct errors errors = {.json = BUF_INIT(ERRORS_MAX)};
    mem_autofree struct rollout_item *item = mem_must_new(struct rollout_item);
    mem_autofree struct rollout *next = mem_must_new(struct rollout);
    struct agent_doc doc;
    struct err err = ERR_INIT;

    if (!take_text(s, ticket, "file's name", agent_control_arg(request, 0), ROLLOUT_SOURCE_MAX) ||
        !take_text(s, ticket, "comment", agent_control_arg(request, 2), ROLLOUT_COMMENT_MAX) ||
        !take_text(s, ticket, "name", agent_control_arg(request, 3), ROLLOUT_BY_MAX) ||
        (stage.n > 0 && !take_stage(s, ticket, stage))) {
        return;
    }
    if (!supervisor_documents_has_policy(s)) {
        err_set(&err, ERR_USAGE, "the agent tells proxies no policy");
        err_advise(&err, "name a file by `state.policy` in the Agent file: it is what holds after "
                         "`rollback files`");
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    if (stage.n > 0 && !supervisor_rollout_good(s)) {
        supervisor_control_refuse(s, ticket, &r->unusable); /* beside what would it be staged? */
        return;
    }
    fill_item(item, request);
    agent_doc_init(&doc);
    if (take_policy(s, item, stage, next, &doc, &errors, &err) == 0) {
        agent_doc_move(stage.n > 0 ? &r->staged : &r->in_force, &doc);
        let_documents_go(r);
        log_order(s, stage.n > 0 ? "policy_staged" : "policy_pushed", r->set.last,
                  agent_control_arg(request, 3));
        supervisor_documents_publish(s);
        answer(s, ticket, true, r->set.last);
    } else if (errors.n > 0) {
        answer_errors(s, ticket, &errors);
    } else {
        supervisor_control_refuse(s, ticket, &err);
    }
    agent_doc_deinit(&doc);
    buf_reset(&errors.json);
}

/* --- the others ------------------------------------------------------------------------------- */
static bool is_staged(struct supervisor *s, uint64_t ticket)
{
    struct err err = ERR_INIT;

    if (s->rollout->set.staged != 0 && supervisor_rollout_good(s)) {
        return true;
    }
    err_set(&err, ERR_USAGE, "nothing is staged%s",
            s->rollout->set.staged != 0 ? " that can be read" : "");
    supervisor_control_refuse(s, ticket, &err);
    return false;
}

void supervisor_rollout_on_stage(struct supervisor *s, uint64_t ticket,
                                 const struct agent_control_request *request)
{
    struct supervisor_rollout *r = s->rollout;
    struct str stage = agent_control_arg(request, 0);
    mem_autofree struct rollout *next = mem_must_new(struct rollout);
    mem_autofree char *text = mem_must_strndup(stage.p, stage.n);
    struct err err = ERR_INIT;

    if (!take_stage(s, ticket, stage) || !is_staged(s, ticket) ||
        !take_text(s, ticket, "name", agent_control_arg(request, 1), ROLLOUT_BY_MAX)) {
        return;
    }
    *next = r->set;
    rollout_put_staged(next, r->set.staged, text);
    if (change(s, next, true, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    log_order(s, "policy_staged", r->set.staged, agent_control_arg(request, 1));
    supervisor_documents_publish(s);
    answer(s, ticket, true, r->set.staged);
}

void supervisor_rollout_on_promote(struct supervisor *s, uint64_t ticket,
                                   const struct agent_control_request *request)
{
    struct supervisor_rollout *r = s->rollout;
    mem_autofree struct rollout *next = mem_must_new(struct rollout);
    uint64_t generation = r->set.staged;
    struct err err = ERR_INIT;

    if (!is_staged(s, ticket) ||
        !take_text(s, ticket, "name", agent_control_arg(request, 0), ROLLOUT_BY_MAX)) {
        return;
    }
    *next = r->set;
    rollout_put_in_force(next, generation, false);
    if (change(s, next, true, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    agent_doc_move(&r->in_force, &r->staged);
    let_documents_go(r);
    log_order(s, "policy_promoted", generation, agent_control_arg(request, 0));
    supervisor_documents_publish(s);
    answer(s, ticket, true, generation);
}

/* What `rollback` means. */
static int choose_target(struct supervisor *s, const struct agent_control_request *request,
                         uint64_t *ret, struct err *err)
{
    const struct rollout *set = &s->rollout->set;

    if ((request->flags & AGENT_CONTROL_ROLLBACK_TO) == 0 && request->number != 0) {
        err_set(err, ERR_USAGE,
                "a rollback to what was before, and generation %llu beside it: one of both",
                (unsigned long long)request->number);
        return err_advise(err,
                          "`postern agent policy rollback %llu` says that it is to be that one",
                          (unsigned long long)request->number);
    }
    if ((request->flags & AGENT_CONTROL_ROLLBACK_TO) == 0) {
        return rollout_before(set, ret, err);
    }
    if (request->number != 0 && rollout_find(set, request->number) == NULL) {
        return err_set(err, ERR_USAGE, "there is no generation %llu",
                       (unsigned long long)request->number);
    }
    *ret = request->number;
    return 0;
}

/* What is in force already, and could be read, is not read again. */
static int prepare_target(struct supervisor *s, uint64_t generation, struct agent_doc *ret_doc,
                          struct err *err)
{
    struct supervisor_rollout *r = s->rollout;

    if (generation == 0) {
        if (supervisor_documents_policy_good(s)) {
            return 0;
        }
        err_set(err, ERR_CONFIG, "the policy that the agent's file names has not been good yet");
        return err_advise(err, "mend it, or roll back to a generation");
    }
    if (generation == r->set.in_force && r->in_force.present) {
        agent_doc_move(ret_doc, &r->in_force);
        return 0;
    }
    return load_kept(s, generation, ret_doc, err);
}

void supervisor_rollout_on_rollback(struct supervisor *s, uint64_t ticket,
                                    const struct agent_control_request *request)
{
    struct supervisor_rollout *r = s->rollout;
    mem_autofree struct rollout *next = mem_must_new(struct rollout);
    struct err err = ERR_INIT;
    struct agent_doc doc;
    uint64_t generation = 0;

    if (!take_text(s, ticket, "name", agent_control_arg(request, 0), ROLLOUT_BY_MAX)) {
        return;
    }
    agent_doc_init(&doc);
    if (choose_target(s, request, &generation, &err) == -1 ||
        prepare_target(s, generation, &doc, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
        agent_doc_deinit(&doc);
        return;
    }
    *next = r->set;
    rollout_put_in_force(next, generation, (request->flags & AGENT_CONTROL_ROLLBACK_TO) == 0);
    (void)change(s, next, false, &err);
    agent_doc_move(&r->in_force, &doc);
    let_documents_go(r);
    log_order(s, "policy_rolled_back", generation, agent_control_arg(request, 0));
    supervisor_documents_publish(s);
    answer(s, ticket, true, generation);
    agent_doc_deinit(&doc);
}

void supervisor_rollout_on_status(struct supervisor *s, uint64_t ticket,
                                  const struct agent_control_request *request)
{
    (void)request;
    answer(s, ticket, false, 0);
}
