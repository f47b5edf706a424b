/*
 * http1: HTTP/1.0 and HTTP/1.1 messages as bytes (RFC 9110, RFC 9112), for a proxy that must read
 * every message as every server behind it reads it.
 *
 * Whatever could be read in two ways is refused and never repaired. Our own validator decides over
 * the raw bytes of a head; llhttp then reads the same head and has to agree. Bodies are not copied:
 * a tracker says how many of the bytes at hand belong to the message.
 *
 * All functions are pure: of (bytes, length, state), with no socket, clock, global or allocation
 * (emitters allocate in the caller's buf, bounded by its maximum). Thread: any.
 *
 * Ownership: a parsed head is a view into the caller's bytes and lives as long as they stay where
 * they are. struct http1_request and struct http1_response are large (about 12 kB and 4 kB): keep
 * one of each a worker and not one a connection. What a connection has to remember is in
 * struct http1_request_info and struct http1_response_info, small and copyable.
 *
 * The usual course, on the inbound side:
 *   http1_request_read until HTTP1_DONE -> judge info.method, host, judged_path ->
 *   http1_request_emit to the workload, http1_body_init and http1_body_feed over what follows ->
 *   http1_response_read until HTTP1_DONE (again after each interim 1xx) -> http1_response_emit ->
 *   http1_body_* over the response.
 */
#ifndef POSTERN_HTTP1_H
#define POSTERN_HTTP1_H

#include <postern/buf.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP1_MAX_HEADERS = 100, HTTP1_MAX_TARGET = 8000, HTTP1_MAX_HOST = 255 };

/* --- refusals ----------------------------------------------------------------------------------
 * One row a reason: name, token for logs and x-postern-reason, status when a *request* is refused
 * (a refused response is always 502), and what is wrong, for people. */
