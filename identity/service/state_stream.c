/*
 * postern.v1.State/Subscribe: what proxies are told. Each message is the whole: the documents for
 * the caller's identities, and the deny list. It goes out at once, and again when something of it
 * is another one; a slow reader gets the newest only. What the caller says that it runs is kept for
 * people. docs/state-stream.md.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64, VERSION_MAX_BYTES = 64, ERROR_MAX_BYTES = 512, DIGEST_BYTES = 32 };
enum { REFUSALS_LOGGED = 5, REFUSALS_PAUSE_MS = 60000 };
enum { REPORTED_IDS = 8, STRICT_MAX = STATE_STRICT_MAX };

struct service_subscriber {
    struct service_subscriber *prev, *next;
    struct service *s;
    struct service_watch *watch; /* it owns us */
    struct service_caller *caller;
    int64_t since_s;
    char name[NAME_MAX_BYTES + 1], version[VERSION_MAX_BYTES + 1], error[ERROR_MAX_BYTES + 1];
    char policy_sha256[2 * DIGEST_BYTES + 1];
    uint32_t level;
    uint64_t runs_generation, runs_deny_version, refused_generation;
    unsigned n_refused;             /* lines about it since the last pause */
    uint64_t refused_ms, unsent_ms; /* when the last such lines were */
    int64_t said_s;                 /* when it said so last */
    uint64_t sent_generation;       /* 0: nothing yet */
    int64_t sent_s;
    uint8_t ids[SERVICE_LISTING_DIGEST]; /* of the identities that it was told for */
    char *identity;                      /* owned: the first of them */
    uint32_t n_identities;
    char *ids_kept[REPORTED_IDS]; /* owned: the first ones, of which it may tell */
    uint64_t reported_ms;         /* its last report of plaintext; 0: none */
    char labels[ROLLOUT_TERMS_MAX]
               [ROLLOUT_LABEL_MAX + 1]; /* as it says; those that are none, not */
    size_t n_labels;
    uint64_t sent_policy, runs_policy; /* numbers of pushed policies, 0: the agent's file */
    bool runs_known;                   /* it has said so since this stream began */
};

/* --- the message ------------------------------------------------------------------------------ */
/* protobuf-c's texts are not const; packing writes to none of them. */
static char *text_of(const char *p)
{
    return (char *)(uintptr_t)p;
}

struct snapshot_parts {
    Postern__V1__Snapshot message;
    Postern__V1__Document documents[AGENT_N_DOCUMENTS];
    struct buf texts[AGENT_N_DOCUMENTS];
    Postern__V1__Denied *deny;         /* owned */
    Postern__V1__Denied **denies;      /* owned */
    Postern__V1__StrictPort *strict;   /* owned */
    Postern__V1__StrictPort **stricts; /* owned */
};

static const struct agent_doc *document_for(const struct service *s, enum agent_document which,
                                            uint64_t policy)
{
    return which == AGENT_DOCUMENT_POLICY ? service_policy(s, policy) : service_document(s, which);
}

static bool fill_documents(struct snapshot_parts *p, const struct service *s, uint64_t policy,
                           const struct str *ids, size_t n_ids)
{
    Postern__V1__Document **const places[AGENT_N_DOCUMENTS] = {&p->message.policy, &p->message.mesh,
                                                               &p->message.modes};

    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        const struct agent_doc *d = document_for(s, (enum agent_document)i, policy);
        if (!d->present) {
            continue;
        }
        if (!agent_doc_write(d, (enum agent_document)i, ids, n_ids, &p->texts[i])) {
            return false;
        }
        postern__v1__document__init(&p->documents[i]);
        p->documents[i].source = d->source;
        p->documents[i].text = (ProtobufCBinaryData){buf_len(&p->texts[i]),
                                                     (uint8_t *)(uintptr_t)buf_head(&p->texts[i])};
        *places[i] = &p->documents[i];
    }
    return true;
}

