/* A file of kind Mesh: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_mesh *conf)
{
    for (size_t i = 0; i < conf->n_services; i++) {
        const struct conf_service *s = &conf->services[i];
        assert(s->name != NULL && s->addresses.n >= 1);
        assert((s->identities.n > 0) == (s->transport != CONF_TRANSPORT_DISABLE));
        conf_fuzz_check_texts(&s->identities);
        assert(s->n_endpoints <= CONF_ENDPOINTS_MAX);
        assert(s->ejection.after == 0 || s->ejection.max_time_ms >= s->ejection.time_ms);
        for (size_t k = 0; k < s->n_endpoints; k++) {
            const struct conf_target *t = &s->endpoints[k];
            assert(t->kind == CONF_TARGET_HOST ? t->host != NULL : t->kind == CONF_TARGET_ADDRESS);
        }
    }
    for (size_t i = 0; i < conf->n_allow_unlisted; i++) {
        const struct conf_unlisted_entry *e = &conf->allow_unlisted[i];
        assert(conf->unlisted != CONF_UNLISTED_DENY && e->name != NULL);
        assert(e->addresses.n + e->hosts.n > 0);
        conf_fuzz_check_texts(&e->hosts);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *conf = NULL;
    bool loaded = conf_parse_mesh("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_mesh_free(conf);
    return 0;
}
