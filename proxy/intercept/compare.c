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

int compare_tables(struct kernel *k, const struct intercept_options *o,
                   const struct intercept_cgroup *cgroup, struct buf *out, struct err *err)
{
    struct buf batch = BUF_INIT(INTERCEPT_TEXT_MAX);
    struct buf want = BUF_INIT(INTERCEPT_TEXT_MAX * 2);
    struct buf have = BUF_INIT(INTERCEPT_TEXT_MAX * 2);
    mem_autofree struct str *want_lines = mem_must_calloc(LINES_MAX, sizeof(struct str));
    mem_autofree struct str *have_lines = mem_must_calloc(LINES_MAX, sizeof(struct str));
    char shadow[40];
    bool there = false;
    bool there_shadow = false;
    int rc = -1;
    snprintf(shadow, sizeof(shadow), "postern_check_%ld", (long)getpid());
    if (kernel_list(k, "postern", &have, &there, err) != 0) {
        goto out;
    }
    if (!there) {
        buf_printf(out, "there is no table 'inet postern': nothing is redirected\n");
        rc = 1;
        goto out;
    }
    intercept_table(o, cgroup, shadow, true, &batch);
    POSTERN_ASSERT(buf_append(&batch, "", 1));
    if (kernel_run(k, (const char *)buf_head(&batch), err) != 0 ||
        kernel_list(k, shadow, &want, &there_shadow, err) != 0) {
        goto out;
    }
    size_t n_want = split_lines(buf_str(&want), want_lines);
    size_t n_have = split_lines(buf_str(&have), have_lines);
    rc = put_differences(out, want_lines, n_want, have_lines, n_have) > 0 ? 1 : 0;
out:
    buf_reset(&batch);
    buf_reset(&want);
    buf_reset(&have);
    return rc;
}
