/*
 * SPIFFE IDs, byte by byte. The specification calls scheme and host case-insensitive to parse
 * (section 2.4) yet demands lower case (2.1): upper case is refused here and never folded, so that
 * equal IDs are equal bytes everywhere else.
 */
#include <postern/spiffe.h>

static bool trust_domain_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool path_char(char c)
{
    return trust_domain_char(c) || (c >= 'A' && c <= 'Z');
}

/* The offending byte, for people: itself if it can be printed, else in hex. */
static int refuse_byte(struct err *err, const char *part, char c, size_t offset)
{
    unsigned char byte = (unsigned char)c;
    if (byte > 0x20 && byte < 0x7f) {
        err_set(err, ERR_PROTOCOL, "not a SPIFFE ID: '%c' in the %s (byte %zu)", c, part, offset);
    } else {
        err_set(err, ERR_PROTOCOL, "not a SPIFFE ID: byte 0x%02x in the %s (byte %zu)", byte, part,
                offset);
    }
    if (c == '%') {
        err_advise(err, "percent-encoding is not allowed anywhere in a SPIFFE ID");
    } else if (c >= 'A' && c <= 'Z') {
        err_advise(err, "a trust domain is lower case");
    }
    return -1;
}

static int refuse(struct err *err, const char *why)
{
    return err_set(err, ERR_PROTOCOL, "not a SPIFFE ID: %s", why);
}

/* One segment, without its slash. Section 2.2: never empty, never "." or "..". */
static int check_segment(struct str seg, size_t offset, struct err *err)
{
    if (seg.n == 0) {
        return refuse(err, "an empty path segment or a trailing slash");
    }
    if (str_eq(seg, STR_LIT(".")) || str_eq(seg, STR_LIT(".."))) {
        return refuse(err, "a path segment '.' or '..'");
    }
    for (size_t i = 0; i < seg.n; i++) {
        if (!path_char(seg.p[i])) {
            return refuse_byte(err, "path", seg.p[i], offset + i);
        }
    }
    return 0;
}

static int check_path(struct str path, size_t offset, struct err *err)
{
    size_t start = 1;
    if (path.n == 0) {
        return 0;
    }
    for (size_t i = 1; i <= path.n; i++) {
        if (i == path.n || path.p[i] == '/') {
            struct str seg = {path.p + start, i - start};
            if (check_segment(seg, offset + start, err) == -1) {
                return -1;
            }
            start = i + 1;
        }
    }
    return 0;
}

int spiffe_id_parse(struct str text, struct spiffe_id *ret, struct err *err)
{
    const struct str scheme = STR_LIT("spiffe://");
    if (text.n > SPIFFE_ID_MAX) {
        return err_set(err, ERR_PROTOCOL, "not a SPIFFE ID: %zu bytes, more than %d", text.n,
                       (int)SPIFFE_ID_MAX);
    }
    if (!str_has_prefix(text, scheme)) {
        refuse(err, "it does not begin with 'spiffe://'");
        return err_expected(err, "spiffe://TRUST-DOMAIN/PATH");
    }
    size_t end = scheme.n;
    while (end < text.n && text.p[end] != '/') {
        if (!trust_domain_char(text.p[end])) {
            return refuse_byte(err, "trust domain", text.p[end], end);
        }
        end++;
    }
    struct str td = {text.p + scheme.n, end - scheme.n};
    struct str path = {text.p + end, text.n - end};
    if (td.n == 0) {
        return refuse(err, "the trust domain is empty");
    }
    if (td.n > SPIFFE_TRUST_DOMAIN_MAX) {
        return refuse(err, "the trust domain is longer than 255 bytes");
    }
    if (check_path(path, end, err) == -1) {
        return -1;
    }
    *ret = (struct spiffe_id){.text = text, .trust_domain = td, .path = path};
    return 0;
}

bool spiffe_trust_domain_ok(struct str td)
{
    if (td.n == 0 || td.n > SPIFFE_TRUST_DOMAIN_MAX) {
        return false;
    }
    for (size_t i = 0; i < td.n; i++) {
        if (!trust_domain_char(td.p[i])) {
            return false;
        }
    }
    return true;
}

bool spiffe_id_member_of(const struct spiffe_id *id, struct str trust_domain)
{
    return str_eq(id->trust_domain, trust_domain);
}
