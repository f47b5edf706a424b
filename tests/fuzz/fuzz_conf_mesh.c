/* A file of kind Mesh: it loads and then holds what its table promises, or there is an error. */
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

static void check(const struct conf_mesh *conf)
{
    for (size_t i = 0; i < conf->n_services; i++) {
        const struct conf_service *s = &conf->services[i];
        assert(s->name != NULL && s->addresses.n >= 1);
        assert((s->identities.n > 0) == (s->transport == CONF_TRANSPORT_DIRECT));
        check_texts(&s->identities);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *conf = NULL;
    struct buf said = BUF_INIT(1 << 20);
    if (conf_parse_mesh("/f.yaml", (const char *)data, size, diag, &conf) == 0) {
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
    conf_mesh_free(conf);
    return 0;
}