#define HTTP1_REASONS(X)                                                                           \
    X(NONE, "none", 0, "nothing is wrong")                                                         \
    X(EMPTY_LINE, "empty_line", 400, "an empty line before the message")                           \
    X(BARE_LF, "bare_lf", 400, "a line that ends with LF alone")                                   \
    X(BARE_CR, "bare_cr", 400, "a CR that no LF follows")                                          \
    X(CONTROL_BYTE, "control_byte", 400, "a NUL or another control byte")                          \
    X(METHOD_MALFORMED, "method_malformed", 400, "a method that is not a token")                   \
    X(METHOD_UNKNOWN, "method_unknown", 501, "a method that is not an HTTP method")                \
    X(METHOD_CONNECT, "method_connect", 501, "CONNECT, which this port does not serve")            \
    X(HTTP2_PREFACE, "http2_preface", 505, "HTTP/2 on a port that speaks HTTP/1.1")                \
    X(REQUEST_LINE, "request_line", 400, "a request line that is not method, target, version")     \
    X(TARGET_FORM, "target_form", 400, "a request target of a form that the method does not take") \
    X(TARGET_BYTE, "target_byte", 400, "a byte in the request target that has to be encoded")      \
    X(TARGET_PERCENT, "target_percent", 400, "a percent sign without two hexadecimal digits")      \
    X(TARGET_LONG, "target_long", 414, "a request target that is too long")                        \
    X(PATH_AMBIGUOUS, "path_ambiguous", 400, "a path that servers read in more than one way")      \
    X(PROTOCOL, "protocol", 400, "a protocol that is not HTTP")                                    \
    X(VERSION, "version", 505, "an HTTP version other than 1.0 and 1.1")                           \
    X(STATUS_LINE, "status_line", 502, "a status line that is not version, status, reason")        \
    X(HEAD_LONG, "head_long", 431, "a head that is too long")                                      \
    X(HEADERS_MANY, "headers_many", 431, "too many header fields")                                 \
    X(HEADER_FOLDED, "header_folded", 400, "a header field folded over two lines")                 \
    X(HEADER_NAME_EMPTY, "header_name_empty", 400, "a header field without a name")                \
    X(HEADER_NAME_SPACE, "header_name_space", 400, "space before the colon of a header field")     \
    X(HEADER_NAME_BYTE, "header_name_byte", 400, "a byte in a field name that is no token byte")   \
    X(HEADER_NO_COLON, "header_no_colon", 400, "a header line without a colon")                    \
    X(HEADER_LOOKALIKE, "header_lookalike", 400,                                                   \
      "a field name that some servers take for one that frames or routes the message")             \
    X(LENGTH_MALFORMED, "length_malformed", 400, "a Content-Length that is not one plain number")  \
    X(LENGTH_DUPLICATE, "length_duplicate", 400, "more than one Content-Length")                   \
    X(LENGTH_WITH_CODING, "length_with_coding", 400, "Content-Length with Transfer-Encoding")      \
    X(CODING_MALFORMED, "coding_malformed", 400,                                                   \
      "a Transfer-Encoding that is not exactly `chunked`")                                         \
    X(CODING_DUPLICATE, "coding_duplicate", 400, "more than one Transfer-Encoding")                \
    X(CODING_HTTP10, "coding_http10", 400, "Transfer-Encoding in HTTP/1.0")                        \
    X(BODY_FORBIDDEN, "body_forbidden", 400, "a body where the message cannot have one")           \
    X(HOST_MISSING, "host_missing", 400, "no Host")                                                \
    X(HOST_DUPLICATE, "host_duplicate", 400, "more than one Host")                                 \
    X(HOST_MALFORMED, "host_malformed", 400, "a Host that is not a name or address, and port")     \
    X(HOST_MISMATCH, "host_mismatch", 400, "a Host that differs from the target's authority")      \
    X(CONNECTION_MALFORMED, "connection_malformed", 400, "a Connection that is not a token list")  \
    X(CONNECTION_LISTS, "connection_lists", 400,                                                   \
      "a Connection that names a field which is meant for the server")                             \
    X(EXPECT_UNKNOWN, "expect_unknown", 417, "an Expect other than 100-continue")                  \
    X(UPGRADE_MALFORMED, "upgrade_malformed", 400, "an Upgrade that is not a protocol list")       \
    X(UPGRADE_UNASKED, "upgrade_unasked", 502, "a switch to a protocol that was not asked for")    \
    X(CHUNK_SIZE, "chunk_size", 400, "a chunk size that is not a plain hexadecimal number")        \
    X(CHUNK_EXTENSION, "chunk_extension", 400, "a chunk extension that is malformed or too long")  \
    X(CHUNK_END, "chunk_end", 400, "chunk data that CR LF does not follow")                        \
    X(TRAILER_FORBIDDEN, "trailer_forbidden", 400, "a trailer field that belongs into the head")   \
    X(TRAILER_LONG, "trailer_long", 431, "trailers that are too long or too many")                 \
    X(BODY_LONG, "body_long", 413, "a body that is longer than one may be")                        \
    X(SECOND_READING, "second_reading", 400, "a message that two parsers read differently")

enum http1_reason {
#define HTTP1_REASON_ENUM(name, token, status, text) HTTP1_##name,
    HTTP1_REASONS(HTTP1_REASON_ENUM)
#undef HTTP1_REASON_ENUM
        HTTP1_REASON_COUNT
};

struct http1_error {
    enum http1_reason reason;
    unsigned status; /* to answer with: the row's for a request, 502 for a response */
    size_t offset;   /* of the offending byte or line, from the message's first byte (a body
                        tracker's: from the first byte of that call) */
};

const char *http1_reason_token(enum http1_reason reason); /* static */
const char *http1_reason_text(enum http1_reason reason);  /* static */
unsigned http1_reason_status(enum http1_reason reason);

enum http1_result {
    HTTP1_DONE,  /* the head (or body) is complete and valid */
    HTTP1_MORE,  /* valid so far, more bytes are needed */
    HTTP1_ERROR, /* refused: close the connection, nothing behind this point has a meaning */
};

/* --- what is read ------------------------------------------------------------------------------*/

/* Known are the methods of the IANA registry but PRI, and PURGE, NOTIFY, SUBSCRIBE and UNSUBSCRIBE;
 * anything else is METHOD_UNKNOWN. CONNECT is refused unless the limits say otherwise. */
