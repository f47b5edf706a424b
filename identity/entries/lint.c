/* lint: what is doubtful about an entry file that is sound. */
#include <postern/entries.h>

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *entries_doubt_name(enum entries_doubt d)
{
    static const char *const names[ENTRIES_N_DOUBTS] = {
        "duplicate", "shadowed", "never", "hint_twice", "broad", "no_container", "no_executable"};

    return names[d];
}

static void doubt(const struct entries_tell *tell, const struct conf_entry *e, enum entries_doubt d,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void doubt(const struct entries_tell *tell, const struct conf_entry *e, enum entries_doubt d,
                  const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    tell->doubt(tell->arg, e, d, text);
}

/* --- one beside another ----------------------------------------------------------------------- */
static bool same_selector(const struct conf_selector *a, const struct conf_selector *b)
{
    return a->type == b->type && a->number == b->number && (a->text == NULL) == (b->text == NULL) &&
           (a->text == NULL || strcmp(a->text, b->text) == 0);
}

/* Whether whoever fits b fits a too, as far as the selectors themselves say. */
static bool asks_less(const struct conf_entry *a, const struct conf_entry *b)
{
    for (size_t i = 0; i < a->n_selectors; i++) {
        bool found = false;

        for (size_t k = 0; k < b->n_selectors && !found; k++) {
            found = same_selector(&a->selectors[i], &b->selectors[k]);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool of_unix(const struct conf_selector *s)
{
    return s->type <= CONF_SELECTOR_UNIX_SHA256;
}

static bool unix_only(const struct conf_entry *e)
{
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (!of_unix(&e->selectors[i])) {
            return false;
        }
    }
    return true;
}

/* An entry of unix selectors alone does not fit the contained callers of one that asks for more. */
static bool covers(const struct conf_entry *a, const struct conf_entry *b)
{
    return asks_less(a, b) && (!unix_only(a) || unix_only(b));
}

static int compare_ids(const void *a, const void *b, void *arg)
{
    const struct conf_entries *conf = arg;
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    int r = strcmp(conf->entries[x].spiffe_id, conf->entries[y].spiffe_id);

    return r != 0 ? r : (x > y) - (x < y);
}

/* by_place[i]: the first earlier entry that always wins over entry i, plus one. */
static void find_winners(const struct conf_entries *conf, size_t *by_place)
{
    mem_autofree size_t *order = mem_must_calloc(conf->n_entries + 1, sizeof(*order));

    for (size_t i = 0; i < conf->n_entries; i++) {
        order[i] = i;
    }
    qsort_r(order, conf->n_entries, sizeof(*order), compare_ids, (void *)(uintptr_t)conf);
    for (size_t i = 1; i < conf->n_entries; i++) {
        const struct conf_entry *later = &conf->entries[order[i]];

        for (size_t k = i; k > 0; k--) {
            const struct conf_entry *e = &conf->entries[order[k - 1]];

            if (strcmp(e->spiffe_id, later->spiffe_id) != 0) {
                break;
            }
            if (covers(e, later)) {
                by_place[order[i]] = order[k - 1] + 1;
            }
        }
    }
}

static void lint_winner(const struct conf_entries *conf, const struct entries_tell *tell,
                        size_t place, size_t winner)
{
    const struct conf_entry *e = &conf->entries[place], *w = &conf->entries[winner];

    if (covers(e, w)) {
        doubt(tell, e, ENTRIES_DUPLICATE,
              "has the identity and the selectors of entry '%s' (line %u), which counts", w->id,
              w->line);
    } else {
        doubt(tell, e, ENTRIES_SHADOWED,
              "never counts: whoever it fits has this identity by entry '%s' (line %u) already, "
              "with that one's TTL, DNS names and hint",
              w->id, w->line);
    }
}

static void lint_hints(const struct conf_entries *conf, const struct entries_tell *tell, size_t i)
{
    const struct conf_entry *e = &conf->entries[i];

    for (size_t k = 0; e->hint != NULL && k < i; k++) {
        const struct conf_entry *other = &conf->entries[k];

        if (other->hint != NULL && strcmp(other->hint, e->hint) == 0 &&
            strcmp(other->spiffe_id, e->spiffe_id) != 0 && (covers(other, e) || covers(e, other))) {
            doubt(tell, e, ENTRIES_HINT_TWICE,
                  "has the hint of entry '%s' (line %u); a caller that gets both sees it with the "
                  "first only",
                  other->id, other->line);
            return;
        }
    }
}

/* --- one by itself ---------------------------------------------------------------------------- */
static const struct conf_selector *find(const struct conf_entry *e, enum conf_selector_type type)
{
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (e->selectors[i].type == type) {
            return &e->selectors[i];
        }
    }
    return NULL;
}

static bool has(const struct conf_entry *e, enum conf_selector_type type)
{
    return find(e, type) != NULL;
}

static const struct conf_selector *
first_of(const struct conf_entry *e, enum conf_selector_type from, enum conf_selector_type to)
{
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (e->selectors[i].type >= from && e->selectors[i].type <= to) {
            return &e->selectors[i];
        }
    }
    return NULL;
}

static void lint_never(const struct conf_entry *e, const struct entries_tell *tell)
{
    static const enum conf_selector_type host[] = {
        CONF_SELECTOR_UNIX_USER, CONF_SELECTOR_UNIX_GROUP, CONF_SELECTOR_UNIX_SUPPLEMENTARY_GROUP,
        CONF_SELECTOR_UNIX_PATH, CONF_SELECTOR_SYSTEMD_ID};
    const struct conf_selector *inside =
        first_of(e, CONF_SELECTOR_CONTAINER_ID, CONF_SELECTOR_K8S_IMAGE_DIGEST);

    for (size_t i = 0; inside != NULL && i < sizeof(host) / sizeof(host[0]); i++) {
        const struct conf_selector *s = find(e, host[i]);

        if (s != NULL) {
            doubt(tell, e, ENTRIES_NEVER,
                  "'%s' holds outside of containers and '%s' inside: no process has both; in a "
                  "container use unix:uid, unix:gid and unix:sha256",
                  s->written, inside->written);
            return;
        }
    }
}

static void lint_broad(const struct conf_entry *e, const struct entries_tell *tell)
{
    for (size_t i = 0; i < e->n_selectors; i++) {
        if (e->selectors[i].type != CONF_SELECTOR_CONTAINER_RUNTIME &&
            e->selectors[i].type != CONF_SELECTOR_K8S_NODE_NAME) {
            return;
        }
    }
    doubt(tell, e, ENTRIES_BROAD, "fits every container of this node");
}

static bool sounds_like_sidecar(const char *text)
{
    return text != NULL && (strstr(text, "proxy") != NULL || strstr(text, "sidecar") != NULL ||
                            strstr(text, "postern") != NULL);
}

static bool says_executable(const struct conf_entry *e)
{
    return has(e, CONF_SELECTOR_UNIX_UID) || has(e, CONF_SELECTOR_UNIX_SHA256) ||
           has(e, CONF_SELECTOR_UNIX_PATH) || has(e, CONF_SELECTOR_UNIX_USER);
}

static void lint_sidecar(const struct conf_entry *e, const struct entries_tell *tell)
{
    const struct conf_selector *pod =
        first_of(e, CONF_SELECTOR_K8S_NS, CONF_SELECTOR_K8S_IMAGE_DIGEST);
    const struct conf_selector *container = find(e, CONF_SELECTOR_K8S_CONTAINER_NAME);

    if (pod == NULL) {
        return;
    }
    if (container == NULL && !has(e, CONF_SELECTOR_CONTAINER_ID)) {
        doubt(tell, e, ENTRIES_NO_CONTAINER,
              "fits every container of its pods: name one with k8s:container-name");
    }
    if ((sounds_like_sidecar(e->id) ||
         (container != NULL && sounds_like_sidecar(container->text))) &&
        !says_executable(e)) {
        doubt(tell, e, ENTRIES_NO_EXECUTABLE,
              "is a sidecar's by its name, and fits whatever runs in that container, `kubectl "
              "exec` too: name its unix:uid or unix:sha256");
    }
}

void entries_lint(const struct conf_entries *conf, const struct entries_tell *tell)
{
    mem_autofree size_t *winners = mem_must_calloc(conf->n_entries + 1, sizeof(*winners));

    find_winners(conf, winners);
    for (size_t i = 0; i < conf->n_entries; i++) {
        const struct conf_entry *e = &conf->entries[i];

        if (winners[i] > 0) {
            lint_winner(conf, tell, i, winners[i] - 1);
        }
        lint_hints(conf, tell, i);
        lint_never(e, tell);
        lint_broad(e, tell);
        lint_sidecar(e, tell);
    }
}
