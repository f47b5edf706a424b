/*
 * What proxies are told: policy, mesh map and modes, from files, to the service. Each file is taken
 * whole or not at all, and nothing is told before every file that is configured has been good once:
 * a proxy would else take an absent policy for the newest one.
 *
 * A generation is of the content: the same files have the same one after a restart, which a small
 * file in the state directory remembers; other content has a higher one. What was pushed
 * (rollout.c) counts as content.
 */
#include "supervisor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <postern/agent_docs.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_source.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DIGEST_BYTES = 32,
    DIGEST_TEXT = 2 * DIGEST_BYTES + 1,
    RECORD_MAX = 128,
    READER_MAX = 16384
};
static const char *const RECORD = "documents", *const RECORD_NEW = "documents.new";

struct supervisor_document {
    enum agent_document which;
    const char *path; /* lent; NULL: not configured */
    bool changed;     /* its file is another one */
    bool good;        /* has been, once */
    struct agent_doc now, next;
};

struct supervisor_documents {
    struct supervisor_document documents[AGENT_N_DOCUMENTS];
    struct agent_msg_docs_state state;
    char digest[DIGEST_TEXT]; /* of what the generation is for */
    uint64_t generation;      /* 0: nothing has been told */
    uint32_t n_parts;
    bool started;
};

/* --- the generation --------------------------------------------------------------------------- */
static void hash_text(EVP_MD_CTX *md, struct str text)
{
    uint64_t n = text.n;

    POSTERN_ASSERT(EVP_DigestUpdate(md, &n, sizeof(n)) == 1 &&
                   EVP_DigestUpdate(md, text.p != NULL ? text.p : "", text.n) == 1);
}

static void hash_document(EVP_MD_CTX *md, const struct agent_doc *d)
{
    hash_text(md, d->present ? str_of(d->source) : STR_NONE);
    hash_text(md, buf_str(&d->head));
    hash_text(md, buf_str(&d->text));
    hash_text(md, buf_str(&d->targets));
    for (size_t i = 0; i < d->n_items; i++) {
        const struct agent_doc_item *item = &d->items[i];
        const uint64_t place[] = {item->line, item->n_targets, item->n_text};

        hash_text(md, (struct str){(const char *)place, sizeof(place)});
    }
}

/* What is told as the document of that kind. */
static const struct agent_doc *told(const struct supervisor *s, size_t which)
{
    const struct agent_doc *pushed =
        which == AGENT_DOCUMENT_POLICY ? supervisor_rollout_in_force(s) : NULL;

    return pushed != NULL ? pushed : &s->documents->documents[which].now;
}

static void hash_stage(EVP_MD_CTX *md, const struct supervisor *s)
{
    const struct agent_doc *staged = supervisor_rollout_staged(s);
    struct agent_msg_docs m;

    agent_ipc_init(&m, AGENT_MSG_DOCS_BEGIN, 0);
    supervisor_rollout_fill(s, &m);
    if (m.policy == 0 && staged == NULL) {
        return; /* as before there were any */
    }
    const uint64_t numbers[] = {m.policy, m.staged};
    hash_text(md, (struct str){(const char *)numbers, sizeof(numbers)});
    hash_text(md, (struct str){m.stage, m.stage_len});
    if (staged != NULL) {
        hash_document(md, staged);
    }
}

static void digest_of_all(const struct supervisor *s, char ret_text[DIGEST_TEXT])
{
    uint8_t digest[DIGEST_BYTES];
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    POSTERN_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        hash_document(md, told(s, i));
    }
    hash_stage(md, s);
    POSTERN_ASSERT(EVP_DigestFinal_ex(md, digest, NULL) == 1);
    EVP_MD_CTX_free(md);
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        (void)snprintf(ret_text + 2 * i, 3, "%02x", digest[i]);
    }
}

