/*
 * What SPIRE prints. Properties: what comes out is a file of ours with as many entries as were
 * counted; nothing is left out without a word; no word holds control characters.
 */
#include <postern/entries.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void on_problem(void *arg, const char *text)
{
    size_t *n = arg;

    (*n)++;
    for (; *text != 0; text++) {
        require((unsigned char)*text >= ' ' && *text != 0x7f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf out = BUF_INIT(ENTRIES_IMPORT_MAX + 1024);
    struct entries_imported done = {.n = 0};
    struct conf_diag *diag = conf_diag_new();
    struct conf_entries *conf = NULL;
    struct err err = ERR_INIT;
    size_t n_problems = 0;

    if (entries_import((const char *)data, size, &out, on_problem, &n_problems, &done, &err) == 0) {
        require(n_problems >= done.n_left_out);
        require(conf_parse_entries("/f", (const char *)buf_head(&out), buf_len(&out), diag,
                                   &conf) == 0);
        require(conf->n_entries == done.n);
    } else {
        require(err.code != ERR_NONE);
    }
    conf_entries_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
    return 0;
}
