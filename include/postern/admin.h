/*
 * admin: looking into a running process.
 *
 * On a Unix socket (never an abstract one), guarded by file mode and by the asker's uid as the
 * kernel tells it: one line "GET NAME\n" in, one document out, then the end. The role registers
 * documents by name. Over TCP only /metrics and /ready are answered, by HTTP/1.1 with "Connection:
 * close".
 *
 * Everything runs on one loop; at most 32 clients of a listener at once (further ones wait in the
 * kernel's queue, so that scrapers never keep operators out), each with a deadline of 5 s and a
 * request of at most 4 kB. Refusals are one line of JSON {"error": ...}.
 *
 * System calls that a role's filter must allow for it: accept4, getsockopt, recvfrom, sendto,
 * shutdown, close, epoll_ctl, and what the documents need.
 */
#ifndef POSTERN_ADMIN_H
#define POSTERN_ADMIN_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/loop.h>
#include <postern/service_manager.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Writes the document into out (at most 16 MiB); false: there is none now (an error is answered).
 */
typedef bool (*admin_document_fn)(void *arg, struct buf *out);

struct admin_document {
    const char *name; /* "status", "metrics", "ready" ... */
    admin_document_fn fn;
    bool health; /* answered over HTTP too, as JSON: with 200, or 503 where fn says false, which
                    then has written why */
    /* Instead of fn: `name` ends in / and is what names begin with; rest is what is behind it. Not
     * over HTTP. */
    bool (*named)(void *arg, struct str rest, struct buf *out);
};

struct admin_options {
    const char *socket_path; /* NULL: no Unix socket */
    const uid_t *allow_uids;
    size_t n_allow_uids;
    const struct sockaddr *http; /* NULL: no TCP listener; answers "metrics" and "ready" only */
    socklen_t http_len;
    const struct admin_document *documents; /* lent, n entries */
    size_t n_documents;
    void *arg; /* for all of them */
    /* Listening sockets that there are already (lent): those with the addresses above are used. */
    const struct service_sockets *inherited;
    bool paused; /* until admin_start nobody is served, and the socket's file is another's */
    /* A name on the Unix socket that is no document: the connection itself is handed to `channel`
     * with the descriptor. It returns NULL, or why it does not take it. NULL: none. */
    const char *channel_name;
    const char *(*channel)(void *arg, int fd);
};

struct admin;
/* Opens the listeners at once. A stale socket file is removed only if the kernel says that nobody
 * listens on it. "ready" over HTTP is 200 if its document exists and 503 if not. */
struct admin *admin_new(struct loop *loop, const struct admin_options *options, struct err *err);
/* Takes over a listening socket that another process opened, also on failure; at most one of each
 * kind. The Unix one (http false) brings the uids that may ask. */
int admin_add_listener(struct admin *a, int fd, bool http, const uid_t *allow_uids,
                       size_t n_allow_uids, struct err *err);
/* After `paused`. */
void admin_start(struct admin *a);
/* Another process has the listening sockets and the socket's file from now on: accepts no more, and
 * goes on with the clients that there are. */
void admin_release(struct admin *a);
/* The listening sockets, -1: none; lent. *ret_activated: a service manager opened it. */
int admin_listener(const struct admin *a, bool http, bool *ret_activated);
/* Ends all clients, removes the socket file if admin_new made it. Takes NULL; before loop_free. */
struct admin *admin_free(struct admin *a);

/* The opening alone, for a process that hands its listening sockets on to another one. The socket
 * file is 0600, or 0666 if uids other than the own and 0 may ask (the uid still decides);
 * its directory must be one in which nobody else can replace it. Removing the file is the opener's.
 */
int admin_open_socket(const char *path, const uid_t *allow_uids, size_t n_allow_uids, int *ret_fd,
                      struct err *err);
int admin_open_http(const struct sockaddr *addr, socklen_t len, int *ret_fd, struct err *err);

/* The asker's side, blocking, for commands: the whole document is appended to out. A refusal of the
 * process is a failure with its reason, and nothing is appended. */
int admin_ask(const char *socket_path, const char *name, unsigned timeout_ms, struct buf *out,
              struct err *err);

/* The parsers of what strangers send, for their fuzzers. Both look at a head of `len` bytes. */
enum admin_parse { ADMIN_MORE, ADMIN_BAD, ADMIN_OK };
/* "GET NAME\n": *ret_name views into data. */
enum admin_parse admin_parse_line(const char *data, size_t len, struct str *ret_name);
/* An HTTP/1.x request head: *ret_status is 200 and *ret_name the path without its slash, or the
 * status to refuse with. */
enum admin_parse admin_parse_http(const char *data, size_t len, struct str *ret_name,
                                  int *ret_status);

#endif
