#include <postern/admin.h>

enum { ADMIN_REQUEST_MAX = 4096, ADMIN_NAME_MAX = 128 };

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
}

static bool name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!name_char(s.p[i])) {
            return false;
        }
    }
    return s.n > 0 && s.n <= ADMIN_NAME_MAX;
}

enum admin_parse admin_parse_line(const char *data, size_t len, struct str *ret_name)
{
    static const struct str verb = {"GET ", 4};
    const char *end = data != NULL ? memchr(data, '\n', len) : NULL;
    if (end == NULL) {
        return len >= ADMIN_REQUEST_MAX ? ADMIN_BAD : ADMIN_MORE;
    }
    struct str line = {data, (size_t)(end - data)};
    if (!str_has_prefix(line, verb)) {
        return ADMIN_BAD;
    }
    struct str name = {line.p + verb.n, line.n - verb.n};
    if (!name_ok(name)) {
        return ADMIN_BAD;
    }
    *ret_name = name;
    return ADMIN_OK;
}

static enum admin_parse refuse(int status, int *ret_status)
{
    *ret_status = status;
    return ADMIN_BAD;
}

/* RFC 9112: request line and the end of the head; fields are skipped, since none changes the
 * answer. */
enum admin_parse admin_parse_http(const char *data, size_t len, struct str *ret_name,
                                  int *ret_status)
{
    if (data == NULL || memmem(data, len, "\r\n\r\n", 4) == NULL) {
        return len >= ADMIN_REQUEST_MAX ? refuse(431, ret_status) : ADMIN_MORE;
    }
    const char *line_end = memmem(data, len, "\r\n", 2);
    struct str line = {data, (size_t)(line_end - data)};
    const char *sp = memchr(line.p, ' ', line.n);
    if (sp == NULL) {
        return refuse(400, ret_status);
    }
    struct str method = {line.p, (size_t)(sp - line.p)};
    struct str rest = {sp + 1, line.n - method.n - 1};
    if (!str_has_suffix(rest, STR_LIT(" HTTP/1.1")) &&
        !str_has_suffix(rest, STR_LIT(" HTTP/1.0"))) {
        return refuse(400, ret_status);
    }
    struct str target = {rest.p, rest.n - sizeof(" HTTP/1.1") + 1};
    if (!str_eq(method, STR_LIT("GET"))) {
        return refuse(405, ret_status);
    }
    if (target.n < 2 || target.p[0] != '/') {
        return refuse(404, ret_status);
    }
    struct str name = {target.p + 1, target.n - 1};
    if (!name_ok(name)) {
        return refuse(404, ret_status);
    }
    *ret_name = name;
    *ret_status = 200;
    return ADMIN_OK;
}
