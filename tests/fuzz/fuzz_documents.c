/* A Policy or Mesh file on its way to a proxy: what was split, sent in messages and put together
 * again is read as strictly as the file, and means the same. */
#include "conf_fuzz.h"

#include <doc_parts.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void same_texts(const struct conf_strings *a, const struct conf_strings *b)
{
    assert(a->n == b->n);
    for (size_t i = 0; i < a->n; i++) {
        assert(same_text(a->items[i], b->items[i]));
    }
}

static void same_rule(const struct conf_rule *a, const struct conf_rule *b)
{
    assert(same_text(a->name, b->name) && a->action == b->action && a->line == b->line);
    assert(a->n_from == b->n_from && a->n_to == b->n_to);
    same_texts(&a->target_principals, &b->target_principals);
    for (size_t i = 0; i < a->n_from; i++) {
        same_texts(&a->from[i].principals, &b->from[i].principals);
        same_texts(&a->from[i].not_principals, &b->from[i].not_principals);
        same_texts(&a->from[i].trust_domains, &b->from[i].trust_domains);
        same_texts(&a->from[i].not_trust_domains, &b->from[i].not_trust_domains);
        assert(a->from[i].ip_blocks.n == b->from[i].ip_blocks.n);
        assert(a->from[i].not_ip_blocks.n == b->from[i].not_ip_blocks.n);
    }
    for (size_t i = 0; i < a->n_to; i++) {
        assert(a->to[i].n_ports == b->to[i].n_ports &&
               a->to[i].n_not_ports == b->to[i].n_not_ports);
        same_texts(&a->to[i].methods, &b->to[i].methods);
        same_texts(&a->to[i].not_methods, &b->to[i].not_methods);
        same_texts(&a->to[i].hosts, &b->to[i].hosts);
        same_texts(&a->to[i].not_hosts, &b->to[i].not_hosts);
        same_texts(&a->to[i].paths, &b->to[i].paths);
        same_texts(&a->to[i].not_paths, &b->to[i].not_paths);
    }
}

static void check_policy(struct str text, const struct conf_policy *want)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *got = NULL;
    assert(conf_parse_policy("/f.yaml", text.p, text.n, diag, &got) == 0);
    assert(got->n_rules == want->n_rules);
    for (size_t i = 0; i < want->n_rules; i++) {
        same_rule(&want->rules[i], &got->rules[i]);
    }
    conf_policy_free(got);
    conf_diag_free(diag);
}

static void same_entry(const struct conf_unlisted_entry *a, const struct conf_unlisted_entry *b)
{
    assert(same_text(a->name, b->name) && a->preset == b->preset);
    assert(a->addresses.n == b->addresses.n && a->n_ports == b->n_ports);
    same_texts(&a->hosts, &b->hosts);
}

static void same_leading(const struct conf_service *a, const struct conf_service *b)
{
    assert(a->n_endpoints == b->n_endpoints && a->limits.connections == b->limits.connections);
    assert(memcmp(&a->ejection, &b->ejection, sizeof(a->ejection)) == 0);
    for (size_t i = 0; i < a->n_endpoints; i++) {
        const struct conf_target *x = &a->endpoints[i];
        const struct conf_target *y = &b->endpoints[i];
        assert(x->kind == y->kind && x->port == y->port && x->address.len == y->address.len);
        assert(memcmp(&x->address.ss, &y->address.ss, x->address.len) == 0);
        assert((x->host == NULL) == (y->host == NULL));
        assert(x->host == NULL || strcmp(x->host, y->host) == 0);
    }
}

static void check_mesh(struct str text, const struct conf_mesh *want)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *got = NULL;
    assert(conf_parse_mesh("/f.yaml", text.p, text.n, diag, &got) == 0);
    assert(got->n_services == want->n_services && got->unlisted == want->unlisted);
    assert(got->n_allow_unlisted == want->n_allow_unlisted);
    for (size_t i = 0; i < want->n_allow_unlisted; i++) {
        same_entry(&want->allow_unlisted[i], &got->allow_unlisted[i]);
    }
    for (size_t i = 0; i < want->n_services; i++) {
        const struct conf_service *a = &want->services[i];
        const struct conf_service *b = &got->services[i];
        assert(same_text(a->name, b->name) && a->transport == b->transport);
        assert(a->addresses.n == b->addresses.n && a->n_ports == b->n_ports);
        same_texts(&a->identities, &b->identities);
        same_leading(a, b);
    }
    conf_mesh_free(got);
    conf_diag_free(diag);
}

static void check(enum agent_document which, const char *text, size_t size,
                  const struct conf_policy *policy, const struct conf_mesh *mesh)
{
    struct agent_doc d;
    struct buf out = BUF_INIT(AGENT_DOC_WRITTEN_MAX);
    agent_doc_init(&d);
    if (doc_from_text(which, "/f.yaml", text, size, &d)) { /* else it is too large */
        struct str any = STR_LIT("spiffe://nobody/x");
        /* Nothing is filtered here: every target is asked for by the texts themselves. */
        for (size_t i = 0; i < d.n_items; i++) {
            d.items[i].n_targets = 0;
        }
        assert(agent_doc_write(&d, which, &any, 1, &out));
        if (policy != NULL) {
            check_policy(buf_str(&out), policy);
        } else {
            check_mesh(buf_str(&out), mesh);
        }
    }
    buf_reset(&out);
    agent_doc_deinit(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *policy = NULL;
    struct conf_mesh *mesh = NULL;
    if (conf_parse_policy("/f.yaml", text, size, diag, &policy) == 0) {
        check(AGENT_DOCUMENT_POLICY, text, size, policy, NULL);
    } else if (conf_parse_mesh("/f.yaml", text, size, diag, &mesh) == 0) {
        check(AGENT_DOCUMENT_MESH, text, size, NULL, mesh);
    }
    conf_policy_free(policy);
    conf_mesh_free(mesh);
    conf_diag_free(diag);
    return 0;
}
