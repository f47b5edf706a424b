#include "runner_priv.h"

#include <string.h>

static void end_line(struct runner_lines *l, runner_line_fn fn, void *arg)
{
    if (l->n_lines < ACTIONS_LINES_MAX) {
        l->n_lines++;
        fn(arg, l->line, l->len);
    } else {
        l->n_lost++;
    }
    l->len = 0;
    l->cut = false;
}

void runner_lines_feed(struct runner_lines *l, const char *bytes, size_t n, runner_line_fn fn,
                       void *arg)
{
    while (n > 0) {
        const char *end = memchr(bytes, '\n', n);
        size_t part = end != NULL ? (size_t)(end - bytes) : n;
        size_t room = sizeof(l->line) - l->len;

        l->cut |= part > room;
        memcpy(l->line + l->len, bytes, part < room ? part : room);
        l->len += part < room ? part : room;
        if (end != NULL) {
            end_line(l, fn, arg);
            part++;
        }
        bytes += part;
        n -= part;
    }
}

void runner_lines_end(struct runner_lines *l, runner_line_fn fn, void *arg)
{
    if (l->len > 0) {
        end_line(l, fn, arg);
    }
}
