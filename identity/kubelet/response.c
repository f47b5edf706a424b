/* An HTTP/1.1 answer (RFC 9112), as strict as the server has to be: what could be read in two ways
 * is refused, and every length has a bound. */
#include <postern/kubelet.h>

#include <string.h>

enum {
    STATE_STATUS,
    STATE_FIELDS,
    STATE_LENGTH,
    STATE_CHUNK_SIZE,
    STATE_CHUNK,
    STATE_CHUNK_END,
    STATE_TRAILERS,
    STATE_DONE,
    STATE_BAD,
};

void kubelet_response_init(struct kubelet_response *r, size_t max_body)
{
    *r = (struct kubelet_response){.body = BUF_INIT(max_body), .line = BUF_INIT(KUBELET_HEAD_MAX)};
}

void kubelet_response_deinit(struct kubelet_response *r)
{
    buf_reset(&r->body);
    buf_reset(&r->line);
}

static bool is_token(struct str s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (!alnum && (c == '\0' || strchr(others, c) == NULL)) {
            return false;
        }
    }
    return s.n > 0;
}

static bool is_field_text(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') {
            return false;
        }
    }
    return true;
}

/* HTTP/1.1 200 OK; the reason may be empty, the space before it must not be missing. */
static int on_status(struct kubelet_response *r, struct str line, struct err *err)
{
    uint64_t status = 0;

    if (line.n < 13 || !str_has_prefix(line, STR_LIT("HTTP/1.1 ")) || line.p[12] != ' ' ||
        !str_to_u64((struct str){line.p + 9, 3}, 599, &status) || !is_field_text(line)) {
        return err_set(err, ERR_PROTOCOL, "the answer does not begin with an HTTP/1.1 status");
    }
    if (status < 200) {
        return err_set(err, ERR_PROTOCOL, "an interim answer (%u) that nothing had asked for",
                       (unsigned)status);
    }
    r->status = (unsigned)status;
    r->state = STATE_FIELDS;
    return 0;
}

