/* Sockets that the service manager opened: which there are, and whether they are what we can use.
 */
#include <postern/service_manager.h>

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char UNKNOWN[] = "unknown";

static bool name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f) {
            return false;
        }
    }
    return s.n > 0 && s.n <= SERVICE_NAME_MAX;
}

int service_sockets_parse(const char *pid, const char *fds, const char *fdnames, pid_t own,
                          struct str ret_names[SERVICE_SOCKETS_MAX], struct err *err)
{
    struct str names[SERVICE_SOCKETS_MAX];
    uint64_t meant = 0;
    uint64_t n = 0;
    if (pid == NULL || fds == NULL) {
        return 0;
    }
    if (!str_to_u64(str_of(pid), INT32_MAX, &meant)) {
        return err_set(err, ERR_USAGE, "LISTEN_PID is not a process's number");
    }
    if ((pid_t)meant != own) {
        return 0; /* meant for whoever started us */
    }
    if (!str_to_u64(str_of(fds), SERVICE_SOCKETS_MAX, &n)) {
        err_set(err, ERR_USAGE, "LISTEN_FDS is not a number of sockets");
        return err_expected(err, "at most %d", SERVICE_SOCKETS_MAX);
    }
    struct str rest = str_of(fdnames);
    for (uint64_t i = 0; i < n; i++) {
        names[i] = STR_LIT(UNKNOWN);
        if (fdnames == NULL) {
            continue;
        }
        const char *colon = rest.n > 0 ? memchr(rest.p, ':', rest.n) : NULL;
        struct str name = {rest.p, colon != NULL ? (size_t)(colon - rest.p) : rest.n};
        bool last = i + 1 == n;
        if (!name_ok(name) || last != (colon == NULL)) {
            return err_set(err, ERR_USAGE, "LISTEN_FDNAMES does not name each of the %llu sockets",
                           (unsigned long long)n);
        }
        names[i] = name;
        rest = last ? STR_NONE : (struct str){colon + 1, rest.n - name.n - 1};
    }
    memcpy(ret_names, names, n * sizeof(names[0]));
    return (int)n;
}

static int get_option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

int service_socket_check(int fd, struct service_socket *ret, struct err *err)
{
    struct service_socket s = {.fd = fd, .address_len = sizeof(s.address)};
    int family = get_option(fd, SO_DOMAIN);
    if (family == -1) {
        err_sys(err, "descriptor %d, which was handed over, is not a socket", fd);
        return err_expected(err, "a listening stream socket");
    }
    if ((family != AF_INET && family != AF_INET6 && family != AF_UNIX) ||
        get_option(fd, SO_TYPE) != SOCK_STREAM || get_option(fd, SO_ACCEPTCONN) != 1) {
        err_set(err, ERR_USAGE, "socket %d, which was handed over, cannot be accepted from", fd);
        err_expected(err, "a listening stream socket of IPv4, IPv6 or Unix");
        return err_advise(err, "in a .socket unit: ListenStream= and Accept=no");
    }
    int flags = fcntl(fd, F_GETFD);
    if (getsockname(fd, (struct sockaddr *)&s.address, &s.address_len) != 0 || flags == -1 ||
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC) == -1 || os_set_nonblock(fd) == -1) {
        return err_sys(err, "cannot use socket %d, which was handed over", fd);
    }
    *ret = s;
    return 0;
}

static void empty_environment(void)
{
    /* Before any thread. NOLINTBEGIN(concurrency-mt-unsafe) */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    /* NOLINTEND(concurrency-mt-unsafe) */
}

int service_sockets_take(struct service_sockets *ret, struct err *err)
{
    struct str names[SERVICE_SOCKETS_MAX] = {STR_NONE};
    int n = service_sockets_parse(secure_getenv("LISTEN_PID"), secure_getenv("LISTEN_FDS"),
                                  secure_getenv("LISTEN_FDNAMES"), getpid(), names, err);
    if (n == -1) {
        empty_environment();
        return -1;
    }
    struct service_sockets s = {.n = (size_t)n};
    s.items = (struct service_socket *)mem_must_calloc(s.n + 1, sizeof(*s.items));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s.n; i++) {
        rc = service_socket_check(SERVICE_FD_FIRST + (int)i, &s.items[i], err);
        (void)snprintf(s.items[i].name, sizeof(s.items[i].name), "%.*s", STR_ARG(names[i]));
        s.items[i].activated = true;
        if (rc == -1) {
            err_prefix(err, "socket '%s'", s.items[i].name);
        }
    }
    empty_environment(); /* the names were views into it */
    if (rc == -1) {
        free(s.items);
        return -1;
    }
    *ret = s;
    return 0;
}

void service_sockets_deinit(struct service_sockets *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->items[i].fd != -1) {
            close(s->items[i].fd);
        }
    }
    free(s->items);
    *s = (struct service_sockets){.n = 0};
}

void service_sockets_join(struct service_sockets *s, struct service_sockets *more)
{
    s->items = (struct service_socket *)mem_must_realloc(s->items,
                                                         (s->n + more->n + 1) * sizeof(*s->items));
    for (size_t i = 0; i < more->n; i++) {
        s->items[s->n++] = more->items[i];
    }
    free(more->items);
    *more = (struct service_sockets){.n = 0};
}

/* --- finding ---------------------------------------------------------------------------------- */

static bool same_address(const struct service_socket *s, const struct sockaddr *address,
                         socklen_t len)
{
    if (s->address.ss_family != address->sa_family) {
        return false;
    }
    if (address->sa_family != AF_UNIX) {
        return s->address_len == len && memcmp(&s->address, address, len) == 0;
    }
    /* A path may come with its end or without. */
    const struct sockaddr_un *a = (const struct sockaddr_un *)(const void *)&s->address;
    const struct sockaddr_un *b = (const struct sockaddr_un *)(const void *)address;
    return a->sun_path[0] != '\0' && s->address_len > offsetof(struct sockaddr_un, sun_path) &&
           strncmp(a->sun_path, b->sun_path, sizeof(a->sun_path)) == 0;
}

struct service_socket *service_sockets_find(const struct service_sockets *s, size_t from,
                                            const struct sockaddr *address, socklen_t len,
                                            size_t *ret_index)
{
    for (size_t i = from; s != NULL && i < s->n; i++) {
        if (s->items[i].fd != -1 && same_address(&s->items[i], address, len)) {
            *ret_index = i;
            return &s->items[i];
        }
    }
    return NULL;
}

struct service_socket *service_sockets_find_name(const struct service_sockets *s, size_t from,
                                                 const char *name, size_t *ret_index)
{
    for (size_t i = from; s != NULL && i < s->n; i++) {
        if (s->items[i].fd != -1 && s->items[i].activated && strcmp(s->items[i].name, name) == 0) {
            *ret_index = i;
            return &s->items[i];
        }
    }
    return NULL;
}

const struct service_socket *service_sockets_unused(const struct service_sockets *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->items[i].activated && !s->items[i].used) {
            return &s->items[i];
        }
    }
    return NULL;
}
