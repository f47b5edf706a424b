/* Read it beside docs/authorization.md: one function a sentence, no cleverness. */
#include "policy_ref.h"

#include <limits.h>
#include <string.h>

/* What a clause comes to: true, false, or about a fact that is missing. */
enum truth { NO, YES, MISSING };

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same(const char *a, const char *b, size_t n, bool nocase)
{
    for (size_t i = 0; i < n; i++) {
        if ((nocase ? fold(a[i]) : a[i]) != (nocase ? fold(b[i]) : b[i])) {
            return false;
        }
    }
    return true;
}

/* "*", "exact", "prefix*", "*suffix". */
static bool pattern_matches(struct str pattern, struct str text, bool nocase)
{
    if (pattern.n == 1 && pattern.p[0] == '*') {
        return true;
    }
    if (pattern.n > 0 && pattern.p[pattern.n - 1] == '*') {
        return text.n >= pattern.n - 1 && same(pattern.p, text.p, pattern.n - 1, nocase);
    }
    if (pattern.n > 0 && pattern.p[0] == '*') {
        size_t n = pattern.n - 1;
        return text.n >= n && same(pattern.p + 1, text.p + (text.n - n), n, nocase);
    }
    return pattern.n == text.n && same(pattern.p, text.p, text.n, nocase);
}

static struct str cut_final_dot(struct str s)
{
    if (s.n > 1 && s.p[s.n - 1] == '.') {
        s.n--;
    }
    return s;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = fold(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct str decode(struct str s, char *room, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n && n < size; i++) {
        if (s.p[i] == '%' && s.n - i > 2) {
            room[n++] = (char)(hex(s.p[i + 1]) * 16 + hex(s.p[i + 2]));
            i += 2;
        } else {
            room[n++] = s.p[i];
        }
    }
    return (struct str){room, n};
}

static bool any_target(const struct conf_strings *list, struct str id)
{
    for (size_t i = 0; i < list->n; i++) {
        if (pattern_matches(str_of(list->items[i]), id, false)) {
            return true;
        }
    }
    return false;
}

/* How a SPIFFE ID ends says nothing of another name that ends alike. */
static bool any_principal(const struct conf_strings *list, struct str id)
{
    for (size_t i = 0; i < list->n; i++) {
        struct str p = str_of(list->items[i]);
        bool suffix = p.n > 1 && p.p[0] == '*';
        if ((!suffix || str_has_prefix(id, STR_LIT("spiffe://"))) &&
            pattern_matches(p, id, false)) {
            return true;
        }
    }
    return false;
}

static bool any_exact(const struct conf_strings *list, struct str text)
{
    for (size_t i = 0; i < list->n; i++) {
        if (str_eq(str_of(list->items[i]), text)) {
            return true;
        }
    }
    return false;
}

static bool any_host(const struct conf_strings *list, struct str host)
{
    for (size_t i = 0; i < list->n; i++) {
        if (pattern_matches(cut_final_dot(str_of(list->items[i])), cut_final_dot(host), true)) {
            return true;
        }
    }
    return false;
}

static bool any_path(const struct conf_strings *list, struct str path)
{
    for (size_t i = 0; i < list->n; i++) {
        char room[8192];
        if (pattern_matches(decode(str_of(list->items[i]), room, sizeof(room)), path, false)) {
            return true;
        }
    }
    return false;
}

static bool any_port(const uint16_t *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++) {
        if (ports[i] == port) {
            return true;
        }
    }
    return false;
}

/* The trust domain of "spiffe://td/path"; empty if there is none. */
static struct str trust_domain_of(struct str id)
{
    struct str scheme = STR_LIT("spiffe://");
    if (!str_has_prefix(id, scheme)) {
        return STR_NONE;
    }
    struct str td = {id.p + scheme.n, id.n - scheme.n};
    const char *slash = td.n > 0 ? memchr(td.p, '/', td.n) : NULL;
    if (slash != NULL) {
        td.n = (size_t)(slash - td.p);
    }
    return td;
}

