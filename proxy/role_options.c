/* role_options: one reading of every command's line. */
#include "role_options.h"

#include <postern/str.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names as wide as this stand beside what they mean; wider ones above it. */
enum { NAMES_MAX = 26 };

/* --- the usage -------------------------------------------------------------------------------- */
static size_t width(const struct role_option *o)
{
    return strlen(o->name) + (o->value != NULL ? 1 + strlen(o->value) : 0);
}

static void print_option(FILE *out, const struct role_option *o, size_t column)
{
    const char *at = o->what, *end;

    fprintf(out, "  %s%s%s", o->name, o->value != NULL ? " " : "",
            o->value != NULL ? o->value : "");
    if (width(o) > column) {
        fprintf(out, "\n%*s", (int)column + 2, "");
    } else {
        fprintf(out, "%*s", (int)(column - width(o)), "");
    }
    while ((end = strchr(at, '\n')) != NULL) {
        fprintf(out, "  %.*s\n%*s", (int)(end - at), at, (int)column + 2, "");
        at = end + 1;
    }
    fprintf(out, "  %s\n", at);
}

static void print_usage(FILE *out, const struct role_use *use)
{
    size_t column = 0;

    for (const char *const *u = use->uses; *u != NULL; u++) {
        fprintf(out, "%s postern %s\n", u == use->uses ? "usage:" : "      ", *u);
    }
    fputs(use->about != NULL ? use->about : "", out);
    for (size_t i = 0; i < use->n_options; i++) {
        size_t n = width(&use->options[i]);

        column = n > column && n <= NAMES_MAX ? n : column;
    }
    for (size_t i = 0; i < use->n_options; i++) {
        print_option(out, &use->options[i], column);
    }
    fputs(use->notes != NULL ? use->notes : "", out);
}

int role_usage(const struct role_use *use)
{
    print_usage(stderr, use);
    return 2;
}

int role_misuse(const struct role_use *use, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "postern %s: ", use->command);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return role_usage(use);
}

/* --- the line --------------------------------------------------------------------------------- */
/* By its name, or by `name=`; then *ret_text is what stands behind that, else NULL. */
static const struct role_option *find(const struct role_use *use, const char *word,
                                      const char **ret_text)
{
    for (size_t i = 0; i < use->n_options; i++) {
        const struct role_option *o = &use->options[i];
        size_t n = strlen(o->name);

        if (strncmp(word, o->name, n) != 0) {
            continue;
        }
        if (word[n] == '\0' || (word[n] == '=' && strncmp(word, "--", 2) == 0)) {
            *ret_text = word[n] == '=' ? word + n + 1 : NULL;
            return o;
        }
    }
    return NULL;
}

/* Also where a value is wanted: nobody means it as one. */
static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* 0, or 2 after telling why not. */
static int keep(const struct role_use *use, const struct role_option *o, const char *text,
                void *options)
{
    char *member = (char *)options + o->at;
    int status = 0;

    switch (o->kind) {
    case ROLE_KIND_FLAG:
        *(bool *)member = true;
        break;
    case ROLE_KIND_TEXT:
        memcpy(member, (void *)&text, sizeof(text));
        break;
    case ROLE_KIND_NUMBER: {
        uint64_t number = 0;

        if (!str_to_u64(str_of(text), o->max, &number)) {
            return role_misuse(use, "%s '%.80s': expected a number up to %llu", o->name, text,
                               (unsigned long long)o->max);
        }
        memcpy(member, &number, sizeof(number));
        break;
    }
    case ROLE_KIND_TAKE:
        if (!o->take(options, text)) {
            status = role_misuse(use, "%s '%.80s': expected %s", o->name, text, o->value);
        }
        break;
    }
    return status;
}

bool role_take_time(const char *text, uint64_t *ret_s)
{
    static const char units[] = "smhd";
    static const uint64_t seconds[] = {1, 60, 3600, 86400};
    size_t n = strlen(text);
    const char *unit = n > 1 ? strchr(units, text[n - 1]) : NULL;
    uint64_t value;

    if (unit == NULL || !str_to_u64((struct str){text, n - 1}, UINT32_MAX / 86400, &value) ||
        value == 0) {
        return false;
    }
    *ret_s = value * seconds[unit - units];
    return true;
}

bool role_options(const struct role_use *use, int *argc, char **argv, void *options,
                  int *ret_status)
{
    int n_words = 0;

    *ret_status = 0;
    for (int i = 1; i < *argc && *ret_status == 0; i++) {
        const char *text = NULL;
        const struct role_option *o = argv[i][0] == '-' ? find(use, argv[i], &text) : NULL;

        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[1 + n_words++] = argv[i];
            if (n_words > use->max_words) {
                *ret_status = role_misuse(use, "'%.80s' is one word too many", argv[i]);
            }
        } else if (is_help(argv[i]) || (o != NULL && i + 1 < *argc && is_help(argv[i + 1]))) {
            print_usage(stdout, use);
            return false;
        } else if (o == NULL) {
            *ret_status = role_misuse(use, "'%.80s' is no option of it", argv[i]);
        } else if (o->value == NULL && text != NULL) {
            *ret_status = role_misuse(use, "%s takes no value", o->name);
        } else if (o->value != NULL && text == NULL && i + 1 == *argc) {
            *ret_status = role_misuse(use, "%s: expected %s after it", o->name, o->value);
        } else {
            *ret_status =
                keep(use, o, o->value != NULL && text == NULL ? argv[++i] : text, options);
        }
    }
    *argc = 1 + n_words;
    return *ret_status == 0;
}
