/* A file of kind Proxy: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_proxy *conf)
{
    assert(conf->name != NULL && conf->n_listeners >= 1 && conf->admin.n_allow_uids >= 1);
    assert(conf->timeouts.idle_tcp_ms >= 3600000);
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        bool is_explicit = l->capture == CONF_EXPLICIT;
        assert(l->name != NULL && l->bind.address.len > 0);
        assert((l->to.kind == CONF_TARGET_ADDRESS) == is_explicit);
        assert((l->identities.n > 0) == (is_explicit && l->direction == CONF_OUTBOUND));
        conf_fuzz_check_texts(&l->identities);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    bool loaded = conf_parse_proxy("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_proxy_free(conf);
    return 0;
}
