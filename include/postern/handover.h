/*
 * handover: listening sockets from a running process to the one that takes its place: the messages,
 * and the asker's side. docs/restart.md says who may.
 *
 * A stream of messages of one fixed size each on the Unix connection that was made to the admin
 * socket; SOCKET messages carry one descriptor. The receiver trusts nothing: a wrong size, type or
 * order, a descriptor too many or too few, or one that is no listening socket, is a failure.
 * Thread: any, one a connection.
 */
#ifndef POSTERN_HANDOVER_H
#define POSTERN_HANDOVER_H

#include <postern/err.h>
#include <postern/ipc.h>
#include <postern/service_manager.h>
#include <stdbool.h>
#include <stdint.h>

/* What is asked for on the admin socket. */
#define HANDOVER_REQUEST "take-over"

enum {
    HANDOVER_MAGIC = 0x48545350, /* "PSTH" */
    HANDOVER_VERSION = 2,
    HANDOVER_SOCKETS_MAX = 4096,
};

enum handover_type {
    HANDOVER_SOCKET = 1, /* old to new: one of them, with its descriptor */
    HANDOVER_END,        /* old to new: that was all; count says how many */
    HANDOVER_READY,      /* new to old: it serves */
    HANDOVER_GONE,       /* old to new: it does not accept any more */
};

struct handover_msg {
    uint32_t magic, version;
    uint32_t type;      /* enum handover_type */
    uint32_t count;     /* END: sockets that were sent; else 0 */
    uint32_t pid;       /* of the sender, for logs */
    uint32_t activated; /* SOCKET: a service manager opened it */
    /* SOCKET, activated: the manager's name for it; END, READY: the sender's version, for logs;
     * terminated. */
    char name[SERVICE_NAME_MAX + 1];
};

void handover_msg_init(struct handover_msg *m, enum handover_type type);
/* SOCKET; activated: the manager's name for it, NULL: it was not opened by one. */
void handover_msg_socket(struct handover_msg *m, const char *activated);
/* END, READY: what says it. */
void handover_msg_build(struct handover_msg *m, const char *build);
/* Whether the bytes are a whole and sound message, with a descriptor just where one belongs. */
bool handover_msg_ok(const void *data, size_t len, bool has_fd);

/* One message; the descriptor is borrowed, -1: none. IPC_AGAIN: no room now, nothing was sent. */
enum ipc_outcome handover_send(int fd, const struct handover_msg *m, int fd_to_pass)
    __attribute__((warn_unused_result));
/* One message; the descriptor is the caller's, -1: none. The connection may also hold a refusal,
 * which is text: IPC_BAD, and *ret_text (at least 128 bytes, may be NULL) has what of it can be
 * shown. */
enum ipc_outcome handover_recv(int fd, struct handover_msg *ret, int *ret_fd, char *ret_text,
                               size_t text_size) __attribute__((warn_unused_result));

/* --- the asker: blocking, with a deadline ------------------------------------------------------
 */

struct handover {
    int fd; /* the connection, until GONE; -1: there is none */
    pid_t pid;
    char build[64];                 /* its version; may be empty */
    struct service_sockets sockets; /* what it handed over */
};
/* Asks the process that listens on `path`, which has to be of our own uid. 0: it handed over; 1:
 * nobody is there, and h holds nothing. */
int handover_ask(const char *path, unsigned timeout_ms, struct handover *ret, struct err *err);
/* Says READY, and which version does, and waits for GONE. -1: it is not known whether the old one
 * still accepts; we have the sockets in any case. */
int handover_finish(struct handover *h, const char *build, unsigned timeout_ms, struct err *err);
/* Before READY: the old one then goes on. */
void handover_deinit(struct handover *h);

#endif