static void fill_deny(struct snapshot_parts *p, const struct service_deny *deny)
{
    static const Postern__V1__Denied__Kind kinds[] = {
        [AGENT_DENY_SPIFFE_ID] = POSTERN__V1__DENIED__KIND__SPIFFE_ID,
        [AGENT_DENY_SERIAL] = POSTERN__V1__DENIED__KIND__SERIAL,
        [AGENT_DENY_IMAGE_DIGEST] = POSTERN__V1__DENIED__KIND__IMAGE_DIGEST};

    p->deny = mem_must_calloc(deny->n + 1, sizeof(*p->deny));
    p->denies = mem_must_calloc(deny->n + 1, sizeof(Postern__V1__Denied *));
    for (size_t i = 0; i < deny->n; i++) {
        postern__v1__denied__init(&p->deny[i]);
        p->deny[i].kind = kinds[deny->items[i].kind];
        p->deny[i].text = text_of(deny->items[i].text);
        p->deny[i].until = deny->items[i].until_s;
        p->denies[i] = &p->deny[i];
    }
    p->message.deny = p->denies;
    p->message.n_deny = deny->n;
}

/* Texts are the history's, which nothing changes meanwhile. */
static void fill_strict(struct snapshot_parts *p, const struct service *s, const struct str *ids,
                        size_t n_ids)
{
    struct readiness_strict port;

    p->strict = mem_must_calloc(STRICT_MAX, sizeof(*p->strict));
    p->stricts = mem_must_calloc(STRICT_MAX, sizeof(Postern__V1__StrictPort *));
    for (size_t i = 0; i < n_ids; i++) {
        for (size_t k = 0;
             p->message.n_strict < STRICT_MAX && service_history_strict(s, ids[i], k, &port); k++) {
            size_t at = p->message.n_strict++;
            postern__v1__strict_port__init(&p->strict[at]);
            p->strict[at].listener = text_of(port.listener);
            p->strict[at].port = port.port;
            p->stricts[at] = &p->strict[at];
        }
    }
    p->message.strict = p->stricts;
}

static void parts_deinit(struct snapshot_parts *p)
{
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        buf_reset(&p->texts[i]);
    }
    free(p->deny);
    free(p->denies);
    free(p->strict);
    free(p->stricts);
}

static enum grpc_send send_message(struct grpc_call *call, const Postern__V1__Snapshot *m)
{
    size_t n = postern__v1__snapshot__get_packed_size(m);
    mem_autofree uint8_t *packed = malloc(n > 0 ? n : 1);
    if (packed == NULL) {
        return GRPC_FULL;
    }
    (void)postern__v1__snapshot__pack(m, packed);
    return grpc_call_send(call, packed, n);
}

static uint64_t policy_for(const struct service_subscriber *sub, const struct str *ids,
                           size_t n_ids)
{
    struct str labels[ROLLOUT_TERMS_MAX];
    const struct rollout_proxy p = {.ids = ids,
                                    .n_ids = n_ids,
                                    .name = str_of(sub->name),
                                    .labels = labels,
                                    .n_labels = sub->n_labels};

    for (size_t i = 0; i < sub->n_labels; i++) {
        labels[i] = str_of(sub->labels[i]);
    }
    return service_policy_for(sub->s, &p);
}

/* Its uid, or its connection, has no room for it: others of its streams may, later. */
static void log_not_sent(struct service_subscriber *sub, size_t bytes)
{
    uint64_t now_ms = loop_now_ms(sub->s->loop);
    struct log_line l;

    if (sub->unsent_ms != 0 && now_ms - sub->unsent_ms < REFUSALS_PAUSE_MS) {
        return;
    }
    sub->unsent_ms = now_ms;
    log_begin(&l, sub->s->log, LOG_WARN, "state_not_sent");
    log_str(&l, "identity", sub->identity);
    log_str(&l, "proxy", sub->name);
    log_int(&l, "pid", sub->caller->pid);
    log_uint(&l, "bytes", bytes);
    log_uint(&l, "memory_per_uid", sub->s->start.max_uid_bytes);
    log_str(&l, "message", "there is no room for it now: it is tried again");
    log_end(&l);
}

