/* Choosing by server name. */
#include <postern/client_hello.h>

static bool is_wildcard(struct str pattern)
{
    return str_has_prefix(pattern, STR_LIT("*."));
}

/* ".a.example" of "*.a.example" has to be the end of the name, with something before it. */
static bool covers(struct str pattern, struct str name)
{
    struct str end = {pattern.p + 1, pattern.n - 1};
    return name.n > end.n && str_has_suffix(name, end);
}

long client_hello_route(const struct client_hello_pattern *patterns, size_t n, struct str name)
{
    long found = CLIENT_HELLO_NO_ROUTE;
    size_t longest = 0;
    if (name.n == 0) {
        return CLIENT_HELLO_NO_ROUTE;
    }
    for (size_t i = 0; i < n; i++) {
        struct str text = patterns[i].text;
        if (!is_wildcard(text)) {
            if (str_eq(text, name)) {
                return (long)patterns[i].route;
            }
        } else if (text.n > longest && covers(text, name)) {
            longest = text.n;
            found = (long)patterns[i].route;
        }
    }
    return found;
}
