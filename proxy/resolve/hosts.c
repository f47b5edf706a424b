/* Reading a hosts file: an address and its names a line, `#` begins a comment. */
#include "resolver_priv.h"

#include <arpa/inet.h>
#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool next_word(struct str *line, struct str *ret)
{
    while (line->n > 0 && is_blank(line->p[0])) {
        line->p++;
        line->n--;
    }
    size_t n = 0;
    while (n < line->n && !is_blank(line->p[n])) {
        n++;
    }
    *ret = (struct str){line->p, n};
    line->p += n;
    line->n -= n;
    return n > 0;
}

static bool take_address(struct str word, struct resolve_address *ret)
{
    char text[INET6_ADDRSTRLEN];
    if (word.n >= sizeof(text) || memchr(word.p, '\0', word.n) != NULL) {
        return false;
    }
    memcpy(text, word.p, word.n);
    text[word.n] = '\0';
    *ret = (struct resolve_address){.family = 4};
    if (inet_pton(AF_INET, text, ret->bytes) == 1) {
        return true;
    }
    ret->family = 6;
    return inet_pton(AF_INET6, text, ret->bytes) == 1;
}

bool hosts_find(struct str text, struct str host, struct addresses *to)
{
    bool found = false;
    while (text.n > 0) {
        const char *end = (const char *)memchr(text.p, '\n', text.n);
        struct str line = {text.p, end != NULL ? (size_t)(end - text.p) : text.n};
        size_t used = line.n + (end != NULL ? 1 : 0);
        text.p += used;
        text.n -= used;
        const char *comment = line.n > 0 ? (const char *)memchr(line.p, '#', line.n) : NULL;
        if (comment != NULL) {
            line.n = (size_t)(comment - line.p);
        }
        struct str word;
        struct resolve_address address;
        if (!next_word(&line, &word) || !take_address(word, &address)) {
            continue;
        }
        while (next_word(&line, &word)) {
            if (str_eq_nocase(word, host)) {
                found = true;
                if (to->n < RESOLVE_ADDRS_MAX) {
                    to->list[to->n++] = address;
                }
                break;
            }
        }
    }
    return found;
}
