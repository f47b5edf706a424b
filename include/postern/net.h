/*
 * net: TCP sockets, the kernel's word about redirected ones, and streams.
 *
 * A stream is one end of a connection as the pump sees it: a small table of operations over a
 * descriptor. Plain streams live here, TLS streams in tls.h; both are embedded by their owner and
 * released with stream_deinit. Outcomes are enums, never errno and never logged here.
 *
 * Memory: a stream at rest holds no buffer. Reads go into buffers that all streams of a worker
 * share (struct net_scratch); a write is taken whole, and what the kernel does not take is kept in
 * the stream's own `out` until stream_flush has got rid of it. The caller's part of the bargain is
 * to read no more from the source while stream_blocked(destination): that is the back pressure, and
 * it bounds `out` by one scratch buffer.
 *
 * Thread: a stream and its scratch belong to one worker.
 */
#ifndef POSTERN_NET_H
#define POSTERN_NET_H

#include <netinet/in.h>
#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* --- addresses -------------------------------------------------------------------------------- */
/* Who is at the other end of a Unix socket, as the kernel knows it from when it connected. The
 * process may have handed the socket on since. */
struct net_unix_peer {
    sa_family_t family; /* AF_UNIX */
    pid_t pid;          /* 0: not in our view */
    uid_t uid;
    gid_t gid;
};

/* An IP address and port; an IPv4 address is always AF_INET here, never v4-mapped. Or the peer of a
 * Unix socket, which has neither: port 0, the same host as nobody. */
struct net_addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct net_unix_peer local;
    };
    socklen_t len; /* 0: none */
};

enum { NET_ADDR_TEXT_MAX = 64 };

/* Folds a v4-mapped address to AF_INET; false if it is neither IPv4 nor IPv6. */
bool net_addr_from(const struct sockaddr *sa, socklen_t len, struct net_addr *ret);
uint16_t net_addr_port(const struct net_addr *a);
void net_addr_set_port(struct net_addr *a, uint16_t port);
bool net_addr_same_host(const struct net_addr *a, const struct net_addr *b);
bool net_addr_equal(const struct net_addr *a, const struct net_addr *b);
bool net_addr_is_loopback(const struct net_addr *a);
bool net_addr_is_any(const struct net_addr *a);
static inline bool net_addr_is_unix(const struct net_addr *a)
{
    return a->len > 0 && a->sa.sa_family == AF_UNIX;
}
/* "10.0.0.1:80", "[fd00::1]:80" or "unix:uid=0,gid=0,pid=1"; "-" for none. Returns ret_text. */
const char *net_addr_text(const struct net_addr *a, char ret_text[NET_ADDR_TEXT_MAX]);
/* Whether the kernel would reach it without leaving this host (asks by an unsent datagram). */
bool net_addr_is_local(const struct net_addr *a);

/* --- sockets ---------------------------------------------------------------------------------- */
/* A listening socket with what accepted ones inherit: no delay, keepalive. `::` is dual-stack. */
int net_listen(const struct net_addr *addr, int *ret_fd, struct err *err);
/* -1 with errno, as accept4. */
int net_accept(int listen_fd, struct net_addr *ret_source);
/* Where the socket is bound. */
bool net_local_addr(int fd, struct net_addr *ret);
/* Where the client wanted to go before the kernel redirected it here. False: it was not redirected,
 * the connection was made to this listener itself. */
bool net_original_dst(int fd, struct net_addr *ret);
/* Connects: a descriptor, or -1 with errno when it failed at once. Unless *ret_done, wait until it
 * is writable and ask net_dial_error. */
int net_dial(const struct net_addr *to, bool *ret_done);
int net_dial_error(int fd);
/* The same in two steps, for who has to know its own port before anybody else can: a socket that
 * has one (-1: errno), and connecting it (-1: errno, the socket stays). */
int net_bound_socket(int family, uint16_t *ret_port);
int net_dial_on(int fd, const struct net_addr *to, bool *ret_done);
/* The two halves of it, for who sets something in between: a socket with what both legs want, and
 * the connecting: 0, or -1 with errno, and the socket stays the caller's. */
int net_socket(int family);
int net_connect(int fd, const struct net_addr *to, bool *ret_done);

/* --- with addresses of others: transparent.c ---------------------------------------------------
 * Both ends need CAP_NET_RAW (or CAP_NET_ADMIN) when the option is set. */
/* Lets a listening socket take what TPROXY hands it; what it accepts has the original destination
 * as its local address. */
int net_listen_transparent(int fd, struct err *err);
/* That address. False: the connection was made to the listener itself. */
bool net_transparent_dst(int fd, uint16_t own_port, struct net_addr *ret);
/* net_dial from a client's address, and a port of ours. */
int net_dial_from(const struct net_addr *from, const struct net_addr *to, bool *ret_done);
/* The same by a path. A server whose queue is full refuses (EAGAIN): the kernel would tell nobody
 * when there is room again. */
int net_dial_unix(const char *path, bool *ret_done);
/* Closes so that the peer sees a reset, whatever was queued. Takes -1; returns -1. */
int net_reset(int fd);

/* --- Unix sockets that are listened on --------------------------------------------------------
 * A socket file has its mode and its owner before it listens. The file of a
 * socket that nobody listens on any more is replaced; anything else that is there is not. */
