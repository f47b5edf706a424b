/* What is in force: the kernel is asked, and what it says is written down. */
#include "sandbox_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STATUS_TEXT_MAX = 8192 };

/* The kernel does not tell whether Landlock is in force: a file that no role needs does, by how its
 * opening fails. */
static int landlock_in_force(void)
{
    int fd = open("/proc/version", O_RDONLY | O_CLOEXEC);
    if (fd != -1) {
        close(fd);
        return 0;
    }
    if (errno != EACCES) {
        return 0;
    }
    int abi = sandbox_landlock_abi();
    return abi > 0 ? abi : 1;
}

/* --- /proc/self/status ------------------------------------------------------------------------ */
int sandbox_status_open(void)
{
    return open("/proc/self/status", O_RDONLY | O_CLOEXEC);
}

/* The value of a line "key:\tvalue", within the text; NULL: there is none. The process's name is
 * in the text too, but the kernel escapes line ends in it. */
static const char *value_of(const char *text, size_t len, const char *key)
{
    size_t n = strlen(key);
    const char *line = text;
    const char *end = text + len;

    while (line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));

        if ((size_t)(end - line) > n && memcmp(line, key, n) == 0 && line[n] == ':') {
            return line + n + 1;
        }
        line = next != NULL ? next + 1 : end;
    }
    return NULL;
}

static bool number_of(const char *text, size_t len, const char *key, unsigned base, uint64_t *ret)
{
    const char *p = value_of(text, len, key);
    const char *end = text + len;
    uint64_t n = 0;
    size_t digits = 0;

    for (; p != NULL && p < end && (*p == ' ' || *p == '\t'); p++) {
    }
    for (; p != NULL && p < end && digits < 16; p++, digits++) {
        unsigned d = *p >= '0' && *p <= '9'   ? (unsigned)(*p - '0')
                     : *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10)
                                              : 99;

        if (d >= base) {
            break;
        }
        n = n * base + d;
    }
    if (digits == 0) {
        return false;
    }
    *ret = n;
    return true;
}

void sandbox_status_parse(const char *text, size_t len, struct sandbox_report *ret)
{
    uint64_t n = 0;

    (void)number_of(text, len, "CapEff", 16, &ret->caps_effective);
    (void)number_of(text, len, "CapInh", 16, &ret->caps_inheritable);
    (void)number_of(text, len, "CapBnd", 16, &ret->caps_bounding);
    (void)number_of(text, len, "CapAmb", 16, &ret->caps_ambient);
    if (number_of(text, len, "Seccomp_filters", 10, &n)) {
        ret->n_filters = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    }
    if (number_of(text, len, "VmLck", 10, &n)) {
        ret->locked_bytes = n * 1024; /* "kB" */
    }
}

bool sandbox_status_read(int status_fd, struct sandbox_report *report)
{
    char text[STATUS_TEXT_MAX];
    ssize_t n = status_fd == -1 ? -1 : pread(status_fd, text, sizeof(text), 0);

    if (n > 0) {
        sandbox_status_parse(text, (size_t)n, report);
    }
    return n > 0;
}

void sandbox_get_report_shut(struct sandbox_report *ret)
{
    struct rlimit core = {1, 1};
    int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

    (void)getrlimit(RLIMIT_CORE, &core);
    *ret = (struct sandbox_report){
        .uid = geteuid(),
        .gid = getegid(),
        .no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        .dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1,
        .core_dumps = core.rlim_cur != 0,
        .secure_bits = bits != -1 && (bits & SANDBOX_SECURE_BITS) == SANDBOX_SECURE_BITS,
        .seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2,
        .caps = sandbox_permitted_caps(),
    };
}

void sandbox_get_report(int status_fd, struct sandbox_report *ret)
{
    sandbox_get_report_shut(ret);
    ret->landlock_abi = landlock_in_force();
    (void)sandbox_status_read(status_fd, ret);
}

/* --- JSON ------------------------------------------------------------------------------------- */
static const char *truth(bool b)
{
    return b ? "true" : "false";
}

/* Texts of ours: nothing in them needs escaping. */
static bool write_landlock(const struct sandbox_landlock *l, struct buf *out)
{
    bool ok =
        buf_printf(out, ",\"landlock\":{\"abi\":%d,\"files\":%s,\"bind\":%s,\"connect\":", l->abi,
                   truth(l->files), l->bind ? "\"listed\"" : "\"any\"") &&
        buf_printf(out, "%s,\"bind_ports\":%u,\"connect_ports\":%u",
                   l->connect ? "\"listed\"" : "\"any\"", l->n_bind_ports, l->n_connect_ports);
    if (ok && l->connect_why[0] != '\0') {
        ok = buf_printf(out, ",\"connect_why\":\"%s\"", l->connect_why);
    }
    return ok &&
           buf_printf(out, ",\"abstract_sockets\":%s,\"signals\":%s,\"missing\":",
                      l->abstract ? "\"own\"" : "\"any\"", l->signals ? "\"own\"" : "\"any\"") &&
           (l->missing[0] != '\0' ? buf_printf(out, "\"%s\"}", l->missing)
                                  : buf_printf(out, "null}"));
}

bool sandbox_refused_write(struct buf *out)
{
    bool ok = buf_printf(out, "{");
    const char *comma = "";
    uint64_t count = 0;
    char name[32];

    for (int n = sandbox_refused_next(0, &count); ok && n != -1;
         n = sandbox_refused_next(n + 1, &count)) {
        sandbox_call_name(n, name, sizeof(name));
        ok = buf_printf(out, "%s\"%s\":%llu", comma, name, (unsigned long long)count);
        comma = ",";
    }
    return ok && buf_printf(out, "}");
}

bool sandbox_report_write_more(const struct sandbox_report *r, struct buf *out)
{
    return buf_printf(out,
                      ",\"capability_sets\":{\"effective\":\"0x%llx\",\"inheritable\":\"0x%llx\""
                      ",\"bounding\":\"0x%llx\",\"ambient\":\"0x%llx\"}",
                      (unsigned long long)r->caps_effective,
                      (unsigned long long)r->caps_inheritable, (unsigned long long)r->caps_bounding,
                      (unsigned long long)r->caps_ambient) &&
           buf_printf(out,
                      ",\"secure_bits\":%s,\"core_dumps\":%s,\"seccomp_filters\":%u"
                      ",\"locked_bytes\":%llu",
                      truth(r->secure_bits), truth(r->core_dumps), r->n_filters,
                      (unsigned long long)r->locked_bytes);
}

bool sandbox_report_write(const struct sandbox_report *r, const struct sandbox_landlock *landlock,
                          struct buf *out)
{
    bool ok = buf_printf(out,
                         "\"uid\":%u,\"gid\":%u,\"capabilities\":\"0x%llx\""
                         ",\"no_new_privs\":%s,\"dumpable\":%s,\"landlock_abi\":%d,\"seccomp\":",
                         (unsigned)r->uid, (unsigned)r->gid, (unsigned long long)r->caps,
                         truth(r->no_new_privs), truth(r->dumpable), r->landlock_abi);
    ok = ok && (r->seccomp ? buf_printf(out, "\"%s\"", r->seccomp_name) : buf_printf(out, "null"));
    return ok && sandbox_report_write_more(r, out) &&
           (landlock == NULL || write_landlock(landlock, out));
}
