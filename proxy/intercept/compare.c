/*
 * compare: are the rules in the kernel those that were asked for? The kernel's listing differs from
 * what was loaded in spelling, and from version to version. So the wanted table is loaded as well,
 * as a dormant shadow that sees no packet and ends with this process, and the two listings are
 * compared: what differs then is no matter of spelling. This finds a rule that was changed, moved
 * or deleted, and one whose cgroup was made anew since.
 */
#include "kernel_priv.h"

#include <postern/mem.h>
#include <postern/str.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINES_MAX = 4096 };

/* The lines of a listing that mean something, without its first (the table's name). */
static size_t split_lines(struct str text, struct str *lines)
{
    size_t n = 0;
    bool first = true;
    while (text.n > 0 && n < LINES_MAX) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t len = end != NULL ? (size_t)(end - text.p) : text.n;
        struct str line = {text.p, len};
        text = (struct str){text.p + len + (end != NULL), text.n - len - (end != NULL)};
        while (line.n > 0 && (line.p[0] == '\t' || line.p[0] == ' ')) {
            line = (struct str){line.p + 1, line.n - 1};
        }
        if (!first && line.n > 0 && !str_has_prefix(line, STR_LIT("flags "))) {
            lines[n++] = line;
        }
        first = false;
    }
    return n;
}

static void put_line(struct buf *out, const char *mark, struct str line)
{
    buf_printf(out, "%s %.*s\n", mark, STR_ARG(line));
}

/* Walks both; where they part, looks for the nearest place at which they meet again. */
static size_t put_differences(struct buf *out, const struct str *want, size_t n_want,
                              const struct str *have, size_t n_have)
{
    size_t i = 0;
    size_t k = 0;
    size_t count = 0;
    while (i < n_want || k < n_have) {
        if (i < n_want && k < n_have && str_eq(want[i], have[k])) {
            i++;
            k++;
            continue;
        }
        size_t next = k;
        while (i < n_want && next < n_have && !str_eq(want[i], have[next])) {
            next++;
        }
        bool found = i < n_want && next < n_have;
        if (i < n_want && !found) {
            put_line(out, "missing:   ", want[i++]);
        } else {
            put_line(out, "unexpected:", have[k++]);
        }
        count++;
    }
    return count;
}

bool compare_listings(struct str want, struct str have, struct buf *out)
{
    mem_autofree struct str *want_lines = mem_must_calloc(LINES_MAX, sizeof(struct str));
    mem_autofree struct str *have_lines = mem_must_calloc(LINES_MAX, sizeof(struct str));
    size_t n_want = split_lines(want, want_lines);
    size_t n_have = split_lines(have, have_lines);
    return put_differences(out, want_lines, n_want, have_lines, n_have) > 0;
}

/* The table asked for, as the kernel lists it. The shadow goes at once: not every process that
 * compares ends soon. */
static int list_wanted(struct kernel *k, const struct intercept_options *o,
                       const struct intercept_cgroup *cgroup, struct buf *ret, struct err *err)
{
    struct buf batch = BUF_INIT(INTERCEPT_TEXT_MAX);
    char shadow[40];
    char command[80];
    bool there = false;
    snprintf(shadow, sizeof(shadow), "postern_check_%ld", (long)getpid());
    intercept_table(o, cgroup, shadow, true, &batch);
    POSTERN_ASSERT(buf_append(&batch, "", 1));
    int rc = kernel_run(k, (const char *)buf_head(&batch), err);
    if (rc == 0) {
        rc = kernel_list(k, shadow, ret, &there, err);
        snprintf(command, sizeof(command), "delete table inet %s\n", shadow);
        rc = kernel_run(k, command, rc == 0 ? err : NULL) == 0 ? rc : -1;
    }
    buf_reset(&batch);
    return rc;
}

int compare_tables(struct kernel *k, const struct intercept_options *o,
                   const struct intercept_cgroup *cgroup, struct buf *out, struct err *err)
{
    struct buf want = BUF_INIT(INTERCEPT_TEXT_MAX * 4);
    struct buf have = BUF_INIT(INTERCEPT_TEXT_MAX * 4);
    bool there = false;
    int rc = kernel_list(k, "postern", &have, &there, err);
    if (rc == 0 && !there) {
        buf_printf(out, "there is no table 'inet postern': nothing is redirected\n");
        rc = 1;
    } else if (rc == 0) {
        rc = list_wanted(k, o, cgroup, &want, err);
        if (rc == 0) {
            rc = compare_listings(buf_str(&want), buf_str(&have), out) ? 1 : 0;
        }
    }
    buf_reset(&want);
    buf_reset(&have);
    return rc;
}