/* An address as family and bits; IPv4 written as IPv6 is IPv4. */
struct address {
    int family;
    uint8_t bytes[16];
    unsigned prefix_len;
};

static struct address canonical(int family, const uint8_t *bytes, unsigned prefix_len)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct address a = {.family = family, .prefix_len = prefix_len};
    if (family == AF_INET6 && prefix_len >= 96 && memcmp(bytes, mapped, 12) == 0) {
        a.family = AF_INET;
        a.prefix_len -= 96;
        memcpy(a.bytes, bytes + 12, 4);
    } else {
        memcpy(a.bytes, bytes, family == AF_INET ? 4 : 16);
    }
    return a;
}

static bool source_address(const struct sockaddr *sa, struct address *ret)
{
    if (sa != NULL && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        *ret = canonical(AF_INET, (const uint8_t *)&in.sin_addr, 32);
        return true;
    }
    if (sa != NULL && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        *ret = canonical(AF_INET6, in6.sin6_addr.s6_addr, 128);
        return true;
    }
    return false;
}

static bool any_block(const struct conf_cidrs *list, const struct address *a)
{
    for (size_t i = 0; i < list->n; i++) {
        struct address block =
            canonical(list->items[i].family, list->items[i].addr, list->items[i].prefix_len);
        bool in = block.family == a->family;
        for (unsigned bit = 0; in && bit < block.prefix_len; bit++) {
            unsigned mask = 0x80U >> (bit % 8);
            in = (block.bytes[bit / 8] & mask) == (a->bytes[bit / 8] & mask);
        }
        if (in) {
            return true;
        }
    }
    return false;
}

/* What is not known: false in ALLOW, true in DENY. */
static bool settle(enum truth t, enum conf_action action)
{
    return t == MISSING ? action == CONF_DENY : t == YES;
}

/* One clause and its not_ form; counts the failed ones. An absent clause holds. */
static unsigned count_failed(bool has, enum truth holds, bool has_not, enum truth not_holds,
                             enum conf_action action)
{
    unsigned failed = 0;
    failed += has && !settle(holds, action);
    failed += has_not && !settle(not_holds == MISSING ? MISSING
                                 : not_holds == YES   ? NO
                                                      : YES,
                                 action);
    return failed;
}

static enum truth truth(bool b)
{
    return b ? YES : NO;
}

static unsigned from_failed(const struct conf_policy_from *f, const struct policy_query *q,
                            enum conf_action action)
{
    unsigned failed = 0;
    bool known = q->peer.n > 0;
    /* Having no identity is known and is not that identity: positive clauses are false. */
    failed +=
        count_failed(f->principals.n > 0, truth(known && any_principal(&f->principals, q->peer)),
                     f->not_principals.n > 0,
                     known ? truth(any_principal(&f->not_principals, q->peer)) : MISSING, action);
    struct str td = trust_domain_of(q->peer);
    known = td.n > 0;
    failed += count_failed(f->trust_domains.n > 0, truth(known && any_exact(&f->trust_domains, td)),
                           f->not_trust_domains.n > 0,
                           known ? truth(any_exact(&f->not_trust_domains, td)) : MISSING, action);
    struct address a;
    known = source_address(q->source, &a);
    failed += count_failed(
        f->ip_blocks.n > 0, known ? truth(any_block(&f->ip_blocks, &a)) : MISSING,
        f->not_ip_blocks.n > 0, known ? truth(any_block(&f->not_ip_blocks, &a)) : MISSING, action);
    return failed;
}

static bool has_request_clause(const struct conf_policy_to *t)
{
    return t->methods.n + t->not_methods.n + t->hosts.n + t->not_hosts.n + t->paths.n +
               t->not_paths.n >
           0;
}

