/* lint_text: what is doubtful as it stands there, rule by rule. */
#include "lint_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>

/* --- whom it is about --------------------------------------------------------------------------
 */
static bool is_prefix(const char *item)
{
    size_t n = strlen(item);
    return n > 1 && item[n - 1] == '*' && item[0] != '*' && !conf_is_glob(item) &&
           strchr(item, '*') == item + n - 1;
}

/* A prefix that goes on within the segment that it begins. */
static bool splits_segment(const char *item)
{
    size_t n = strlen(item);
    return is_prefix(item) && item[n - 2] != '/' && item[n - 2] != ':';
}

/* In an ALLOW what is said takes more in; in a DENY what is excepted lets more out. */
static void look_at_patterns(struct lint *l, const struct lint_place *list,
                             const struct conf_strings *items, bool suffix_too, const char *said)
{
    for (size_t i = 0; i < items->n; i++) {
        const char *item = items->items[i];
        struct lint_place at = *list;
        at.item = i;
        if (splits_segment(item)) {
            size_t n = strlen(item);
            lint_add(l, POLICY_FINDING_WIDE_PATTERN, false, &at,
                     mem_must_printf("write '%.*s/*', or the whole names", (int)n - 1, item),
                     mem_must_printf("'%s' %s every name that goes on in any way, '%.*sx' too",
                                     item, said, (int)n - 1, item));
        } else if (suffix_too && item[0] == '*' && item[1] != '\0') {
            lint_add(l, POLICY_FINDING_WIDE_PATTERN, false, &at,
                     mem_must_strdup("put 'trust_domains' beside it"),
                     mem_must_printf("'%s' %s workloads of every trust domain that is trusted",
                                     item, said));
        }
    }
}

static bool is_star_alone(const struct conf_strings *list)
{
    return list->n == 1 && strcmp(list->items[0], "*") == 0;
}

/* Nothing of who calls is asked but, at most, that it has an identity. */
static bool asks_nobody(const struct conf_policy_from *f)
{
    return f->not_principals.n + f->namespaces.n + f->not_namespaces.n + f->service_accounts.n +
                   f->not_service_accounts.n + f->trust_domains.n + f->not_trust_domains.n +
                   f->ip_blocks.n + f->not_ip_blocks.n + f->claims.n + f->not_claims.n ==
               0 &&
           is_star_alone(&f->principals);
}

static void look_at_from(struct lint *l, size_t rule)
{
    const struct conf_rule *r = &l->conf->rules[rule];
    bool allow = r->action == CONF_ALLOW;
    if (allow && r->n_from == 0) {
        const struct lint_place at = {.rule = rule};
        lint_add(l, POLICY_FINDING_ANYONE, false, &at,
                 mem_must_strdup("say in 'from' who may call; a path of health checks may be meant "
                                 "for everybody"),
                 mem_must_strdup("allows anyone, callers without an identity included"));
    }
    for (size_t i = 0; i < r->n_from; i++) {
        const struct conf_policy_from *f = &r->from[i];
        struct lint_place at = {.rule = rule, .section = "from", .entry = i, .item = SIZE_MAX};
        if (allow && asks_nobody(f)) {
            at.key = "principals";
            lint_add(l, POLICY_FINDING_ANYONE, false, &at,
                     mem_must_strdup("name trust domains, namespaces or workloads"),
                     mem_must_strdup("allows every identity that is trusted at all"));
            continue;
        }
        bool of_domain = f->trust_domains.n > 0;
        at.key = allow ? "principals" : "not_principals";
        look_at_patterns(l, &at, allow ? &f->principals : &f->not_principals, !of_domain,
                         allow ? "allows" : "excepts");
    }
}

static void look_at_to(struct lint *l, size_t rule)
{
    const struct conf_rule *r = &l->conf->rules[rule];
    bool allow = r->action == CONF_ALLOW;
    for (size_t i = 0; i < r->n_to; i++) {
        struct lint_place at = {.rule = rule, .section = "to", .entry = i, .item = SIZE_MAX};
        at.key = allow ? "paths" : "not_paths";
        look_at_patterns(l, &at, allow ? &r->to[i].paths : &r->to[i].not_paths, false,
                         allow ? "allows" : "excepts");
    }
}

/* --- ports -------------------------------------------------------------------------------------
 */
