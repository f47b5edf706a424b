/* Whether a port may turn strict. */
#include <postern/permissive.h>

const char *permissive_verdict_name(enum permissive_verdict v)
{
    switch (v) {
    case PERMISSIVE_READY:
        return "ready";
    case PERMISSIVE_NOT_READY:
        return "not_ready";
    case PERMISSIVE_UNKNOWN_YET:
    case PERMISSIVE_UNKNOWN_NOBODY:
        break;
    }
    return "unknown";
}

/* A time that has not come yet, of a clock that was set back, is within every window. */
static bool within(int64_t at_s, int64_t now_s, int64_t window_s)
{
    return at_s != 0 && at_s > now_s - window_s;
}

static bool is_quiet(const struct permissive_facts *f, int64_t now_s, int64_t window_s)
{
    return f->open == 0 && !within(f->last_allowed_s, now_s, window_s);
}

static bool is_watched(const struct permissive_facts *f, int64_t now_s, int64_t window_s)
{
    return f->watched_since_s != 0 && !within(f->watched_since_s, now_s, window_s);
}

enum permissive_verdict permissive_verdict(const struct permissive_facts *f, int64_t now_s,
                                           int64_t window_s)
{
    if (!is_quiet(f, now_s, window_s)) {
        return PERMISSIVE_NOT_READY;
    }
    if (!is_watched(f, now_s, window_s)) {
        return PERMISSIVE_UNKNOWN_YET;
    }
    return within(f->last_mtls_s, now_s, window_s) ? PERMISSIVE_READY : PERMISSIVE_UNKNOWN_NOBODY;
}

bool permissive_may_arm(const struct permissive_facts *f, int64_t now_s, int64_t window_s)
{
    return window_s > 0 && is_quiet(f, now_s, window_s) && is_watched(f, now_s, window_s);
}
