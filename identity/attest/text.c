/* text: what the kernel writes under /proc, as values. Pure functions of the bytes. */
#include <postern/attest.h>

#include <string.h>

/* The value of a line "KEY:\tVALUE"; *ret_whole (may be NULL): its end was there too. Names of
 * processes are escaped there, so no line is theirs. */
static struct str line_value(const char *text, size_t len, struct str key, bool *ret_whole)
{
    struct str rest = {text, len};

    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;

        if (str_has_prefix((struct str){rest.p, n}, key)) {
            if (ret_whole != NULL) {
                *ret_whole = end != NULL;
            }
            return (struct str){rest.p + key.n, n - key.n};
        }
        if (end == NULL) {
            break;
        }
        rest = (struct str){rest.p + n + 1, rest.n - n - 1};
    }
    return STR_NONE;
}

/* The next word between blanks, empty at the end; *s is what is behind it. */
static struct str next_word(struct str *s)
{
    struct str found;
    size_t n = 0;

    while (s->n > 0 && (*s->p == ' ' || *s->p == '\t')) {
        *s = (struct str){s->p + 1, s->n - 1};
    }
    while (n < s->n && s->p[n] != ' ' && s->p[n] != '\t' && s->p[n] != '\n') {
        n++;
    }
    found = (struct str){s->p, n};
    *s = (struct str){s->p + n, s->n - n};
    return found;
}

static struct str word(struct str s, size_t i)
{
    struct str w = next_word(&s);

    while (i-- > 0 && w.n > 0) {
        w = next_word(&s);
    }
    return w;
}

static void parse_groups(struct str s, bool whole, struct attest_groups *ret)
{
    struct str w;
    uint64_t gid;

    *ret = (struct attest_groups){.truncated = !whole};
    for (w = next_word(&s); w.n > 0; w = next_word(&s)) {
        if (!whole && s.n == 0) {
            return; /* it may go on where our text was cut */
        }
        if (ret->n == AGENT_GROUPS_MAX || !str_to_u64(w, UINT32_MAX, &gid)) {
            ret->truncated = true;
            return;
        }
        ret->gids[ret->n++] = (uint32_t)gid;
    }
}

/* Columns of Uid: and Gid: are real, effective, saved, file system. */
bool attest_parse_status(const char *text, size_t len, uint32_t *ret_uid, uint32_t *ret_gid,
                         struct attest_groups *ret_groups)
{
    uint64_t uid, gid;
    bool whole = true;
    struct str groups = line_value(text, len, STR_LIT("Groups:"), &whole);

    if (!str_to_u64(word(line_value(text, len, STR_LIT("Uid:"), NULL), 1), UINT32_MAX, &uid) ||
        !str_to_u64(word(line_value(text, len, STR_LIT("Gid:"), NULL), 1), UINT32_MAX, &gid)) {
        return false;
    }
    *ret_uid = (uint32_t)uid;
    *ret_gid = (uint32_t)gid;
    parse_groups(groups, whole, ret_groups);
    return true;
}

bool attest_parse_caps(const char *text, size_t len, uint64_t *ret_caps)
{
    struct str s = line_value(text, len, STR_LIT("CapEff:"), NULL);
    struct str hex = word(s, 0);
    uint64_t caps = 0;

    for (size_t i = 0; i < hex.n; i++) {
        char c = hex.p[i];

        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) {
            return false;
        }
        caps = caps << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *ret_caps = caps;
    return hex.n > 0 && hex.n <= 16;
}

/* One number for each pid namespace from ours downwards. */
bool attest_parse_nested_pid(const char *text, size_t len)
{
    return word(line_value(text, len, STR_LIT("NSpid:"), NULL), 1).n > 0;
}

/* Field 22, counted after the last ')': the name in field 2 may hold anything. */
bool attest_parse_stat(const char *text, size_t len, uint64_t *ret_start_time)
{
    const char *end = len > 0 ? memrchr(text, ')', len) : NULL;
    struct str rest;

    if (end == NULL) {
        return false;
    }
    rest = (struct str){end + 1, len - (size_t)(end + 1 - text)};
    return str_to_u64(word(rest, 22 - 3), UINT64_MAX, ret_start_time);
}

bool attest_parse_fdinfo(const char *text, size_t len, pid_t *ret_pid)
{
    uint64_t pid;

    /* "-1": reaped; "0": in a pid namespace that we don't see into */
    if (!str_to_u64(word(line_value(text, len, STR_LIT("Pid:"), NULL), 0), INT32_MAX, &pid) ||
        pid == 0) {
        return false;
    }
    *ret_pid = (pid_t)pid;
    return true;
}

/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS...] - TYPE SOURCE OPTIONS; blanks in names are
 * escaped. Only a whole line counts. */
struct str attest_parse_mount_type(const char *text, size_t len, uint64_t id)
{
    struct str rest = {text, len};

    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        struct str line;
        uint64_t found;

        if (end == NULL) {
            break;
        }
        line = (struct str){rest.p, (size_t)(end - rest.p)};
        rest = (struct str){end + 1, rest.n - line.n - 1};
        if (str_to_u64(next_word(&line), UINT64_MAX, &found) && found == id) {
            struct str w;

            do {
                w = next_word(&line);
            } while (w.n > 0 && !str_eq(w, STR_LIT("-")));
            return next_word(&line);
        }
    }
    return STR_NONE;
}
