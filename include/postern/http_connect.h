/*
 * http_connect: asking an HTTP proxy for a tunnel (RFC 9110 section 9.3.6), and its answer.
 *
 * Pure. The answer is read strictly and with a bound; what a proxy says in it is never passed on.
 * Nothing may follow the answer's head before we have spoken: whoever spoke first inside the tunnel
 * would not be a TLS server. Thread: any.
 */
#ifndef POSTERN_HTTP_CONNECT_H
#define POSTERN_HTTP_CONNECT_H

#include <postern/buf.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_CONNECT_ANSWER_MAX = 8 * 1024 };

/* `authority` is HOST:PORT, or [IPv6]:PORT; `credentials` USER:PASSWORD, or empty for none. False:
 * no room. The request holds the credentials: wipe the buffer. */
bool http_connect_request(struct str authority, struct str credentials, struct buf *out);

enum http_connect_result {
    HTTP_CONNECT_MORE,
    HTTP_CONNECT_OPEN,    /* 2xx: the tunnel stands, *ret_used bytes were its answer */
    HTTP_CONNECT_REFUSED, /* another status: *ret_status */
    HTTP_CONNECT_BAD,     /* not an answer of HTTP/1 */
};
/* `data` is all that came since the request, and grows from call to call. Interim answers (1xx) are
 * stepped over. */
enum http_connect_result http_connect_answer(const uint8_t *data, size_t len, unsigned *ret_status,
                                             size_t *ret_used);

#endif