static enum grpc_send send_snapshot(struct service_watch *w, struct service_job *job)
{
    struct service_subscriber *sub = w->data;
    const struct service *s = w->s;
    struct snapshot_parts p = {.texts = {BUF_INIT(AGENT_DOC_WRITTEN_MAX),
                                         BUF_INIT(AGENT_DOC_MESH_WRITTEN_MAX),
                                         BUF_INIT(AGENT_DOC_MODES_WRITTEN_MAX)}};
    enum grpc_send sent = GRPC_FULL;
    mem_autofree struct str *ids = mem_must_calloc(job->n + 1, sizeof(*ids));

    for (uint32_t i = 0; i < job->n; i++) {
        ids[i] = str_of(job->list[i].spiffe_id);
    }
    postern__v1__snapshot__init(&p.message);
    p.message.generation = service_documents_generation(s);
    p.message.deny_version = s->deny.version;
    p.message.trust_generation = s->bundle_generation;
    p.message.issued_at = os_wall_s();
    uint64_t policy = policy_for(sub, ids, job->n);
    if (fill_documents(&p, s, policy, ids, job->n)) {
        fill_deny(&p, &s->deny);
        fill_strict(&p, s, ids, job->n);
        sent = send_message(w->stream.call, &p.message);
    }
    if (sent == GRPC_FULL) {
        log_not_sent(sub, postern__v1__snapshot__get_packed_size(&p.message));
    }
    parts_deinit(&p);
    if (sent == GRPC_SENT) {
        sub->sent_generation = p.message.generation;
        sub->sent_s = p.message.issued_at;
        sub->sent_policy = policy;
    }
    return sent;
}

/* --- whom it is for --------------------------------------------------------------------------- */
static void digest_ids(const struct service_job *job, uint8_t ret[SERVICE_LISTING_DIGEST])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

    for (uint32_t i = 0; ok && i < job->n; i++) {
        const char *id = job->list[i].spiffe_id;
        ok = EVP_DigestUpdate(md, id, strlen(id) + 1) == 1;
    }
    POSTERN_ASSERT(ok && EVP_DigestFinal_ex(md, ret, NULL) == 1);
    EVP_MD_CTX_free(md);
}

static void keep_ids(struct service_subscriber *sub, const struct service_job *job)
{
    for (uint32_t i = 0; i < REPORTED_IDS; i++) {
        free(sub->ids_kept[i]);
        sub->ids_kept[i] =
            job != NULL && i < job->n ? mem_must_strdup(job->list[i].spiffe_id) : NULL;
    }
}

/* No certificate is wanted; other identities mean other rules. */
static bool choose(void *data, struct service_job *job, char *ret_text, size_t size)
{
    struct service_subscriber *sub = data;
    uint8_t ids[SERVICE_LISTING_DIGEST];

    (void)ret_text;
    (void)size;
    digest_ids(job, ids);
    if (memcmp(ids, sub->ids, sizeof(ids)) != 0) {
        memcpy(sub->ids, ids, sizeof(ids));
        free(sub->identity);
        sub->identity = job->n > 0 ? mem_must_strdup(job->list[0].spiffe_id) : NULL;
        sub->n_identities = job->n;
        keep_ids(sub, job);
        sub->watch->renew = true;
    }
    return true;
}

/* --- what it says ----------------------------------------------------------------------------- */
/* Cut to what is kept; what is no text for a log is a '?'. */
static void keep_text(char *to, size_t size, const char *from)
{
    struct str s = {from, strlen(from)};
    size_t n = 0;
    for (size_t i = 0; i < s.n && n < size - 1;) {
        size_t control = str_control(s, i);
        to[n++] = control > 0 ? '?' : from[i];
        i += control > 0 ? control : 1;
    }
    to[n] = '\0';
}