static void look_at_port(struct lint *l, const struct lint_place *at, uint16_t port,
                         const char *declared)
{
    lint_add(
        l, POLICY_FINDING_TCP_PORT, true, at,
        mem_must_strdup("declare the port 'http', or leave methods, hosts, paths and their like "
                        "out"),
        mem_must_printf("asks about requests on port %u, which %s declares 'tcp': there it says "
                        "nothing",
                        port, declared));
}

/* What the policy is asked about where the listener has a target: that one's port, or its own. */
static uint16_t asked_port(const struct conf_listener *on, const struct conf_target *to)
{
    const struct sockaddr_storage *a =
        to->kind == CONF_TARGET_UNIX ? &on->bind.address.ss : &to->address.ss;
    if (to->kind == CONF_TARGET_HOST) {
        return to->port;
    }
    if (a->ss_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)(const void *)a)->sin6_port);
    }
    return a->ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)(const void *)a)->sin_port)
                                   : 0;
}

/* Whether an explicit listener leads to the port: by its target, or one of a server name. */
static bool leads_to(const struct conf_listener *on, uint16_t port)
{
    bool leads = on->to.kind != CONF_TARGET_NONE && asked_port(on, &on->to) == port;
    for (size_t i = 0; i < on->n_sni; i++) {
        const struct conf_sni_route *s = &on->sni[i];
        leads = leads || (!s->passthrough && s->to.kind != CONF_TARGET_NONE &&
                          asked_port(on, &s->to) == port);
    }
    return leads;
}

/* Declared as tcp, and nowhere as something else. */
static bool is_tcp_at_proxy(const struct conf_proxy *proxy, uint16_t port)
{
    bool tcp = false;
    for (size_t i = 0; i < proxy->n_listeners; i++) {
        const struct conf_listener *on = &proxy->listeners[i];
        bool explicit_one = on->direction == CONF_INBOUND && on->capture == CONF_EXPLICIT;
        if (explicit_one && leads_to(on, port)) {
            if (on->protocol != CONF_PROTOCOL_TCP) {
                return false;
            }
            tcp = true;
        }
        for (size_t k = 0; on->direction == CONF_INBOUND && k < on->n_ports; k++) {
            if (on->ports[k].port == port && on->ports[k].protocol != CONF_PROTOCOL_TCP) {
                return false;
            }
            tcp = tcp || on->ports[k].port == port;
        }
    }
    return tcp;
}

static bool names(const struct conf_strings *list, const char *text)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* A service of which every identity is a target of the rule, by name, and which has the port as
 * tcp.
 */
static const char *tcp_service(const struct conf_mesh *mesh, const struct conf_rule *r,
                               uint16_t port)
{
    for (size_t i = 0; i < mesh->n_services; i++) {
        const struct conf_service *s = &mesh->services[i];
        bool meant = s->identities.n > 0;
        for (size_t k = 0; k < s->identities.n; k++) {
            meant = meant && names(&r->target_principals, s->identities.items[k]);
        }
        for (size_t k = 0; meant && k < s->n_ports; k++) {
            if (s->ports[k].port == port && s->ports[k].protocol == CONF_PROTOCOL_TCP) {
                return s->name;
            }
        }
    }
    return NULL;
}

static bool has_claims(const struct conf_rule *r)
{
    for (size_t i = 0; i < r->n_from; i++) {
        if (!conf_policy_from_wants_request(&r->from[i])) {
            return false;
        }
    }
    return r->n_from > 0;
}

static void look_at_ports(struct lint *l, size_t rule)
{
    const struct conf_rule *r = &l->conf->rules[rule];
    for (size_t i = 0; i < r->n_to; i++) {
        const struct conf_policy_to *t = &r->to[i];
        bool request = conf_policy_to_wants_request(t) || has_claims(r);
        for (size_t k = 0; request && k < t->n_ports; k++) {
            const struct lint_place at = {
                .rule = rule, .section = "to", .entry = i, .key = "ports", .item = k};
            const char *service =
                l->options->mesh != NULL ? tcp_service(l->options->mesh, r, t->ports[k]) : NULL;
            if (l->options->proxy != NULL && is_tcp_at_proxy(l->options->proxy, t->ports[k])) {
                look_at_port(l, &at, t->ports[k],
                             l->options->proxy->gateway ? "the gateway's file"
                                                        : "the proxy's file");
            } else if (service != NULL) {
                mem_autofree char *what = mem_must_printf("the mesh map's service '%s'", service);
                look_at_port(l, &at, t->ports[k], what);
            }
        }
    }
}

/* --- trust domains -----------------------------------------------------------------------------
 */
