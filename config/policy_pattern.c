/* policy_pattern: the forms that a pattern can have, and how what has none is told. */
#include <postern/conf.h>

#include <stdio.h>
#include <string.h>

#include "policy_priv.h"

enum pattern_kind pattern_split(struct str text, struct str *ret_rest)
{
    size_t stars = 0;
    for (size_t i = 0; i < text.n; i++) {
        stars += text.p[i] == '*';
    }
    *ret_rest = text;
    if (stars == 0) {
        return PATTERN_EXACT;
    }
    bool leading = text.p[0] == '*';
    if (stars > 1 || (!leading && text.p[text.n - 1] != '*')) {
        return PATTERN_BAD;
    }
    *ret_rest = (struct str){text.p + (leading ? 1 : 0), text.n - 1};
    return text.n == 1 ? PATTERN_ANY : leading ? PATTERN_SUFFIX : PATTERN_PREFIX;
}

bool pattern_refuse(struct context *c, const struct field *f, const struct node *n,
                    const char *advice, const char *why)
{
    struct shown s;
    report(c, n, f->expected, advice, "'%s' holds %s, %s", f->name, show(&s, n->text), why);
    return false;
}

bool pattern_refuse_star(struct context *c, const struct field *f, const struct node *n)
{
    return pattern_refuse(c, f, n, NULL,
                          "where one * may stand at the beginning or at the end only");
}

bool pattern_refuse_level(struct context *c, const struct field *f, const struct node *n,
                          const char *what)
{
    char text[160];
    snprintf(text, sizeof(text), "'%s' with %s", f->name, what);
    return schema_refuse_level(c, n, 2, text);
}

bool pattern_check_text(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    if (pattern_split(n->text, &rest) == PATTERN_BAD) {
        return pattern_refuse_star(c, f, n);
    }
    for (size_t i = 0; i < n->text.n; i++) {
        unsigned char ch = (unsigned char)n->text.p[i];
        if (ch < 0x20 || ch == 0x7f) {
            return pattern_refuse(c, f, n, NULL, "with a control character");
        }
    }
    return true;
}