static void log_refused(struct service_subscriber *sub)
{
    struct log_line l;
    uint64_t now_ms = loop_now_ms(sub->s->loop);
    /* What it says is its own: not more lines than people can read. */
    if (sub->n_refused == REFUSALS_LOGGED && now_ms - sub->refused_ms < REFUSALS_PAUSE_MS) {
        return;
    }
    sub->n_refused = sub->n_refused == REFUSALS_LOGGED ? 1 : sub->n_refused + 1;
    sub->refused_ms = now_ms;
    log_begin(&l, sub->s->log, LOG_WARN, "state_refused");
    log_str(&l, "identity", sub->identity);
    log_str(&l, "proxy", sub->name);
    log_int(&l, "pid", sub->caller->pid);
    log_uint(&l, "generation", sub->refused_generation);
    log_str(&l, "error", sub->error);
    log_end(&l);
}

static void take_labels(struct service_subscriber *sub, const Postern__V1__SubscribeRequest *m)
{
    sub->n_labels = 0;
    for (size_t i = 0; i < m->n_labels && sub->n_labels < ROLLOUT_TERMS_MAX; i++) {
        if (rollout_label_ok(str_of(m->labels[i]))) {
            (void)snprintf(sub->labels[sub->n_labels++], sizeof(sub->labels[0]), "%s",
                           m->labels[i]);
        }
    }
}

/* Of an identity that it is attested as, or not at all. */
static void take_report(struct service_subscriber *sub, const Postern__V1__PlaintextReport *report)
{
    for (size_t i = 0; report != NULL && i < REPORTED_IDS && sub->ids_kept[i] != NULL; i++) {
        if (strcmp(sub->ids_kept[i], report->identity) == 0) {
            service_history_report(sub->s, str_of(sub->ids_kept[i]), str_of(sub->name), report,
                                   &sub->reported_ms);
            return;
        }
    }
}

static void take(struct service_subscriber *sub, const Postern__V1__SubscribeRequest *m)
{
    char error[ERROR_MAX_BYTES + 1];
    keep_text(error, sizeof(error), m->error);
    bool news = m->refused_generation != 0 && (m->refused_generation != sub->refused_generation ||
                                               strcmp(error, sub->error) != 0);

    keep_text(sub->name, sizeof(sub->name), m->name);
    keep_text(sub->version, sizeof(sub->version), m->version);
    memcpy(sub->error, error, sizeof(sub->error));
    take_labels(sub, m);
    sub->level = m->level;
    if (m->generation != 0 && m->generation == sub->sent_generation) {
        sub->runs_policy = sub->sent_policy;
        sub->runs_known = true;
    }
    sub->runs_generation = m->generation;
    sub->runs_deny_version = m->deny_version;
    sub->refused_generation = m->refused_generation;
    sub->said_s = os_wall_s();
    sub->policy_sha256[0] = '\0';
    for (size_t i = 0; m->policy_sha256.len == DIGEST_BYTES && i < DIGEST_BYTES; i++) {
        (void)snprintf(sub->policy_sha256 + 2 * i, 3, "%02x", m->policy_sha256.data[i]);
    }
    take_report(sub, m->plaintext);
    if (news) {
        log_refused(sub);
    }
}

static void free_subscriber(void *data)
{
    struct service_subscriber *sub = data;
    if (sub->prev != NULL) {
        sub->prev->next = sub->next;
    } else {
        sub->s->subscribers = sub->next;
    }
    if (sub->next != NULL) {
        sub->next->prev = sub->prev;
    }
    sub->s->n_subscribers--;
    free(sub->identity);
    keep_ids(sub, NULL);
    free(sub);
}

static const struct service_watch_kind kind = {.choose = choose,
                                               .send = send_snapshot,
                                               .free_data = free_subscriber,
                                               .metric = SERVICE_METRIC_STATE_PUSHES};

static struct service_subscriber *subscribe(struct grpc_call *call, struct service *s)
{
    struct service_subscriber *sub = mem_must_new(struct service_subscriber);
    sub->s = s;
    sub->caller = grpc_call_conn_context(call);
    sub->since_s = os_wall_s();
    sub->next = s->subscribers;
    if (sub->next != NULL) {
        sub->next->prev = sub;
    }
    s->subscribers = sub;
    s->n_subscribers++;
    sub->watch = service_watch_start(call, &kind, sub);
    return sub;
}

/* A call that has not begun its stream was charged all the same. */
static void refuse(struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        service_watch_finish(w, status, text);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
        service_finish(call, status, text);
    }
}

