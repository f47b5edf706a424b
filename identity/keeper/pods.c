#include "pods.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

struct set {
    struct keeper_pod *items;
    const struct keeper_pod **by_uid; /* sorted; by insertion, without a system call */
    size_t n, expected;
    uint32_t containers_due; /* of the last pod */
};

struct keeper_pods {
    struct set *now, *incoming; /* owned; NULL: none */
    uint64_t generation;
};

/* --- memory ----------------------------------------------------------------------------------- */
static void container_clear(struct keeper_container *c)
{
    free(c->id);
    free(c->name);
    free(c->image);
    free(c->image_id);
    free(c->digest);
}

static void pod_clear(struct keeper_pod *p)
{
    free(p->uid);
    free(p->ns);
    free(p->sa);
    free(p->name);
    free(p->node);
    for (size_t i = 0; i < p->n_labels; i++) {
        free(p->labels[i].key);
        free(p->labels[i].value);
    }
    free(p->labels);
    for (size_t i = 0; i < p->n_containers; i++) {
        container_clear(&p->containers[i]);
    }
    free(p->containers);
}

static struct set *set_free(struct set *set)
{
    if (set != NULL) {
        for (size_t i = 0; i < set->n; i++) {
            pod_clear(&set->items[i]);
        }
        free(set->items);
        free(set->by_uid);
        free(set);
    }
    return NULL;
}

static struct set *set_new(size_t expected)
{
    struct set *set = mem_must_new(struct set);

    set->expected = expected;
    set->items = mem_must_calloc(expected + 1, sizeof(*set->items));
    set->by_uid = mem_must_calloc(expected + 1, sizeof(*set->by_uid));
    return set;
}

struct keeper_pods *keeper_pods_new(void)
{
    return mem_must_new(struct keeper_pods);
}

struct keeper_pods *keeper_pods_free(struct keeper_pods *pods)
{
    if (pods != NULL) {
        set_free(pods->now);
        set_free(pods->incoming);
        free(pods);
    }
    return NULL;
}

/* --- taking ----------------------------------------------------------------------------------- */
/* What goes on into IDs and comparisons has no blanks and no control bytes, whoever checked it
 * before. */
static bool form_ok(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return true;
}

static bool hex_ok(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((text[i] < '0' || text[i] > '9') && (text[i] < 'a' || text[i] > 'f') &&
            text[i] != '-') {
            return false;
        }
    }
    return len > 0;
}

/* "key=value\n" each. */
static bool take_labels(struct keeper_pod *p, struct str text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        n += text.p[i] == '\n';
    }
    p->labels = mem_must_calloc(n + 1, sizeof(*p->labels));
    while (text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        const char *equals = end != NULL ? memchr(text.p, '=', (size_t)(end - text.p)) : NULL;

        if (equals == NULL || equals == text.p || !form_ok(text.p, (size_t)(end - text.p))) {
            return false;
        }
        p->labels[p->n_labels++] = (struct keeper_label){
            .key = mem_must_strndup(text.p, (size_t)(equals - text.p)),
            .value = mem_must_strndup(equals + 1, (size_t)(end - equals - 1))};
        text = (struct str){end + 1, text.n - (size_t)(end + 1 - text.p)};
    }
    return true;
}

