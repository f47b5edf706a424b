/*
 * client_hello: what a TLS client says before anything is agreed on, read without answering it:
 * the server name (RFC 6066 section 3) and the application protocols (RFC 7301) it asks for.
 *
 * Pure: bytes in, facts out; nothing is allocated. The message may be cut into records and the
 * records into reads at any place; the answer is the same. Where the client hides its real name
 * (Encrypted Client Hello) the outer one is what is seen, and nothing else can be. Values that are
 * reserved to be ignored (GREASE, RFC 8701) are ignored like everything that is not asked for.
 *
 * Only what is needed to tell the names is checked. Whether the rest is acceptable TLS is said by
 * whoever terminates it. Thread: any.
 */
#ifndef POSTERN_CLIENT_HELLO_H
#define POSTERN_CLIENT_HELLO_H

#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLIENT_HELLO_MESSAGE_MAX = 16 * 1024, /* of the handshake message; real ones have 2 kB */
    CLIENT_HELLO_WIRE_MAX = 24 * 1024,    /* with its records' headers */
    CLIENT_HELLO_NAME_MAX = 253,
    CLIENT_HELLO_ALPN_MAX = 256,
};

enum client_hello_result {
    CLIENT_HELLO_MORE,      /* so far so good, but not all is here */
    CLIENT_HELLO_FOUND,     /* *ret is filled */
    CLIENT_HELLO_NOT_TLS,   /* no TLS at all */
    CLIENT_HELLO_MALFORMED, /* TLS, but not a ClientHello that could be read */
    CLIENT_HELLO_TOO_LONG,
};
/* "more", "found", "not_tls", "malformed", "too_long". */
const char *client_hello_result_name(enum client_hello_result r);

struct client_hello {
    size_t server_name_len;
    char server_name[CLIENT_HELLO_NAME_MAX + 1]; /* lower case, terminated; empty: none was sent */
    /* The list as it is on the wire, without its own length: each a length byte and a name. Empty:
     * none was sent. Longer lists are cut between two names. */
    size_t alpn_len;
    uint8_t alpn[CLIENT_HELLO_ALPN_MAX];
    bool encrypted; /* Encrypted Client Hello is offered: the name may be a cover name */
};

/* Where a reader of pieces is; zeroed at the start of a connection. */
struct client_hello_scan {
    size_t at;      /* offset of the first record that was not whole yet */
    size_t message; /* bytes of the message in the records before it */
};

/* `data` is all that has come from the client since the beginning, `len` bytes, and grows from call
 * to call with the same scan. Never looks behind the message. */
enum client_hello_result client_hello_read(struct client_hello_scan *scan, const uint8_t *data,
                                           size_t len, struct client_hello *ret);

/* --- routes by name --------------------------------------------------------------------------- */
/* "a.example" is that name; "*.a.example" is every name below a.example, at any depth. Lower case.
 */
struct client_hello_pattern {
    struct str text;
    size_t route;
};
enum { CLIENT_HELLO_NO_ROUTE = -1 };
/* The route of the pattern that is the name, else of the longest wildcard over it; a pattern given
 * twice counts for its first. CLIENT_HELLO_NO_ROUTE: there is none, as for an empty name. */
long client_hello_route(const struct client_hello_pattern *patterns, size_t n, struct str name);

#endif