/* "GENERATION DIGEST\n". A record that is none gives a generation that none has had. */
static void read_record(struct supervisor *s, uint64_t *ret_generation,
                        char ret_digest[DIGEST_TEXT])
{
    os_autofd int fd = openat(s->state.dir_fd, RECORD, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char text[RECORD_MAX + 1] = "";
    ssize_t n = fd != -1 ? read(fd, text, RECORD_MAX) : 0;
    char *blank = n > 0 ? strchr(text, ' ') : NULL;
    uint64_t generation;

    ret_digest[0] = '\0';
    *ret_generation = 0;
    if (fd == -1 && errno == ENOENT) {
        return;
    }
    if (blank == NULL || strlen(blank) != DIGEST_TEXT + 1 || blank[DIGEST_TEXT] != '\n' ||
        !str_to_u64((struct str){text, (size_t)(blank - text)}, UINT64_MAX / 2, &generation)) {
        *ret_generation = (uint64_t)os_wall_s();
        return;
    }
    *ret_generation = generation;
    (void)snprintf(ret_digest, DIGEST_TEXT, "%.*s", DIGEST_TEXT - 1, blank + 1);
}

static void write_record(struct supervisor *s)
{
    const struct supervisor_documents *all = s->documents;
    char text[RECORD_MAX];
    int n =
        snprintf(text, sizeof(text), "%llu %s\n", (unsigned long long)all->generation, all->digest);
    os_autofd int fd = openat(s->state.dir_fd, RECORD_NEW,
                              O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd == -1 || write(fd, text, (size_t)n) != n || fsync(fd) == -1 ||
        renameat(s->state.dir_fd, RECORD_NEW, s->state.dir_fd, RECORD) == -1) {
        struct err err = ERR_INIT;

        err_sys(&err, "the generation of what proxies are told cannot be kept");
        err_where(&err, "%s/%s", s->state.path, RECORD);
        err_advise(&err, "after a restart of the agent it may be counted again from before");
        log_failure(s->log, LOG_WARN, "documents_not_recorded", &err);
    }
}

/* False: it is the content of before. */
static bool next_generation(struct supervisor *s)
{
    struct supervisor_documents *all = s->documents;
    char digest[DIGEST_TEXT];

    if (all->generation == 0) {
        read_record(s, &all->generation, all->digest);
        digest_of_all(s, digest);
        if (all->generation > 0 && strcmp(all->digest, digest) == 0) {
            return true; /* as the last agent left it: new to the service, not to proxies */
        }
    } else {
        digest_of_all(s, digest);
        if (strcmp(all->digest, digest) == 0) {
            return false;
        }
    }
    all->generation++;
    memcpy(all->digest, digest, sizeof(digest));
    write_record(s);
    return true;
}

/* --- reading ---------------------------------------------------------------------------------- */
struct loading {
    enum agent_document which;
    struct agent_doc *doc;
    void (*on_error)(void *arg, const struct err *error);
    void *arg;
    uint32_t n_doubts;
};

static int take_part(struct supervisor *s, void *arg, struct err *err)
{
    struct loading *l = arg;

    if (s->in.head.type != AGENT_MSG_DOC_PART || s->in.doc_part.document != (uint32_t)l->which ||
        !agent_doc_add(l->doc, &s->in.doc_part)) {
        return err_set(err, ERR_PROTOCOL, "the loader's parts are no document");
    }
    return 0;
}

static size_t count_items(const struct supervisor *s, const void *arg)
{
    const struct loading *l = arg;

    (void)s;
    return l->doc->present ? l->doc->n_items : SIZE_MAX;
}

static void hear_error(void *arg, const struct err *error)
{
    struct loading *l = arg;

    if (l->on_error != NULL) {
        l->on_error(l->arg, error);
    }
}

/* What the loader has to know of us, where a policy is Istio's or Kubernetes'. */
static int name_reader(struct supervisor *s, struct buf *out, struct err *err)
{
    struct policy_source source;
    bool fits;

    policy_source_of_agent(s->conf, &source);
    fits = policy_source_write(&source, out) && buf_append(out, "", 1);
    policy_source_deinit(&source);
    return fits ? 0 : err_set(err, ERR_LIMIT, "policy_context says too much");
}

/* Into l->doc; source: what messages call it, NULL: its path. */
static int load_file(struct supervisor *s, struct loading *l, const char *path, const char *source,
                     struct err *ret_said, struct err *err)
{
    static const char *const WHAT[AGENT_N_DOCUMENTS] = {
        "the policy for proxies", "the mesh map for proxies", "the modes for proxies"};
    struct buf reader = BUF_INIT(READER_MAX);
    struct supervisor_job job = {.name = agent_document_name(l->which),
                                 .path = path,
                                 .source = source,
                                 .what = WHAT[l->which],
                                 .refused = "document_refused",
                                 .take = take_part,
                                 .n_taken = count_items,
                                 .on_error = hear_error,
                                 .arg = l,
                                 .n_doubts = &l->n_doubts,
                                 .last_error = ret_said};
    int r;

    agent_doc_deinit(l->doc);
    if (l->which == AGENT_DOCUMENT_POLICY && name_reader(s, &reader, err) == -1) {
        return -1;
    }
    job.reader = buf_len(&reader) > 0 ? (const char *)buf_head(&reader) : NULL;
    r = supervisor_load(s, &job, err);
    buf_reset(&reader);
    if (r == -1) {
        agent_doc_deinit(l->doc);
        return -1;
    }
    return 0;
}

int supervisor_documents_load_policy(struct supervisor *s, const char *path, const char *source,
                                     struct agent_doc *ret,
                                     void (*on_error)(void *arg, const struct err *error),
                                     void *arg, struct err *err)
{
    struct loading l = {
        .which = AGENT_DOCUMENT_POLICY, .doc = ret, .on_error = on_error, .arg = arg};
    struct err said = ERR_INIT;

    return load_file(s, &l, path, source, &said, err);
}

static void log_loaded(struct supervisor *s, const struct supervisor_document *d)
{
    struct log_line l;

    log_begin(&l, s->log, LOG_INFO, "document_loaded");
    log_str(&l, "document", agent_document_name(d->which));
    log_str(&l, "file", d->path);
    log_uint(&l, "items", d->now.n_items);
    log_end(&l);
}

/* True: the document is another one now. */
static bool load(struct supervisor *s, struct supervisor_document *d)
{
    struct agent_doc_state *st = &s->documents->state.documents[d->which];
    struct err said = ERR_INIT, err = ERR_INIT;
    struct loading l = {.which = d->which, .doc = &d->next};

    d->changed = false;
    supervisor_watch_taken(s, &d->changed);
    st->n_loads++;
    if (load_file(s, &l, d->path, NULL, &said, &err) == -1) {
        st->n_failed_loads++;
        st->error = said.code != ERR_NONE ? said : err;
        err_advise(&err, d->good ? "proxies keep the one of before"
                                 : "proxies are told nothing until it is mended; what they have "
                                   "stays in force");
        log_failure(s->log, LOG_ERROR, "document_kept", &err);
        return false;
    }
    agent_doc_move(&d->now, &d->next);
    d->good = true;
    st->error = (struct err)ERR_INIT;
    st->n_warnings = l.n_doubts;
    st->n_items = (uint32_t)d->now.n_items;
    st->loaded_s = os_wall_s();
    log_loaded(s, d);
    return true;
}

/* --- telling ---------------------------------------------------------------------------------- */
static int count_part(void *arg, const void *msg)
{
    uint32_t *n = arg;

    (void)msg;
    (*n)++;
    return 0;
}

static int tell_part(void *arg, const void *msg)
{
    supervisor_tell_service(arg, msg, -1);
    return 0;
}

static void tell_frame(struct supervisor *s, enum agent_msg_type type)
{
    struct agent_msg_docs m;

    agent_ipc_init(&m, type, 0);
    m.generation = s->documents->generation;
    m.n_parts = s->documents->n_parts;
    supervisor_rollout_fill(s, &m);
    supervisor_tell_service(s, &m, -1);
}

static void send_all(struct supervisor *s, agent_doc_tell_fn tell, void *arg)
{
    const struct agent_doc *staged = supervisor_rollout_staged(s);

    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        (void)agent_doc_send(told(s, i), (uint32_t)i, tell, arg);
    }
    if (staged != NULL) {
        (void)agent_doc_send(staged, AGENT_DOCUMENT_STAGED, tell, arg);
    }
}

