/*
 * Policies to bring into the canonical form; the reader is for what conf_parse_policy has taken.
 * Properties: it is formatted or it was said why not; what comes out is a policy of as many rules,
 * and its own canonical form.
 */
#include <postern/policy_tools.h>

#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many rules; -1: it is no policy. */
static int count_rules(struct str text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    bool loaded = conf_parse_policy("f", text.p, text.n, diag, &conf) == 0;
    int n = loaded ? (int)conf->n_rules : -1;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    conf_policy_free(conf);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct buf out = BUF_INIT(8 << 20);
    struct buf again = BUF_INIT(8 << 20);
    struct err err = ERR_INIT;
    int n = count_rules(text);
    if (n < 0) {
        return 0;
    }
    bool formatted = policy_fmt("f", text, &out, &err) == 0;
    assert(formatted == (err.code == ERR_NONE));
    assert(formatted || buf_len(&out) == 0);
    if (formatted) {
        assert(policy_fmt("f", buf_str(&out), &again, NULL) == 0);
        assert(str_eq(buf_str(&out), buf_str(&again)));
        assert(count_rules(buf_str(&out)) == n);
    }
    buf_reset(&out);
    buf_reset(&again);
    return 0;
}