struct net_unix_spec {
    const char *path;
    mode_t mode;
    const char *owner, *group; /* names or numbers; NULL: the process's own */
};
/* The file that was made, so that no other one is removed. */
struct net_unix_file {
    char *path; /* owned; NULL: none */
    dev_t dev;
    ino_t ino;
    struct timespec made; /* numbers come again */
};
/* Before other threads run: it changes the umask for a moment. */
int net_listen_unix(const struct net_unix_spec *spec, int *ret_fd, struct net_unix_file *ret,
                    struct err *err);
/* That of a socket that was made by somebody else, and is ours from now on. */
void net_unix_file_of(const char *path, struct net_unix_file *ret);
/* `remove`: the file as well, if it is still this one. Takes a zeroed one. */
void net_unix_file_deinit(struct net_unix_file *f, bool remove);

/* --- streams ---------------------------------------------------------------------------------- */
enum {
    NET_SCRATCH_SIZE = 128 * 1024,                 /* one read, one write */
    NET_SEALED_SIZE = NET_SCRATCH_SIZE + 8 * 1024, /* the same with TLS records around it */
    NET_HEADROOM = 4096,
    NET_READ_MIN = 16 * 1024, /* a read's size while nothing is known */
};

/* A worker's shared buffers: nothing in them outlives the call that filled them, but `plain`, which
 * belongs to whoever called stream_read. Pages that were never used cost nothing. */
struct net_scratch {
    uint8_t *plain;  /* NET_SCRATCH_SIZE: for callers of stream_read; before it lie
                        NET_HEADROOM bytes more, for a header of what was read */
    uint8_t *raw;    /* NET_SCRATCH_SIZE: ciphertext as read */
    uint8_t *sealed; /* NET_SEALED_SIZE: ciphertext to write */
    size_t sealed_len;
};
int net_scratch_init(struct net_scratch *s, struct err *err);
void net_scratch_deinit(struct net_scratch *s);
/* Gives the pages back to the kernel, for a worker that went quiet. */
void net_scratch_trim(struct net_scratch *s);

enum stream_outcome {
    STREAM_OK,
    STREAM_AGAIN,  /* nothing now: wait for readable (read, handshake) or writable (flush) */
    STREAM_EOF,    /* the peer ended its direction in order */
    STREAM_FAILED, /* reset, truncated or broken: sys_errno and truncated say how */
};

struct stream;
struct stream_ops {
    const char *name;
    enum stream_outcome (*read)(struct stream *s, uint8_t *dst, size_t cap, size_t *ret_n);
    enum stream_outcome (*write)(struct stream *s, const uint8_t *src, size_t n);
    enum stream_outcome (*shut)(struct stream *s);
    enum stream_outcome (*flush)(struct stream *s); /* NULL: `out` goes to the descriptor */
    bool (*has_input)(const struct stream *s);
    void (*deinit)(struct stream *s);
};

struct stream {
    const struct stream_ops *ops; /* NULL: not open */
    struct net_scratch *scratch;
    int fd;             /* owned; -1: it has none of its own */
    int sys_errno;      /* of the system call that failed; 0: none did */
    uint32_t read_size; /* of the next read: grows with the flow, shrinks when it stops */
    bool eof;           /* read side: ended in order */
    bool truncated;     /* read side: ended without the end that the protocol asks for */
    bool failed;
    bool broken;      /* the other end takes nothing any more: what it had sent before that is still
                       * read, then reading fails too */
    bool shut_wanted; /* write side: to be ended once `out` is empty */
    bool shut_done;
    struct buf out; /* what the kernel has not taken yet */
    uint64_t bytes_read, bytes_written;
};

/* Takes fd. */
void stream_plain_init(struct stream *s, struct net_scratch *scratch, int fd);
/* Takes a stream that was never opened, and one that is gone. `reset`: the peer sees a reset. */
void stream_deinit(struct stream *s, bool reset);
static inline bool stream_is_open(const struct stream *s)
{
    return s->ops != NULL;
}

/* At most cap bytes; *ret_n > 0 with STREAM_OK only. One system call at most. */
static inline enum stream_outcome stream_read(struct stream *s, uint8_t *dst, size_t cap,
                                              size_t *ret_n)
{
    return s->ops->read(s, dst, cap, ret_n);
}
/* Takes all n bytes (n at most NET_SCRATCH_SIZE; n 0 is fine): STREAM_OK, or STREAM_FAILED. */
static inline enum stream_outcome stream_write(struct stream *s, const uint8_t *src, size_t n)
{
    return s->ops->write(s, src, n);
}
/* STREAM_OK: nothing is kept back any more (and a wanted end was sent). */
enum stream_outcome stream_flush(struct stream *s);
/* Ends our direction, after what is still kept back. */
enum stream_outcome stream_shut(struct stream *s);
/* Bytes are here already that no readiness event will announce. */
static inline bool stream_has_input(const struct stream *s)
{
    return s->ops->has_input != NULL && s->ops->has_input(s);
}
static inline bool stream_blocked(const struct stream *s)
{
    return s->out.len > 0;
}

/* For stream implementations: sends now what the kernel takes and keeps the rest in `out`. */
enum stream_outcome stream_send(struct stream *s, const uint8_t *src, size_t n);
/* One recv of at most n bytes. */
enum stream_outcome stream_recv(struct stream *s, uint8_t *dst, size_t n, size_t *ret_n);

#endif