static void tell_content(struct supervisor *s)
{
    tell_frame(s, AGENT_MSG_DOCS_BEGIN);
    send_all(s, tell_part, s);
    tell_frame(s, AGENT_MSG_DOCS_COMMIT);
}

static void tell_state(struct supervisor *s)
{
    s->documents->state.generation = s->documents->generation;
    supervisor_tell_service(s, &s->documents->state, -1);
}

void supervisor_tell_documents(struct supervisor *s)
{
    if (s->documents->generation > 0) {
        tell_content(s);
    }
    tell_state(s);
}

static void publish(struct supervisor *s)
{
    struct supervisor_documents *all = s->documents;

    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        bool replaced = i == AGENT_DOCUMENT_POLICY && supervisor_rollout_in_force(s) != NULL;

        if (all->documents[i].path != NULL && !all->documents[i].good && !replaced) {
            return;
        }
    }
    if (!supervisor_rollout_good(s) || !next_generation(s)) {
        return;
    }
    all->n_parts = 0;
    send_all(s, count_part, &all->n_parts);
    if (s->children[AGENT_ROLE_SERVICE].control != -1) {
        tell_content(s);
    }
}

void supervisor_documents_publish(struct supervisor *s)
{
    publish(s);
    tell_state(s);
}

uint64_t supervisor_documents_generation(const struct supervisor *s)
{
    return s->documents->generation;
}

