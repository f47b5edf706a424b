/* A file of kind Policy: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_policy *conf)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        const struct conf_rule *r = &conf->rules[i];
        assert(r->name != NULL && r->line >= 1);
        for (size_t k = 0; k < r->n_from; k++) {
            const struct conf_policy_from *f = &r->from[k];
            assert(f->principals.n + f->not_principals.n + f->trust_domains.n +
                       f->not_trust_domains.n + f->ip_blocks.n + f->not_ip_blocks.n >
                   0);
            conf_fuzz_check_texts(&f->principals);
            conf_fuzz_check_texts(&f->trust_domains);
        }
        for (size_t k = 0; k < r->n_to; k++) {
            conf_fuzz_check_texts(&r->to[k].methods);
            conf_fuzz_check_texts(&r->to[k].hosts);
            conf_fuzz_check_texts(&r->to[k].paths);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    bool loaded = conf_parse_policy("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_policy_free(conf);
    return 0;
}
