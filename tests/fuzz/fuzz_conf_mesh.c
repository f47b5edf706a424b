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
