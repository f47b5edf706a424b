/* A file of kind Agent: it loads and then holds what its table promises, or there is an error. */
#include <postern/conf.h>

#include <assert.h>
#include <postern/spiffe.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct conf_agent *conf)
{
    assert(conf->trust_domain != NULL && conf->socket[0] == '/');
    assert(conf->state_dir[0] == '/' && conf->entries_path[0] == '/');
    assert(conf->svid_ttl_s <= conf->node_ttl_s && conf->node_ttl_s <= conf->root_ttl_s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *conf = NULL;
    struct buf said = BUF_INIT(1 << 20);
    if (conf_parse_agent("/f.yaml", (const char *)data, size, diag, &conf) == 0) {
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
    conf_agent_free(conf);
    return 0;
}
