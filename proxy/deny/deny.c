#include <postern/deny.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

struct list {
    char **items; /* owned, sorted */
    size_t n;
};

struct deny_set {
    struct list lists[DENY_N_KINDS];
};

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of a text that need not be terminated, against one that is. */
static int compare_text(struct str text, const char *item)
{
    int r = strncmp(text.p, item, text.n);
    return r != 0 ? r : item[text.n] == '\0' ? 0 : -1;
}

static bool list_has(const struct list *l, struct str text)
{
    size_t low = 0;
    size_t high = l->n;
    if (text.n == 0 || memchr(text.p, '\0', text.n) != NULL) {
        return false;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int r = compare_text(text, l->items[middle]);
        if (r == 0) {
            return true;
        }
        if (r < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return false;
}

struct deny_set *deny_set_new(const struct deny_item *items, size_t n)
{
    struct deny_set *set = mem_must_new(struct deny_set);
    for (size_t k = 0; k < DENY_N_KINDS; k++) {
        struct list *l = &set->lists[k];
        l->items = mem_must_calloc(n + 1, sizeof(char *));
        for (size_t i = 0; i < n; i++) {
            if (items[i].kind == (enum deny_kind)k && items[i].text.n > 0) {
                l->items[l->n++] = mem_must_strndup(items[i].text.p, items[i].text.n);
            }
        }
        qsort(l->items, l->n, sizeof(char *), compare);
    }
    return set;
}

struct deny_set *deny_set_free(struct deny_set *set)
{
    for (size_t k = 0; set != NULL && k < DENY_N_KINDS; k++) {
        for (size_t i = 0; i < set->lists[k].n; i++) {
            free(set->lists[k].items[i]);
        }
        free(set->lists[k].items);
    }
    free(set);
    return NULL;
}

size_t deny_set_count(const struct deny_set *set)
{
    size_t n = 0;
    for (size_t k = 0; set != NULL && k < DENY_N_KINDS; k++) {
        n += set->lists[k].n;
    }
    return n;
}

bool deny_set_has(const struct deny_set *set, struct str id, struct str serial)
{
    return set != NULL && (list_has(&set->lists[DENY_SPIFFE_ID], id) ||
                           list_has(&set->lists[DENY_SERIAL], serial));
}

void deny_set_added(const struct deny_set *before, const struct deny_set *now,
                    void (*fn)(void *arg, enum deny_kind kind, const char *text), void *arg)
{
    for (size_t k = 0; now != NULL && k < DENY_N_KINDS; k++) {
        const struct list *l = &now->lists[k];
        for (size_t i = 0; i < l->n; i++) {
            if (before == NULL || !list_has(&before->lists[k], str_of(l->items[i]))) {
                fn(arg, (enum deny_kind)k, l->items[i]);
            }
        }
    }
}
