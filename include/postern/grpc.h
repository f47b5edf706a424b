/*
 * grpc: gRPC over HTTP/2 (nghttp2), both ends, on one loop, over stream sockets that somebody else
 * accepted or that connect to a Unix path. Plaintext; who the peer is, is not known here.
 *
 * Server: grpc_server_new with a table of methods; connections are handed in by descriptor. Each
 * RPC is a `struct grpc_call`, which belongs to this module and is valid for the handler until it
 * calls grpc_call_finish or returns from on_cancel, whichever comes first; exactly one of the two
 * happens. Client: grpc_client_connect, then calls with callbacks; on_end comes exactly once.
 *
 * Everything that a peer makes us hold is bounded by struct grpc_limits; what passes a bound ends
 * the call or the connection. Buffers that held messages are wiped, since messages may hold keys.
 *
 * Header fields are judged here and not by nghttp2, whose checks refuse the raw socket path that
 * Java clients send as :authority. Nothing is ever decided by :authority.
 *
 * Thread: the loop's. Times in milliseconds. Callbacks may call anything here, also finish, cancel,
 * close and free: objects go away at the end of the turn.
 * Spec: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), RFC 9113.
 */
#ifndef POSTERN_GRPC_H
#define POSTERN_GRPC_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
};
/* "PermissionDenied"; "Unknown" for what is no status. */
const char *grpc_status_name(enum grpc_status status);

/* A zero means the default in brackets. */
struct grpc_limits {
    uint32_t max_streams;       /* open at once on a connection [100] */
    size_t max_header_bytes;    /* names and values of one request or answer [16 KiB] */
    size_t max_message_bytes;   /* one incoming message [4 MiB] */
    size_t max_conn_in_bytes;   /* incoming messages that are not whole yet [8 MiB] */
    size_t max_call_out_bytes;  /* queued and unsent on one call [4 MiB] */
    size_t max_conn_out_bytes;  /* queued and unsent on one connection [16 MiB] */
    uint32_t max_control_burst; /* PING, SETTINGS, RST_STREAM, PRIORITY ... frames at once [200] */
    uint32_t max_control_per_s; /* and per second after that [20] */
    uint64_t handshake_timeout_ms; /* until the peer's preface and SETTINGS are there [10,000] */
    uint64_t idle_timeout_ms;      /* server: no call open: GOAWAY, then close [600,000] */
    uint64_t stall_timeout_ms;     /* socket takes none of what is to be written [60,000] */
    uint64_t keepalive_ms; /* nothing read for so long: PING; again so long: close [never] */
};

/* --- server -----------------------------------------------------------------------------------
 */
struct grpc_server;
struct grpc_conn;
struct grpc_call;

/* A method takes exactly one request message, or any number (many_requests), and answers with one
 * (unary) or any number. */
struct grpc_method {
    const char *path; /* "/Service/Rpc" */
    bool streaming;   /* the answer is a stream; else finish with GRPC_OK needs one message sent */
    /* The call's metadata is there and no message yet: for checks that come first. May finish the
     * call. NULL: none. */
    void (*on_open)(struct grpc_call *call, void *arg);
    /* The request, whole and complete; of many_requests each, as it comes. message is borrowed for
     * the time of this callback. */
    void (*on_request)(struct grpc_call *call, void *arg, struct str message);
    /* All that was queued has gone to the socket. NULL: not wanted. */
    void (*on_drained)(struct grpc_call *call, void *arg);
    /* The caller went away, or the deadline passed, or the connection ended. The call is gone when
     * this returns: release what hangs on it. NULL: nothing to do. */
    void (*on_cancel)(struct grpc_call *call, void *arg);
    bool many_requests;
    /* many_requests only, and not NULL then: the caller sends no more; it still waits for answers
     * and the end. */
    void (*on_request_end)(struct grpc_call *call, void *arg);
};

/* What the connections of one owner hold of us together: structures, messages that are not whole
 * yet or not sent. The owner's; it must outlive the connections. What would pass the bound is
 * refused: a message (GRPC_FULL), a call (Unavailable), a connection. */
