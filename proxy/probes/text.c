/* text: the little HTTP that probes speak, both ways. Pure functions. */
#include <postern/probes.h>

#include <string.h>

enum probes_parsed probes_read_head(struct str text, struct str *ret_target)
{
    static const struct str get = {"GET ", 4};
    size_t n = text.n < get.n ? text.n : get.n;
    if (n > 0 && memcmp(text.p, get.p, n) != 0) {
        return PROBES_BAD;
    }
    const char *end = memmem(text.p, text.n, "\r\n\r\n", 4);
    if (end == NULL) {
        return text.n >= PROBES_HEAD_MAX ? PROBES_BAD : PROBES_MORE;
    }
    const char *line_end = memmem(text.p, text.n, "\r\n", 2);
    struct str line = {text.p + get.n, (size_t)(line_end - text.p)};
    if (line.n < get.n) {
        return PROBES_BAD;
    }
    line.n -= get.n;
    if (!str_has_suffix(line, STR_LIT(" HTTP/1.1")) &&
        !str_has_suffix(line, STR_LIT(" HTTP/1.0"))) {
        return PROBES_BAD;
    }
    struct str target = {line.p, line.n - strlen(" HTTP/1.1")};
    for (size_t i = 0; i < target.n; i++) {
        if ((unsigned char)target.p[i] <= ' ' || (unsigned char)target.p[i] >= 0x7f) {
            return PROBES_BAD;
        }
    }
    *ret_target = target;
    return PROBES_DONE;
}

enum probes_parsed probes_read_status(struct str text, unsigned *ret_status)
{
    static const char form[] = "HTTP/1.x ddd";
    size_t n = sizeof(form) - 1;
    unsigned status = 0;
    for (size_t i = 0; i < n && i < text.n; i++) {
        bool digit = text.p[i] >= '0' && text.p[i] <= '9';
        if (form[i] == 'd') {
            status = 10 * status + (digit ? (unsigned)(text.p[i] - '0') : 0);
        }
        if (form[i] == 'd' || form[i] == 'x' ? !digit : text.p[i] != form[i]) {
            return PROBES_BAD;
        }
    }
    if (text.n <= n) {
        return PROBES_MORE;
    }
    if (text.p[n] != ' ' && text.p[n] != '\r' && text.p[n] != '\n') {
        return PROBES_BAD;
    }
    if (status < 200 || status > 599) {
        return PROBES_BAD; /* nothing was asked that an interim answer is for */
    }
    *ret_status = status;
    return PROBES_DONE;
}

/* Protocol buffers' varint, in 64 bits. */
static bool take_varint(struct str *s, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && s->n > 0; shift += 7) {
        uint8_t byte = (uint8_t)s->p[0];
        s->p++;
        s->n--;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = v;
            return true;
        }
    }
    return false;
}

static bool skip(struct str *s, uint64_t n)
{
    if (n > s->n) {
        return false;
    }
    s->p += n;
    s->n -= (size_t)n;
    return true;
}

bool probes_read_health(struct str message)
{
    enum { STATUS_VARINT = 1 << 3, SERVING = 1 };
    uint64_t tag = 0, value = 0, status = 0;
    while (message.n > 0) {
        bool ok = take_varint(&message, &tag);
        switch (tag & 7) {
        case 0:
            ok = ok && take_varint(&message, &value);
            status = ok && tag == STATUS_VARINT ? value : status;
            break;
        case 1:
            ok = ok && skip(&message, 8);
            break;
        case 2:
            ok = ok && take_varint(&message, &value) && skip(&message, value);
            break;
        case 5:
            ok = ok && skip(&message, 4);
            break;
        default:
            ok = false;
            break;
        }
        if (!ok) {
            return false;
        }
    }
    return status == SERVING;
}

bool probes_write_health(const char *service, struct buf *out)
{
    size_t n = strlen(service);
    uint8_t head[3] = {1 << 3 | 2, (uint8_t)(n & 0x7f), 0};
    size_t n_head = 2;
    if (n == 0) {
        return true;
    }
    if (n > 0x7f) {
        head[1] |= 0x80;
        head[2] = (uint8_t)(n >> 7);
        n_head = 3;
    }
    return n < 1 << 14 && buf_append(out, head, n_head) && buf_append(out, service, n);
}

bool probes_write_request(const struct conf_probe *probe, const char *address, struct buf *out)
{
    bool ok =
        buf_printf(out, "GET %s HTTP/1.1\r\nHost: %s\r\n", probe->path != NULL ? probe->path : "/",
                   probe->host != NULL ? probe->host : address);
    for (size_t i = 0; i < probe->headers.n; i++) {
        ok = ok && buf_printf(out, "%s\r\n", probe->headers.items[i]);
    }
    return ok && buf_printf(out, "User-Agent: kube-probe/postern\r\nAccept: */*\r\n"
                                 "Connection: close\r\n\r\n");
}
