/*
 * Command lines of ghostunnel. Properties: what comes out is a Gateway file; if nothing does, it
 * was said why; nothing that is told holds control characters, or a passphrase.
 */
#include <postern/conf.h>
#include <postern/ghostunnel.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void on_tell(void *arg, bool refused, const char *text)
{
    size_t *n_refused = arg;
    *n_refused += refused ? 1 : 0;
    for (; *text != 0; text++) {
        require((unsigned char)*text >= ' ' && *text != 0x7f);
    }
}

static enum ghostunnel_store look(void *arg, const char *path)
{
    (void)arg;
    return ghostunnel_store_of(str_of(path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ghostunnel_options options = {.directory = "/run", .look = look};
    if (size > 0 && (data[0] & 1) != 0) { /* "server" and "client" both are; blanks are not */
        options.passphrase_file = "/pass";
        options.pin_file = "/pin";
        options.token_key = "key";
        options.server_id = "spiffe://a.b/c";
    }
    struct buf out = BUF_INIT(GHOSTUNNEL_OUT_MAX);
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    struct err err = ERR_INIT;
    size_t n_refused = 0;
    if (ghostunnel_convert((struct str){(const char *)data, size}, &options, on_tell, &n_refused,
                           &out, &err) == 0) {
        require(n_refused == 0);
        require(conf_parse_gateway("/f", (const char *)buf_head(&out), buf_len(&out), diag,
                                   &conf) == 0);
        require(conf->n_listeners == 1);
    } else {
        require(err.code != ERR_NONE && buf_len(&out) == 0);
        require(n_refused > 0 || err.code != ERR_UNSUPPORTED);
    }
    conf_proxy_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
    return 0;
}
