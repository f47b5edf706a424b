/* selector: what is true of a caller, as entries write it. Users and groups become numbers here:
 * from then on nothing depends on the machine's databases. */
#include <postern/conf.h>

#include <grp.h>
#include <postern/mem.h>
#include <pwd.h>
#include <string.h>

#include "config_priv.h"

/* "name" in the user or the group database; false: not there. */
static bool lookup_user(const char *name, uint32_t *ret)
{
    char space[16384];
    struct passwd pw;
    struct passwd *found = NULL;
    if (getpwnam_r(name, &pw, space, sizeof(space), &found) != 0 || found == NULL) {
        return false;
    }
    *ret = found->pw_uid;
    return true;
}

static bool lookup_group(const char *name, uint32_t *ret)
{
    char space[16384];
    struct group gr;
    struct group *found = NULL;
    if (getgrnam_r(name, &gr, space, sizeof(space), &found) != 0 || found == NULL) {
        return false;
    }
    *ret = found->gr_gid;
    return true;
}

static const char *const selector_words[] = {
    "unix:uid:", "unix:user:", "unix:gid:", "unix:group:", "unix:path:", NULL};

bool value_parse_selector(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    size_t i = 0;
    while (selector_words[i] != NULL && !str_has_prefix(n->text, str_of(selector_words[i]))) {
        i++;
    }
    if (selector_words[i] == NULL) {
        value_fail(c, f, n, NULL, "no selector that this binary understands");
        return false;
    }
    size_t skip = strlen(selector_words[i]);
    struct str rest = {n->text.p + skip, n->text.n - skip};
    struct conf_selector s = {.type = i < 2   ? CONF_SELECTOR_UID
                                      : i < 4 ? CONF_SELECTOR_GID
                                              : CONF_SELECTOR_PATH};
    uint64_t v = 0;
    const char *why = NULL;
    if (i == 0 || i == 2) {
        why = str_to_u64(rest, UINT32_MAX - 1, &v) ? NULL : "not a number at the end";
        s.number = (uint32_t)v;
    } else if (i == 1) {
        why = lookup_user(rest.p, &s.number) ? NULL : "a user that this machine does not know";
    } else if (i == 3) {
        why = lookup_group(rest.p, &s.number) ? NULL : "a group that this machine does not know";
    } else if (rest.n < 2 || rest.p[0] != '/' || rest.p[rest.n - 1] == '/' || rest.n > 4095) {
        why = "not the absolute path of an executable";
    }
    if (why != NULL) {
        value_fail(c, f, n, NULL, why);
        return false;
    }
    if (s.type == CONF_SELECTOR_PATH) {
        s.path = mem_must_strndup(rest.p, rest.n);
    }
    *(struct conf_selector *)dst = s;
    return true;
}