enum http1_method {
    HTTP1_GET,
    HTTP1_HEAD,
    HTTP1_OPTIONS,
    HTTP1_TRACE,
    HTTP1_CONNECT,
    HTTP1_OTHER, /* nothing in HTTP/1 depends on which; see struct http1_request.method */
};

enum http1_framing {
    HTTP1_BODY_NONE,
    HTTP1_BODY_LENGTH,      /* exactly `length` bytes, which may be 0 */
    HTTP1_BODY_CHUNKED,     /* with trailers */
    HTTP1_BODY_UNTIL_CLOSE, /* responses only */
};

/* What PATH_AMBIGUOUS is not said of: see http1_path_read. */
enum http1_path_allow {
    HTTP1_PATH_ENCODED_SLASH = 1 << 0,     /* %2F */
    HTTP1_PATH_ENCODED_BACKSLASH = 1 << 1, /* %5C */
    HTTP1_PATH_SEMICOLON = 1 << 2,         /* ; and %3B */
    HTTP1_PATH_DOUBLE_SLASH = 1 << 3,      /* empty segments */
    HTTP1_PATH_DOT_SEGMENTS = 1 << 4,      /* "." and "..", encoded too, that stay below the root */
    HTTP1_PATH_ENCODED_PLAIN = 1 << 5,     /* an encoded letter, digit, '-', '_' */
    HTTP1_PATH_DOUBLE_ENCODING = 1 << 6,   /* %25HH of any of these */
    HTTP1_PATH_OVERLONG = 1 << 7,          /* UTF-8 that is not in its shortest form */
    HTTP1_PATH_ALL = (1 << 8) - 1,
};

struct http1_limits {
    size_t max_head;      /* bytes of a head with its empty line; HEAD_LONG beyond */
    size_t max_target;    /* at most HTTP1_MAX_TARGET; TARGET_LONG beyond */
    unsigned max_headers; /* at most HTTP1_MAX_HEADERS; HEADERS_MANY beyond */
    uint32_t allow_paths; /* enum http1_path_allow */
    uint64_t max_body;    /* of a request with a Content-Length; BODY_LONG beyond; 0: any */
    bool connect;         /* CONNECT is read */
    bool composed;        /* by http2, out of fields: there is no second way to read it */
};
#define HTTP1_LIMITS_DEFAULT                                                                       \
    {.max_head = 32768, .max_target = HTTP1_MAX_TARGET, .max_headers = HTTP1_MAX_HEADERS}

/* How far a head has been looked at: zeroed at its first byte, and again for the next message. */
struct http1_scan {
    uint32_t pos;
    uint32_t mark;
    uint16_t n_headers;
    uint8_t state;
    uint8_t match;
};

struct http1_header {
    struct str name;  /* as received */
    struct str value; /* as received, without the blanks around it */
    uint8_t id;       /* for the module's own use */
    bool drop;        /* hop-by-hop, named by Connection, or an identity header: not forwarded */
};

/* --- requests ----------------------------------------------------------------------------------*/

/* What a connection remembers of a request until its response is over. Copyable, no pointers. */
struct http1_request_info {
    uint64_t length;  /* framing LENGTH */
    uint8_t method;   /* enum http1_method */
    uint8_t framing;  /* enum http1_framing: NONE, LENGTH or CHUNKED */
    uint8_t minor;    /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;  /* the client lets the connection live; never so for 1.0 (RFC 9112 9.3) */
    bool expects_100; /* the client waits for 100 (Continue) before it sends the body */
    char upgrade[24]; /* the protocol asked for, lower case, terminated; "" if none */
};

enum http1_target_form {
    HTTP1_ORIGIN_FORM,
    HTTP1_ABSOLUTE_FORM,
    HTTP1_ASTERISK_FORM,
    HTTP1_AUTHORITY_FORM, /* of CONNECT */
};

struct http1_request {
    struct http1_request_info info;
    size_t head_len; /* the head is data[0..head_len); the body follows */
    enum http1_target_form form;
    struct str method;
    struct str target; /* as received */
    struct str path;   /* as it will be forwarded, without query: "/...", "*", or "" of CONNECT */
    struct str query;  /* without '?'; has_query tells "?" from nothing */
    bool has_query;

