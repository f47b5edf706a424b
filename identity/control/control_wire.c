#include <postern/agent_control.h>

#include <fcntl.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

enum { MAGIC = 0x50634c31 };

/* What a verb takes. An argument with max 0 must be empty. */
struct verb_arg {
    uint16_t max;
    bool required;
};
struct verb_rule {
    const char *name;
    uint32_t flags;  /* that it knows */
    bool has_number; /* number may be other than 0 */
    bool takes_file;
    struct verb_arg args[AGENT_CONTROL_ARGS_MAX];
};
static const struct verb_rule RULES[AGENT_N_CONTROL_VERBS] = {
    [AGENT_CONTROL_AGENT] = {.name = "agent"},
    [AGENT_CONTROL_QUARANTINE_ADD] = {.name = "quarantine add",
                                      .has_number = true,
                                      .args = {{2048, true}, {256, false}}},
    [AGENT_CONTROL_QUARANTINE_REMOVE] = {.name = "quarantine remove", .args = {{2048, true}}},
    [AGENT_CONTROL_QUARANTINE_LIST] = {.name = "quarantine list"},
    [AGENT_CONTROL_QUARANTINE_SERIALS] =
        {.name = "quarantine serials",
         .flags = AGENT_CONTROL_SERIALS_LAST,
         .args = {{128, true}, {2048, false}, {2048, false}, {2048, false}}},
    [AGENT_CONTROL_CA] = {.name = "ca",
                          .flags = AGENT_CONTROL_CA_JWT | AGENT_CONTROL_CA_FORCE,
                          .has_number = true,
                          .args = {{64, false}}},
    [AGENT_CONTROL_POLICY_PUSH] = {.name = "policy push",
                                   .takes_file = true,
                                   .args = {{1024, true}, {2047, false}, {256, false}, {64, true}}},
    [AGENT_CONTROL_POLICY_STAGE] = {.name = "policy stage", .args = {{2047, true}, {64, true}}},
    [AGENT_CONTROL_POLICY_PROMOTE] = {.name = "policy promote", .args = {{64, true}}},
    [AGENT_CONTROL_POLICY_ROLLBACK] = {.name = "policy rollback",
                                       .flags = AGENT_CONTROL_ROLLBACK_TO,
                                       .has_number = true,
                                       .args = {{64, true}}},
    [AGENT_CONTROL_POLICY_STATUS] = {.name = "policy status"},
};

bool agent_control_takes_file(uint32_t verb)
{
    return verb < AGENT_N_CONTROL_VERBS && RULES[verb].takes_file;
}

const char *agent_control_name(uint32_t verb)
{
    return verb < AGENT_N_CONTROL_VERBS && RULES[verb].name != NULL ? RULES[verb].name : "unknown";
}

void agent_control_init(struct agent_control_request *r, enum agent_control_verb verb)
{
    memset(r, 0, sizeof(*r));
    r->magic = MAGIC;
    r->size = (uint32_t)sizeof(*r);
    r->verb = verb;
}

bool agent_control_put(struct agent_control_request *r, size_t i, struct str s)
{
    POSTERN_ASSERT(i < AGENT_CONTROL_ARGS_MAX && r->verb < AGENT_N_CONTROL_VERBS);
    if (s.n > RULES[r->verb].args[i].max || (s.n > 0 && memchr(s.p, 0, s.n) != NULL)) {
        return false;
    }
    if (s.n > 0) {
        memcpy(r->args[i].text, s.p, s.n);
    }
    r->args[i].len = (uint16_t)s.n;
    return true;
}

struct str agent_control_arg(const struct agent_control_request *r, size_t i)
{
    POSTERN_ASSERT(i < AGENT_CONTROL_ARGS_MAX);
    return (struct str){r->args[i].text, r->args[i].len};
}

bool agent_control_check_request(const void *msg, size_t len)
{
    const struct agent_control_request *r = msg;
    const struct verb_rule *rule;

    if (len != sizeof(*r) || r->magic != MAGIC || r->size != sizeof(*r) ||
        r->verb >= AGENT_N_CONTROL_VERBS || RULES[r->verb].name == NULL) {
        return false;
    }
    rule = &RULES[r->verb];
    if ((r->flags & ~rule->flags) != 0 || (!rule->has_number && r->number != 0)) {
        return false;
    }
    for (size_t i = 0; i < AGENT_CONTROL_ARGS_MAX; i++) {
        const struct agent_control_arg *a = &r->args[i];

        if (a->len > rule->args[i].max || a->len > AGENT_CONTROL_ARG_MAX ||
            (rule->args[i].required && a->len == 0) || memchr(a->text, 0, a->len) != NULL) {
            return false;
        }
    }
    return true;
}

static bool terminated(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

bool agent_control_check_answer(const void *msg, size_t len)
{
    const struct agent_control_answer *a = msg;
    uint32_t code;

    if (len != sizeof(*a) || a->magic != MAGIC || a->size != sizeof(*a) ||
        a->len > sizeof(a->text) || a->last > 1) {
        return false;
    }
    memcpy(&code, &a->error.code, sizeof(code)); /* not yet known to be one of the enum's */
    return code <= ERR_UNSUPPORTED && (code == ERR_NONE || (a->last == 1 && a->len == 0)) &&
           terminated(a->error.where, sizeof(a->error.where)) &&
           terminated(a->error.what, sizeof(a->error.what)) &&
           terminated(a->error.expected, sizeof(a->error.expected)) &&
           terminated(a->error.advice, sizeof(a->error.advice));
}

void agent_control_init_answer(struct agent_control_answer *a)
{
    memset(a, 0, sizeof(*a)); /* padding too */
    a->magic = MAGIC;
    a->size = (uint32_t)sizeof(*a);
}

int agent_control_address(const char *path, char ret_path[AGENT_CONTROL_PATH_MAX], int *ret_dir,
                          struct err *err)
{
    const char *slash = strrchr(path, '/');
    char dir[4096];
    os_autofd int fd = -1;
    int n;

    *ret_dir = -1;
    if (strlen(path) < AGENT_CONTROL_PATH_MAX) {
        (void)snprintf(ret_path, AGENT_CONTROL_PATH_MAX, "%s", path);
        return 0;
    }
    if (slash == NULL || !os_parent_dir(path, dir, sizeof(dir))) {
        return err_set(err, ERR_CONFIG, "the socket's path is too long");
    }
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd == -1) {
        err_sys(err, "the directory of the socket cannot be opened");
        return err_where(err, "%s", dir);
    }
    n = snprintf(ret_path, AGENT_CONTROL_PATH_MAX, "/proc/self/fd/%d%s", fd, slash);
    if (n < 0 || n >= AGENT_CONTROL_PATH_MAX) {
        return err_set(err, ERR_CONFIG, "the socket's name is too long");
    }
    *ret_dir = fd;
    fd = -1;
    return 0;
}
