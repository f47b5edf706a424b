/* What the fuzz targets of all kinds of configuration files hold a parse to. */
#ifndef POSTERN_CONF_FUZZ_H
#define POSTERN_CONF_FUZZ_H

#include <assert.h>
#include <postern/conf.h>

/* A list is absent or has items, and none of them is empty. */
static inline void conf_fuzz_check_texts(const struct conf_strings *s)
{
    assert((s->n == 0) == (s->items == NULL));
    for (size_t i = 0; i < s->n; i++) {
        assert(s->items[i] != NULL && s->items[i][0] != '\0');
    }
}

/* A file loads without an error, or there is one and no result; what is said of it holds nothing
 * that a terminal obeys. Frees diag. */
static inline void conf_fuzz_check_diag(struct conf_diag *diag, bool loaded, bool has_result)
{
    struct buf said = BUF_INIT(1 << 20);
    assert(loaded == has_result && loaded == (conf_diag_count(diag) == 0));
    assert(conf_diag_print(diag, &said));
    for (size_t i = 0; i < buf_len(&said); i++) {
        uint8_t ch = buf_head(&said)[i];
        assert(ch == '\n' || (ch >= 0x20 && ch != 0x7f));
    }
    buf_reset(&said);
    conf_diag_free(diag);
}

#endif
