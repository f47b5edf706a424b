/* source_text: who reads policies, as a text: words with one blank between them. So it travels to
 * the process that does the reading, and each word is checked there. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <postern/policy_source.h>
#include <postern/spiffe.h>
#include <stdlib.h>
#include <string.h>

enum { LABELS_MAX = 256 };

/* --- writing ---------------------------------------------------------------------------------- */
static bool put(struct buf *out, const char *key, const char *value)
{
    return value == NULL || buf_printf(out, "%s%s=%s", buf_len(out) > 0 ? " " : "", key, value);
}

static bool put_word(struct buf *out, const char *word, bool set)
{
    return !set || buf_printf(out, "%s%s", buf_len(out) > 0 ? " " : "", word);
}

static bool put_ports(struct buf *out, const char *key, const struct policy_convert_ports *ports)
{
    bool ok = put(out, key, "");
    for (size_t i = 0; ok && i < ports->n; i++) {
        ok = buf_printf(out, "%s%u", i > 0 ? "," : "", ports->items[i]);
    }
    return ok;
}

bool policy_source_write(const struct policy_source *s, struct buf *out)
{
    const struct policy_convert_options *o = &s->options;
    struct buf text = BUF_INIT(CONVERT_TEXT_MAX);
    bool ok = put_word(&text, "strict", o->strict) && put_word(&text, "own", o->own) &&
              put(&text, "trust_domain", o->trust_domain) &&
              put(&text, "root_namespace", o->root_namespace) &&
              put(&text, "default_namespace", o->default_namespace) &&
              put(&text, "own_namespace", o->own_namespace) &&
              put_word(&text, "labels", o->own_labels_known) &&
              put_word(&text, "no_implied_allow", o->no_implied_allow) &&
              put_word(&text, "ignore_egress", o->ignore_egress) &&
              put_word(&text, "tcp_rest", o->tcp_rest) &&
              (!o->tcp_ports_known || put_ports(&text, "tcp_ports", &o->tcp_ports)) &&
              put_ports(&text, "http_ports", &o->http_ports) &&
              put_ports(&text, "plain_ports", &o->plain_ports);
    for (size_t i = 0; ok && i < o->own_labels.n; i++) {
        ok = put(&text, "label", o->own_labels.items[i]);
    }
    ok = ok && buf_append_str(out, buf_str(&text));
    buf_reset(&text);
    return ok;
}

/* --- reading ---------------------------------------------------------------------------------- */
static bool take_ports(const char *list, struct policy_convert_ports *ret)
{
    size_t n = 1;
    if (ret->items != NULL) {
        return false; /* twice */
    }
    for (const char *p = list; *p != '\0'; p++) {
        n += *p == ',';
    }
    ret->items = mem_must_calloc(n, sizeof(ret->items[0]));
    for (const char *p = list; *p != '\0';) {
        size_t len = strcspn(p, ",");
        uint64_t port = 0;
        if (!str_to_u64((struct str){p, len}, 65535, &port) || port == 0) {
            return false;
        }
        ret->items[ret->n++] = (uint16_t)port;
        p += len;
        if (*p == ',') {
            p++;
            if (*p == '\0') {
                return false;
            }
        }
    }
    return true;
}

static bool take_label(const char *text, struct policy_source *s)
{
    const char *value = strchr(text, '=');
    struct str all = str_of(text);
    if (value == NULL || value == text || s->options.own_labels.n == LABELS_MAX) {
        return false;
    }
    for (size_t i = 0; i < all.n; i++) {
        if (str_control(all, i) > 0) {
            return false;
        }
    }
    s->labels = mem_must_realloc(s->labels, (s->options.own_labels.n + 1) * sizeof(char *));
    s->labels[s->options.own_labels.n++] = mem_must_strdup(text);
    s->options.own_labels.items = s->labels;
    return true;
}

static bool take_name(const char *value, const char **ret)
{
    *ret = *ret == NULL && field_is_segment(value) ? value : NULL;
    return *ret != NULL;
}

static bool take_value(struct policy_source *s, const char *key, const char *value)
{
    struct policy_convert_options *o = &s->options;
    if (strcmp(key, "trust_domain") == 0) {
        bool ok = o->trust_domain == NULL && spiffe_trust_domain_ok(str_of(value));
        o->trust_domain = value;
        return ok;
    }
    if (strcmp(key, "tcp_ports") == 0) {
        o->tcp_ports_known = true;
        return take_ports(value, &o->tcp_ports);
    }
    return strcmp(key, "root_namespace") == 0      ? take_name(value, &o->root_namespace)
           : strcmp(key, "default_namespace") == 0 ? take_name(value, &o->default_namespace)
           : strcmp(key, "own_namespace") == 0     ? take_name(value, &o->own_namespace)
           : strcmp(key, "http_ports") == 0        ? take_ports(value, &o->http_ports)
           : strcmp(key, "plain_ports") == 0       ? take_ports(value, &o->plain_ports)
           : strcmp(key, "label") == 0             ? take_label(value, s)
                                                   : false;
}

static bool take_word(struct policy_source *s, char *word)
{
    struct policy_convert_options *o = &s->options;
    const struct {
        const char *name;
        bool *set;
    } words[] = {{"strict", &o->strict},
                 {"own", &o->own},
                 {"labels", &o->own_labels_known},
                 {"no_implied_allow", &o->no_implied_allow},
                 {"ignore_egress", &o->ignore_egress},
                 {"tcp_rest", &o->tcp_rest}};
    char *value = strchr(word, '=');
    if (value != NULL) {
        *value = '\0';
        return take_value(s, word, value + 1);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i].name) == 0) {
            *words[i].set = true;
            return true;
        }
    }
    return false;
}

bool policy_source_read(struct str text, struct policy_source *ret)
{
    struct policy_source s = {.texts = mem_must_strndup(text.p, text.n)};
    bool ok = memchr(text.n > 0 ? text.p : "", '\0', text.n) == NULL;
    for (char *p = s.texts; ok && *p != '\0';) {
        size_t n = strcspn(p, " ");
        char *next = p + n + (p[n] == ' ');
        p[n] = '\0';
        ok = take_word(&s, p);
        p = next;
    }
    if (!ok) {
        policy_source_deinit(&s);
        return false;
    }
    *ret = s;
    return true;
}

void policy_source_deinit(struct policy_source *s)
{
    for (size_t i = 0; i < s->options.own_labels.n; i++) {
        free(s->labels[i]);
    }
    free(s->labels);
    free(s->options.tcp_ports.items);
    free(s->options.http_ports.items);
    free(s->options.plain_ports.items);
    free(s->texts);
    *s = (struct policy_source){.texts = NULL};
}
