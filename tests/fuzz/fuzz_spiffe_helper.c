/*
 * Configurations of spiffe-helper. Properties: what comes out is a Rotate file; if nothing does, it
 * was said why; no word holds control characters.
 */
#include <postern/conf_rotate.h>
#include <postern/spiffe_helper.h>

#include <stdio.h>
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct spiffe_helper_options options = {
        .name = "helper.conf", .directory = "/run", .executable = "/usr/sbin/server"};
    struct buf out = BUF_INIT(SPIFFE_HELPER_OUT_MAX);
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    struct err err = ERR_INIT;
    size_t n_refused = 0;

    if (spiffe_helper_convert((const char *)data, size, &options, on_tell, &n_refused, &out,
                              &err) == 0) {
        require(n_refused == 0);
        if (conf_parse_rotate("/f", (const char *)buf_head(&out), buf_len(&out), diag, &conf) !=
            0) {
            struct buf said = BUF_INIT(1 << 20);

            (void)conf_diag_print(diag, &said);
            fprintf(stderr, "%.*s\n%.*s\n", STR_ARG(buf_str(&said)), STR_ARG(buf_str(&out)));
            abort();
        }
    } else {
        require(err.code != ERR_NONE && buf_len(&out) == 0);
        require(n_refused > 0 || err.code != ERR_UNSUPPORTED);
    }
    conf_rotate_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
    return 0;
}
