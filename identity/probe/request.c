#include "probe_priv.h"

#include <postern/os.h>
#include <string.h>

enum { REQUEST_MAX = PROBE_HEADERS_MAX + PROBE_BODY_MAX + 2048 };

struct exchange {
    struct probe_tls *tls; /* NULL: plaintext */
    struct place place;
};

static int send_all(struct exchange *x, const struct buf *out, struct err *err)
{
    return x->tls != NULL ? probe_tls_send(x->tls, &x->place, buf_head(out), buf_len(out), err)
                          : place_send(&x->place, buf_head(out), buf_len(out), err);
}

static int recv_some(struct exchange *x, char *bytes, size_t n, size_t *ret_n, struct err *err)
{
    return x->tls != NULL ? probe_tls_recv(x->tls, &x->place, bytes, n, ret_n, err)
                          : place_recv(&x->place, bytes, n, ret_n, err);
}

static int read_status(struct exchange *x, unsigned *ret, struct err *err)
{
    char head[HTTP_HEAD_MAX];
    size_t len = 0;
    enum http_head got = HTTP_HEAD_MORE;

    while (got == HTTP_HEAD_MORE) {
        size_t n = 0;

        if (recv_some(x, head + len, sizeof(head) - len, &n, err) == -1) {
            return -1;
        }
        if (n == 0) {
            return err_set(err, ERR_PROTOCOL, "the server ended the connection before its answer");
        }
        len += n;
        got = http_head_parse(head, len, ret);
    }
    return got == HTTP_HEAD_OK ? 0 : err_set(err, ERR_PROTOCOL, "the answer is no HTTP/1.1");
}

void probe_request(const struct probe_question *q, struct probe_tls *tls, uint64_t until_ms,
                   struct probe_answer *a)
{
    struct exchange x = {.tls = q->url.scheme == CONF_URL_HTTPS ? tls : NULL,
                         .place = {.url = &q->url, .fd = -1, .until_ms = until_ms}};
    struct buf out = BUF_INIT(REQUEST_MAX);
    struct err err = ERR_INIT;
    unsigned status = 0;
    int r = http_request_write(q, &out) ? 0 : err_set(&err, ERR_LIMIT, "the request is too large");

    a->tries = 1;
    if (r == 0) {
        r = place_connect(&x.place, &err);
    }
    if (r == 0 && x.tls != NULL) {
        r = probe_tls_connect(x.tls, &x.place, q->url.host, &err);
    }
    if (r == 0 && (send_all(&x, &out, &err) == -1 || read_status(&x, &status, &err) == -1)) {
        r = -1;
    }
    buf_reset_secret(&out);
    if (x.tls != NULL) {
        probe_tls_close(x.tls);
    }
    place_close(&x.place);
    if (r == 0) {
        a->outcome = ACTIONS_OK;
        a->http_status = status;
        return;
    }
    a->outcome = os_now_ms() >= until_ms ? ACTIONS_TIMED_OUT : ACTIONS_FAILED;
    probe_set_text(a, &err);
}