void service_state_request(struct grpc_call *call, void *arg, struct str message)
{
    struct service *s = arg;
    struct service_watch *w = grpc_call_data(call);
    Postern__V1__SubscribeRequest *m =
        postern__v1__subscribe_request__unpack(NULL, message.n, (const uint8_t *)message.p);

    if (m == NULL) {
        refuse(call, GRPC_INVALID_ARGUMENT, "this is no SubscribeRequest");
    } else if (service_documents_generation(s) == 0) {
        refuse(call, GRPC_UNAVAILABLE, "the agent's files have not been good yet: try again");
    } else if (!grpc_call_hold(call, sizeof(struct service_subscriber) + AGENT_ID_MAX)) {
        refuse(call, GRPC_UNAVAILABLE, SERVICE_NO_ROOM);
    } else {
        take(w != NULL ? w->data : subscribe(call, s), m);
    }
    if (m != NULL) {
        postern__v1__subscribe_request__free_unpacked(m, NULL);
    }
}

void service_state_request_end(struct grpc_call *call, void *arg)
{
    (void)arg;
    refuse(call, GRPC_OK, NULL);
}

void service_state_changed(struct service *s)
{
    /* None goes away here: what ends a stream comes from its job, later. */
    for (struct service_subscriber *sub = s->subscribers; sub != NULL; sub = sub->next) {
        service_watch_again(sub->watch);
    }
}

/* --- for people ------------------------------------------------------------------------------- */
static bool put_text(struct buf *out, const char *key, const char *value)
{
    char text[4096];
    if (value == NULL || value[0] == '\0') {
        return buf_printf(out, ",\"%s\":null", key);
    }
    size_t n = log_json_escape(str_of(value), text, sizeof(text));
    return buf_printf(out, ",\"%s\":\"%.*s\"", key, (int)n, text);
}

static bool put_time(struct buf *out, const char *key, int64_t wall_s)
{
    char text[32];
    if (wall_s > 0) {
        os_time_text(wall_s, text, sizeof(text));
    }
    return put_text(out, key, wall_s > 0 ? text : NULL);
}

/* Numbers of policies; what it runs is null until it has said so. Labels have no signs that JSON
 * would escape. */
static bool put_policy(struct buf *out, const struct service_subscriber *sub)
{
    bool ok = sub->runs_known
                  ? buf_printf(out, ",\"policy\":%llu", (unsigned long long)sub->runs_policy)
                  : buf_printf(out, ",\"policy\":null");

    ok = ok && buf_printf(out, ",\"sent_policy\":%llu,\"labels\":[",
                          (unsigned long long)sub->sent_policy);
    for (size_t i = 0; ok && i < sub->n_labels; i++) {
        ok = buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", sub->labels[i]);
    }
    return ok && buf_append(out, "]", 1);
}

static bool put_subscriber(struct buf *out, const struct service_subscriber *sub)
{
    int64_t age_s = sub->sent_s > 0 ? os_wall_s() - sub->sent_s : 0;

    return buf_printf(out, "{\"pid\":%d,\"uid\":%u,\"gid\":%u,\"identities\":%u", sub->caller->pid,
                      sub->caller->uid, sub->caller->gid, sub->n_identities) &&
           put_text(out, "identity", sub->identity) && put_text(out, "name", sub->name) &&
           put_text(out, "version", sub->version) &&
           buf_printf(out,
                      ",\"level\":%u,\"generation\":%llu,\"deny_version\":%llu"
                      ",\"sent_generation\":%llu,\"refused_generation\":%llu",
                      sub->level, (unsigned long long)sub->runs_generation,
                      (unsigned long long)sub->runs_deny_version,
                      (unsigned long long)sub->sent_generation,
                      (unsigned long long)sub->refused_generation) &&
           put_text(out, "error", sub->error) && put_policy(out, sub) &&
           put_text(out, "policy_sha256", sub->policy_sha256) &&
           put_time(out, "connected", sub->since_s) && put_time(out, "said", sub->said_s) &&
           put_time(out, "sent", sub->sent_s) &&
           buf_printf(out, ",\"age_seconds\":%lld}", (long long)(age_s > 0 ? age_s : 0));
}