struct grpc_account {
    size_t bytes, max_bytes;
};

struct grpc_server_events {
    /* The connection is gone, all its calls have been cancelled before. NULL: nothing to do. */
    void (*on_conn_closed)(void *arg, void *conn_context);
};

/* methods (borrowed, must outlive the server) is an array of n; limits NULL: defaults. arg goes to
 * every callback. */
struct grpc_server *grpc_server_new(struct loop *loop, const struct grpc_method *methods, size_t n,
                                    const struct grpc_limits *limits,
                                    const struct grpc_server_events *events, void *arg);
/* Closes every connection (calls are cancelled, on_conn_closed is called). Takes NULL. */
struct grpc_server *grpc_server_free(struct grpc_server *server);
/* Takes over fd (a connected stream socket, made non-blocking here), also on failure. conn_context
 * is the caller's: told back by grpc_call_conn_context and on_conn_closed (not on failure). account
 * (may be NULL) is what it is charged to. */
int grpc_server_add_connection(struct grpc_server *server, int fd, void *conn_context,
                               struct grpc_account *account, struct grpc_conn **ret_conn,
                               struct err *err);
/* GOAWAY on every connection: open calls go on, new ones are refused, and each connection closes
 * with its last call. Connections added later are treated alike. */
void grpc_server_drain(struct grpc_server *server);
size_t grpc_server_conn_count(const struct grpc_server *server);
size_t grpc_server_call_count(const struct grpc_server *server);

/* Cancels its calls and closes it; conn is gone at the end of the turn. */
void grpc_conn_close(struct grpc_conn *conn);
/* GOAWAY: open calls go on, and it closes with the last one; perhaps at the end of this turn. */
void grpc_conn_drain(struct grpc_conn *conn);
size_t grpc_conn_call_count(const struct grpc_conn *conn);

/* What the handler keeps for this call; NULL at first. */
void grpc_call_set_data(struct grpc_call *call, void *data);
void *grpc_call_data(const struct grpc_call *call);
void *grpc_call_conn_context(const struct grpc_call *call);
struct grpc_conn *grpc_call_conn(const struct grpc_call *call);
const struct grpc_method *grpc_call_method(const struct grpc_call *call);
/* The n-th value (from 0) of metadata `key` (lower case); false if there are not so many. Borrowed
 * for the call's life. Keys of gRPC and HTTP themselves are not metadata. */
bool grpc_call_metadata(const struct grpc_call *call, struct str key, size_t n, struct str *ret);

/* What the handler keeps for this call comes to n bytes in all, which its account is charged with
 * until the call is gone; false, and nothing changed, if there is no room. */
bool grpc_call_hold(struct grpc_call *call, size_t n) __attribute__((warn_unused_result));

enum grpc_send {
    GRPC_SENT, /* copied and queued */
    GRPC_FULL, /* a bound of grpc_limits would be passed; nothing was queued */
};
/* Queues one message (copied; the copy is wiped when it is sent). */
enum grpc_send grpc_call_send(struct grpc_call *call, const void *message, size_t n)
    __attribute__((warn_unused_result));
/* Bytes queued on this call and not yet with the socket. */
size_t grpc_call_unsent(const struct grpc_call *call);
/* Ends the call after what was queued. message (UTF-8, may be NULL) is for people: it is encoded
 * and cut at 1 kB. The call is gone for the handler: no callback comes any more. */
void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message);

/* --- client -----------------------------------------------------------------------------------
 */
struct grpc_client;
struct grpc_client_call;

struct grpc_client_events {
    /* The peer's SETTINGS are there: it does speak HTTP/2. NULL: not wanted. */
    void (*on_ready)(void *arg);
    /* The connection is over (never called from within grpc_client_connect or grpc_client_free);
     * each open call has had its on_end with GRPC_UNAVAILABLE before. What is left to the owner is
     * grpc_client_free, and to come back as it sees fit. */
    void (*on_closed)(void *arg, const struct err *why);
};

struct grpc_metadata {
    const char *key; /* lower case */
    const char *value;
};

