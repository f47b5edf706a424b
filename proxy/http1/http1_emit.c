/*
 * Heads as they go on: header lines are copied as they came, in their order and in runs as long as
 * possible; what is dropped leaves a gap and what is ours comes at the end (RFC 9110 7.6).
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <postern/err.h>

/* Room for the lines of ours that do not depend on what is handed in. */
enum { FIXED_ROOM = 256 };

/* A head that is being written into memory reserved beforehand, so that it is appended whole or not
 * at all. */
struct writer {
    uint8_t *at;
    size_t left;
};

static void put(struct writer *w, const void *p, size_t n)
{
    POSTERN_ASSERT(n <= w->left);
    if (n > 0) {
        memcpy(w->at, p, n);
        w->at += n;
        w->left -= n;
    }
}

static void put_str(struct writer *w, struct str s)
{
    put(w, s.p, s.n);
}

static void put_text(struct writer *w, const char *z)
{
    put(w, z, strlen(z));
}

/* The header lines that are not dropped, out of data[..head_len). */
static void put_headers(struct writer *w, const struct http1_header *headers, unsigned n,
                        const char *head_end)
{
    unsigned i = 0;
    while (i < n) {
        if (headers[i].drop) {
            i++;
            continue;
        }
        const char *from = headers[i].name.p;
        while (i < n && !headers[i].drop) {
            i++;
        }
        const char *to = i < n ? headers[i].name.p : head_end;
        put(w, from, (size_t)(to - from));
    }
}

static void put_line(struct writer *w, const char *name, struct str value)
{
    put_text(w, name);
    put_text(w, ": ");
    put_str(w, value);
    put_text(w, "\r\n");
}

/* One Connection line for what is left of it, if anything is. */
static void put_connection(struct writer *w, bool close, bool upgrade, bool te)
{
    const char *first = upgrade ? "upgrade" : close ? "close" : NULL;
    if (first == NULL && !te) {
        return;
    }
    put_text(w, "Connection: ");
    put_text(w, first != NULL ? first : "TE");
    put_text(w, first != NULL && te ? ", TE\r\n" : "\r\n");
}

/* --- x-forwarded-client-cert -------------------------------------------------------------------*/

static bool needs_quotes(struct str value)
{
    return memchr(value.p, ',', value.n) != NULL || memchr(value.p, ';', value.n) != NULL ||
           memchr(value.p, '=', value.n) != NULL || memchr(value.p, '"', value.n) != NULL;
}

/* Inside quotes if it holds a byte with a meaning in the header; inner quotes escaped. */
static void put_element(struct writer *w, const char *key, struct str value)
{
    put_text(w, key);
    if (!needs_quotes(value)) {
        put_str(w, value);
        return;
    }
    put_text(w, "\"");
    for (size_t i = 0; i < value.n; i++) {
        put(w, "\\", value.p[i] == '"' ? 1 : 0);
        put(w, value.p + i, 1);
    }
    put_text(w, "\"");
}

/* In Envoy's order: By, Hash, URI, DNS. */
static void put_client_cert(struct writer *w, const struct http1_forward *fwd)
{
    if (fwd->peer_hash.n == 0) {
        return;
    }
    put_text(w, "x-forwarded-client-cert: ");
    if (fwd->own_id.n > 0) {
        put_element(w, "By=", fwd->own_id);
        put_text(w, ";");
    }
    put_element(w, "Hash=", fwd->peer_hash);
    if (fwd->peer_id.n > 0) {
        put_element(w, ";URI=", fwd->peer_id);
    }
    if (fwd->peer_dns.n > 0) {
        put_element(w, ";DNS=", fwd->peer_dns);
    }
    put_text(w, "\r\n");
}

/* What we set must not be able to begin a line of its own. */
static bool is_plain(struct str s)
{
    uint8_t found = 0; /* in bytes, and without a way out: it looks at many at once */
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        found = (uint8_t)(found | (c < 0x20) | (c >= 0x7f));
    }
    return found == 0;
}

/* --- requests ----------------------------------------------------------------------------------*/

