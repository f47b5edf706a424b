/* What we tell the service manager: one datagram a fact, to a socket that it names. */
#include <postern/service_manager.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 1024, STATUS_MAX = 512 };

uint64_t service_watchdog_parse(const char *usec, const char *pid, pid_t own)
{
    uint64_t us = 0;
    uint64_t meant = 0;
    if (usec == NULL || !str_to_u64(str_of(usec), UINT64_MAX, &us)) {
        return 0;
    }
    if (pid != NULL && (!str_to_u64(str_of(pid), INT32_MAX, &meant) || (pid_t)meant != own)) {
        return 0;
    }
    /* Less than a millisecond could not be kept by anybody, and 0 means never. */
    return us >= 1000 ? us / 1000 : us > 0;
}

static int parse_address(const char *text, struct sockaddr_un *ret, socklen_t *ret_len,
                         struct err *err)
{
    size_t len = strlen(text);
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (len < 2 || len >= sizeof(ret->sun_path) || (text[0] != '/' && text[0] != '@')) {
        err_set(err, ERR_USAGE, "NOTIFY_SOCKET is not a socket's address");
        return err_expected(err, "a path from / or a name from @, of less than %zu bytes",
                            sizeof(ret->sun_path));
    }
    memcpy(ret->sun_path, text, len);
    if (text[0] == '@') {
        ret->sun_path[0] = '\0'; /* an abstract one, which is not terminated */
    }
    *ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (text[0] == '/'));
    return 0;
}

int service_manager_init(struct service_manager *m, struct err *err)
{
    const char *path = secure_getenv("NOTIFY_SOCKET");
    *m = (struct service_manager){.fd = -1};
    m->watchdog_ms = service_watchdog_parse(secure_getenv("WATCHDOG_USEC"),
                                            secure_getenv("WATCHDOG_PID"), getpid());
    int rc = 0;
    if (path != NULL && path[0] != '\0') {
        rc = parse_address(path, &m->addr, &m->addr_len, err);
    }
    if (rc == 0 && m->addr_len > 0) {
        const struct timeval wait = {.tv_sec = 1};
        m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (m->fd == -1 || setsockopt(m->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0) {
            rc = err_sys(err, "cannot make a socket for the service manager");
        } else if (connect(m->fd, (struct sockaddr *)&m->addr, m->addr_len) != 0) {
            err_sys(err, "cannot reach the service manager");
            rc = err_where(err, "%s", path);
        }
    }
    /* Before any thread. NOLINTBEGIN(concurrency-mt-unsafe) */
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    /* NOLINTEND(concurrency-mt-unsafe) */
    if (rc != 0) {
        service_manager_deinit(m);
    }
    return rc;
}

void service_manager_deinit(struct service_manager *m)
{
    if (m->fd != -1) {
        close(m->fd);
    }
    *m = (struct service_manager){.fd = -1};
}

/* A manager that was started again has another socket at the same address. */
static void tell(const struct service_manager *m, const char *text, int flags)
{
    size_t len = strlen(text);
    if (m->fd == -1 || send(m->fd, text, len, flags | MSG_NOSIGNAL) != -1) {
        return;
    }
    if ((errno == ECONNREFUSED || errno == ECONNRESET || errno == ENOTCONN) &&
        connect(m->fd, (const struct sockaddr *)&m->addr, m->addr_len) == 0) {
        (void)!send(m->fd, text, len, flags | MSG_NOSIGNAL);
    }
}

/* A status is one line: what would begin another assignment is cut. */
static void tell_with_status(const struct service_manager *m, const char *first, const char *status)
{
    char text[TEXT_MAX];
    if (status == NULL) {
        tell(m, first, 0);
        return;
    }
    int n = (int)strcspn(status, "\n");
    n = n < STATUS_MAX ? n : STATUS_MAX;
    (void)snprintf(text, sizeof(text), "%sSTATUS=%.*s\n", first, n, status);
    tell(m, text, 0);
}

void service_manager_ready(const struct service_manager *m, const char *status)
{
    tell_with_status(m, "READY=1\n", status);
}

void service_manager_stopping(const struct service_manager *m, const char *status)
{
    tell_with_status(m, "STOPPING=1\n", status);
}

void service_manager_status(const struct service_manager *m, const char *status)
{
    tell_with_status(m, "", status != NULL ? status : "");
}

void service_manager_reloading(const struct service_manager *m)
{
    char text[TEXT_MAX];
    struct timespec ts;
    POSTERN_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu\n",
                   (unsigned long long)ts.tv_sec * 1000000 + (unsigned long long)ts.tv_nsec / 1000);
    tell(m, text, 0);
}

void service_manager_extend(const struct service_manager *m, uint64_t ms)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%llu\n", (unsigned long long)ms * 1000);
    tell(m, text, 0);
}

void service_manager_main_pid(const struct service_manager *m, pid_t pid)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof(text), "MAINPID=%d\n", (int)pid);
    tell(m, text, 0);
}

void service_manager_alive(const struct service_manager *m)
{
    tell(m, "WATCHDOG=1\n", MSG_DONTWAIT);
}
