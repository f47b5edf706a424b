/* A file of kind Policy: it loads and then holds what its table promises, or there is an error. */
#include <postern/conf.h>

#include <assert.h>
#include <postern/spiffe.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const struct conf_strings *s)
{
    assert((s->n == 0) == (s->items == NULL));
    for (size_t i = 0; i < s->n; i++) {
        assert(s->items[i] != NULL && s->items[i][0] != '\0');
    }
}

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
            check_texts(&f->principals);
            check_texts(&f->trust_domains);
        }
        for (size_t k = 0; k < r->n_to; k++) {
            check_texts(&r->to[k].methods);
            check_texts(&r->to[k].hosts);
            check_texts(&r->to[k].paths);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf said = BUF_INIT(1 << 20);
    if (conf_parse_policy("/f.yaml", (const char *)data, size, diag, &conf) == 0) {
        assert(conf_diag_count(diag) == 0);
        check(conf);
    } else {
        assert(conf == NULL && conf_diag_count(diag) > 0);
    }
    assert(conf_diag_print(diag, &said));
    for (size_t i = 0; i < buf_len(&said); i++) {
        uint8_t ch = buf_head(&said)[i];
        assert(ch == '\n' || (ch >= 0x20 && ch != 0x7f)); /* nothing that a terminal obeys */
    }
    buf_reset(&said);
    conf_diag_free(diag);
    conf_policy_free(conf);
    return 0;
}
