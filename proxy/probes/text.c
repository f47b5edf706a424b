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