bool supervisor_documents_has_policy(const struct supervisor *s)
{
    return s->documents->documents[AGENT_DOCUMENT_POLICY].path != NULL;
}

bool supervisor_documents_policy_good(const struct supervisor *s)
{
    return s->documents->documents[AGENT_DOCUMENT_POLICY].good;
}

void supervisor_documents_turn(struct supervisor *s)
{
    struct supervisor_documents *all = s->documents;
    bool looked = !all->started, changed = !all->started;

    if (!all->started) {
        supervisor_rollout_load(s);
    }
    all->started = true;
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        if (all->documents[i].changed) {
            looked = true;
            changed = load(s, &all->documents[i]) || changed;
        }
    }
    if (changed) {
        publish(s);
    }
    if (looked) {
        tell_state(s);
    }
}

/* --- life ------------------------------------------------------------------------------------- */
void supervisor_documents_open(struct supervisor *s)
{
    const char *const paths[AGENT_N_DOCUMENTS] = {
        s->conf->state.policy_path, s->conf->state.mesh_path, s->conf->state.modes_path};
    struct supervisor_documents *all = mem_must_new(struct supervisor_documents);

    s->documents = all;
    agent_ipc_init(&all->state, AGENT_MSG_DOCS_STATE, 0);
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        struct supervisor_document *d = &all->documents[i];

        d->which = (enum agent_document)i;
        d->path = paths[i];
        agent_doc_init(&d->now);
        agent_doc_init(&d->next);
        all->state.documents[i].configured = d->path != NULL;
        if (d->path != NULL) {
            supervisor_watch_add(s, d->path, &d->changed);
            d->changed = true;
        }
    }
}

void supervisor_documents_close(struct supervisor *s)
{
    for (size_t i = 0; s->documents != NULL && i < AGENT_N_DOCUMENTS; i++) {
        agent_doc_deinit(&s->documents->documents[i].now);
        agent_doc_deinit(&s->documents->documents[i].next);
    }
    free(s->documents);
    s->documents = NULL;
}
