/* time: a day or a moment of the calendar, as people write it, in UTC and nothing else: a file
 * means the same on every machine. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

/* Exactly n digits. */
static bool take_digits(struct str *s, size_t n, unsigned *ret)
{
    unsigned v = 0;
    if (s->n < n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9') {
            return false;
        }
        v = v * 10 + (unsigned)(s->p[i] - '0');
    }
    *s = (struct str){s->p + n, s->n - n};
    *ret = v;
    return true;
}

static bool take_char(struct str *s, char ch)
{
    if (s->n == 0 || s->p[0] != ch) {
        return false;
    }
    *s = (struct str){s->p + 1, s->n - 1};
    return true;
}

static unsigned days_in(unsigned year, unsigned month)
{
    static const unsigned char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap ? 1U : 0U);
}

/* Days since 1970-01-01, for years from 1970 on. */
static int64_t days_before(unsigned year, unsigned month, unsigned day)
{
    int64_t last = (int64_t)year - 1;
    int64_t leaps = last / 4 - last / 100 + last / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    int64_t days = ((int64_t)year - 1970) * 365 + leaps;
    for (unsigned m = 1; m < month; m++) {
        days += days_in(year, m);
    }
    return days + (int64_t)day - 1;
}

/* RFC 3339, 5.6, in UTC and whole seconds, or its full-date alone, which means the day's end. */
static bool read_time(struct str s, int64_t *ret)
{
    unsigned year, month, day, hour, minute, second;
    if (!take_digits(&s, 4, &year) || !take_char(&s, '-') || !take_digits(&s, 2, &month) ||
        !take_char(&s, '-') || !take_digits(&s, 2, &day) || year < 1970 || month < 1 ||
        month > 12 || day < 1 || day > days_in(year, month)) {
        return false;
    }
    int64_t start = days_before(year, month, day) * 86400;
    if (s.n == 0) {
        *ret = start + 86400;
        return true;
    }
    if (!take_char(&s, 'T') || !take_digits(&s, 2, &hour) || !take_char(&s, ':') ||
        !take_digits(&s, 2, &minute) || !take_char(&s, ':') || !take_digits(&s, 2, &second) ||
        !take_char(&s, 'Z') || s.n > 0 || hour > 23 || minute > 59 || second > 59) {
        return false;
    }
    *ret = start + (int64_t)(hour * 3600 + minute * 60 + second);
    return true;
}

bool value_parse_time(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    int64_t at = 0;
    if (!read_time(n->text, &at) || at == 0) {
        value_fail(c, f, n, NULL, "no such time");
        return false;
    }
    memcpy(dst, &at, sizeof(at));
    return true;
}