struct grpc_request {
    const char *path; /* "/Service/Rpc" */
    struct str message;
    const struct grpc_metadata *metadata;
    size_t n_metadata;
    bool streaming;       /* any number of answers; else exactly one with GRPC_OK */
    uint64_t deadline_ms; /* from now; also told to the server; 0: none */
    bool many_requests;   /* message is the first; more may follow by grpc_client_send */
};

struct grpc_client_handlers {
    /* message is borrowed for the time of the callback. */
    void (*on_message)(void *arg, struct str message);
    /* Exactly once unless cancelled; the call is gone then. text is never NULL. */
    void (*on_end)(void *arg, enum grpc_status status, const char *text);
};

/* Connects to a Unix socket ("/abs/path" only). Failure to connect is told here. */
struct grpc_client *grpc_client_connect(struct loop *loop, const char *path,
                                        const struct grpc_limits *limits,
                                        const struct grpc_client_events *events, void *arg,
                                        struct err *err);
/* As above over a connected stream socket, which is taken over, also on failure. */
struct grpc_client *grpc_client_new_fd(struct loop *loop, int fd, const struct grpc_limits *limits,
                                       const struct grpc_client_events *events, void *arg,
                                       struct err *err);
/* Open calls end without a callback. Takes NULL. */
struct grpc_client *grpc_client_free(struct grpc_client *client);
/* NULL if the connection is over or refuses new calls (GOAWAY): connect anew. handlers is borrowed
 * for the call's life. */
struct grpc_client_call *grpc_client_start(struct grpc_client *client,
                                           const struct grpc_request *request,
                                           const struct grpc_client_handlers *handlers, void *arg,
                                           struct err *err);
/* One more request message (copied) of a call with many_requests. Not after on_end. */
enum grpc_send grpc_client_send(struct grpc_client_call *call, struct str message)
    __attribute__((warn_unused_result));
/* RST_STREAM(CANCEL); no callback comes any more; the call is gone. Takes NULL. */
void grpc_client_cancel(struct grpc_client_call *call);

/* --- pure parts -------------------------------------------------------------------------------
 */
/* Cuts a stream of bytes into length-prefixed messages. Zeroed with max_bytes set it is ready. */
struct grpc_splitter {
    size_t max_bytes; /* of one message */
    uint8_t head[5];  /* flag and big-endian length, as far as they have come */
    size_t n_head;
    uint8_t *data; /* owned: the message so far */
    size_t n_data, cap;
};
enum grpc_split {
    GRPC_SPLIT_MORE,       /* all was taken; no message is whole yet */
    GRPC_SPLIT_MESSAGE,    /* *ret_message is one, valid until the next feed or reset */
    GRPC_SPLIT_COMPRESSED, /* the flag says compressed, or nothing we know; final */
    GRPC_SPLIT_TOO_LARGE,  /* longer than max_bytes; final */
    GRPC_SPLIT_NO_MEMORY,  /* final */
};
/* Takes at most n bytes; *ret_taken says how many. Call again with the rest after a message. */
enum grpc_split grpc_splitter_feed(struct grpc_splitter *s, const uint8_t *p, size_t n,
                                   size_t *ret_taken, struct str *ret_message);
/* No message has begun: the stream may end here. */
bool grpc_splitter_at_end(const struct grpc_splitter *s);
/* Memory that it holds now. */
size_t grpc_splitter_held(const struct grpc_splitter *s);
/* Wipes and frees; ready for use again. */
void grpc_splitter_reset(struct grpc_splitter *s);

/* "10S" and the like (at most 8 digits, one of HMSmun) to milliseconds, rounded up, at most
 * UINT32_MAX. */
bool grpc_timeout_parse(struct str s, uint64_t *ret_ms);
/* The percent-encoding of grpc-message: terminated, cut to size at a whole character. */
size_t grpc_message_encode(const char *text, char *out, size_t size);
/* Back; what is no proper encoding is left as it is, control bytes become '?'. */
size_t grpc_message_decode(struct str s, char *out, size_t size);

#endif
