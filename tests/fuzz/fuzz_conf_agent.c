/* A file of kind Agent: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_agent *conf)
{
    assert(conf->trust_domain != NULL && conf->socket[0] == '/');
    assert(conf->state_dir[0] == '/' && conf->entries_path[0] == '/');
    assert(conf->jwt_ttl_s <= conf->jwt_key_ttl_s / 6);
    assert(conf->svid_ttl_s <= conf->node_ttl_s && conf->node_ttl_s <= conf->root_ttl_s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *conf = NULL;
    bool loaded = conf_parse_agent("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_agent_free(conf);
    return 0;
}
