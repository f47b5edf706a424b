/* match: whom an entry fits. Every entry is filed under its rarest selector; a caller's facts are
 * looked up there, and only what is found is judged whole. */
#include "keeper_index.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

/* --- one selector ----------------------------------------------------------------------------- */
static bool is(const char *fact, const char *wanted)
{
    return fact != NULL && fact[0] != 0 && strcmp(fact, wanted) == 0;
}

static bool has_group(const struct keeper_facts *f, uint32_t gid)
{
    for (size_t i = 0; i < f->n_groups; i++) {
        if (f->groups[i] == gid) {
            return true;
        }
    }
    return false;
}

static bool has_digest(const struct keeper_facts *f, const char *hex)
{
    static const char digits[] = "0123456789abcdef";

    if (f->sha256 == NULL || strlen(hex) != (size_t)2 * AGENT_SHA256_SIZE) {
        return false;
    }
    for (size_t i = 0; i < AGENT_SHA256_SIZE; i++) {
        if (hex[2 * i] != digits[f->sha256[i] >> 4] ||
            hex[2 * i + 1] != digits[f->sha256[i] & 15]) {
            return false;
        }
    }
    return true;
}

static bool has_label(const struct keeper_pod *pod, const char *wanted)
{
    for (size_t i = 0; pod != NULL && i < pod->n_labels; i++) {
        size_t n = strlen(pod->labels[i].key);

        if (strncmp(wanted, pod->labels[i].key, n) == 0 && wanted[n] == ':' &&
            strcmp(wanted + n + 1, pod->labels[i].value) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_image(const struct keeper_container *c, const char *wanted)
{
    return c != NULL && (is(c->image, wanted) || is(c->image_id, wanted));
}

bool keeper_selector_holds(const struct keeper_selector *s, const struct keeper_facts *f)
{
    const struct keeper_pod *pod = f->pod;

    switch ((enum agent_selector_type)s->type) {
    case AGENT_SELECTOR_UNIX_UID:
        return f->uid == s->number;
    case AGENT_SELECTOR_UNIX_USER:
        return f->own_view && f->uid == s->number;
    case AGENT_SELECTOR_UNIX_GID:
        return f->gid == s->number;
    case AGENT_SELECTOR_UNIX_GROUP:
        return f->own_view && f->gid == s->number;
    case AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID:
        return has_group(f, s->number);
    case AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP:
        return f->own_view && has_group(f, s->number);
    case AGENT_SELECTOR_UNIX_PATH:
        return f->own_view && is(f->path, s->text);
    case AGENT_SELECTOR_UNIX_SHA256:
        return has_digest(f, s->text);
    case AGENT_SELECTOR_SYSTEMD_ID:
        return is(f->unit, s->text);
    case AGENT_SELECTOR_CONTAINER_ID:
        return is(f->container_id, s->text);
    case AGENT_SELECTOR_CONTAINER_RUNTIME:
        return f->container_id != NULL && f->runtime == s->number;
    case AGENT_SELECTOR_K8S_NS:
        return pod != NULL && is(pod->ns, s->text);
    case AGENT_SELECTOR_K8S_SA:
        return pod != NULL && is(pod->sa, s->text);
    case AGENT_SELECTOR_K8S_POD_NAME:
        return pod != NULL && is(pod->name, s->text);
    case AGENT_SELECTOR_K8S_POD_UID:
        return pod != NULL && is(pod->uid, s->text);
    case AGENT_SELECTOR_K8S_POD_LABEL:
        return has_label(pod, s->text);
    case AGENT_SELECTOR_K8S_NODE_NAME:
        return pod != NULL && is(pod->node, s->text);
    case AGENT_SELECTOR_K8S_CONTAINER_NAME:
        return f->container != NULL && is(f->container->name, s->text);
    case AGENT_SELECTOR_K8S_CONTAINER_IMAGE:
        return has_image(f->container, s->text);
    case AGENT_SELECTOR_K8S_IMAGE_DIGEST:
        return f->container != NULL && is(f->container->digest, s->text);
    case AGENT_N_SELECTORS:
        break;
    }
    return false;
}

/* --- one entry -------------------------------------------------------------------------------- */
enum keeper_refusal keeper_entry_judge(const struct keeper_entry *e,
                                       const struct keeper_facts *facts, size_t *ret_selector)
{
    bool only_unix = true;

    *ret_selector = 0;
    if (e->n_selectors == 0) {
        return KEEPER_SELECTOR;
    }
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (!keeper_selector_holds(&e->selectors[i], facts)) {
            *ret_selector = i;
            return KEEPER_SELECTOR;
        }
        only_unix &= e->selectors[i].type <= AGENT_SELECTOR_UNIX_SHA256;
    }
    if (only_unix && facts->contained) {
        return KEEPER_CONTAINED;
    }
    if (e->is_template) {
        char id[AGENT_ID_MAX + 1];

        return keeper_template_expand(e->spiffe_id, facts, id) ? KEEPER_GRANTED : KEEPER_TEMPLATE;
    }
    return KEEPER_GRANTED;
}

/* --- the index -------------------------------------------------------------------------------- */
/* FNV-1a. Whoever writes entries can make collisions, and then pays for them. */
static uint64_t hash_text(uint64_t h, const char *text)
{
    for (; *text != 0; text++) {
        h = (h ^ (uint8_t)*text) * UINT64_C(1099511628211);
    }
    return h;
}

static uint64_t hash_begin(uint32_t type)
{
    return (UINT64_C(14695981039346656037) ^ type) * UINT64_C(1099511628211);
}

static uint64_t hash_number(uint32_t type, uint32_t number)
{
    uint64_t h = hash_begin(type);

    for (int i = 0; i < 4; i++, number >>= 8) {
        h = (h ^ (number & 0xff)) * UINT64_C(1099511628211);
    }
    return h;
}

static bool is_number(uint32_t type)
{
    return type <= AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP ||
           type == AGENT_SELECTOR_CONTAINER_RUNTIME;
}

static uint64_t hash_selector(const struct keeper_selector *s)
{
    return is_number(s->type) ? hash_number(s->type, s->number)
                              : hash_text(hash_begin(s->type), s->text);
}

static int compare_by_id(const void *a, const void *b, void *items)
{
    const struct keeper_entry *e = items;

    return strcmp(e[*(const uint32_t *)a].id, e[*(const uint32_t *)b].id);
}

struct keeper_index *keeper_index_new(struct keeper_entry *items, size_t n)
{
    struct keeper_index *ix = mem_must_new(struct keeper_index);
    mem_autofree uint32_t *seen = NULL;
    size_t n_selectors = 0;

    for (size_t i = 0; i < n; i++) {
        n_selectors += items[i].n_selectors;
    }
    ix->mask = 63;
    while (ix->mask < 2 * n_selectors) {
        ix->mask = 2 * ix->mask + 1;
    }
    seen = mem_must_calloc(ix->mask + 1, sizeof(*seen));
    ix->first = mem_must_calloc(ix->mask + 1, sizeof(*ix->first));
    ix->next = mem_must_calloc(n + 1, sizeof(*ix->next));
    ix->hash = mem_must_calloc(n + 1, sizeof(*ix->hash));
    ix->found = mem_must_calloc(n + 1, sizeof(*ix->found));
    ix->stamp = mem_must_calloc(n + 1, sizeof(*ix->stamp));
    ix->by_id = mem_must_calloc(n + 1, sizeof(*ix->by_id));
    for (size_t i = 0; i < n; i++) {
        ix->by_id[i] = (uint32_t)i;
        for (size_t s = 0; s < items[i].n_selectors; s++) {
            seen[hash_selector(&items[i].selectors[s]) & ix->mask]++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t fewest = UINT32_MAX;

        for (size_t s = 0; s < items[i].n_selectors; s++) {
            uint64_t h = hash_selector(&items[i].selectors[s]);

            if (seen[h & ix->mask] < fewest) {
                fewest = seen[h & ix->mask];
                ix->hash[i] = h;
            }
        }
        ix->next[i] = ix->first[ix->hash[i] & ix->mask];
        ix->first[ix->hash[i] & ix->mask] = (uint32_t)i + 1; /* 0: none */
    }
    qsort_r(ix->by_id, n, sizeof(*ix->by_id), compare_by_id, items);
    return ix;
}

struct keeper_index *keeper_index_free(struct keeper_index *ix)
{
    if (ix != NULL) {
        free(ix->first);
        free(ix->next);
        free(ix->hash);
        free(ix->found);
        free(ix->stamp);
        free(ix->by_id);
        free(ix);
    }
    return NULL;
}

/* --- matching --------------------------------------------------------------------------------- */
struct search {
    const struct keeper_entries *set;
    const struct keeper_facts *facts;
    size_t n; /* places in set->index->found */
};

static void look(struct search *s, uint64_t hash)
{
    struct keeper_index *ix = s->set->index;
    size_t unused;

    for (uint32_t at = ix->first[hash & ix->mask]; at != 0; at = ix->next[at - 1]) {
        const struct keeper_entry *e = &s->set->items[at - 1];

        /* Some facts may be there twice (a group, an image that is its own id). */
        if (ix->hash[at - 1] == hash && ix->stamp[at - 1] != ix->n_searches) {
            ix->stamp[at - 1] = ix->n_searches;
            if (keeper_entry_judge(e, s->facts, &unused) == KEEPER_GRANTED) {
                ix->found[s->n++] = at - 1;
            }
        }
    }
}

static void look_number(struct search *s, uint32_t type, uint32_t number)
{
    look(s, hash_number(type, number));
}

static void look_text(struct search *s, uint32_t type, const char *text)
{
    if (text != NULL && text[0] != 0) {
        look(s, hash_text(hash_begin(type), text));
    }
}

static void look_unix(struct search *s)
{
    const struct keeper_facts *f = s->facts;
    char hex[2 * AGENT_SHA256_SIZE + 1];

    look_number(s, AGENT_SELECTOR_UNIX_UID, f->uid);
    look_number(s, AGENT_SELECTOR_UNIX_USER, f->uid);
    look_number(s, AGENT_SELECTOR_UNIX_GID, f->gid);
    look_number(s, AGENT_SELECTOR_UNIX_GROUP, f->gid);
    for (size_t i = 0; i < f->n_groups; i++) {
        look_number(s, AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID, f->groups[i]);
        look_number(s, AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP, f->groups[i]);
    }
    look_text(s, AGENT_SELECTOR_UNIX_PATH, f->path);
    if (f->sha256 != NULL) {
        for (size_t i = 0; i < AGENT_SHA256_SIZE; i++) {
            hex[2 * i] = "0123456789abcdef"[f->sha256[i] >> 4];
            hex[2 * i + 1] = "0123456789abcdef"[f->sha256[i] & 15];
        }
        hex[2 * AGENT_SHA256_SIZE] = 0;
        look_text(s, AGENT_SELECTOR_UNIX_SHA256, hex);
    }
}

static void look_pod(struct search *s)
{
    const struct keeper_pod *pod = s->facts->pod;
    const struct keeper_container *c = s->facts->container;

    look_text(s, AGENT_SELECTOR_SYSTEMD_ID, s->facts->unit);
    look_text(s, AGENT_SELECTOR_CONTAINER_ID, s->facts->container_id);
    look_number(s, AGENT_SELECTOR_CONTAINER_RUNTIME, s->facts->runtime);
    if (pod != NULL) {
        look_text(s, AGENT_SELECTOR_K8S_NS, pod->ns);
        look_text(s, AGENT_SELECTOR_K8S_SA, pod->sa);
        look_text(s, AGENT_SELECTOR_K8S_POD_NAME, pod->name);
        look_text(s, AGENT_SELECTOR_K8S_POD_UID, pod->uid);
        look_text(s, AGENT_SELECTOR_K8S_NODE_NAME, pod->node);
        for (size_t i = 0; i < pod->n_labels; i++) {
            uint64_t h = hash_begin(AGENT_SELECTOR_K8S_POD_LABEL);

            h = hash_text(hash_text(h, pod->labels[i].key), ":");
            look(s, hash_text(h, pod->labels[i].value));
        }
    }
    if (c != NULL) {
        look_text(s, AGENT_SELECTOR_K8S_CONTAINER_NAME, c->name);
        look_text(s, AGENT_SELECTOR_K8S_CONTAINER_IMAGE, c->image);
        look_text(s, AGENT_SELECTOR_K8S_CONTAINER_IMAGE, c->image_id);
        look_text(s, AGENT_SELECTOR_K8S_IMAGE_DIGEST, c->digest);
    }
}

static int compare_places(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void identity_of(const struct keeper_entry *e, const struct keeper_facts *facts,
                        char ret[AGENT_ID_MAX + 1])
{
    if (e->is_template) {
        POSTERN_ASSERT(keeper_template_expand(e->spiffe_id, facts, ret));
    } else {
        (void)memccpy(ret, e->spiffe_id, 0, AGENT_ID_MAX + 1);
    }
}

/* Whether an earlier place of this search comes to the same identity; else it is noted. */
static bool is_second(const struct keeper_entries *set, const struct keeper_facts *facts,
                      uint32_t place)
{
    struct keeper_index *ix = set->index;
    char id[AGENT_ID_MAX + 1], other[AGENT_ID_MAX + 1];
    size_t at;

    identity_of(&set->items[place], facts, id);
    at = (size_t)(hash_text(hash_begin(0), id) & (KEEPER_SEEN_SIZE - 1));
    while (ix->seen_stamp[at] == ix->n_searches) {
        identity_of(&set->items[ix->seen[at]], facts, other);
        if (strcmp(id, other) == 0) {
            return true;
        }
        at = (at + 1) & (KEEPER_SEEN_SIZE - 1);
    }
    ix->seen[at] = place;
    ix->seen_stamp[at] = ix->n_searches;
    return false;
}

static void search(const struct keeper_entries *set, const struct keeper_facts *facts)
{
    struct keeper_index *ix = set->index;
    struct search s = {.set = set, .facts = facts};

    _Static_assert((KEEPER_SEEN_SIZE & (KEEPER_SEEN_SIZE - 1)) == 0, "a power of two");
    ix->n_searches++;
    look_unix(&s);
    look_pod(&s);
    qsort(ix->found, s.n, sizeof(*ix->found), compare_places);
    ix->n_last = 0;
    for (size_t i = 0; i < s.n && ix->n_last < AGENT_IDENTITIES_MAX; i++) {
        if (!is_second(set, facts, ix->found[i])) {
            ix->last[ix->n_last++] = ix->found[i];
        }
    }
    /* Pods are other pods without the caller's facts being others. */
    ix->last_state = facts->pod == NULL ? facts->state : 0;
}

static void find(const struct keeper_entries *set, const struct keeper_facts *facts)
{
    if (facts->state == 0 || facts->pod != NULL || set->index->last_state != facts->state) {
        search(set, facts);
    }
}

size_t keeper_entries_match(const struct keeper_entries *set, const struct keeper_facts *facts,
                            uint32_t ret[AGENT_IDENTITIES_MAX])
{
    if (set == NULL || set->index == NULL) {
        return 0;
    }
    find(set, facts);
    if (set->index->n_last > 0) {
        memcpy(ret, set->index->last, set->index->n_last * sizeof(ret[0]));
    }
    return set->index->n_last;
}

bool keeper_entries_grant(const struct keeper_entries *set, const struct keeper_facts *facts,
                          uint32_t place, struct keeper_grant *ret)
{
    if (set == NULL || set->index == NULL) {
        return false;
    }
    find(set, facts);
    if (set->index->n_last == 0 || bsearch(&place, set->index->last, set->index->n_last,
                                           sizeof(place), compare_places) == NULL) {
        return false;
    }
    ret->place = place;
    ret->entry = &set->items[place];
    identity_of(ret->entry, facts, ret->spiffe_id);
    return true;
}