static unsigned to_failed(const struct conf_policy_to *t, const struct policy_query *q,
                          enum conf_action action)
{
    unsigned failed = 0;
    failed += count_failed(t->n_ports > 0, truth(any_port(t->ports, t->n_ports, q->port)),
                           t->n_not_ports > 0,
                           truth(any_port(t->not_ports, t->n_not_ports, q->port)), action);
    if (!q->http) {
        return failed + (unsigned)((t->methods.n > 0) + (t->not_methods.n > 0) + (t->hosts.n > 0) +
                                   (t->not_hosts.n > 0) + (t->paths.n > 0) + (t->not_paths.n > 0));
    }
    bool known = q->method.n > 0;
    failed +=
        count_failed(t->methods.n > 0, known ? truth(any_exact(&t->methods, q->method)) : MISSING,
                     t->not_methods.n > 0,
                     known ? truth(any_exact(&t->not_methods, q->method)) : MISSING, action);
    known = q->host.n > 0;
    failed += count_failed(t->hosts.n > 0, known ? truth(any_host(&t->hosts, q->host)) : MISSING,
                           t->not_hosts.n > 0,
                           known ? truth(any_host(&t->not_hosts, q->host)) : MISSING, action);
    known = q->path.n > 0;
    failed += count_failed(t->paths.n > 0, known ? truth(any_path(&t->paths, q->path)) : MISSING,
                           t->not_paths.n > 0,
                           known ? truth(any_path(&t->not_paths, q->path)) : MISSING, action);
    return failed;
}

static bool target_holds(const struct conf_rule *rule, struct str target)
{
    if (rule->target_principals.n == 0) {
        return true;
    }
    return target.n > 0 ? any_target(&rule->target_principals, target) : rule->action == CONF_DENY;
}

unsigned policy_ref_failed_clauses(const struct conf_rule *rule, const struct policy_query *q)
{
    unsigned failed = target_holds(rule, q->target) ? 0 : 1;
    unsigned best = rule->n_from > 0 ? UINT_MAX : 0;
    for (size_t i = 0; i < rule->n_from; i++) {
        unsigned n = from_failed(&rule->from[i], q, rule->action);
        best = n < best ? n : best;
    }
    failed += best;
    best = rule->n_to > 0 ? UINT_MAX : 0;
    for (size_t i = 0; i < rule->n_to; i++) {
        unsigned n = to_failed(&rule->to[i], q, rule->action);
        best = n < best ? n : best;
    }
    return failed + best;
}

void policy_ref_decide(const struct conf_policy *conf, const struct policy_query *q,
                       struct policy_verdict *ret)
{
    static const enum conf_action order[] = {CONF_DENY, CONF_ALLOW};
    for (size_t a = 0; a < 2; a++) {
        for (size_t i = 0; i < conf->n_rules; i++) {
            const struct conf_rule *rule = &conf->rules[i];
            if (rule->action == order[a] && policy_ref_failed_clauses(rule, q) == 0) {
                *ret = (struct policy_verdict){
                    .allow = rule->action == CONF_ALLOW,
                    .reason = rule->action == CONF_ALLOW ? POLICY_ALLOWED : POLICY_DENIED_BY_RULE,
                    .rule = rule->name,
                    .rule_line = rule->line,
                };
                return;
            }
        }
    }
    *ret = (struct policy_verdict){.reason = POLICY_NO_RULE};
}

bool policy_ref_wants_requests(const struct conf_policy *conf, struct str target, uint16_t port)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        const struct conf_rule *rule = &conf->rules[i];
        bool concerns = rule->target_principals.n == 0 || target.n == 0 ||
                        any_target(&rule->target_principals, target);
        for (size_t j = 0; concerns && j < rule->n_to; j++) {
            const struct conf_policy_to *t = &rule->to[j];
            if (has_request_clause(t) &&
                (t->n_ports == 0 || any_port(t->ports, t->n_ports, port)) &&
                !any_port(t->not_ports, t->n_not_ports, port)) {
                return true;
            }
        }
    }
    return false;
}