static void put_request_line(struct writer *w, const struct http1_request *req)
{
    if (req->form != HTTP1_ABSOLUTE_FORM) {
        put(w, req->data, http1_head_first_line(req->data, req->head_len));
        return;
    }
    /* RFC 9112 3.2.1: to an origin server go path and query only; the Host says the same as the
     * authority did. */
    put_str(w, req->method);
    put_text(w, " ");
    put_str(w, req->path);
    if (req->has_query) {
        put_text(w, "?");
        put_str(w, req->query);
    }
    put_text(w, req->info.minor == 0 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n");
}

bool http1_request_emit(const struct http1_request *request, const struct http1_forward *fwd,
                        struct buf *out)
{
    if (!is_plain(fwd->own_id) || !is_plain(fwd->peer_hash) || !is_plain(fwd->peer_id) ||
        !is_plain(fwd->peer_dns) || !is_plain(fwd->source) || !is_plain(fwd->proto) ||
        !is_plain(fwd->via) || !is_plain(fwd->traceparent)) {
        return false;
    }
    /* Twice the elements, for quotes. */
    size_t room = request->head_len + FIXED_ROOM + fwd->source.n + fwd->proto.n + fwd->via.n +
                  fwd->traceparent.n +
                  2 * (fwd->own_id.n + fwd->peer_hash.n + fwd->peer_id.n + fwd->peer_dns.n);
    struct writer w = {buf_reserve(out, room), room};
    if (w.at == NULL) {
        return false;
    }
    put_request_line(&w, request);
    put_headers(&w, request->headers, request->n_headers,
                (const char *)request->data + request->head_len - 2);
    bool te = request->te_trailers && request->info.minor != 0;
    put_connection(&w, fwd->close, request->info.upgrade[0] != '\0', te);
    if (te) {
        put_line(&w, "TE", STR_LIT("trailers"));
    }
    if (fwd->source.n > 0) {
        put_line(&w, "x-forwarded-for", fwd->source);
    }
    if (fwd->proto.n > 0) {
        put_line(&w, "x-forwarded-proto", fwd->proto);
    }
    put_client_cert(&w, fwd);
    if (fwd->via.n > 0) {
        put_line(&w, "Via", fwd->via);
    }
    if (fwd->traceparent.n > 0 && request->traceparent.n == 0) {
        put_line(&w, "traceparent", fwd->traceparent);
    }
    put_text(&w, "\r\n");
    buf_commit(out, room - w.left);
    return true;
}

/* --- responses ---------------------------------------------------------------------------------*/

bool http1_response_emit(const struct http1_response *response,
                         const struct http1_request_info *request, bool close, struct str via,
                         struct buf *out)
{
    const struct http1_response_info *info = &response->info;
    if (info->interim && request->minor == 0) {
        return true;
    }
    if (!is_plain(via)) {
        return false;
    }
    size_t room = response->head_len + FIXED_ROOM + via.n;
    struct writer w = {buf_reserve(out, room), room};
    if (w.at == NULL) {
        return false;
    }
    /* RFC 9110 2.5: a version that we speak and the client need not; what 1.0 lacks (chunked, 1xx)
     * never gets here for a client of that version. */
    size_t line = http1_head_first_line(response->data, response->head_len);
    put_text(&w, "HTTP/1.1");
    put(&w, response->data + 8, line - 8);
    put_headers(&w, response->headers, response->n_headers,
                (const char *)response->data + response->head_len - 2);
    if (via.n > 0) {
        put_line(&w, "Via", via);
    }
    bool tunnel = info->switching && request->method == HTTP1_CONNECT;
    bool upgrade = (info->switching && !tunnel) ||
                   (info->status == 426 && http1_response_header(response, "upgrade").n > 0);
    bool ends = !info->interim && !tunnel && (close || !http1_keeps_alive(request, info));
    if (upgrade && ends && !info->switching) {
        put_line(&w, "Connection", STR_LIT("close, upgrade"));
    } else {
        put_connection(&w, ends, upgrade, false);
    }
    put_text(&w, "\r\n");
    buf_commit(out, room - w.left);
    return true;
}
