/* words: a command line to words, as a shell does it, without what only a shell can know. */
#include "ghostunnel_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

struct reader {
    struct str text;
    size_t at;
    char *word; /* as large as all of the text */
    size_t len;
    bool any; /* a word has begun, if only by quotes */
};

static int fail(struct err *err, const struct reader *r, const char *what)
{
    return err_set(err, ERR_USAGE, "byte %zu of the command line: %s", r->at + 1, what);
}

/* Behind a backslash. */
static int take_escaped(struct reader *r, bool quoted, struct err *err)
{
    if (r->at + 1 >= r->text.n) {
        return fail(err, r, "a backslash at the end");
    }
    char next = r->text.p[++r->at];
    if (next == '\r' && r->at + 1 < r->text.n && r->text.p[r->at + 1] == '\n') {
        next = r->text.p[++r->at];
    }
    if (next == '\n') {
        return 0; /* the line goes on */
    }
    if (quoted && strchr("\"\\$`", next) == NULL) {
        r->word[r->len++] = '\\';
    }
    r->word[r->len++] = next;
    r->any = true;
    return 0;
}

static int take_quoted(struct reader *r, char quote, struct err *err)
{
    size_t begin = r->at;
    r->any = true;
    for (r->at++; r->at < r->text.n && r->text.p[r->at] != quote; r->at++) {
        char c = r->text.p[r->at];
        if (quote == '"' && (c == '$' || c == '`')) {
            return fail(err, r, "something that a shell would fill in; write what it stands for");
        }
        if (quote == '"' && c == '\\') {
            if (take_escaped(r, true, err) == -1) {
                return -1;
            }
        } else {
            r->word[r->len++] = c;
        }
    }
    if (r->at >= r->text.n) {
        r->at = begin;
        return fail(err, r, "a quote that does not end");
    }
    return 0;
}

static int take_char(struct reader *r, struct err *err)
{
    char c = r->text.p[r->at];
    if (c == '\'' || c == '"') {
        return take_quoted(r, c, err);
    }
    if (c == '\\') {
        return take_escaped(r, false, err);
    }
    if (c == '$' || c == '`' || (c == '~' && !r->any)) {
        return fail(err, r, "something that a shell would fill in; write what it stands for");
    }
    if (strchr(";|&<>()", c) != NULL || (c == '#' && !r->any)) {
        return fail(err, r,
                    "more than one plain command; put quotes around what belongs to a word");
    }
    r->word[r->len++] = c;
    r->any = true;
    return 0;
}

static int end_word(struct reader *r, struct ghost_words *w, struct err *err)
{
    if (!r->any) {
        return 0;
    }
    if (w->n == GHOST_WORDS_MAX) {
        return fail(err, r, "too many words");
    }
    w->items[w->n++] = mem_must_strndup(r->word, r->len);
    mem_wipe(r->word, r->len); /* it may have been a passphrase */
    r->len = 0;
    r->any = false;
    return 0;
}

int ghost_words_split(struct str text, struct ghost_words *ret, struct err *err)
{
    int rc = 0;
    if (text.n > GHOSTUNNEL_TEXT_MAX || (text.n > 0 && memchr(text.p, '\0', text.n) != NULL)) {
        return err_set(err, ERR_USAGE, "the command line is longer than %d bytes, or holds a NUL",
                       (int)GHOSTUNNEL_TEXT_MAX);
    }
    struct reader r = {.text = text, .word = mem_must_calloc(text.n + 1, 1)};
    for (; rc == 0 && r.at < text.n; r.at++) {
        rc = is_blank(text.p[r.at]) ? end_word(&r, ret, err) : take_char(&r, err);
    }
    if (rc == 0) {
        rc = end_word(&r, ret, err);
    }
    mem_wipe(r.word, text.n + 1);
    free(r.word);
    return rc;
}

void ghost_words_deinit(struct ghost_words *w)
{
    for (size_t i = 0; i < w->n; i++) {
        mem_wipe(w->items[i], strlen(w->items[i]));
        free(w->items[i]);
    }
    w->n = 0;
}