static struct str domain_of(const char *id)
{
    struct str scheme = STR_LIT("spiffe://");
    struct str text = str_of(id);
    if (!str_has_prefix(text, scheme)) {
        return STR_NONE;
    }
    struct str td = {text.p + scheme.n, text.n - scheme.n};
    const char *slash = td.n > 0 ? memchr(td.p, '/', td.n) : NULL;
    td.n = slash != NULL ? (size_t)(slash - td.p) : td.n;
    return td;
}

static bool mesh_has(const struct conf_mesh *mesh, struct str domain)
{
    for (size_t i = 0; i < mesh->n_services; i++) {
        const struct conf_strings *ids = &mesh->services[i].identities;
        for (size_t k = 0; k < ids->n; k++) {
            if (str_eq(domain_of(ids->items[k]), domain)) {
                return true;
            }
        }
    }
    return false;
}

static void look_at_domains(struct lint *l, const struct lint_place *list,
                            const struct conf_strings *items, bool domains)
{
    for (size_t i = 0; i < items->n; i++) {
        struct str td = domains ? str_of(items->items[i]) : domain_of(items->items[i]);
        struct lint_place at = *list;
        at.item = i;
        if (td.n > 0 && !mesh_has(l->options->mesh, td)) {
            lint_add(l, POLICY_FINDING_UNKNOWN_DOMAIN, false, &at, NULL,
                     mem_must_printf("no service of the mesh map is of trust domain '%.*s'",
                                     STR_ARG(td)));
        }
    }
}

static void look_at_all_domains(struct lint *l, size_t rule)
{
    const struct conf_rule *r = &l->conf->rules[rule];
    struct lint_place at = {.rule = rule, .section = "target", .key = "principals"};
    look_at_domains(l, &at, &r->target_principals, false);
    at.section = "from";
    for (at.entry = 0; at.entry < r->n_from; at.entry++) {
        const struct conf_policy_from *f = &r->from[at.entry];
        at.key = "principals";
        look_at_domains(l, &at, &f->principals, false);
        at.key = "not_principals";
        look_at_domains(l, &at, &f->not_principals, false);
        at.key = "trust_domains";
        look_at_domains(l, &at, &f->trust_domains, true);
        at.key = "not_trust_domains";
        look_at_domains(l, &at, &f->not_trust_domains, true);
    }
}

/* --- rules and roles ---------------------------------------------------------------------------
 */
static void look_at_end(struct lint *l, size_t rule)
{
    const struct conf_rule *r = &l->conf->rules[rule];
    const struct lint_place at = {.rule = rule};
    char when[32];
    if (r->expires_s == 0) {
        return;
    }
    os_time_text(r->expires_s, when, sizeof(when));
    if (r->expires_s <= l->options->now_s) {
        lint_add(l, POLICY_FINDING_EXPIRED, false, &at, mem_must_strdup("remove it"),
                 mem_must_printf("ended at %s: it is not there", when));
    } else if (r->action == CONF_DENY && r->mode == CONF_ENFORCE) {
        lint_add(l, POLICY_FINDING_DENY_ENDS, false, &at,
                 mem_must_strdup("let the ALLOW rules end instead, if something is to be closed"),
                 mem_must_printf("denies until %s: what it denies may be allowed then", when));
    }
}

static void look_at_roles(struct lint *l)
{
    for (size_t i = 0; i < l->conf->n_roles; i++) {
        bool used = false;
        for (size_t k = 0; k < l->conf->n_rules && !used; k++) {
            used = names(&l->conf->rules[k].roles, l->conf->roles[i].name);
        }
        if (!used) {
            lint_add(l, POLICY_FINDING_UNUSED_ROLE, false, NULL, mem_must_strdup("remove it"),
                     mem_must_printf("no rule has the role '%s'", l->conf->roles[i].name));
            l->found->items[l->found->n - 1].line = l->conf->roles[i].line;
        }
    }
}

void lint_texts(struct lint *l)
{
    for (size_t i = 0; i < l->conf->n_rules; i++) {
        const struct conf_rule *r = &l->conf->rules[i];
        look_at_end(l, i);
        if (r->expires_s != 0 && r->expires_s <= l->options->now_s) {
            continue;
        }
        if (r->action != CONF_AUDIT) {
            look_at_from(l, i);
            look_at_to(l, i);
        }
        look_at_ports(l, i);
        if (l->options->mesh != NULL) {
            look_at_all_domains(l, i);
        }
    }
    look_at_roles(l);
}