    /* For judging. The host in lower case, without port and final dot (an IPv6 one in brackets);
     * empty if HTTP/1.0 sent none; of CONNECT with ":port". The path after one percent-decoding,
     * which is what servers act on: encoded slashes, dots, letters and digits were refused, so it
     * has one reading. Where the limits allow what has two, other_path is the second: a request is
     * let in only if it would be by both. Empty: there is none. */
    struct str host;
    struct str judged_path;
    struct str other_path;
    struct str traceparent; /* a valid one (W3C Trace Context); empty: none, and nothing of one is
                               forwarded */

    struct http1_header headers[HTTP1_MAX_HEADERS];
    unsigned n_headers;

    /* Private: for emitting, and what host and judged_path point at if they differ from the
     * received bytes. */
    const uint8_t *data;
    bool te_trailers;
    char host_text[HTTP1_MAX_HOST + 1];
    char path_text[HTTP1_MAX_TARGET + 1];
    char other_text[HTTP1_MAX_TARGET + 1];
};

/* Reads a request head. data[0..len) are all the bytes at hand, from the message's first one on
 * (they may have moved since the last call). DONE: ret_request is filled; bytes after head_len are
 * untouched. ERROR: ret_error is filled. Byte by byte or whole, the answer is the same. */
enum http1_result http1_request_read(struct http1_scan *scan, const uint8_t *data, size_t len,
                                     const struct http1_limits *limits,
                                     struct http1_request *ret_request,
                                     struct http1_error *ret_error);

/* What is set in place of what was stripped. An empty str leaves its header out. */
struct http1_forward {
    struct str own_id;    /* x-forwarded-client-cert By= */
    struct str peer_hash; /* Hash=: SHA-256 of the peer's leaf DER, lower case hex; empty: there is
                             no verified peer and no x-forwarded-client-cert at all */
    struct str peer_id;   /* URI= */
    struct str peer_dns;  /* DNS=, of a peer that an ordinary CA vouches for */
    struct str source;    /* x-forwarded-for: the peer's address as text */
    struct str proto;     /* x-forwarded-proto: "https" or "http" */
    struct str via;       /* Via: behind what came, RFC 9110 7.6.3 */
    struct str traceparent; /* of a request without a valid one */
    bool close;             /* add Connection: close */
};

/* Appends the head for the workload: the request line and header lines as received, in their order
 * (an absolute-form target in origin form, RFC 9112 3.2.1), less what is hop-by-hop and less every
 * header by which someone could pass for somebody else, and with our own of those at the end.
 * False: buf is full or there is no memory (nothing was appended), or a value of `fwd` holds a
 * control byte. */
bool http1_request_emit(const struct http1_request *request, const struct http1_forward *fwd,
                        struct buf *out);

/* The value of the first header of that name (any case), or STR_NONE with p NULL. */
struct str http1_request_header(const struct http1_request *request, const char *name);

/* --- paths, also for others than HTTP/1
 * ---------------------------------------------------------*/

/* A path as it is judged. */
struct http1_path {
    struct str judged; /* after one percent-decoding */
    struct str other;  /* empty, or what it means to a server that decodes, cuts, merges and
                          resolves whatever the limits let through */
};
/* Whether a path that begins with '/' and has two hexadecimal digits behind each '%' has one
 * reading, but for what `allow` (enum http1_path_allow) lets through. Both buffers have room for
 * path.n bytes. NONE, or TARGET_BYTE or PATH_AMBIGUOUS with the place. */
enum http1_reason http1_path_read(struct str path, uint32_t allow, char *judged_text,
                                  char *other_text, struct http1_path *ret, const char **ret_at);
/* Whether a value is a traceparent (W3C Trace Context, 3.2) that may be passed on. */
bool http1_traceparent_valid(struct str value);
enum { HTTP1_TRACEPARENT_LEN = 55 };
/* One that begins a trace, of random numbers that are not 0. */
void http1_traceparent_begin(const uint64_t random[3], char ret[HTTP1_TRACEPARENT_LEN + 1]);

