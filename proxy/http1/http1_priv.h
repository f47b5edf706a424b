/*
 * What the files of http1 share: byte classes, the head scanner, header fields by meaning, and the
 * second reading.
 */
#ifndef POSTERN_HTTP1_PRIV_H
#define POSTERN_HTTP1_PRIV_H

#include <postern/http1.h>

/* --- bytes (http1_head.c) ----------------------------------------------------------------------*/

enum {
    HTTP1_TOKEN = 1,  /* RFC 9110 5.6.2 tchar */
    HTTP1_VALUE = 2,  /* RFC 9110 5.5: field-vchar, SP, HTAB */
    HTTP1_TARGET = 4, /* visible ASCII without what RFC 3986 wants encoded everywhere */
    HTTP1_PATH = 8,   /* pchar or '/', '%' included, and the few that clients leave plain */
    HTTP1_ALNUM = 16,
    HTTP1_DIGIT = 32,
    HTTP1_HEXDIG = 64,
};
extern const uint8_t http1_class[256];

/* A struct str in a static table, where STR_LIT is no constant. */
#define NAME_OF(s) {(s), sizeof(s) - 1}

static inline bool http1_is(uint8_t c, uint8_t classes)
{
    return (http1_class[c] & classes) != 0;
}

static inline uint8_t http1_lower(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') ? (uint8_t)(c | 0x20) : c;
}

/* Value of a hexadecimal digit that is known to be one. */
static inline unsigned http1_hex(uint8_t c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(http1_lower(c) - 'a') + 10;
}

static inline enum http1_result http1_refuse(struct http1_error *ret, enum http1_reason reason,
                                             size_t offset)
{
    *ret = (struct http1_error){reason, http1_reason_status(reason), offset};
    return HTTP1_ERROR;
}

/* --- heads (http1_head.c) ----------------------------------------------------------------------*/

enum http1_kind { HTTP1_KIND_REQUEST, HTTP1_KIND_RESPONSE };

/* Checks every byte of a head once, up to and with its empty line. DONE fills *ret_head_len. */
enum http1_result http1_head_scan(struct http1_scan *scan, enum http1_kind kind,
                                  const uint8_t *data, size_t len,
                                  const struct http1_limits *limits, size_t *ret_head_len,
                                  struct http1_error *ret_error);

/* Cuts the header lines of a scanned head that begin at `start`; returns how many there are. */
unsigned http1_head_split(const uint8_t *data, size_t head_len, size_t start,
                          struct http1_header headers[HTTP1_MAX_HEADERS]);

/* Where the first line of a scanned head ends, its CR LF included. */
size_t http1_head_first_line(const uint8_t *data, size_t head_len);

/* A method of ours. `ret_second` says whether both versions of llhttp know it. */
bool http1_method_known(struct str method, bool *ret_second);

/* --- header fields (http1_fields.c) ------------------------------------------------------------*/

enum http1_field {
    HTTP1_FIELD_OTHER,
    HTTP1_FIELD_CONTENT_LENGTH,
    HTTP1_FIELD_TRANSFER_ENCODING,
    HTTP1_FIELD_HOST,
    HTTP1_FIELD_CONNECTION,
    HTTP1_FIELD_UPGRADE,
    HTTP1_FIELD_TE,
    HTTP1_FIELD_EXPECT,
    HTTP1_FIELD_HOP,      /* hop-by-hop, always removed */
    HTTP1_FIELD_IDENTITY, /* says who the caller is: removed from requests */
    HTTP1_FIELD_OURS,     /* x-postern-*: removed everywhere */
    HTTP1_FIELD_SERVER,   /* meant for the server: Connection may not name it, nor be a trailer */
    HTTP1_FIELD_TRAILER,  /* may be named by Connection, but be no trailer itself */
    HTTP1_FIELD_TRACEPARENT,
    HTTP1_FIELD_TRACESTATE, /* nothing without the one before */
    HTTP1_FIELD_LOOKALIKE,  /* refused */
};

/* The same of a name of n > 0 bytes, of which the first HTTP1_FOLD_MAX are there, each through
 * http1_fold_byte; exact: that changed letters only. */
enum http1_field http1_field_of_folded(const char *folded, size_t n, bool exact);
enum { HTTP1_FOLD_MAX = 31 };

static inline uint8_t http1_fold_byte(uint8_t c)
{
    return http1_is(c, HTTP1_ALNUM) ? (uint8_t)(c | 0x20) : (uint8_t)'-'; /* digits have the bit */
}

/* What the header fields of a message say, taken together. */
struct http1_fields {
    uint64_t length;
    const struct http1_header *host;
    const struct http1_header *expect;
    const struct http1_header *content_length;
    const struct http1_header *transfer_encoding;
    const struct http1_header *upgrade;     /* the only one, naming one protocol; else NULL */
    const struct http1_header *traceparent; /* of a request, the only one and valid; else NULL */
    bool close;
    bool keep_alive;
    bool wants_upgrade; /* Connection: upgrade */
    bool te_trailers;
};

/* Gives every header its id, marks those to drop, and checks framing, Connection, Upgrade, TE.
 * NONE or the reason, with *ret_offset. */
enum http1_reason http1_fields_read(const uint8_t *data, struct http1_header *headers, unsigned n,
                                    enum http1_kind kind, unsigned minor, struct http1_fields *ret,
                                    size_t *ret_offset);

/* Takes the next element of a comma list off *rest, without blanks around it; false at the end.
 * Empty elements are skipped (RFC 9110 5.6.1.2). */
bool http1_list_next(struct str *rest, struct str *ret_element);
bool http1_is_token(struct str s);
bool http1_str_eq_lower(struct str s, const char *lower);

/* --- second reading (http1_second.c) -----------------------------------------------------------*/

/* Has llhttp read the same head; true if it found the same headers and the same framing. */
bool http1_second_request(const struct http1_request *request, const uint8_t *data);
bool http1_second_response(const struct http1_response *response, const struct http1_fields *fields,
                           const uint8_t *data);

#endif
