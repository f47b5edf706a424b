/* A file of kind Entries: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

#include <postern/spiffe.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_entries *conf)
{
    for (size_t i = 0; i < conf->n_entries; i++) {
        const struct conf_entry *e = &conf->entries[i];
        struct spiffe_id id;
        assert(e->id != NULL && e->n_selectors >= 1);
        if (spiffe_template_is(str_of(e->spiffe_id))) {
            struct str domain;
            assert(spiffe_template_check(str_of(e->spiffe_id), 15, &domain, NULL) == 0);
        } else {
            assert(spiffe_id_parse(str_of(e->spiffe_id), &id, NULL) == 0 && id.path.n > 0);
        }
        assert(e->ttl_s == 0 || (e->ttl_s >= 10 && e->ttl_s <= 30 * 86400));
        conf_fuzz_check_texts(&e->dns_names);
        for (size_t k = 0; k < e->n_selectors; k++) {
            const struct conf_selector *s = &e->selectors[k];
            assert(s->written != NULL && s->type < CONF_N_SELECTORS);
            assert((s->type != CONF_SELECTOR_UNIX_PATH && s->type < CONF_SELECTOR_K8S_NS) ||
                   s->text != NULL);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_entries *conf = NULL;
    bool loaded = conf_parse_entries("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_entries_free(conf);
    return 0;
}
