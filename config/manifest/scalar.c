/* scalar: what an unquoted scalar of YAML means to kubectl, whose reader is one of YAML 1.1 with
 * Go's numbers. */
#include <postern/manifest.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 400 }; /* more digits than any number has that a tree can hold */

static bool one_of(struct str s, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (str_eq(s, str_of(*words))) {
            return true;
        }
    }
    return false;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

enum integer { INTEGER, INTEGER_NOT, INTEGER_LARGE };

/* As Go's ParseInt with base 0: a sign, 0x, 0o, 0b, or 0 for octal. Underscores are gone already.
 */
static enum integer parse_integer(struct str s, json_int_t *ret)
{
    bool minus = s.n > 0 && s.p[0] == '-';
    if (minus || (s.n > 0 && s.p[0] == '+')) {
        s = (struct str){s.p + 1, s.n - 1};
    }
    int base = 10;
    if (s.n > 1 && s.p[0] == '0') {
        char mark = (char)(s.p[1] | 0x20);
        base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
        size_t skip = mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1;
        s = (struct str){s.p + skip, s.n - skip};
    }
    if (s.n == 0) {
        return INTEGER_NOT;
    }
    uint64_t v = 0;
    bool large = false;
    for (size_t i = 0; i < s.n; i++) {
        int d = digit_value(s.p[i]);
        if (d >= base) {
            return INTEGER_NOT;
        }
        large = large || v > (UINT64_MAX - (uint64_t)d) / (uint64_t)base;
        v = v * (uint64_t)base + (uint64_t)d;
    }
    if (large || v > (uint64_t)INT64_MAX + (minus ? 1 : 0)) {
        return INTEGER_LARGE;
    }
    *ret = minus ? (json_int_t)(0 - v) : (json_int_t)v;
    return INTEGER;
}

static size_t digits(struct str s, size_t at)
{
    size_t n = 0;
    while (at + n < s.n && s.p[at + n] >= '0' && s.p[at + n] <= '9') {
        n++;
    }
    return n;
}

/* [-+]? ( .digits | digits [. [digits]] ) [ (e|E) [-+] digits ] */
static bool is_float(struct str s)
{
    size_t at = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0;
    size_t whole = digits(s, at);
    at += whole;
    if (at < s.n && s.p[at] == '.') {
        size_t after = digits(s, at + 1);
        if (whole == 0 && after == 0) {
            return false;
        }
        at += 1 + after;
    } else if (whole == 0) {
        return false;
    }
    if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
        at++;
        if (at < s.n && (s.p[at] == '-' || s.p[at] == '+')) {
            at++;
        }
        size_t exponent = digits(s, at);
        if (exponent == 0) {
            return false;
        }
        at += exponent;
    }
    return at == s.n;
}

/* Whole numbers are JSON's integers as far as these go: Go prints 1e3 as 1000. */
static json_t *from_float(double v)
{
    if (!isfinite(v)) {
        return NULL;
    }
    if (v == trunc(v) && fabs(v) < 9e15) {
        return json_integer((json_int_t)v);
    }
    return json_real(v);
}

/* True: it is a number, and *ret the value, or NULL where a tree cannot hold it. */
static bool parse_number(struct str text, json_t **ret)
{
    char plain[NUMBER_MAX + 1];
    size_t n = 0;
    if (text.n > NUMBER_MAX) {
        return false;
    }
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '_') {
            plain[n++] = text.p[i];
        }
    }
    plain[n] = '\0';
    struct str s = {plain, n};
    json_int_t integer = 0;
    switch (parse_integer(s, &integer)) {
    case INTEGER:
        *ret = json_integer(integer);
        return true;
    case INTEGER_LARGE:
        *ret = NULL;
        return true;
    case INTEGER_NOT:
        break;
    }
    if (!is_float(s)) {
        return false;
    }
    *ret = from_float(strtod(plain, NULL));
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool underscores_between_digits(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '_' &&
            (i == 0 || i + 1 == s.n || !is_digit(s.p[i - 1]) || !is_digit(s.p[i + 1]))) {
            return false;
        }
    }
    return true;
}

json_t *manifest_scalar(struct str text)
{
    static const char *const yes[] = {"y",    "Y",    "yes", "Yes", "YES", "true",
                                      "True", "TRUE", "on",  "On",  "ON",  NULL};
    static const char *const no[] = {"n",     "N",     "no",  "No",  "NO",  "false",
                                     "False", "FALSE", "off", "Off", "OFF", NULL};
    static const char *const null[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const no_number[] = {".nan",  ".NaN",  ".NAN",  ".inf",  ".Inf",
                                            ".INF",  "+.inf", "+.Inf", "+.INF", "-.inf",
                                            "-.Inf", "-.INF", NULL};
    json_t *number = NULL;
    if (one_of(text, null)) {
        return json_null();
    }
    if (one_of(text, yes)) {
        return json_true();
    }
    if (one_of(text, no)) {
        return json_false();
    }
    if (one_of(text, no_number)) {
        return NULL;
    }
    char first = text.p[0];
    bool may_be = (first >= '0' && first <= '9') || first == '+' || first == '-' || first == '.';
    /* After a full stop underscores count only between digits; elsewhere they are just taken out.
     */
    if (may_be && (first != '.' || underscores_between_digits(text)) &&
        parse_number(text, &number)) {
        return number;
    }
    return json_stringn(text.p, text.n);
}
