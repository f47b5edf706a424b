/* diag: errors of files, kept sorted by file and position, and how they are worded. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

struct diag_item {
    unsigned file_no, line, column;
    struct err err;
};

struct conf_diag {
    struct diag_item *items; /* sorted */
    size_t n, cap;
    size_t total; /* those that were left out included */
    unsigned n_files;
};

struct conf_diag *conf_diag_new(void)
{
    return mem_must_new(struct conf_diag);
}

struct conf_diag *conf_diag_free(struct conf_diag *d)
{
    if (d != NULL) {
        free(d->items);
        free(d);
    }
    return NULL;
}

size_t conf_diag_count(const struct conf_diag *d)
{
    return d->n;
}

const struct err *conf_diag_get(const struct conf_diag *d, size_t i)
{
    POSTERN_ASSERT(i < d->n);
    return &d->items[i].err;
}

bool conf_diag_print(const struct conf_diag *d, struct buf *out)
{
    char text[1200];
    for (size_t i = 0; i < d->n; i++) {
        if (!buf_printf(out, "%s\n", err_text(&d->items[i].err, text, sizeof(text)))) {
            return false;
        }
    }
    if (d->total > d->n) {
        return buf_printf(out, "and %zu more\n", d->total - d->n);
    }
    return true;
}

unsigned diag_next_file(struct conf_diag *d)
{
    return ++d->n_files;
}

size_t diag_total(const struct conf_diag *d)
{
    return d->total;
}

static bool item_after(const struct diag_item *a, unsigned file_no, unsigned line, unsigned column)
{
    if (a->file_no != file_no) {
        return a->file_no > file_no;
    }
    if (a->line != line) {
        return a->line > line;
    }
    return a->column > column;
}

void diag_add(struct conf_diag *d, unsigned file_no, unsigned line, unsigned column,
              const struct err *err)
{
    d->total++;
    size_t at = d->n;
    while (at > 0 && item_after(&d->items[at - 1], file_no, line, column)) {
        at--;
    }
    if (at == CONFIG_ERRORS_MAX) {
        return;
    }
    if (d->n == CONFIG_ERRORS_MAX) {
        d->n--; /* the last by position gives way */
    }
    MEM_GROW(d->items, d->n, d->cap, 4);
    memmove(&d->items[at + 1], &d->items[at], (d->n - at) * sizeof(d->items[0]));
    d->items[at] =
        (struct diag_item){.file_no = file_no, .line = line, .column = column, .err = *err};
    d->n++;
}

/* The end of a long file name says more than its beginning. */
static void set_where(struct err *err, const char *file, unsigned line, unsigned column)
{
    enum { KEEP = 150 };
    size_t n = strlen(file);
    bool cut = n > KEEP;
    err_where(err, "%s%s:%u:%u", cut ? "..." : "", cut ? file + (n - KEEP) : file, line, column);
}

__attribute__((format(printf, 6, 0))) static void report_va(struct context *c, unsigned line,
                                                            unsigned column, const char *expected,
                                                            const char *advice, const char *fmt,
                                                            va_list ap)
{
    char what[400];
    vsnprintf(what, sizeof(what), fmt, ap);
    struct err err = ERR_INIT;
    err_set(&err, ERR_CONFIG, "%s", what);
    set_where(&err, c->file, line, column);
    if (expected != NULL && expected[0] != '\0') {
        err_expected(&err, "%s", expected);
    }
    if (advice != NULL) {
        err_advise(&err, "%s", advice);
    }
    diag_add(c->diag, c->file_no, line, column, &err);
}

void report_at(struct context *c, unsigned line, unsigned column, const char *expected,
               const char *advice, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    report_va(c, line, column, expected, advice, fmt, ap);
    va_end(ap);
}

void report(struct context *c, const struct node *at, const char *expected, const char *advice,
            const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    report_va(c, at->line, at->column, expected, advice, fmt, ap);
    va_end(ap);
}

const char *show(struct shown *s, struct str text)
{
    size_t o = 0;
    size_t i = 0;
    s->text[o++] = '\'';
    while (i < text.n && o < SHOWN_MAX) {
        size_t control = str_control(text, i);
        s->text[o++] = control > 0 ? '?' : text.p[i];
        i += control > 0 ? control : 1;
    }
    bool cut = i < text.n;
    while (cut && o > 1 && ((unsigned char)s->text[o - 1] & 0xc0) == 0x80) {
        o--; /* no half of a character */
    }
    if (cut && o > 1 && (unsigned char)s->text[o - 1] >= 0xc0) {
        o--;
    }
    snprintf(s->text + o, sizeof(s->text) - o, cut ? "...'" : "'");
    return s->text;
}

static char lower(char ch)
{
    return ch >= 'A' && ch <= 'Z' ? (char)(ch - 'A' + 'a') : ch;
}

/* Levenshtein's distance with neighbours swapped at cost 1, letters compared without case. */
static unsigned edit_distance(struct str a, struct str b)
{
    enum { LONGEST = 40 };
    unsigned rows[3][LONGEST + 1];
    if (a.n > LONGEST || b.n > LONGEST) {
        return UINT32_MAX;
    }
    for (size_t j = 0; j <= b.n; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a.n; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i - 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.n; j++) {
            bool same = lower(a.p[i - 1]) == lower(b.p[j - 1]);
            unsigned best = above[j - 1] + (same ? 0 : 1);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && lower(a.p[i - 1]) == lower(b.p[j - 2]) &&
                lower(a.p[i - 2]) == lower(b.p[j - 1])) {
                unsigned swapped = rows[(i - 2) % 3][j - 2] + 1;
                best = swapped < best ? swapped : best;
            }
            row[j] = best;
        }
    }
    return rows[a.n % 3][b.n];
}

const char *nearest_word(struct str text, const char *(*next)(const void *set, size_t i),
                         const void *set)
{
    const char *best = NULL;
    unsigned best_distance = UINT32_MAX;
    const char *word;
    for (size_t i = 0; (word = next(set, i)) != NULL; i++) {
        unsigned d = edit_distance(text, str_of(word));
        size_t longer = strlen(word) > text.n ? strlen(word) : text.n;
        if (d < best_distance && d <= longer / 3 + (longer >= 4 ? 0 : 1) && d < longer) {
            best = word;
            best_distance = d;
        }
    }
    return best;
}
