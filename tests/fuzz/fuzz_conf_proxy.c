/* A file of kind Proxy: it loads and then holds what its table promises, or there is an error. */
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

static void check(const struct conf_proxy *conf)
{
    assert(conf->name != NULL && conf->n_listeners >= 1 && conf->admin.n_allow_uids >= 1);
    assert(conf->timeouts.idle_tcp_ms >= 3600000);
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        bool is_explicit = l->capture == CONF_EXPLICIT;
        assert(l->name != NULL && l->address.len > 0);
        assert((l->to.len > 0) == is_explicit);
        assert((l->identities.n > 0) == (is_explicit && l->direction == CONF_OUTBOUND));
        check_texts(&l->identities);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    struct buf said = BUF_INIT(1 << 20);
    if (conf_parse_proxy("/f.yaml", (const char *)data, size, diag, &conf) == 0) {
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
    conf_proxy_free(conf);
    return 0;
}