static struct str trim(struct str s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

static int take_field(struct kubelet_response *r, struct str name, struct str value,
                      struct err *err)
{
    if (str_eq_nocase(name, STR_LIT("content-length"))) {
        if (r->has_length || !str_to_u64(value, INT64_MAX, &r->left)) {
            return err_set(err, ERR_PROTOCOL, "Content-Length is no number, or there twice");
        }
        r->has_length = true;
    } else if (str_eq_nocase(name, STR_LIT("transfer-encoding"))) {
        if (r->chunked || !str_eq_nocase(value, STR_LIT("chunked"))) {
            return err_set(err, ERR_PROTOCOL, "a Transfer-Encoding other than one chunked");
        }
        r->chunked = true;
    } else if (str_eq_nocase(name, STR_LIT("content-encoding")) &&
               !str_eq_nocase(value, STR_LIT("identity"))) {
        return err_set(err, ERR_PROTOCOL, "a Content-Encoding that nothing had asked for");
    }
    return 0;
}

static int too_large(const struct kubelet_response *r, struct err *err)
{
    return err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes", r->body.max);
}

static int on_fields_end(struct kubelet_response *r, struct err *err)
{
    if (r->has_length == r->chunked) {
        return err_set(err, ERR_PROTOCOL, "the answer has %s",
                       r->chunked ? "two lengths" : "no length");
    }
    if (r->has_length && r->left > r->body.max) {
        return too_large(r, err);
    }
    r->state = r->chunked ? STATE_CHUNK_SIZE : r->left > 0 ? STATE_LENGTH : STATE_DONE;
    return 0;
}

static int on_field(struct kubelet_response *r, struct str line, struct err *err)
{
    const char *colon = line.n > 0 ? memchr(line.p, ':', line.n) : NULL;
    struct str name, value;

    if (line.n == 0) {
        if (r->state == STATE_TRAILERS) {
            r->state = STATE_DONE;
            return 0;
        }
        return on_fields_end(r, err);
    }
    name = (struct str){line.p, colon != NULL ? (size_t)(colon - line.p) : 0};
    if (!is_token(name) || !is_field_text(line)) {
        return err_set(err, ERR_PROTOCOL, "a line of the head is no field");
    }
    value = trim((struct str){colon + 1, line.n - name.n - 1});
    /* What stands behind a body says nothing about it. */
    return r->state == STATE_TRAILERS ? 0 : take_field(r, name, value, err);
}

/* Hexadecimal; extensions are the sender's affair and of none here. */
static int on_chunk_size(struct kubelet_response *r, struct str line, struct err *err)
{
    uint64_t size = 0;
    size_t i = 0;

    for (; i < line.n && line.p[i] != ';'; i++) {
        char c = (char)(line.p[i] | 0x20);
        bool digit = line.p[i] >= '0' && line.p[i] <= '9';

        if (i == 15 || (!digit && (c < 'a' || c > 'f'))) {
            return err_set(err, ERR_PROTOCOL, "a chunk's size is no number");
        }
        size = size * 16 + (uint64_t)(digit ? line.p[i] - '0' : c - 'a' + 10);
    }
    if (i == 0 || !is_field_text(line)) {
        return err_set(err, ERR_PROTOCOL, "a chunk's size is no number");
    }
    if (size > r->body.max - buf_len(&r->body)) {
        return too_large(r, err);
    }
    r->left = size;
    r->state = size > 0 ? STATE_CHUNK : STATE_TRAILERS;
    return 0;
}

static int on_line(struct kubelet_response *r, struct str line, struct err *err)
{
    switch (r->state) {
    case STATE_STATUS:
        return on_status(r, line, err);
    case STATE_CHUNK_SIZE:
        return on_chunk_size(r, line, err);
    case STATE_CHUNK_END:
        r->state = STATE_CHUNK_SIZE;
        return line.n == 0 ? 0 : err_set(err, ERR_PROTOCOL, "a chunk is longer than it said");
    default:
        return on_field(r, line, err);
    }
}

/* One byte of a line; CR LF ends it, and neither stands anywhere else. */
static int feed_line(struct kubelet_response *r, char c, struct err *err)
{
    struct str line = buf_str(&r->line);
    bool after_cr = line.n > 0 && line.p[line.n - 1] == '\r';

    /* Lines of chunks count only as long as each is: a body has any number of them. */
    if (r->state == STATE_CHUNK_SIZE || r->state == STATE_CHUNK_END) {
        if (line.n > 256) {
            return err_set(err, ERR_LIMIT, "a chunk's line is too long");
        }
    } else if (++r->head > KUBELET_HEAD_MAX) {
        return err_set(err, ERR_LIMIT, "the answer's head is larger than %d bytes",
                       KUBELET_HEAD_MAX);
    }
    if (after_cr != (c == '\n')) {
        return err_set(err, ERR_PROTOCOL, "a line does not end with CR LF");
    }
    if (c != '\n') {
        return buf_append(&r->line, &c, 1) ? 0 : err_set(err, ERR_LIMIT, "no memory");
    }
    line.n--;
    if (on_line(r, line, err) == -1) {
        return -1;
    }
    buf_consume(&r->line, buf_len(&r->line));
    return 0;
}

static int feed_data(struct kubelet_response *r, const char *p, size_t n, struct err *err)
{
    if (!buf_append(&r->body, p, n)) {
        return too_large(r, err);
    }
    r->left -= n;
    if (r->left == 0) {
        r->state = r->state == STATE_CHUNK ? STATE_CHUNK_END : STATE_DONE;
    }
    return 0;
}

enum kubelet_feed kubelet_response_feed(struct kubelet_response *r, const void *bytes, size_t n,
                                        struct err *err)
{
    const char *p = bytes;
    int failed = 0;

    POSTERN_ASSERT(r->state != STATE_BAD);
    for (size_t i = 0; i < n && failed == 0;) {
        if (r->state == STATE_DONE) {
            failed = err_set(err, ERR_PROTOCOL, "there is something behind the answer's end");
        } else if (r->state == STATE_LENGTH || r->state == STATE_CHUNK) {
            size_t take = n - i < r->left ? n - i : (size_t)r->left;

            failed = feed_data(r, p + i, take, err);
            i += take;
        } else {
            failed = feed_line(r, p[i], err);
            i++;
        }
    }
    if (failed != 0) {
        r->state = STATE_BAD;
        return KUBELET_FEED_BAD;
    }
    return r->state == STATE_DONE ? KUBELET_FEED_DONE : KUBELET_FEED_MORE;
}