/* --- responses ---------------------------------------------------------------------------------*/

struct http1_response_info {
    uint64_t length;
    uint16_t status;
    uint8_t framing; /* enum http1_framing; NONE for HEAD, 1xx, 204 and 304 */
    uint8_t minor;
    bool interim;    /* 1xx but 101: emit it, zero the scan, and read the next head */
    bool switching;  /* 101, and the request asked for it, or 2xx to CONNECT: opaque bytes follow
                        both ways */
    bool keep_alive; /* the workload lets its connection live after this response */
};

struct http1_response {
    struct http1_response_info info;
    size_t head_len;
    struct str reason; /* the reason phrase, may be empty */
    struct http1_header headers[HTTP1_MAX_HEADERS];
    unsigned n_headers;
    const uint8_t *data; /* private */
};

/* As http1_request_read; `request` is what this is the answer to. */
enum http1_result http1_response_read(struct http1_scan *scan, const uint8_t *data, size_t len,
                                      const struct http1_limits *limits,
                                      const struct http1_request_info *request,
                                      struct http1_response *ret_response,
                                      struct http1_error *ret_error);

/* Appends the head for the client: status line as HTTP/1.1, header lines as received less what is
 * hop-by-hop. `close`: we will close after this response; it is implied by framing UNTIL_CLOSE and
 * by a client that does not keep alive (ask http1_keeps_alive). `via` as of a request. An interim
 * response for an HTTP/1.0 client is swallowed: nothing is appended (RFC 9110 15.2). False as
 * http1_request_emit. */
bool http1_response_emit(const struct http1_response *response,
                         const struct http1_request_info *request, bool close, struct str via,
                         struct buf *out);

/* Whether the client's connection can carry another request after this exchange. */
bool http1_keeps_alive(const struct http1_request_info *request,
                       const struct http1_response_info *response);

struct str http1_response_header(const struct http1_response *response, const char *name);

/* --- bodies ------------------------------------------------------------------------------------*/

/* Where a message's body ends. Bytes are looked at and never copied. */
struct http1_body {
    uint64_t left;      /* of the length, or of the current chunk */
    uint32_t ext_total; /* chunk extension bytes of the whole message */
    uint16_t line_len;  /* of the current chunk line, or all trailers together */
    uint8_t framing;
    uint8_t state;
    uint8_t digits;
    uint8_t n_trailers;
    uint8_t name_len; /* of the trailer field being read */
    char name[31];    /* its beginning, folded for comparison */
};

void http1_body_init(struct http1_body *body, enum http1_framing framing, uint64_t length);

/* Looks at the next bytes of the connection. Of data[0..len) the first *ret_used belong to this
 * message, and may be forwarded as they are. MORE: all of them do and it is not over (never so for
 * framing NONE and a length of 0, which are DONE at once, also with len 0). DONE: the message is
 * over. ERROR: *ret_used bytes before the bad one still belong to it; close both sides. */
enum http1_result http1_body_feed(struct http1_body *body, const uint8_t *data, size_t len,
                                  size_t *ret_used, struct http1_error *ret_error);
/* Whether the body is over, if the sender closes now: true for UNTIL_CLOSE and after DONE; false
 * means that the message was cut short. */
bool http1_body_ends_at_eof(const struct http1_body *body);

/* --- answers of our own ------------------------------------------------------------------------*/

struct http1_answer {
    unsigned status;        /* one that http1_status_text knows */
    const char *reason;     /* x-postern-reason: a token */
    struct str decision_id; /* x-postern-decision; token bytes; empty: left out */
    const char *text;       /* a sentence for the body; NULL: the status alone */
    unsigned retry_after_s; /* Retry-After; 0: none */
    bool head;              /* the request was HEAD: no body is sent */
    bool close;             /* Connection: close */
};

/* Appends a whole response, text/plain with one line. False: buf is full, or a value is not what
 * it has to be. */
bool http1_answer_emit(const struct http1_answer *answer, struct buf *out);
const char *http1_status_text(unsigned status); /* static; "Error" for one it does not know */

#endif