/* Where the uid stands among the first n, or would. */
static size_t place_of(const struct set *set, size_t n, const char *uid)
{
    size_t from = 0, to = n;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (strcmp(set->by_uid[middle]->uid, uid) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

/* false: it is another pod's too. */
static bool insert(struct set *set, const struct keeper_pod *p)
{
    size_t n = set->n - 1; /* p is in the list already */
    size_t at = place_of(set, n, p->uid);

    if (at < n && strcmp(set->by_uid[at]->uid, p->uid) == 0) {
        return false;
    }
    memmove(&set->by_uid[at + 1], &set->by_uid[at], (n - at) * sizeof(*set->by_uid));
    set->by_uid[at] = p;
    return true;
}

static bool take_pod(struct set *set, const struct agent_msg_pod *m)
{
    struct keeper_pod *p = &set->items[set->n];

    if (set->n == set->expected || set->containers_due > 0 || !hex_ok(m->uid, m->uid_len) ||
        m->ns_len == 0 || m->name_len == 0 || !form_ok(m->ns, m->ns_len) ||
        !form_ok(m->name, m->name_len) || !form_ok(m->sa, m->sa_len) ||
        !form_ok(m->node, m->node_len)) {
        return false;
    }
    set->n++;
    *p = (struct keeper_pod){
        .uid = mem_must_strndup(m->uid, m->uid_len),
        .ns = mem_must_strndup(m->ns, m->ns_len),
        .sa = mem_must_strndup(m->sa, m->sa_len),
        .name = mem_must_strndup(m->name, m->name_len),
        .node = mem_must_strndup(m->node, m->node_len),
        .containers = mem_must_calloc((size_t)m->n_containers + 1, sizeof(*p->containers))};
    set->containers_due = m->n_containers;
    return insert(set, p) && take_labels(p, (struct str){m->labels, m->labels_len});
}

static bool take_container(struct set *set, const struct agent_msg_container *m)
{
    struct keeper_pod *p;

    if (set->containers_due == 0 || !hex_ok(m->id, m->id_len) || m->name_len == 0 ||
        !form_ok(m->name, m->name_len) || !form_ok(m->image, m->image_len) ||
        !form_ok(m->image_id, m->image_id_len) || !form_ok(m->digest, m->digest_len)) {
        return false;
    }
    p = &set->items[set->n - 1];
    p->containers[p->n_containers++] =
        (struct keeper_container){.id = mem_must_strndup(m->id, m->id_len),
                                  .name = mem_must_strndup(m->name, m->name_len),
                                  .image = mem_must_strndup(m->image, m->image_len),
                                  .image_id = mem_must_strndup(m->image_id, m->image_id_len),
                                  .digest = mem_must_strndup(m->digest, m->digest_len)};
    set->containers_due--;
    return true;
}

/* --- comparing -------------------------------------------------------------------------------- */
static bool same_container(const struct keeper_container *a, const struct keeper_container *b)
{
    return strcmp(a->id, b->id) == 0 && strcmp(a->name, b->name) == 0 &&
           strcmp(a->image, b->image) == 0 && strcmp(a->image_id, b->image_id) == 0 &&
           strcmp(a->digest, b->digest) == 0;
}

static bool same_pod(const struct keeper_pod *a, const struct keeper_pod *b)
{
    if (strcmp(a->uid, b->uid) != 0 || strcmp(a->ns, b->ns) != 0 || strcmp(a->sa, b->sa) != 0 ||
        strcmp(a->name, b->name) != 0 || strcmp(a->node, b->node) != 0 ||
        a->n_labels != b->n_labels || a->n_containers != b->n_containers) {
        return false;
    }
    for (size_t i = 0; i < a->n_labels; i++) {
        if (strcmp(a->labels[i].key, b->labels[i].key) != 0 ||
            strcmp(a->labels[i].value, b->labels[i].value) != 0) {
            return false;
        }
    }
    for (size_t i = 0; i < a->n_containers; i++) {
        if (!same_container(&a->containers[i], &b->containers[i])) {
            return false;
        }
    }
    return true;
}

/* The kubelet lists its pods in no order. */
static bool same_set(const struct set *a, const struct set *b)
{
    if (a == NULL || a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (!same_pod(a->by_uid[i], b->by_uid[i])) {
            return false;
        }
    }
    return true;
}

/* --- the whole -------------------------------------------------------------------------------- */
static bool commit(struct keeper_pods *pods, uint32_t n, bool *ret_changed)
{
    struct set *set = pods->incoming;

    if (set == NULL || set->n != set->expected || set->n != n || set->containers_due > 0) {
        return false;
    }
    pods->incoming = NULL;
    if (same_set(pods->now, set)) {
        set_free(set);
        return true;
    }
    set_free(pods->now);
    pods->now = set;
    pods->generation++;
    *ret_changed = true;
    return true;
}

int keeper_pods_take(struct keeper_pods *pods, const union agent_msg *msg, bool *ret_changed,
                     struct err *err)
{
    bool ok = false;

    *ret_changed = false;
    switch (msg->head.type) {
    case AGENT_MSG_PODS_BEGIN:
        set_free(pods->incoming);
        pods->incoming = set_new(msg->pods_begin.n_pods);
        return 0;
    case AGENT_MSG_POD:
        ok = pods->incoming != NULL && take_pod(pods->incoming, &msg->pod);
        break;
    case AGENT_MSG_CONTAINER:
        ok = pods->incoming != NULL && take_container(pods->incoming, &msg->container);
        break;
    case AGENT_MSG_PODS_COMMIT:
        ok = commit(pods, msg->pods_begin.n_pods, ret_changed);
        break;
    default:
        break;
    }
    if (ok) {
        return 0;
    }
    pods->incoming = set_free(pods->incoming);
    return err_set(err, ERR_PROTOCOL, "its %s is out of order, or not in its form",
                   agent_msg_name(msg->head.type));
}

uint64_t keeper_pods_generation(const struct keeper_pods *pods)
{
    return pods->generation;
}

const struct keeper_pod *keeper_pods_find(const struct keeper_pods *pods, const char *uid)
{
    const struct set *set = pods->now;
    size_t at = set != NULL && uid != NULL ? place_of(set, set->n, uid) : 0;

    if (set == NULL || uid == NULL || at == set->n || strcmp(set->by_uid[at]->uid, uid) != 0) {
        return NULL;
    }
    return set->by_uid[at];
}

const struct keeper_container *keeper_pod_find(const struct keeper_pod *pod, const char *id)
{
    for (size_t i = 0; id != NULL && i < pod->n_containers; i++) {
        if (strcmp(pod->containers[i].id, id) == 0) {
            return &pod->containers[i];
        }
    }
    return NULL;
}
