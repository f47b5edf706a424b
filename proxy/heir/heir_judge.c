/* Messages that are sound, and which executables are the same. */
#include "heir_priv.h"

#include <string.h>

bool heir_own_ok(const struct heir_own *o, size_t len)
{
    return len == sizeof(*o) && o->version == HEIR_VERSION &&
           memchr(o->path, '\0', sizeof(o->path)) != NULL &&
           (o->path[0] == '/' || o->path[0] == '\0');
}

bool heir_question_ok(const struct heir_question *q, size_t len)
{
    return len == sizeof(*q) && q->version == HEIR_VERSION && q->pid > 0 && q->id != 0;
}

static bool same(const struct heir_file *a, const struct heir_file *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

enum heir_verdict heir_judge(const struct heir_file *own, const struct heir_file *place,
                             const struct heir_file *asker)
{
    if (same(asker, own)) {
        return HEIR_SAME_FILE;
    }
    return place != NULL && same(asker, place) ? HEIR_SAME_PLACE : HEIR_OTHER;
}

bool heir_path_has_name(const char *shown)
{
    static const char deleted[] = " (deleted)";
    size_t n = strlen(shown), d = sizeof(deleted) - 1;
    return shown[0] == '/' && (n < d || strcmp(shown + n - d, deleted) != 0);
}

const char *heir_verdict_name(enum heir_verdict v)
{
    static const char *const names[] = {[HEIR_SAME_FILE] = "file",
                                        [HEIR_SAME_PLACE] = "place",
                                        [HEIR_OTHER] = "other",
                                        [HEIR_GONE] = "gone",
                                        [HEIR_UNKNOWN] = "unknown"};
    return names[v];
}