bool service_write_proxies(void *arg, struct buf *out)
{
    const struct service *s = arg;
    uint64_t in_force, staged;
    service_policies(s, &in_force, &staged);
    bool ok = buf_printf(out,
                         "{\"generation\":%llu,\"deny_version\":%llu,\"policy\":%llu"
                         ",\"staged_policy\":%llu,\"proxies\":[",
                         (unsigned long long)service_documents_generation(s),
                         (unsigned long long)s->deny.version, (unsigned long long)in_force,
                         (unsigned long long)staged);
    bool first = true;
    for (const struct service_subscriber *sub = s->subscribers; ok && sub != NULL;
         sub = sub->next) {
        ok = (first || buf_printf(out, ",")) && put_subscriber(out, sub);
        first = false;
    }
    return ok && buf_printf(out, "]}\n");
}

static bool put_document(struct buf *out, const struct agent_doc_state *d, const char *name)
{
    char text[1100] = "";
    if (d->error.code != ERR_NONE) {
        err_text(&d->error, text, sizeof(text));
    }
    return buf_printf(out,
                      ",\"%s\":{\"configured\":%s,\"items\":%u,\"loads\":%u,\"failed\":%u"
                      ",\"warnings\":%u",
                      name, d->configured ? "true" : "false", d->n_items, d->n_loads,
                      d->n_failed_loads, d->n_warnings) &&
           put_time(out, "loaded", d->loaded_s) && put_text(out, "last_error", text) &&
           buf_printf(out, "}");
}

bool service_put_state_status(const struct service *s, struct buf *out)
{
    const struct agent_msg_docs_state *st = service_documents_state(s);
    bool ok = buf_printf(out, ",\"state\":{\"generation\":%llu,\"subscribers\":%zu",
                         (unsigned long long)service_documents_generation(s), s->n_subscribers);
    for (uint32_t i = 0; ok && i < AGENT_N_DOCUMENTS; i++) {
        ok = put_document(out, &st->documents[i], agent_document_name(i));
    }
    return ok && buf_printf(out, "}");
}

bool service_put_state_metrics(const struct service *s, struct buf *out)
{
    const struct agent_msg_docs_state *st = service_documents_state(s);
    uint64_t behind = 0, in_force, staged;
    bool ok;

    service_policies(s, &in_force, &staged);

    for (const struct service_subscriber *sub = s->subscribers; sub != NULL; sub = sub->next) {
        behind += sub->runs_generation != service_documents_generation(s) ||
                          sub->runs_deny_version != s->deny.version
                      ? 1
                      : 0;
    }
    ok = metrics_write_value(out, "postern_agent_state_generation", METRIC_GAUGE,
                             "Generation of what proxies are told; 0: nothing.", "",
                             (double)service_documents_generation(s)) &&
         metrics_write_value(out, "postern_agent_state_subscribers", METRIC_GAUGE,
                             "Proxies that are connected.", "", (double)s->n_subscribers) &&
         metrics_write_value(out, "postern_agent_state_behind", METRIC_GAUGE,
                             "Of these, not running the newest state.", "", (double)behind) &&
         metrics_write_value(out, "postern_agent_policy_in_force", METRIC_GAUGE,
                             "Number of the pushed policy in force; 0: the file.", "",
                             (double)in_force) &&
         metrics_write_value(out, "postern_agent_policy_staged", METRIC_GAUGE,
                             "Number of the policy that is staged; 0: none.", "", (double)staged);
    for (uint32_t i = 0; ok && i < AGENT_N_DOCUMENTS; i++) {
        char labels[40];
        (void)snprintf(labels, sizeof(labels), "document=\"%s\"", agent_document_name(i));
        ok = metrics_write_value(out, "postern_agent_document_loaded_ok", METRIC_GAUGE,
                                 i == 0 ? "The last load of the file was good." : NULL, labels,
                                 st->documents[i].error.code == ERR_NONE ? 1 : 0);
    }
    return ok;
}
