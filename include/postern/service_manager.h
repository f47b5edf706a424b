/*
 * service_manager: the process's side of a service manager (systemd, or whoever speaks as it does):
 * what we tell it, that we are alive, and sockets that it opened for us. docs/restart.md.
 *
 * All of it comes by the environment, which is read and emptied once, early, before any thread and
 * any child: a child must not believe that it was meant. Where there is no manager every call does
 * nothing. Thread: the main one.
 *
 * Specification: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
 */
#ifndef POSTERN_SERVICE_MANAGER_H
#define POSTERN_SERVICE_MANAGER_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* --- telling -----------------------------------------------------------------------------------
 */

struct service_manager {
    int fd; /* connected at the start, so that no sandbox stands in the way; -1: nobody to tell */
    struct sockaddr_un addr;
    socklen_t addr_len;
    uint64_t watchdog_ms; /* the manager ends us after so long without a sign of life; 0: never */
};

/* Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment. An address that is
 * none is a failure: a service whose readiness nobody hears would be ended as one that hangs. */
int service_manager_init(struct service_manager *m, struct err *err);
/* Takes one that is zeroed or was never initialised with fd -1. */
void service_manager_deinit(struct service_manager *m);
static inline bool service_manager_present(const struct service_manager *m)
{
    return m->fd != -1;
}

/* `status` is one line for people, NULL: none. Each waits a second at most for a manager that does
 * not listen, and what it could not tell is lost. */
void service_manager_ready(const struct service_manager *m, const char *status);
/* Before a reload; service_manager_ready ends it. */
void service_manager_reloading(const struct service_manager *m);
void service_manager_stopping(const struct service_manager *m, const char *status);
void service_manager_status(const struct service_manager *m, const char *status);
/* The start or the end takes longer: so long from now. */
void service_manager_extend(const struct service_manager *m, uint64_t ms);
/* Another process of the same service is the one to watch from now on. */
void service_manager_main_pid(const struct service_manager *m, pid_t pid);
/* A sign of life. Never waits. Whoever calls it has made sure that everything turns. */
void service_manager_alive(const struct service_manager *m);

/* Parses WATCHDOG_USEC and WATCHDOG_PID (NULL: not set) for process `own`: 0 if it is not meant. */
uint64_t service_watchdog_parse(const char *usec, const char *pid, pid_t own);

/* --- sockets that the manager opened -----------------------------------------------------------
 */

enum { SERVICE_FD_FIRST = 3, SERVICE_SOCKETS_MAX = 64, SERVICE_NAME_MAX = 255 };

struct service_socket {
    char name[SERVICE_NAME_MAX + 1]; /* "unknown" where the manager names none; "": not its */
    int fd;                          /* listening, non-blocking, close-on-exec; -1: taken away */
    struct sockaddr_storage address; /* that it is bound to */
    socklen_t address_len;
    bool activated; /* the manager opened it, and removes its file; else it was taken over */
    bool used;      /* somebody took it, or a copy */
};
struct service_sockets {
    struct service_socket *items; /* owned */
    size_t n;
};

/* Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of the environment. Every descriptor that was
 * handed over has to be a listening stream socket of IPv4, IPv6 or Unix; one that is not is a
 * failure, after which nothing was taken. None at all is fine. */
int service_sockets_take(struct service_sockets *ret, struct err *err);
void service_sockets_deinit(struct service_sockets *s);
/* All of `more` as well, which is empty then. */
void service_sockets_join(struct service_sockets *s, struct service_sockets *more);
/* Checks one descriptor, and fills `ret` but for its name; fd stays the caller's on failure. */
int service_socket_check(int fd, struct service_socket *ret, struct err *err);

/* How many descriptors the three variables (NULL: not set) hand to process `own`; -1: they
 * contradict each other. names gets one name each: views into `fdnames`, or "unknown". */
int service_sockets_parse(const char *pid, const char *fds, const char *fdnames, pid_t own,
                          struct str ret_names[SERVICE_SOCKETS_MAX], struct err *err);

/* The next socket from index `from` on that is bound to just this address; NULL: none. */
struct service_socket *service_sockets_find(const struct service_sockets *s, size_t from,
                                            const struct sockaddr *address, socklen_t len,
                                            size_t *ret_index);
/* The next one that a manager opened under this name. */
struct service_socket *service_sockets_find_name(const struct service_sockets *s, size_t from,
                                                 const char *name, size_t *ret_index);

/* One that nobody has used; NULL: all are. */
const struct service_socket *service_sockets_unused(const struct service_sockets *s);

#endif
